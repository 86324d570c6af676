from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

import pytest

from decodery.decoding.chosen import FinishReason
from decodery.decoding.request.params import GenerationParams
from decodery.decoding.rows import Row
from decodery.decoding.stopping import finish_of
from decodery.errors import ParameterError
from tests.decoding.rows import make_row


@dataclass(frozen=True)
class Watch:
    """Stops at a token."""

    at: int
    stopped: str | None = None

    def after(self, token: int) -> Watch:
        return Watch(self.at, "met" if token == self.at else self.stopped)


@dataclass(frozen=True)
class Grammar:
    """Is complete, or not, whatever tokens follow."""

    complete: bool
    accepting: bool = True
    forced: tuple[int, ...] = ()

    def after(self, token: int) -> Grammar:
        return self


def row(*generated: int, end_ids: tuple[int, ...] = (9,), **params: Any) -> Row:
    made = make_row((1, 2), (), end_ids=end_ids, **params)
    made = replace(made, watch=Watch(7))
    for token in generated:
        made = made.after(token)
    return made


@pytest.mark.parametrize(
    ("generated", "params", "expected"),
    [
        ((3,), {}, None),
        ((3, 9), {}, "stop"),
        ((9, 3), {}, None),
        ((3, 7), {}, "stop"),
        ((3, 9), {"min_tokens": 3}, None),
        ((3, 7), {"min_tokens": 3}, None),
        ((3, 3, 9), {"min_tokens": 3}, "stop"),
        # A stop that the watch met before min_tokens counts once they are reached.
        ((3, 7, 3), {"min_tokens": 3}, "stop"),
        ((3, 3), {"max_tokens": 2}, "length"),
        ((3, 9), {"max_tokens": 2}, "stop"),
    ],
)
def test_a_row_ends_at_end_tokens_at_a_stop_of_its_watch_and_at_its_limit(
    generated: tuple[int, ...], params: dict[str, Any], expected: FinishReason | None
) -> None:
    assert finish_of(row(*generated, **params)) == expected


def test_stop_when_sees_only_the_generated_tokens() -> None:
    seen = []

    def rule(tokens: list[int]) -> bool:
        seen.append(tokens)
        return sum(tokens) > 10

    made = row(3, stop_when=rule)
    assert finish_of(made) is None
    assert finish_of(made.after(4)) is None
    assert finish_of(made.after(4).after(5)) == "stop"
    assert seen == [[3], [3, 4], [3, 4, 5]]


def test_stop_when_cannot_change_the_row() -> None:
    made = row(3, 4, stop_when=lambda tokens: bool(tokens.clear()))
    assert finish_of(made) is None
    assert made.tokens.tolist() == [1, 2, 3, 4]


def test_stop_when_is_not_called_before_min_tokens() -> None:
    asked = []

    def rule(tokens: list[int]) -> bool:
        asked.append(len(tokens))
        return True

    made = row(3, min_tokens=3, stop_when=rule)
    assert finish_of(made) is None
    assert finish_of(made.after(3)) is None
    assert finish_of(made.after(3).after(3)) == "stop"
    assert asked == [3]


@pytest.mark.parametrize(("answer", "expected"), [(1, "stop"), ("", None), (None, None), ([0], "stop")])
def test_what_stop_when_returns_counts_as_a_truth_value(answer: Any, expected: FinishReason | None) -> None:
    assert finish_of(row(3, stop_when=lambda tokens: answer)) == expected


def test_a_stop_takes_precedence_over_the_length_and_the_length_over_the_time() -> None:
    spent = replace(row(3, 3, max_tokens=2), expired=True)
    assert finish_of(spent) == "length"
    assert finish_of(replace(spent, limit=99)) == "time"
    assert finish_of(replace(row(3, 3, max_tokens=2, stop_when=lambda tokens: True), expired=True)) == "stop"


def test_a_complete_grammar_ends_a_row_whatever_min_tokens_says() -> None:
    made = row(3, min_tokens=3)
    assert finish_of(replace(made, grammar=Grammar(complete=True))) == "stop"
    assert finish_of(replace(made, grammar=Grammar(complete=False))) is None


@pytest.mark.parametrize(
    ("regex", "message"),
    [
        ("a(b", r"stop_regex is no regular expression of RE2.*: missing \): a\(b"),
        ("*", r"stop_regex is no regular expression.* no argument for repetition operator: \*"),
        ("a*", "matches the empty string"),
        ("$", "matches the empty string"),
        ("(?!a)", r"stop_regex .*linear time: invalid perl operator: \(\?!"),
        ("(?<=x)y", r"stop_regex .*linear time.*no lookaround"),
        (r"(a)\1", r"stop_regex .*linear time.*no lookaround, backreferences"),
        ("(a{900}){900}", "stop_regex .*invalid repetition size"),
        ("\ud800", "stop_regex .*not Unicode"),
        ("", "matches the empty string"),
        (3, "must be a regular expression"),
        (b"a", "must be a regular expression"),
        (["a"], "must be a regular expression"),
    ],
)
def test_a_stop_regex_that_is_invalid_or_matches_the_empty_string_is_an_error(
    regex: Any, message: str
) -> None:
    with pytest.raises(ParameterError, match=message) as raised:
        GenerationParams(stop_regex=regex)
    assert "\n" not in str(raised.value)


@pytest.mark.parametrize("regex", [None, "a+", "(?i)the end", r"\n\n", "(?P<end>x)y"])
def test_a_stop_regex_is_kept_as_it_is(regex: str | None) -> None:
    assert GenerationParams(stop_regex=regex).stop_regex == regex
