"""Tests encoders in GGUF files: they are the models of the hub folders from which the files were written."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import gguf
import numpy as np
import pytest
import torch

from decodery import LLM, ModelError, ParameterError
from decodery.kernels.reference import torch_kernels
from decodery.models.load import load_model
from decodery.weights.formats.opening import open_checkpoint
from tests.encoding.folders import encoder_folder
from tests.encoding.gguf_files import write_gguf
from tests.models.encoders.families import FAMILIES, write_folder
from tests.models.encoders.relative_families import RELATIVE_FAMILIES
from tests.models.tiny import tiny_llama_folder, tiny_llama_gguf

TEXTS = ["the dog sat on the mat", "", "Angela Merkel visited Microsoft, not Paris!"]
MODELS: Mapping[str, tuple[str, Any]] = {
    "bert": ("bert", FAMILIES["bert"]),
    "roberta": ("bert", FAMILIES["roberta"]),
    "nomicbert": ("nomic-bert", FAMILIES["nomicbert"]),
    "modernbert": ("modern-bert", RELATIVE_FAMILIES.get("modernbert", FAMILIES.get("modernbert"))),
}


def opened(path: Path) -> Any:
    with open_checkpoint(path) as checkpoint:
        return load_model(checkpoint, dtype=torch.float32, kernels=torch_kernels)


@pytest.mark.parametrize("name", MODELS)
def test_a_file_is_the_model_of_its_folder(name: str, tmp_path: Path) -> None:
    architecture, tiny = MODELS[name]
    folder = write_folder(tiny, tmp_path / "hub")
    file = write_gguf(tmp_path / "model.gguf", folder, architecture)
    model, expected = opened(file), opened(folder)
    generator = torch.Generator().manual_seed(0)
    tokens = torch.randint(7, 97, (2, 40), generator=generator)
    # The second row of segments is used too.
    segments = (torch.arange(40) > 20).long().expand(2, -1) * (tiny.segments > 1)
    assert model.context_length == expected.context_length
    torch.testing.assert_close(
        model(tokens, segments=segments), expected(tokens, segments=segments), atol=1e-6, rtol=1e-6
    )


@pytest.mark.parametrize(
    ("number", "pooling"), [(1, "mean"), (2, "cls"), (3, "lasttoken")], ids=["mean", "cls", "last"]
)
def test_the_tokenizer_and_the_pooling_are_those_of_the_file(
    number: int, pooling: str, tmp_path: Path
) -> None:
    folder = encoder_folder(tmp_path / "hub")
    file = write_gguf(tmp_path / "model.gguf", folder, "bert", {"bert.pooling_type": number})
    llm, expected = LLM(file), LLM(folder)
    assert llm.is_encoder
    found = llm.embed(TEXTS)
    assert found.pooling == pooling
    np.testing.assert_allclose(found.vectors, expected.embed(TEXTS, pooling=pooling).vectors, atol=1e-5)
    assert llm.text_limit == 64
    with pytest.raises(ModelError, match="reads texts and writes none"):
        llm.generate("a")


@pytest.mark.parametrize("number", [None, 0])
def test_a_file_without_a_pooling_needs_one(number: int | None, tmp_path: Path) -> None:
    folder = encoder_folder(tmp_path / "hub")
    file = write_gguf(tmp_path / "model.gguf", folder, "bert", {"bert.pooling_type": number})
    llm = LLM(file)
    with pytest.raises(ParameterError, match="give pooling="):
        llm.embed("the dog")
    np.testing.assert_allclose(
        llm.embed("the dog", pooling="cls")[0], LLM(folder).embed("the dog", pooling="cls")[0], atol=1e-5
    )


def test_another_number_of_a_pooling_is_an_error_that_names_it(tmp_path: Path) -> None:
    folder = encoder_folder(tmp_path / "hub")
    file = write_gguf(tmp_path / "model.gguf", folder, "bert", {"bert.pooling_type": 9})
    with pytest.raises(ModelError, match=r"bert\.pooling_type is 9"):
        LLM(file).embed("the dog")


def test_the_key_of_the_pooling_may_come_first(tmp_path: Path) -> None:
    folder = encoder_folder(tmp_path / "hub")
    file = write_gguf(tmp_path / "model.gguf", folder, "bert", {"bert.pooling_type": 2})
    data, reader = file.read_bytes(), gguf.GGUFReader(file)
    first, second = (
        b"".join(bytes(part) for part in reader.fields[key].parts)
        for key in ("general.architecture", "bert.pooling_type")
    )
    start, end = data.index(first), data.index(second) + len(second)
    between = data[start + len(first) : end - len(second)]
    file.write_bytes(data[:start] + second + between + first + data[end:])
    names = [name for name in gguf.GGUFReader(file).fields if not name.startswith("GGUF.")]
    assert names[0] == "bert.pooling_type"
    assert LLM(file).embed("the dog").pooling == "cls"


def test_a_reranker_of_a_file_scores_as_that_of_its_folder(tmp_path: Path) -> None:
    folder = encoder_folder(
        tmp_path / "hub",
        "XLMRobertaForSequenceClassification",
        tokenizer="byte pairs",
        num_labels=1,
        type_vocab_size=1,
    )
    file = write_gguf(tmp_path / "model.gguf", folder, "bert", {"bert.pooling_type": 4})
    llm, expected = LLM(file), LLM(folder)
    for text in TEXTS:
        (ours,), (theirs,) = (each.classify([expected.tokenizer.encode(text)]) for each in (llm, expected))
        assert ours.logits["LABEL_0"] == pytest.approx(theirs.logits["LABEL_0"], rel=1e-4, abs=1e-5)
    with pytest.raises(ParameterError, match="give pooling="):
        llm.embed("the dog")


def test_a_decoder_with_a_pooling_is_an_embedder(tmp_path: Path) -> None:
    folder = tiny_llama_folder(tmp_path / "hub")
    tokens = {
        "tokenizer.ggml.model": "gpt2",
        "tokenizer.ggml.pre": "default",
        "tokenizer.ggml.tokens": [chr(33 + number) for number in range(94)] + ["ab", "cd", "<end>"],
        "tokenizer.ggml.merges": ["a b", "c d"],
        "tokenizer.ggml.token_type": [1] * 96 + [3],
        "tokenizer.ggml.eos_token_id": 96,
    }
    plain = LLM(tiny_llama_gguf(tmp_path / "plain.gguf", folder, tokens))
    ids = [[5, 9, 7]]
    assert not plain.is_encoder
    with pytest.raises(ParameterError, match="give pooling="):
        plain.embed(ids)
    embedder = LLM(tiny_llama_gguf(tmp_path / "last.gguf", folder, {**tokens, "llama.pooling_type": 3}))
    assert embedder.is_encoder
    np.testing.assert_array_equal(embedder.embed(ids).vectors, plain.embed(ids, pooling="last").vectors)
    score = torch.randn(2, 48, generator=torch.Generator().manual_seed(0))
    path = tiny_llama_gguf(
        tmp_path / "score.gguf", folder, {**tokens, "llama.pooling_type": 4}, {"cls.output.weight": score}
    )
    (found,) = LLM(path).classify(ids)
    expected = score @ torch.tensor(plain.embed(ids, pooling="last")[0])
    np.testing.assert_allclose([found.logits[f"LABEL_{n}"] for n in range(2)], expected, rtol=1e-4, atol=1e-4)


def test_labels_of_a_file_have_its_names(tmp_path: Path) -> None:
    folder = encoder_folder(
        tmp_path / "hub",
        "RobertaForSequenceClassification",
        tokenizer="byte pairs",
        num_labels=3,
        type_vocab_size=1,
    )
    names = ["bad", "good", "neither"]
    file = write_gguf(tmp_path / "model.gguf", folder, "bert", {"bert.classifier.output_labels": names})
    (found,) = LLM(file).classify("the dog")
    assert sorted(found.scores) == names
