"""Tests the order of documents."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from decodery import LLM, ModelError, ParameterError, RequestError
from decodery.encoding.tasks.rerank import ranked, rerank
from decodery.encoding.text_batches import Batch
from tests.encoding.folders import encoder_folder
from tests.encoding.tasks.fixed_model import fixed_parts


def fixed(path: Path, logits: dict[str, float], dtype: torch.dtype = torch.float32, **config: Any) -> Any:
    """Returns a cross-encoder whose logit is that of the document's last word."""
    parts = fixed_parts(path, "classes", lambda token, place: [], config=config)
    runner: Any = parts.runner

    def run(texts: Any, *, layers: Any = ()) -> Any:
        for index, text in enumerate(texts):
            runner.read.append(text)
            logit = logits[parts.tokenizer.token_text(text.ids[-2])]
            yield Batch([index], [0], [1], torch.tensor([[logit]], dtype=dtype), {})

    runner.run = run
    return parts


def test_documents_are_in_the_order_of_their_logits_where_scores_would_be_equal(tmp_path: Path) -> None:
    parts = fixed(tmp_path, {"dog": 7.0, "cat": 9.0, "mat": 50.0, "bank": 51.0}, torch.bfloat16)
    found = rerank(parts, "who", ["dog", "cat"])
    assert [(one.index, round(one.score, 5), one.logit) for one in found] == [
        (1, 0.99988, 9.0),
        (0, 0.99909, 7.0),
    ]
    assert [one.document for one in rerank(parts, "who", ["mat", "bank"])] == ["bank", "mat"]


def test_equal_logits_are_in_the_given_order(tmp_path: Path) -> None:
    parts = fixed(tmp_path, {"dog": 1.0, "cat": 1.0, "mat": 2.0})
    assert [one.index for one in rerank(parts, "who", ["dog", "cat", "mat", "dog"])] == [2, 0, 1, 3]
    assert [one.index for one in rerank(parts, "who", ["dog", "cat", "mat"], top_n=2)] == [2, 0]
    assert rerank(parts, "who", []) == []


def test_documents_are_a_list_or_anything_that_gives_one(tmp_path: Path) -> None:
    parts = fixed(tmp_path, {"dog": 1.0, "cat": 2.0})
    given: Any
    for given in (
        ("dog", "cat"),
        iter(["dog", "cat"]),
        np.array(["dog", "cat"]),
    ):
        assert [(one.index, one.document) for one in rerank(parts, "who", given)] == [(1, "cat"), (0, "dog")]
    for given in (None, 3, b"dog", {"dog": 1}):
        with pytest.raises(ParameterError, match="documents must be a list of texts, not"):
            rerank(parts, "who", given)


def test_scores_are_what_the_folder_says(tmp_path: Path) -> None:
    identity = {"sentence_transformers": {"activation_fn": "torch.nn.modules.linear.Identity"}}
    assert rerank(fixed(tmp_path, {"dog": 7.0}, **identity), "who", ["dog"])[0].score == 7.0
    assert ranked(["a"], [-800.0], [0], "sigmoid")[0].score == 0.0


def test_only_the_document_is_cut(tmp_path: Path) -> None:
    parts = fixed(tmp_path, {"dog": 1.0, "mat": 2.0})
    query, document = "cat " * 20, "dog " * 599 + "mat"
    with pytest.raises(RequestError, match=r"document 1: the text has 600 tokens, and 489 fit beside 23"):
        rerank(parts, query, ["dog", document])
    (found,) = rerank(parts, query, [document], long="cut")
    assert found.lost == 111
    read = parts.runner.read[-1]
    words = [parts.tokenizer.token_text(token) for token in read.ids]
    assert words == ["[CLS]", *["cat"] * 20, "[SEP]", *["dog"] * 489, "[SEP]"]
    assert read.segments == (0,) * 22 + (1,) * 490
    with pytest.raises(RequestError, match="the first text of the pair has 600 tokens"):
        rerank(parts, "cat " * 600, ["dog"], long="cut")


def test_errors_say_what_to_give(tmp_path: Path) -> None:
    parts = fixed(tmp_path, {"dog": 1.0})
    with pytest.raises(ParameterError, match="documents must be a list of texts"):
        rerank(parts, "who", "dog")
    with pytest.raises(ParameterError, match="document 1: each document must be one text"):
        rerank(parts, "who", ["dog", 3])  # type: ignore[list-item]
    with pytest.raises(ParameterError, match="top_n must be a whole number from 1 on"):
        rerank(parts, "who", ["dog"], top_n=0)
    with pytest.raises(ParameterError, match="long must be error or cut"):
        rerank(parts, "who", ["dog"], long="windows")  # type: ignore[arg-type]
    three = fixed_parts(tmp_path / "b", "classes", lambda token, place: [1.0, 2.0, 3.0], labels=3)
    runner: Any = three.runner
    with pytest.raises(ModelError, match="has a head of 3 classes, and a reranker has one score") as caught:
        rerank(three, "who", ["dog"])
    assert caught.value.param == "model"
    assert not runner.read, "the error comes before a pair is computed"
    with pytest.raises(ModelError, match=r"has no head of classes, .* open a cross-encoder"):
        LLM(encoder_folder(tmp_path / "c")).rerank("who", ["dog"])


