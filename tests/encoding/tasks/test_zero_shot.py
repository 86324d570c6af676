"""Tests labels that no head was trained for."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from decodery import LLM, ParameterError, RequestError
from decodery.encoding.encoder_parts import EncoderParts
from decodery.encoding.results import Embeddings
from decodery.encoding.tasks.zero_shot import by_entailment, by_similarity
from tests.encoding.folders import encoder_folder
from tests.encoding.tasks.fixed_model import fixed_parts

NLI = {"0": "contradiction", "1": "neutral", "2": "entailment"}
FIRST = {"0": "Entailment", "1": "Not_Entailment"}


def nli(path: Path, names: dict[str, str] | None, logits: dict[str, list[float]]) -> EncoderParts:
    """Returns a model whose logits are those of the label that the hypothesis names."""
    width = len(next(iter(logits.values())))
    config = {"id2label": names} if names else {}
    parts = fixed_parts(path, "classes", lambda token, place: [], config=config, context=20, labels=width)
    runner: Any = parts.runner

    def of_token(token: str, place: int) -> list[float]:
        words = [parts.tokenizer.token_text(t) for t in runner.read[-1].ids]
        named = [word for word in words if word in logits]
        return logits[named[-1]] if place == 0 else [0.0] * width

    runner.scores = of_token
    return parts


LOGITS = {"river": [1.0, 0.0, 3.0], "bank": [2.0, 9.0, 2.0], "movie": [-4.0, 0.0, 0.0]}


def test_labels_that_exclude_each_other_are_a_softmax_of_entailment(tmp_path: Path) -> None:
    (found,) = by_entailment(nli(tmp_path, NLI, LOGITS), "the water", list(LOGITS))
    total = np.exp([3, 2, 0]).sum()
    assert dict(found.scores) == pytest.approx(
        {"river": np.e**3 / total, "bank": np.e**2 / total, "movie": 1 / total}
    )
    assert list(found.scores) == ["river", "bank", "movie"]


@pytest.mark.parametrize("labels", [["bank"], ["river", "bank", "movie"]])
def test_labels_that_stand_alone_are_entailed_or_contradicted(tmp_path: Path, labels: list[str]) -> None:
    multi = None if len(labels) == 1 else True
    (found,) = by_entailment(nli(tmp_path, NLI, LOGITS), "the water", labels, multi_label=multi)
    expected = {label: np.exp(LOGITS[label][2]) / np.exp(LOGITS[label])[[0, 2]].sum() for label in labels}
    assert dict(found.scores) == pytest.approx(expected)
    assert list(found.scores) == sorted(expected, key=lambda label: -expected[label])


def test_entailment_at_index_0_is_used(tmp_path: Path) -> None:
    logits = {"river": [1.0, 3.0], "bank": [2.0, 0.0]}
    (found,) = by_entailment(nli(tmp_path, FIRST, logits), "the water", ["river", "bank"])
    assert found.label == "bank"
    (alone,) = by_entailment(nli(tmp_path / "b", FIRST, logits), "the water", ["bank"])
    assert alone.score == pytest.approx(np.e**2 / (np.e**2 + 1))
    given = nli(tmp_path / "c", None, logits)
    for entailment in (0, "LABEL_0"):
        (found,) = by_entailment(given, "the water", ["river", "bank"], entailment=entailment)
        assert found.label == "bank"


def test_labels_without_names_ask_which_one_is_entailment(tmp_path: Path) -> None:
    parts = nli(tmp_path, None, LOGITS)
    with pytest.raises(ParameterError, match=r'LABEL_0, LABEL_1, LABEL_2: say .* entailment="LABEL_2"'):
        by_entailment(parts, "the water", ["river", "bank"])
    runner: Any = parts.runner
    assert not runner.read, "the error comes before a pair is computed"
    (found,) = by_entailment(parts, "the water", ["river", "bank"], entailment="LABEL_2")
    assert found.label == "river"
    with pytest.raises(ParameterError, match="with contradiction="):
        by_entailment(parts, "the water", ["river"], entailment=2)
    with pytest.raises(ParameterError, match="with contradiction="):
        by_entailment(parts, "the water", ["river"], entailment=2, contradiction=2)
    (alone,) = by_entailment(parts, "the water", ["river"], entailment=2, contradiction=0)
    assert alone.score == pytest.approx(np.e**3 / (np.e**3 + np.e))
    for wrong in ("entailment", 3, -1, True):
        with pytest.raises(ParameterError, match="entailment must be one of LABEL_0"):
            by_entailment(parts, "the water", ["river"], entailment=wrong)


def test_two_labels_that_begin_with_entailment_are_ambiguous(tmp_path: Path) -> None:
    names = {"0": "entailment", "1": "entailment_weak", "2": "contradiction"}
    with pytest.raises(ParameterError, match="say which one is entailment"):
        by_entailment(nli(tmp_path, names, LOGITS), "the water", ["river", "bank"])


def test_the_text_comes_first_and_is_cut_never_the_hypothesis(tmp_path: Path) -> None:
    parts = nli(tmp_path, NLI, LOGITS)
    runner: Any = parts.runner
    by_entailment(parts, "the water", ["river"], hypothesis="it is a {} or {}.")
    words = [parts.tokenizer.token_text(token) for token in runner.read[-1].ids]
    assert words == ["[CLS]", "the", "water", "[SEP]", "it", "is", "a", "river", "or", "river", ".", "[SEP]"]
    with pytest.raises(RequestError, match=r"text 1: the text has 40 tokens, and 13 fit"):
        by_entailment(parts, ["dog", "dog " * 40], ["river"], hypothesis="it is {}.")
    (found,) = by_entailment(parts, "dog " * 40, ["river"], hypothesis="it is {}.", long="cut")
    assert found.lost == 27
    words = [parts.tokenizer.token_text(token) for token in runner.read[-1].ids]
    assert words == ["[CLS]", *["dog"] * 13, "[SEP]", "it", "is", "river", ".", "[SEP]"]
    with pytest.raises(RequestError, match="the second text of the pair has 30 tokens"):
        by_entailment(parts, "dog", ["river"], hypothesis="dog " * 29 + "{}", long="cut")


def test_labels_and_hypotheses_must_say_something(tmp_path: Path) -> None:
    parts = nli(tmp_path, NLI, LOGITS)
    assert list(by_entailment(parts, "the water", iter(["bank", "river"]))[0].scores) == ["river", "bank"]
    for labels in (None, "river", [], ["river", "river"], [3], 3):
        with pytest.raises(ParameterError, match="labels must be"):
            by_entailment(parts, "the water", labels)
    with pytest.raises(ParameterError, match=r"hypothesis must be a text with \{\} where"):
        by_entailment(parts, "the water", ["river"], hypothesis="This is it.")
    with pytest.raises(ParameterError, match="must be one text"):
        by_entailment(parts, [("the water", "the river")], ["river"])


def test_similarity_is_the_cosine_with_each_label() -> None:
    vectors = {"the dog": [2.0, 0.0], "paris": [0.0, 3.0], "animal": [5.0, 5.0], "city": [0.0, 1.0]}
    asked: list[list[str]] = []

    def embed(texts: list[str]) -> Embeddings:
        asked.append(texts)
        rows = np.array([vectors[text.removeprefix("about ")] for text in texts], np.float32)
        counts = np.array([len(text) for text in texts])
        return Embeddings(rows, counts, counts, "mean", "float32", 2)

    found = by_similarity(embed, ["the dog", "paris"], ["animal", "city"])
    assert dict(found[0].scores) == pytest.approx({"animal": 0.5**0.5, "city": 0})
    assert [one.label for one in found] == ["animal", "city"]
    assert [one.lost for one in found] == [len("the dog"), len("paris")]
    by_similarity(embed, "paris", ["city"], hypothesis="about {}")
    assert asked[-1] == ["about city"]
    assert by_similarity(embed, [], ["city"]) == []


def test_a_model_without_a_head_compares_texts_with_labels(tmp_path: Path) -> None:
    llm = LLM(encoder_folder(tmp_path))
    texts, labels = ["the dog sat on the mat", "paris"], ["a dog", "a city in france"]
    found = llm.classify(texts, labels=labels)
    ours, theirs = (llm.embed(given, normalize=True).vectors for given in (texts, labels))
    for one, row in zip(found, ours @ theirs.T, strict=True):
        assert [one.scores[label] for label in labels] == pytest.approx(row.tolist(), rel=1e-4)
    assert llm.classify(texts[1], labels=labels) == found[1:]


@pytest.mark.parametrize("multi", [False, True])
def test_entailment_is_that_of_transformers(tmp_path: Path, multi: bool) -> None:
    import transformers

    names = {int(number): name for number, name in NLI.items()}
    folder = encoder_folder(
        tmp_path,
        "BertForSequenceClassification",
        id2label=names,
        label2id={name: number for number, name in names.items()},
    )
    inputs = ["input_ids", "token_type_ids", "attention_mask"]
    tokenizer = transformers.AutoTokenizer.from_pretrained(folder, model_input_names=inputs)
    oracle = transformers.pipeline("zero-shot-classification", str(folder), tokenizer=tokenizer)
    labels = ["the river", "money", "a movie"]
    theirs: Any = oracle("angela visited the bank", labels, multi_label=multi)
    (found,) = LLM(folder).classify("angela visited the bank", labels=labels, multi_label=multi)
    assert list(found.scores) == theirs["labels"]
    assert list(found.scores.values()) == pytest.approx(theirs["scores"], rel=1e-3)
