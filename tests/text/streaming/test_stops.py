from __future__ import annotations

import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from decodery.errors import ParameterError
from decodery.text.streaming.stops import Match, StopMatcher, compile_regex, first_match

LETTERS = st.text("ab", max_size=12)
STOPS = st.lists(st.text("ab", min_size=1, max_size=5), max_size=5).map(tuple)


def earliest(text: str, stops: tuple[str, ...]) -> Match | None:
    for end in range(1, len(text) + 1):
        ended = [stop for stop in stops if text[:end].endswith(stop)]
        if ended:
            return Match(max(ended, key=len), end)
    return None


def longest_start(text: str, stops: tuple[str, ...]) -> int:
    """Returns the length of the longest suffix of the text that is a proper prefix of a stop string."""
    starts = [stop[:size] for stop in stops for size in range(len(stop))]
    return max((len(start) for start in starts if text.endswith(start)), default=0)


@given(LETTERS, STOPS)
def test_the_match_is_the_first_to_end_and_of_those_the_longest(text: str, stops: tuple[str, ...]) -> None:
    state, match = StopMatcher(stops).read(0, text)
    assert match == earliest(text, stops)
    if match is None:
        assert StopMatcher(stops).depth(state) == longest_start(text, stops)


@given(LETTERS, STOPS, st.integers(0, 12))
def test_reading_in_parts_is_reading_at_once(text: str, stops: tuple[str, ...], cut: int) -> None:
    matcher = StopMatcher(stops)
    state, match = matcher.read(0, text[:cut])
    if match is None:
        state, rest = matcher.read(state, text[cut:])
        match = rest and Match(rest.stop, rest.end + len(text[:cut]))
    assert match == matcher.read(0, text)[1]


@pytest.mark.parametrize("stop", ["", 3, None])
def test_a_stop_string_without_characters_is_an_error(stop: str) -> None:
    with pytest.raises(ParameterError, match="stop string"):
        StopMatcher(("a", stop))


@given(LETTERS, st.integers(0, 12), st.sampled_from(("a+b", "b{2}", "ab$", "a(?!b)", "(?<=b)a")))
def test_reading_a_regex_in_parts_is_reading_it_at_once(text: str, cut: int, regex: str) -> None:
    pattern = re.compile(regex)
    match = first_match(pattern, "", text[:cut])
    if match is None:
        rest = first_match(pattern, text[:cut], text[cut:])
        match = rest and Match(rest.stop, rest.end + len(text[:cut]))
    assert match == first_match(pattern, "", text)


def test_a_regex_ends_at_its_shortest_match_whatever_would_follow() -> None:
    assert first_match(re.compile("[0-9]+"), "a", "bc123") == Match("1", 3)
    assert first_match(re.compile("x"), "a", "bc") is None


@pytest.mark.parametrize("pattern", ["(a+)+b", "(a|aa)+$b", "(.*)*x", "(a?){200}a{200}b"])
def test_a_regex_takes_a_time_linear_in_the_text(pattern: str) -> None:
    # A backtracking search takes exponential time here: it would not end within any time limit.
    assert first_match(compile_regex("stop_regex", pattern), "a" * 300, "a" * 20) is None


def test_a_regex_finds_the_first_end_of_a_match_in_any_pieces() -> None:
    pattern = compile_regex("stop_regex", "é+d|xyz")
    assert first_match(pattern, "aé", "édxyz") == Match("ééd", 2)
    assert first_match(pattern, "aéé", "d") == Match("ééd", 1)
    assert first_match(pattern, "x", "y") is None


def test_the_syntax_of_a_refused_regex_is_named() -> None:
    with pytest.raises(ParameterError, match=r"^stop_regex .*linear time: invalid escape sequence: \\1 "):
        compile_regex("stop_regex", r"(a)\1")
