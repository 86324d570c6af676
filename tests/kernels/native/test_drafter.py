"""Checks what the compiled drafter drafts, when, and what it forgets."""

from __future__ import annotations

import re
from array import array
from collections.abc import Sequence
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from decodery.kernels.native.drafter import (
    MOST_DRAFTS,
    MOST_SUCCESSORS,
    MOST_TOKENS,
    Draft,
    Drafter,
    Drafting,
)
from tests.kernels.native.fixtures import built

pytestmark = built

# Steps whose time hardly grows with their tokens.
FLAT = array("d", [0.0, *(1.0 + 0.001 * n for n in range(64))])
# Every token takes the same time.
STEEP = array("d", [float(n) for n in range(65)])


def draft(
    drafter: Drafter,
    tokens: Sequence[int],
    *,
    stream: int = 1,
    salt: int = 1,
    most: int = 64,
    times: array[float] = FLAT,
    besides: int = 0,
) -> Draft:
    row = Drafting(stream, salt, array("q", tokens), most)
    (found,) = drafter.draft([row], besides, times, least=1.02)
    return found


def remember(drafter: Drafter, tokens: Sequence[int], *, salt: int = 1) -> None:
    """Lets a text run and end, whose successors are not learned: all of it is prompt."""
    draft(drafter, tokens, stream=99, salt=salt, most=0)
    drafter.end(99, array("q", tokens))


def longest_match(tokens: Sequence[int]) -> tuple[int, int]:
    """Returns the end of the latest of the longest earlier occurrences of the last tokens, and its length."""
    best = (0, 0)
    for end in range(len(tokens) - 1, 1, -1):
        length = 0
        while length < min(end, 16) and tokens[end - 1 - length] == tokens[-1 - length]:
            length += 1
        if length > best[1]:
            best = (end, length)
    return best if best[1] >= 2 else (0, 0)


@given(st.lists(st.integers(0, 3), min_size=2, max_size=24))
def test_what_followed_the_longest_earlier_occurrence_is_drafted(tokens: list[int]) -> None:
    found = draft(Drafter(), tokens)
    end, length = longest_match(tokens)
    expected = list(tokens)
    for place in range(end, end + MOST_DRAFTS):
        expected.append(expected[place])
    # Beyond twelve occurrences the drafter stops looking.
    occurrences = sum(tokens[i : i + 2] == tokens[-2:] for i in range(len(tokens) - 2))
    if occurrences <= 12:
        assert found.tokens == (tuple(expected[len(tokens) :]) if length else ())
        assert found.sources == ("text",) * len(found.tokens)


def test_what_followed_in_an_earlier_text_of_the_same_salt_is_drafted() -> None:
    drafter = Drafter()
    remember(drafter, [5, 6, 7, 8, 9])
    found = draft(drafter, [1, 6, 7])
    assert found == Draft((8, 9), ("earlier texts",) * 2)
    assert draft(drafter, [1, 6, 7], stream=2, salt=2) == Draft()


def test_a_longer_occurrence_in_an_earlier_text_comes_before_a_shorter_one_in_the_own_text() -> None:
    drafter = Drafter()
    remember(drafter, [5, 6, 7, 8])
    assert draft(drafter, [6, 7, 1, 5, 6, 7]).tokens[0] == 8
    assert draft(drafter, [5, 6, 7, 1, 5, 6, 7], stream=2).tokens[0] == 1


def test_no_draft_goes_from_one_earlier_text_to_the_next() -> None:
    drafter = Drafter()
    remember(drafter, [1, 2, 3])
    remember(drafter, [4, 5])
    assert draft(drafter, [2, 3]) == Draft()
    assert draft(drafter, [3, 4], stream=2) == Draft()


def test_without_remembered_texts_streams_share_nothing() -> None:
    drafter = Drafter(remember_texts=False)
    remember(drafter, [5, 6, 7, 8])
    draft(drafter, [1, 2], stream=3)
    draft(drafter, [1, 2, 3, 4], stream=3)
    assert draft(drafter, [9, 6, 7]) == Draft()
    assert draft(drafter, [1, 2], stream=2) == Draft()


def test_successors_are_known_by_two_tokens_before_one() -> None:
    drafter = Drafter()
    draft(drafter, [1, 2], stream=7)
    draft(drafter, [1, 2, 10, 3, 2, 11], stream=7)
    assert draft(drafter, [1, 2], most=1) == Draft((10,), ("successors",))
    assert draft(drafter, [8, 2], stream=2, most=1) == Draft((11,), ("successors",))


def test_a_draft_goes_on_with_successors_where_an_earlier_text_ends() -> None:
    drafter = Drafter()
    draft(drafter, [1, 2], stream=7)
    draft(drafter, [1, 2, 40, 41], stream=7)
    remember(drafter, [5, 6, 7, 1, 2])
    found = draft(drafter, [5, 6, 7], stream=2)
    assert found.tokens == (1, 2, 40, 41)
    assert found.sources == ("earlier texts",) * 2 + ("successors",) * 2


