"""Tests windows over long texts."""

from __future__ import annotations

import random
from itertools import pairwise

import pytest

from decodery import ParameterError, RequestError
from decodery.encoding.tasks.word_windows import chosen_overlap, windows


def test_a_text_that_fits_is_one_window() -> None:
    assert windows(5, [0, 2, 4], 5, 2) == [(0, 5)]
    assert windows(0, [], 5, 2) == [(0, 0)]


def test_windows_are_cut_between_words_and_overlap() -> None:
    # Words begin at 0, 3, 4, 8, 9.
    assert windows(11, [0, 3, 4, 8, 9], 5, 2) == [(0, 4), (3, 8), (4, 9), (8, 11)]
    assert windows(11, [0, 3, 4, 8, 9], 5, 0) == [(0, 4), (4, 9), (9, 11)]


def test_a_word_longer_than_a_window_is_cut() -> None:
    assert windows(9, [0, 1, 8], 3, 1) == [(0, 1), (1, 4), (4, 7), (6, 9)]


@pytest.mark.parametrize("seed", range(60))
def test_windows_cover_all_tokens_and_each_word_that_fits_is_whole_in_one(seed: int) -> None:
    draw = random.Random(seed)
    cuts, count = [], 0
    while count < 80:
        cuts.append(count)
        count += draw.randint(1, 12)
    capacity = draw.randint(1, 30)
    overlap = draw.randint(0, capacity - 1)
    found = windows(count, cuts, capacity, overlap)
    assert found[0][0] == 0
    assert found[-1][1] == count
    for (start, end), (after, last) in pairwise(found):
        assert start < after <= end < last
    for start, end in found:
        assert 0 < end - start <= capacity
    for first, last in zip(cuts, [*cuts[1:], count], strict=True):
        if last - first <= capacity:
            assert any(start <= first and last <= end for start, end in found)


def test_an_overlap_that_leaves_no_place_is_an_error() -> None:
    assert chosen_overlap(None, 500, 128) == 128
    assert chosen_overlap(None, 50, 128) == 25
    assert chosen_overlap(0, 50, 128) == 0
    for wrong in (50, -1, 1.5, True):
        with pytest.raises(ParameterError, match="overlap must be a whole number below 50"):
            chosen_overlap(wrong, 50, 128)  # type: ignore[arg-type]
    with pytest.raises(RequestError, match="no token of the text fits"):
        chosen_overlap(None, 0, 128)
