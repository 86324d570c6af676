"""Tests the baselines of BERTScore with vectors of letters."""

from __future__ import annotations

import random
from collections import Counter

import pytest

from decodery.errors import ParameterError
from decodery.metrics import bert_scores, mean, random_baseline
from decodery.metrics.unrelated_texts import BLOCK, PairTotals, baseline_of, random_pairs, with_pairs
from tests.metrics.vectors import Tokens, letters


def sentences(count: int) -> list[str]:
    draw = random.Random(count)
    return ["".join(draw.choices("abcdefgh", k=draw.randint(1, 9))) for _ in range(count)]


def layers(texts: list[str]) -> list[list[Tokens]]:
    """Returns two layers: the letters, and those of the texts written backwards."""
    return [letters(texts), letters([text[::-1].replace("a", "h") for text in texts])]


@pytest.mark.parametrize("left_out", [0, 1])
def test_each_sentence_is_in_one_pair(left_out: int) -> None:
    given = sorted(set(sentences(50)))
    given = given[: len(given) - (len(given) + left_out) % 2] * 2
    pairs = random_pairs(given, seed=1)
    members = Counter(one for pair in pairs for one in pair)
    assert set(members.values()) == {1}
    assert len(set(given) - set(members)) == left_out
    assert pairs == random_pairs(given, seed=1) != random_pairs(given, seed=2)


def test_the_baseline_is_the_mean_over_all_pairs_in_several_blocks() -> None:
    pairs = random_pairs(given := sorted(set(sentences(3 * BLOCK))), seed=3)
    assert len(pairs) > BLOCK
    found = bert_scores([one for one, _ in pairs], [other for _, other in pairs], letters)
    expected = [(one.precision, one.recall, one.f1) for one in found if one is not None]
    baseline = random_baseline(given, letters, seed=3)
    for value, column in zip(baseline, zip(*expected, strict=True), strict=True):
        assert value == pytest.approx(sum(column) / len(column))


def test_layers_have_their_own_totals_with_the_errors_of_means() -> None:
    pairs = random_pairs(sentences(80))
    totals = (PairTotals(), PairTotals())
    for start in (0, 20):
        totals = with_pairs(totals, pairs[start : start + 20], layers)
    for place, total in enumerate(totals):
        firsts, seconds = ([pair[side] for pair in pairs] for side in (0, 1))
        found = bert_scores(firsts, seconds, lambda texts, of=place: layers(texts)[of])
        expected = mean([None if one is None else one.f1 for one in found], unit="similarity")
        score = total.scores()[2]
        assert score.value == pytest.approx(expected.value)
        assert score.error == pytest.approx(expected.error)
        assert (score.counted, score.undefined) == (expected.counted, expected.undefined)


def test_pairs_without_a_score_are_counted_and_not_in_the_mean() -> None:
    (total,) = with_pairs((PairTotals(),), [("ab", "cd"), ("", "ab")], lambda texts: [letters(texts)])
    assert (total.counted, total.undefined) == (1, 1)
    (one,) = bert_scores(["ab"], ["cd"], letters)
    assert one is not None
    assert baseline_of(total)[2] == one.f1
    assert total.scores()[2].error is None


@pytest.mark.parametrize(
    ("given", "message"),
    [(["a", "a"], "two different ones or more, not 1"), (["", " "], "have no pair with a score")],
)
def test_sentences_without_a_pair_are_an_error(given: list[str], message: str) -> None:
    with pytest.raises(ParameterError, match=message):
        random_baseline(given, letters)