def test_the_oldest_texts_go_first_and_memory_is_bounded() -> None:
    drafter = Drafter()
    remember(drafter, [900_001, 900_002, 900_003])
    assert draft(drafter, [900_001, 900_002], stream=2).tokens == (900_003,)
    for start in range(0, 2 * MOST_TOKENS, 1000):
        remember(drafter, range(start, start + 1000))
    assert draft(drafter, [900_001, 900_002], stream=3) == Draft()
    last = 2 * MOST_TOKENS - 2000
    assert draft(drafter, [last, last + 1], stream=4).tokens[0] == last + 2
    remember(drafter, range(3 * MOST_TOKENS))
    assert draft(drafter, [last, last + 1], stream=5) == Draft()
    assert (
        draft(drafter, [3 * MOST_TOKENS - 5, 3 * MOST_TOKENS - 4], stream=6).tokens[0] == 3 * MOST_TOKENS - 3
    )


def test_the_oldest_successors_go_first() -> None:
    drafter = Drafter()
    text = list(range(10, 10 + MOST_SUCCESSORS))
    draft(drafter, text[:2], stream=7)
    draft(drafter, text, stream=7)
    assert draft(drafter, [10, 11]) == Draft()
    assert draft(drafter, text[-3:-1], stream=2).tokens[0] == text[-1]


def test_a_salt_that_is_forgotten_leaves_nothing() -> None:
    drafter = Drafter()
    remember(drafter, [5, 6, 7, 8])
    drafter.forget(1)
    assert draft(drafter, [5, 6]) == Draft()


def test_a_dropped_stream_leaves_no_text() -> None:
    drafter = Drafter()
    draft(drafter, [5, 6, 7, 8], stream=3)
    assert len(drafter) == 1
    drafter.drop(3)
    assert len(drafter) == 0
    assert draft(drafter, [5, 6]) == Draft()


def test_drafts_that_are_wrong_stop_and_those_that_are_right_go_on() -> None:
    times = array("d", [0.0, *(1.0 + 0.2 * n for n in range(64))])
    wrong = Drafter()
    tokens = [1, 2, 3]
    ran = []
    for i in range(60):
        tokens += [1, 2]
        ran.append(len(draft(wrong, tokens, times=times).tokens))
        tokens.append(1000 + i)
    assert ran[1] > 0
    assert not any(ran[-20:])
    right = Drafter()
    tokens = list(range(9))
    ran = []
    for i in range(60):
        ran.append(len(draft(right, tokens, times=times).tokens))
        tokens.append(i % 9)
    assert ran[-1] == MOST_DRAFTS


def test_as_many_drafts_run_as_the_time_of_the_whole_step_is_worth() -> None:
    text = list(range(20)) * 2
    for times, besides, some in ((FLAT, 0, True), (FLAT, 60, True), (FLAT, 64, False), (STEEP, 0, False)):
        assert bool(draft(Drafter(), text, times=times, besides=besides).tokens) == some
    # A step of more than three tokens takes far longer.
    jump = array("d", [0.0, 1.0, 1.0, 1.0, *[9.0] * 61])
    assert len(draft(Drafter(), text, times=jump).tokens) == 2
    rows = [Drafting(i, 1, array("q", text if i else [1, 2, 3, 1, 2]), 64) for i in range(2)]
    first, second = Drafter().draft(rows, 0, jump, least=1.02)
    assert (len(first.tokens), len(second.tokens)) == (0, 1)


@pytest.mark.parametrize("most", [0, 1, 3, 100])
def test_no_more_drafts_run_than_a_row_may(most: int) -> None:
    assert len(draft(Drafter(), list(range(20)) * 2, most=most).tokens) == min(most, MOST_DRAFTS)


def test_the_same_call_again_gives_the_same_drafts_and_fewer_tokens_begin_the_stream_anew() -> None:
    drafter = Drafter()
    text = list(range(20)) * 2
    assert draft(drafter, text) == draft(drafter, text)
    assert draft(drafter, [5, 6, 7, 5, 6]).tokens[0] == 7
    assert len(drafter) == 1


def test_the_buffers_have_the_sizes_that_the_compiled_drafter_fills() -> None:
    source = (Path(__file__).parents[3] / "native" / "drafting.hpp").read_text(encoding="utf-8")
    found = re.search(r"kMostDrafts = (\d+);\n.*\n.*kMostTokens = (\d+), kMostSuccessors = (\d+);", source)
    assert found is not None
    assert tuple(map(int, found.groups())) == (MOST_DRAFTS, MOST_TOKENS, MOST_SUCCESSORS)


def test_a_stream_keeps_what_it_knows_when_its_salt_is_forgotten() -> None:
    drafter = Drafter()
    remember(drafter, [5, 6, 7, 8])
    draft(drafter, [1, 5], stream=2)
    drafter.forget(1)
    assert draft(drafter, [1, 5, 6], stream=2).tokens == (7, 8)
    assert draft(drafter, [1, 5, 6], stream=3) == Draft()
    drafter.end(2, array("q", [1, 5, 6, 9]))
    drafter.drop(3)
    assert len(drafter) == 0
