"""Tests the choice of answers from logits."""

from __future__ import annotations

import numpy as np
import pytest

from decodery.encoding.tasks.answer_spans import WindowScores, answers


def window(
    starts: list[float], ends: list[float], words: list[int] | None = None, null: float = -50.0
) -> WindowScores:
    numbers = list(range(len(starts))) if words is None else words
    return WindowScores(np.array(starts), np.array(ends), np.array(numbers), (null / 2, null / 2))


def softmax(logits: list[float]) -> np.ndarray:
    found = np.exp(np.array(logits) - max(logits))
    return found / found.sum()


def test_one_window_has_the_products_of_both_softmaxes() -> None:
    starts, ends, null = [1.0, 4.0, 0.0, 2.0], [0.0, 3.0, 5.0, 1.0], 1.0
    found = answers([window(starts, ends, null=null)], top_k=100, longest=3, null=False)
    start, end = softmax([*starts, null / 2]), softmax([*ends, null / 2])
    expected = {(a, b + 1): start[a] * end[b] for a in range(4) for b in range(a, min(a + 3, 4))}
    assert {one.words: one.score for one in found} == pytest.approx(expected)
    assert [one.score for one in found] == pytest.approx(sorted(expected.values(), reverse=True))
    assert found[0].words == (1, 3)


def test_spans_that_widen_to_the_same_words_are_one_and_their_probabilities_are_added() -> None:
    starts, ends = [3.0, 2.9, 0.0], [0.0, 2.0, 2.5]
    # The first two tokens are one word.
    found = answers([window(starts, ends, [0, 0, 1])], top_k=10, longest=15, null=False)
    start, end = softmax([*starts, -25]), softmax([*ends, -25])
    assert [one.words for one in found] == [(0, 2), (0, 1), (1, 2)]
    assert found[0].score == pytest.approx((start[0] + start[1]) * end[2])
    assert found[1].score == pytest.approx(start[0] * (end[0] + end[1]) + start[1] * end[1])


def test_one_span_in_two_windows_is_one_answer() -> None:
    first = window([0.0, 0.0, 6.0], [0.0, 0.0, 6.0], [0, 1, 2])
    second = window([5.0, 0.0, 0.0], [5.0, 0.0, 0.0], [2, 3, 4])
    found = answers([first, second], top_k=10, longest=15, null=False)
    start = softmax([0, 0, 6, 5, 0, 0, -25])
    assert found[0].words == (2, 3)
    assert found[0].score == pytest.approx(start[2] ** 2 + start[3] ** 2)
    assert sum(one.words == (2, 3) for one in found) == 1


def test_windows_compare_by_their_logits_not_by_their_own_softmax() -> None:
    # Within its window the first is surer; the second has the larger logits.
    first = window([3.0, -9.0], [3.0, -9.0], [0, 1])
    second = window([5.0, 4.9], [5.0, 4.8], [2, 3])
    assert answers([first, second], top_k=1, longest=1, null=False)[0].words == (2, 3)


def test_no_answer_has_the_least_score_of_all_windows() -> None:
    # Every window but one says that it has no answer.
    windows = [
        window([0.0], [0.0], [0], null=12.0),
        window([4.0], [4.0], [1], null=1.0),
        window([0.0], [0.0], [2], null=12.0),
    ]
    found = answers(windows, top_k=9, longest=5, null=True)
    assert found[0].words == (1, 2)
    (none,) = [one for one in found if one.words is None]
    start = softmax([0, 4, 0, 0.5])
    assert none.score == pytest.approx(start[3] ** 2)


def test_a_threshold_is_how_much_likelier_no_answer_must_be() -> None:
    windows = [window([1.0], [1.0], [0], null=4.0)]
    assert answers(windows, top_k=1, longest=5, null=True)[0].words is None
    assert answers(windows, top_k=1, longest=5, null=True, threshold=1.9)[0].words is None
    assert answers(windows, top_k=1, longest=5, null=True, threshold=2.1)[0].words == (0, 1)
    assert answers(windows, top_k=1, longest=5, null=False)[0].words == (0, 1)


def test_an_answer_begins_and_ends_in_words_and_is_not_too_long() -> None:
    starts, ends = [9.0, 1.0, 0.0, 0.0], [0.0, 0.0, 0.0, 9.0]
    found = answers([window(starts, ends, [-1, 0, 1, -1])], top_k=9, longest=9, null=False)
    assert {one.words for one in found} == {(0, 1), (0, 2), (1, 2)}
    found = answers([window(starts, ends)], top_k=9, longest=1, null=False)
    assert {one.words for one in found} == {(0, 1), (1, 2), (2, 3), (3, 4)}


def test_huge_logits_have_probabilities() -> None:
    (one,) = answers([window([900.0, 0], [900.0, 0])], top_k=1, longest=2, null=True)
    assert one.score == pytest.approx(1.0)