@pytest.mark.parametrize("file", ["tokenizer_config.json", "sentence_bert_config.json"])
def test_a_pair_has_as_many_tokens_as_the_folder_says(tmp_path: Path, file: str) -> None:
    parts = fixed(tmp_path, {"dog": 1.0})
    key = "max_seq_length" if file.startswith("sentence") else "model_max_length"
    settings = json.loads((tmp_path / file).read_text()) if (tmp_path / file).exists() else {}
    (tmp_path / file).write_text(json.dumps({**settings, key: 20, "do_lower_case": True}))
    with pytest.raises(RequestError, match="the text has 18 tokens, and 16 fit beside 4 others"):
        rerank(parts, "who", ["dog " * 18])
    (found,) = rerank(parts, "who", ["dog " * 18], long="cut")
    assert found.lost == 2
    assert len(parts.runner.read[-1].ids) == 20


def test_pairs_are_in_lower_case_where_the_folder_says_so(tmp_path: Path) -> None:
    kind = {"tokenizer": "byte pairs"}
    llms = []
    for name, settings in (("a", {"do_lower_case": True}), ("b", {})):
        folder = encoder_folder(tmp_path / name, "RobertaForSequenceClassification", num_labels=1, **kind)
        (folder / "sentence_bert_config.json").write_text(json.dumps(settings))
        llms.append(LLM(folder))
    lowers, plain = llms
    right = plain.rerank("who", ["the dog"])[0].logit
    assert lowers.rerank("WHO", ["The DOG"])[0].logit == right != plain.rerank("WHO", ["The DOG"])[0].logit
    assert lowers.classify(("WHO", "The DOG")) == plain.classify(("who", "the dog"))
    assert lowers.classify("The DOG") == plain.classify("the dog") != plain.classify("The DOG")


def test_logits_are_those_of_transformers_and_the_same_alone(tmp_path: Path) -> None:
    import transformers

    folder = encoder_folder(tmp_path, "BertForSequenceClassification", num_labels=1, type_vocab_size=2)
    model: Any = transformers.AutoModelForSequenceClassification.from_pretrained(folder).eval()
    llm = LLM(folder)
    documents = ["the dog sat on the mat", "", "paris", "money " * 40, "a river"]
    found = llm.rerank("what is a bank", documents)
    assert [one.logit for one in found] == sorted((one.logit for one in found), reverse=True)
    tokenizer = llm.tokenizer
    for one in found:
        first, second = (tokenizer.encode(text)[1:] for text in ("what is a bank", one.document))
        ids = torch.tensor([[tokenizer.encode("")[0], *first, *second]])
        segments = torch.tensor([[0] * (len(first) + 1) + [1] * len(second)])
        with torch.no_grad():
            logit = model(ids, token_type_ids=segments).logits.item()
        assert one.logit == pytest.approx(logit, rel=1e-4, abs=1e-5)
        assert one.score == pytest.approx(1 / (1 + 2.718281828459045**-logit), rel=1e-4)
        (alone,) = llm.rerank("what is a bank", [one.document])
        assert alone.logit == one.logit


def test_the_default_prompt_of_the_folder_is_before_the_query_alone(tmp_path: Path) -> None:
    parts = fixed(tmp_path, {"dog": 1.0})

    def read(**arguments: Any) -> list[str]:
        rerank(parts, "who", ["dog"], **arguments)
        return [parts.tokenizer.token_text(token) for token in parts.runner.read[-1].ids[1:-1]]

    assert read() == ["who", "[SEP]", "dog"]
    assert read(instruction="the cat ") == ["the", "cat", "who", "[SEP]", "dog"]
    settings = {"prompts": {"q": "the bank ", "other": "mat "}, "default_prompt_name": "q"}
    (tmp_path / "config_sentence_transformers.json").write_text(json.dumps(settings))
    assert read() == ["the", "bank", "who", "[SEP]", "dog"]
    assert read(instruction="the cat ") == ["the", "cat", "who", "[SEP]", "dog"]
    assert read(instruction="") == ["who", "[SEP]", "dog"]
    with pytest.raises(ParameterError, match="instruction must be one text"):
        read(instruction=3)
