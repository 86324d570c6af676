"""Tests BERTScore with vectors of letters."""

from __future__ import annotations

import math
import random
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from decodery import LLM
from decodery.errors import ParameterError
from decodery.metrics import Overlap, bert_score, bert_scores, read_baseline
from tests.encoding.folders import encoder_folder
from tests.metrics.vectors import Tokens, letters


def formula(candidate: Any, reference: Any) -> tuple[float, float]:
    """Returns precision and recall of BERTScore, token by token."""

    def best(token: Any, others: Any) -> float:
        return max(float(token @ other / np.linalg.norm(token) / np.linalg.norm(other)) for other in others)

    def mean(one: Any, other: Any) -> float:
        inner = one.vectors[1:-1]  # Special tokens weigh nothing, and can be matched.
        return sum(best(token, other.vectors) for token in inner) / len(inner)

    return mean(candidate, reference), mean(reference, candidate)


def test_scores_equal_the_formula() -> None:
    for seed in range(200):
        draw = random.Random(seed)
        one, other = ("".join(draw.choices("abcdefgh", k=draw.randint(1, 9))) for _ in range(2))
        found = bert_scores([one], [other], letters)[0]
        precision, recall = formula(*letters([one, other]))
        assert found is not None
        assert min(precision, recall) > 0
        assert found.precision == pytest.approx(precision)
        assert found.recall == pytest.approx(recall)
        assert found.f1 == pytest.approx(2 * precision * recall / (precision + recall))


def test_a_text_equals_itself_and_precision_is_of_the_prediction() -> None:
    assert bert_score(["a b c"], ["c a b"], letters).value == pytest.approx(1.0)
    found = bert_scores(["abx"], ["ab"], letters)[0]
    assert found is not None
    assert found.precision is not None
    assert found.precision < found.recall == pytest.approx(1.0)


def test_rare_tokens_weigh_more_and_tokens_of_all_references_nothing() -> None:
    # In three references: a in all, b in two, c in one; d in none weighs most.
    references = ["ab", "abc", "a"]
    weights = {"a": 0.0, "b": math.log(4 / 3), "c": math.log(4 / 2), "d": math.log(4 / 1)}
    found = bert_scores(["acd", "abc", "a"], references, letters, idf=True)
    first = found[0]
    assert first is not None
    candidate, reference = letters(["acd", "ab"])
    likeness = candidate.vectors @ reference.vectors.T
    likeness /= np.linalg.norm(candidate.vectors, axis=1)[:, None] * np.linalg.norm(reference.vectors, axis=1)
    best = likeness.max(1)[1:-1]
    total = sum(weights[letter] for letter in "acd")
    assert first.precision == pytest.approx(
        sum(weights[one] * best[at] for at, one in enumerate("acd")) / total
    )
    assert found[2] is None  # All its tokens weigh 0.


def test_idf_of_one_reference_is_an_error_and_never_nan() -> None:
    with pytest.raises(ParameterError, match=r"^idf needs several references"):
        bert_score(["a b"], ["a b"], letters, idf=True)


@pytest.mark.parametrize(("predictions", "references"), [(["", "a"], ["a", "a"]), (["a", "a"], [" ", "a"])])
def test_an_empty_text_is_undefined_and_counted(predictions: list[str], references: list[str]) -> None:
    score = bert_score(predictions, references, letters)
    assert score.value == pytest.approx(1.0)
    assert (score.counted, score.undefined) == (1, 1)


def test_a_baseline_rescales_each_number() -> None:
    plain = bert_scores(["ab"], ["bc"], letters)[0]
    rescaled = bert_scores(["ab"], ["bc"], letters, baseline=(0.1, 0.2, 0.3))[0]
    assert plain is not None
    assert rescaled is not None
    assert plain.precision is not None
    assert rescaled.precision == pytest.approx((plain.precision - 0.1) / 0.9)
    assert rescaled.recall == pytest.approx((plain.recall - 0.2) / 0.8)
    assert rescaled.f1 == pytest.approx((plain.f1 - 0.3) / 0.7)


def test_a_raw_score_of_90_with_a_baseline_of_83_is_0_4118() -> None:
    angle = math.acos(0.9)

    def embed(texts: Sequence[str]) -> list[Tokens]:
        vectors = {"x": [1.0, 0.0], "y": [math.cos(angle), math.sin(angle)]}
        return [Tokens([1], [(0, 1)], np.array([vectors[text]])) for text in texts]

    assert bert_score(["x"], ["y"], embed).value == pytest.approx(0.9)
    assert bert_score(["x"], ["y"], embed, baseline=(0.83, 0.83, 0.83)).value == pytest.approx(
        0.4118, abs=1e-4
    )


