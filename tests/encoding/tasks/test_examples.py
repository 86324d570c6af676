"""Tests labels that are learned from examples."""

from __future__ import annotations

import sys
from typing import Any

import numpy as np
import pytest

from decodery import LLM, DecoderyError, ParameterError
from decodery.encoding.tasks.examples import fitted, labelled
from tests.encoding.folders import encoder_folder

DOGS = ["the dog", "a dog sat", "dog", "the good dog plays", "dog on the mat", "no dog"]
CITIES = ["paris", "seattle city", "paris in france", "the city", "she visited paris", "seattle"]
EXAMPLES = [*((text, "animal") for text in DOGS), *((text, "city") for text in CITIES)]


def test_examples_are_pairs_or_texts_by_label() -> None:
    assert labelled([("a", "x"), ["b", "y"]]) == (["a", "b"], ["x", "y"])
    assert labelled({"x": ["a", "c"], "y": ["b"]}) == (["a", "c", "b"], ["x", "x", "y"])
    for wrong in ([("a", "x", "y")], ["ab"], [("a", 3)], [None]):
        with pytest.raises(ParameterError, match="example 0 must be a text and its label"):
            labelled(wrong)
    with pytest.raises(ParameterError, match="two different labels or more"):
        labelled([("a", "x"), ("b", "x")])


def test_scikit_learn_that_is_missing_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("sklearn", "sklearn.linear_model"):
        monkeypatch.setitem(sys.modules, name, None)
    with pytest.raises(DecoderyError, match=r'pip install "decodery\[search\]"'):
        fitted(np.eye(2), ["x", "y"])


@pytest.fixture(scope="module")
def llm(tmp_path_factory: pytest.TempPathFactory) -> LLM:
    pytest.importorskip("sklearn")
    return LLM(encoder_folder(tmp_path_factory.mktemp("bert")))


def test_texts_have_the_label_of_the_examples_that_they_are_like(llm: LLM) -> None:
    found = llm.classify([*DOGS, *CITIES], examples=EXAMPLES)
    assert [one.label for one in found] == [label for _, label in EXAMPLES]
    for one in found:
        assert sum(one.scores.values()) == pytest.approx(1)
        assert one.accuracy == llm.learn_labels(EXAMPLES).accuracy


def test_the_same_examples_give_the_same_regression(llm: LLM) -> None:
    one, other = llm.learn_labels(EXAMPLES), llm.learn_labels(EXAMPLES)
    assert np.array_equal(one.weights, other.weights)
    assert one.accuracy == other.accuracy
    assert llm.classify("a dog", examples=one) == llm.classify("a dog", examples=EXAMPLES)


@pytest.mark.parametrize("labels", [["x", "y"], ["x", "y", "z"]])
def test_probabilities_are_those_of_the_regression(labels: list[str]) -> None:
    linear: Any = pytest.importorskip("sklearn.linear_model")
    draw = np.random.default_rng(0)
    vectors = draw.normal(size=(30, 5))
    vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
    targets = [labels[place % len(labels)] for place in range(30)]
    learned = fitted(vectors, targets)
    theirs = linear.LogisticRegression(C=10.0, max_iter=1000, random_state=0).fit(vectors, targets)
    for one, row in zip(learned.classify(vectors), theirs.predict_proba(vectors), strict=True):
        assert [one.scores[label] for label in labels] == pytest.approx(row.tolist())


def test_accuracy_is_that_of_examples_not_seen() -> None:
    pytest.importorskip("sklearn")
    draw = np.random.default_rng(0)
    noise = draw.normal(size=(40, 100))
    noise /= np.linalg.norm(noise, axis=1, keepdims=True)
    targets = ["x", "y"] * 20
    learned = fitted(noise, targets)
    # It knows all of its examples by heart, and nothing of others.
    assert [one.label for one in learned.classify(noise)] == targets
    assert learned.accuracy is not None
    assert 0.2 < learned.accuracy < 0.8
    assert learned.folds == 5
    one_alone = fitted(np.eye(3), ["x", "x", "y"])
    assert (one_alone.accuracy, one_alone.folds) == (None, None)
    assert fitted(np.eye(4), ["x", "x", "y", "y"]).folds == 2


def test_a_text_alone_has_the_scores_that_it_has_among_others(llm: LLM) -> None:
    learned = llm.learn_labels(EXAMPLES)
    texts = ["a cat", "the river bank", "", "france"]
    assert llm.classify(texts, examples=learned) == [
        llm.classify(text, examples=learned)[0] for text in texts
    ]
