"""Tests that what an encoder cannot do is one clear line, whichever method is asked."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file

from decodery import LLM, DecoderyError, ModelError, ParameterError, RequestError
from tests.encoding.folders import MEAN, encoder_folder, sentence_folder

LONG = "dog " * 100
HEADS = {
    "plain": "BertModel",
    "masked": "BertForMaskedLM",
    "classes": "BertForSequenceClassification",
    "score": "BertForSequenceClassification",
    "tags": "BertForTokenClassification",
    "spans": "BertForQuestionAnswering",
    "choices": "BertForMultipleChoice",
    "next": "BertForNextSentencePrediction",
}
Call = Callable[[LLM], Any]
CALLS: dict[str, tuple[str, Call]] = {
    "embed": ("plain", lambda llm: llm.embed("the dog")),
    "embed_tokens": ("plain", lambda llm: llm.embed_tokens("the dog")),
    "similarity": ("plain", lambda llm: llm.similarity("the dog", "cat")),
    "classify by similarity": ("plain", lambda llm: llm.classify("the dog", labels=["a", "b"])),
    "fill_mask": ("masked", lambda llm: llm.fill_mask("the [MASK]")),
    "classify": ("classes", lambda llm: llm.classify("the dog")),
    "entailment": (
        "classes",
        lambda llm: llm.classify("the dog", labels=["a", "b"], method="entailment", entailment=0),
    ),
    "rerank": ("score", lambda llm: llm.rerank("who", ["the dog"])),
    "tag": ("tags", lambda llm: llm.tag("the dog")),
    "answer": ("spans", lambda llm: llm.answer("who", "the dog")),
    "choose": ("choices", lambda llm: llm.choose("the dog", ["sat", "cat"])),
    "next_sentence": ("next", lambda llm: llm.next_sentence("the dog", "sat")),
}
"""A call of each method, with the model that has its head."""


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    root = tmp_path_factory.mktemp("folders")
    return {
        name: encoder_folder(root / name, architecture, num_labels=1 if name == "score" else 3)
        if name in ("classes", "score", "tags")
        else encoder_folder(root / name, architecture)
        for name, architecture in HEADS.items()
    }


def told(call: Call, llm: LLM, kind: type[DecoderyError], message: str) -> None:
    """Asserts that a call fails with this error, in one line."""
    with pytest.raises(kind, match=message) as caught:
        call(llm)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("name", CALLS)
def test_every_method_works_on_the_model_that_has_its_head(name: str, folders: dict[str, Path]) -> None:
    model, call = CALLS[name]
    call(LLM(folders[model]))


@pytest.mark.parametrize("name", [name for name, (model, _) in CALLS.items() if model != "plain"])
def test_a_model_without_the_head_says_what_it_has(name: str, folders: dict[str, Path]) -> None:
    told(CALLS[name][1], LLM(folders["plain"]), ModelError, r"plain \(BertModel\) has no head ")


@pytest.mark.parametrize("name", CALLS)
@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_weights_that_are_not_numbers_are_told_by_every_method(
    name: str, value: float, folders: dict[str, Path], tmp_path: Path
) -> None:
    model, call = CALLS[name]
    weights = load_file(folders[model] / "model.safetensors")
    broken = next(key for key in weights if key.endswith("layer.1.output.dense.weight"))
    weights[broken] = torch.full_like(weights[broken], value)
    for file in folders[model].iterdir():
        (tmp_path / file.name).write_bytes(file.read_bytes())
    save_file(weights, tmp_path / "model.safetensors", metadata={"format": "pt"})
    told(call, LLM(tmp_path), ModelError, "not finite")


WRONG: dict[str, tuple[str, Call, type[DecoderyError], str]] = {
    "no mask": (
        "masked",
        lambda llm: llm.fill_mask(["a [MASK]", "the dog"]),
        RequestError,
        r"text 1: the text has no mask: write \[MASK\] where a word is missing",
    ),
    "a mask of another model": (
        "masked",
        lambda llm: llm.fill_mask("the <mask>"),
        RequestError,
        r"the text has no mask: write \[MASK\]",
    ),
    "a masked text that is too long": (
        "masked",
        lambda llm: llm.fill_mask("[MASK] " + LONG),
        RequestError,
        "the text has 101 tokens, and 62 fit beside 2 others",
    ),
    "a pair for a vector": (
        "plain",
        lambda llm: llm.embed([("the dog", "cat")]),
        ParameterError,
        "token ids must be integers, not str",
    ),
    "a pair to tag": (
        "tags",
        lambda llm: llm.tag([3]),
        ParameterError,
        "give a text .* or the list of its words",
    ),
    "a pair with a mask": (
        "masked",
        lambda llm: llm.fill_mask([("a [MASK]", "b")]),
        ParameterError,
        "must be one text .* not a pair of texts",
    ),
    "a pair for labels": (
        "plain",
        lambda llm: llm.classify([("the dog", "cat")], labels=["a"]),
        ParameterError,
        "must be one text .* not a pair of texts",
    ),
    "a pair as a query": (
        "score",
        lambda llm: llm.rerank(("a", "b"), ["c"]),  # type: ignore[arg-type]
        ParameterError,
        "the query must be one text .* not a pair of texts",
    ),
    "a pair as a context": (
        "spans",
        lambda llm: llm.answer("who", ("a", "b")),  # type: ignore[arg-type]
        ParameterError,
        "the context must be one text .* not a pair of texts",
    ),
    "no labels": ("plain", lambda llm: llm.classify("a", labels=[]), ParameterError, "labels must be one"),
    "labels for similarity": (
        "plain",
        lambda llm: llm.classify("a", method="similarity"),
        ParameterError,
        "labels must be a list of texts",
    ),
    "neither labels nor head": (
        "plain",
        lambda llm: llm.classify("a"),
        ModelError,
        "has no head of classes: give labels= or examples=",
    ),
    "labels without a name for entailment": (
        "classes",
        lambda llm: llm.classify("a", labels=["b", "c"]),
        ParameterError,
        "LABEL_0, LABEL_1, LABEL_2: say which one is entailment",
    ),
    "examples of one label": (
        "plain",
        lambda llm: llm.classify("a", examples=[("a", "x")]),
        ParameterError,
        "two different labels",
    ),
    "a long text": (
        "plain",
        lambda llm: llm.embed(LONG),
        RequestError,
        "has 100 tokens, and 62 fit beside 2 others",
    ),
    "long ids": ("plain", lambda llm: llm.embed([[5] * 65]), RequestError, "has 65 tokens, and 64 fit"),
    "a long text for classes": (
        "classes",
        lambda llm: llm.classify(["a", LONG]),
        RequestError,
        "text 1: the text has 100 tokens, and 62 fit beside 2 others",
    ),
    "a long pair": (
        "classes",
        lambda llm: llm.classify(("dog", LONG)),
        RequestError,
        "the text has 100 tokens, and 60 fit beside 4 others",
    ),
    "a long first text": (
        "classes",
        lambda llm: llm.classify((LONG, "dog")),
        RequestError,
        "the first text of the pair has 100 tokens",
    ),
    "a long question": (
        "spans",
        lambda llm: llm.answer(LONG, "dog"),
        RequestError,
        "the question has 100 tokens",
    ),
    "an empty question": ("spans", lambda llm: llm.answer("", "dog"), RequestError, "the question is empty"),
    "a long option": (
        "choices",
        lambda llm: llm.choose("dog", ["a", LONG]),
        RequestError,
        "option 1: the text has 100 tokens",
    ),
    "ids beyond the vocabulary": (
        "plain",
        lambda llm: llm.embed([[5], [100000]]),
        ParameterError,
        "text 1: token id 100000 at place 0 is outside the vocabulary",
    ),
    "generate": (
        "plain",
        lambda llm: llm.generate("a"),
        ModelError,
        "embed",
    ),
}


@pytest.mark.parametrize("name", WRONG)
def test_what_a_model_cannot_read_is_one_line(name: str, folders: dict[str, Path]) -> None:
    model, call, kind, message = WRONG[name]
    told(call, LLM(folders[model]), kind, message)


def test_two_masks_are_ranked_each(folders: dict[str, Path]) -> None:
    [found] = LLM(folders["masked"]).fill_mask("[MASK] dog [MASK]", top_k=2)
    assert [len(fills) for fills in found] == [2, 2]


def test_a_pooling_that_contradicts_itself_hinders_vectors_alone(tmp_path: Path) -> None:
    wrong = ("Pooling", {**MEAN[1], "pooling_mode": "cls"})
    llm = LLM(sentence_folder(tmp_path, [wrong], architecture="BertForMaskedLM"))
    for call in (
        lambda llm: llm.embed("dog"),
        lambda llm: llm.similarity("dog", "cat"),
        lambda llm: llm.embed_tokens("dog"),
    ):
        told(call, llm, ModelError, "config.json: pooling_mode says cls, the older keys say mean")
    assert llm.fill_mask("the [MASK]")
    assert llm.text_limit == 64