@pytest.mark.parametrize(
    ("baseline", "message"),
    [
        ((1.0, 0.5, 0.5), "baseline must be below 1"),
        ((0.5, 0.5, math.nan), r"baseline\[2\] must be a finite number"),
        ((0.5, 0.5), "baseline must be three numbers"),
        ("en/bert.tsv", "baseline must be three numbers.*read_baseline"),
    ],
)
def test_a_baseline_that_is_none_is_an_error(baseline: Any, message: str) -> None:
    with pytest.raises(ParameterError, match=rf"^{message}"):
        bert_score(["a"], ["a"], letters, baseline=baseline)


def test_a_baseline_is_read_by_layer_and_a_missing_one_is_an_error(tmp_path: Path) -> None:
    path = tmp_path / "bert.tsv"
    path.write_text("LAYER,P,R,F\n0,0.1,0.2,0.3\n9,0.83,0.84,0.835\n")
    assert read_baseline(path, 9) == (0.83, 0.84, 0.835)
    with pytest.raises(ParameterError, match=r"^baseline has no row LAYER,P,R,F of layer 3"):
        read_baseline(path, 3)
    with pytest.raises(ParameterError, match=r"^baseline cannot be read"):
        read_baseline(tmp_path / "none.tsv", 9)
    path.write_bytes(b"\xff\xfe")
    with pytest.raises(ParameterError, match=r"^baseline "):
        read_baseline(path, 9)


def test_settings_name_model_weights_and_baseline() -> None:
    score = bert_score(["ab", "c"], ["ab", "d"], letters, idf=True, model="minilm, layer 5")
    assert score.settings == "F1, model minilm, layer 5, idf, not rescaled"
    scaled = bert_score(["ab"], ["ab"], letters, baseline=(0.1, 0.2, 0.3))
    assert scaled.settings == "F1, model unnamed, no idf, rescaled by 0.3"


def test_of_several_references_the_best_counts() -> None:
    assert bert_score(["ab"], [["xy", "ab", ""]], letters).value == pytest.approx(1.0)


def test_opposite_vectors_have_no_harmonic_mean_and_are_undefined() -> None:
    def embed(texts: Sequence[str]) -> list[Tokens]:
        return [Tokens([1], [(0, 1)], np.array([[1.0 if text == "x" else -1.0]])) for text in texts]

    score = bert_score(["x", "x"], ["y", "x"], embed)
    assert (score.value, score.counted, score.undefined) == (1.0, 1, 1)


def test_vectors_of_zeros_match_nothing() -> None:
    def zeros(texts: Sequence[str]) -> list[Tokens]:
        return [Tokens([1], [(0, 1)], np.zeros((1, 4))) for _ in texts]

    assert bert_scores(["a"], ["b"], zeros) == [Overlap(0.0, 0.0, 0.0)]


@pytest.mark.parametrize(
    ("read", "message"),
    [
        ([], "gave 0 results for 1 texts"),
        ([Tokens([1], [(0, 1)], np.array([[math.nan]]))], "gave a vector with NaN"),
    ],
)
def test_vectors_that_are_missing_or_nan_are_an_error(read: list[Tokens], message: str) -> None:
    with pytest.raises(ParameterError, match=rf"^embed {message}"):
        bert_score(["a"], ["a"], lambda texts: read)


def test_each_text_is_read_once() -> None:
    calls: list[list[str]] = []

    def embed(texts: list[str]) -> list[Tokens]:
        calls.append(texts)
        return letters(texts)

    bert_score(["a", "a", "b"], ["b", ["a", "c"], "b"], embed)
    assert calls == [["a", "b", "c"]]


@pytest.mark.parametrize("kind", ["word pieces", "byte pairs", "unigrams"])
def test_an_encoder_of_ours_embeds_and_its_special_tokens_weigh_nothing(tmp_path: Path, kind: str) -> None:
    llm = LLM(encoder_folder(tmp_path, tokenizer=kind))
    said, gold = ["a bank of the river", "the banker plays", ""], ["the bank", "the banker plays", "a bank"]
    found = bert_scores(said, gold, partial(llm.embed_tokens, layer=1))
    read = llm.embed_tokens([*said, *gold], layer=1)
    for ours, one, other in zip(found[:2], read[:2], read[3:5], strict=True):
        precision, recall = formula(one, other)
        assert ours is not None
        assert (ours.precision, ours.recall) == pytest.approx((precision, recall), abs=1e-6)
    assert found[2] is None
    assert bert_score(said, gold, llm.embed_tokens).undefined == 1
