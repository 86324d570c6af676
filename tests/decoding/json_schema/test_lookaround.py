from __future__ import annotations

import random
import re

import pytest

from decodery.decoding.json_schema.lookaround import LookaroundRegex
from decodery.decoding.json_schema.patterns import Patterns
from decodery.errors import ParameterError

PATTERNS = (
    *("^(?!a)b$", r"^(?=.*[A-Z])(?=.*\d).{4,8}$", "(?<=a)b", "(?<!a)b", "(a|b)*c(?!d)", "^$|a(?=b{2})"),
    *(r"^(?!.*\.\.)[a-z.]+$", r"\bab\b", "^(?:(?!ab).)*$", "x{2,3}?y|z+", r"[^a\]]b", "(?<=^a|b)c"),
    "^((?!b)a?){3}$",
)


@pytest.mark.parametrize("pattern", PATTERNS)
def test_a_search_with_lookaround_finds_what_backtracking_finds(pattern: str) -> None:
    ours, source = LookaroundRegex(pattern), random.Random(pattern)
    for _ in range(300):
        text = "".join(source.choice("abcdxyzA1. ]") for _ in range(source.randint(0, 9)))
        try:
            right = re.search(pattern, text) is not None
        except re.error:  # Python has no look-behind of several lengths.
            continue
        assert ours.search(text, lambda steps: None) == right, text


def test_the_steps_of_a_search_are_told_and_grow_as_the_text() -> None:
    def steps(length: int) -> int:
        taken: list[int] = []
        LookaroundRegex("^(?=(a+)+b)(a+)+$").search("a" * length, taken.append)
        return sum(taken)

    assert steps(400) < 2.2 * steps(200)


@pytest.mark.parametrize(
    "pattern", [r"(a)\1(?=b)", "(?=a", "a)(?=b)", "(?=" * 60 + ")" * 60, "(?>a)(?=b)", "(?=*)"]
)
def test_what_cannot_be_searched_for_is_refused(pattern: str) -> None:
    with pytest.raises(ParameterError):
        Patterns(lambda steps: None).add(pattern)


def test_code_points_are_written_as_in_ecmascript() -> None:
    patterns = Patterns(lambda steps: None)
    assert patterns.search(r"^\u00e9\u{1F600}$", "é😀")
    assert not patterns.search(r"^\\u00e9$", "é")
