"""Checks verdicts of judges that are made up, counted by hand."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from typing import Any

import pytest

from decodery.errors import DecoderyError, ParameterError
from decodery.evaluation.judge.judging_model import JudgingModel
from decodery.evaluation.judge.pairwise import (
    Comparison,
    Judged,
    PairwiseResult,
    Rule,
    agreements,
    most_judges,
    summary,
    verdicts_on,
)
from decodery.evaluation.judge.rubric import Rubric, mark
from decodery.evaluation.judge.verdicts import read_verdict
from decodery.evaluation.runs.answer_store import AnswerStore
from decodery.outputs import Completion, RequestOutput

Says = Callable[[str], str]


class MadeUp:
    """Answers conversations by a function of their text."""

    has_chat_template = True

    def __init__(self, says: Says, reason: Any = "stop") -> None:
        self._says = says
        self._reason = reason
        self.asked = 0

    def chat_prompt(self, messages: Sequence[Any]) -> list[int]:
        return list(messages[-1]["content"].encode())

    def generate(self, prompts: Any, params: Any = None, *, progress: bool | None = None) -> list[Any]:
        self.asked += len(prompts)
        texts = [self._says(bytes(ids).decode()) for ids in prompts]
        return [RequestOutput(None, [], [Completion(0, text, [1], self._reason)], 0) for text in texts]


def judge(says: Says, **more: Any) -> JudgingModel:
    return JudgingModel("judge", MadeUp(says, **more), {"model": "made up"})


def says(verdict: str) -> str:
    return json.dumps({"reason": "so", "verdict": verdict})


def prefers(word: str) -> Says:
    """Prefers the answer with a word."""

    def verdict(text: str) -> str:
        first, second = text.split("[Answer A]")[1].split("[Answer B]")
        return says("tie" if (word in first) == (word in second) else "A" if word in first else "B")

    return verdict


def compare(
    model: JudgingModel, comparisons: Sequence[Comparison], store: AnswerStore, rule: Rule = "excluded"
) -> PairwiseResult:
    """Returns what a judge says of pairs."""
    return summary(model.name, verdicts_on(model, comparisons, store), rule)


PAIRS = [
    Comparison("1", "q", "good one", "bad one"),
    Comparison("2", "q", "bad one", "good one"),
    Comparison("3", "q", "good one", "good other"),
    Comparison("4", "q", "good one", "poor one"),
]


def test_a_judge_of_the_text_wins_and_loses_in_both_orders() -> None:
    found = compare(judge(prefers("good")), PAIRS, AnswerStore())
    assert found.counts == {"one": 2, "other": 1, "tie": 1, "inconsistent": 0, "failed": 0}
    assert found.win_rate.value == (1 + 0 + 0.5 + 1) / 4
    assert found.first_shown.value == 0.5


def test_a_judge_that_always_says_first_is_inconsistent_and_has_no_win_rate() -> None:
    found = compare(judge(lambda text: says("A")), PAIRS, AnswerStore())
    assert found.counts["inconsistent"] == 4
    assert found.first_shown.value == 1.0
    assert (found.win_rate.value, found.win_rate.undefined) == (None, 4)
    stated = compare(judge(lambda text: says("A")), PAIRS, AnswerStore(), rule="half")
    assert stated.win_rate.value == 0.5
    assert "half" in stated.win_rate.settings


def test_each_pair_is_asked_in_both_orders_and_never_again() -> None:
    store, model = AnswerStore(), judge(prefers("good"))
    first = compare(model, PAIRS, store)
    # The first two pairs have the same answers, swapped.
    assert model.model.asked == 6  # type: ignore[attr-defined]
    assert compare(model, PAIRS, store) == first
    assert model.model.asked == 6  # type: ignore[attr-defined]


@pytest.mark.parametrize(
    ("text", "verdict"),
    [
        ('{"reason": "A is B", "verdict": "B"}', "B"),
        ("At first [[A]] seemed better, but [[B]]", "B"),
        ("Verdict: A\nNo, verdict: tie", "tie"),
        ("the answer\nB.", "B"),
        ("Both are fine.", None),
        ("", None),
        (None, None),
        ('{"verdict": "C"}', None),
        ('["A"]', None),
    ],
)
def test_the_last_verdict_counts(text: str | None, verdict: str | None) -> None:
    assert read_verdict(text, ("A", "B", "tie")) == verdict


def test_a_verdict_is_a_whole_word() -> None:
    words = ("correct", "incorrect")
    assert read_verdict("INCORRECT", words) == "incorrect"
    assert read_verdict("Verdict: incorrect", words) == "incorrect"
    assert read_verdict("Verdict: incorrectly", words) is None


def test_failures_leave_the_denominator_and_are_counted() -> None:
    judged = [Judged(str(i), ("A", "B")) for i in range(30)] + [Judged("x", ("A", None))]
    found = summary("j", judged)
    assert found.counts["failed"] == 1
    assert (found.win_rate.value, found.win_rate.counted, found.win_rate.undefined) == (1.0, 30, 1)


def test_more_than_five_percent_of_failures_fail_the_run() -> None:
    def silent_once(text: str) -> str:
        return says("none") if "[Answer A]\nlost" in text else says("tie")

    comparisons = [Comparison(str(i), "q", f"a{i}", "b") for i in range(19)]
    found = verdicts_on(judge(silent_once), [*comparisons, Comparison("x", "q", "lost", "b")], AnswerStore())
    assert [one.result for one in found] == ["tie"] * 19 + ["failed"]
    # One of few is counted where they are part of many.
    few = summary("j", found[-1:])
    assert (few.counts["failed"], few.win_rate.value, few.win_rate.undefined) == (1, None, 1)
    with pytest.raises(ParameterError, match="gave no verdict on 1 of 19"):
        verdicts_on(judge(silent_once), [*comparisons[1:], Comparison("x", "q", "lost", "b")], AnswerStore())


def test_a_text_that_was_cut_is_a_failure_and_no_tie() -> None:
    with pytest.raises(ParameterError, match="gave no verdict on 4 of 4"):
        compare(judge(lambda text: says("tie"), reason="length"), PAIRS, AnswerStore())


def test_a_judge_that_is_down_is_one_clear_error() -> None:
    def down(text: str) -> str:
        raise OSError("connection refused")

    with pytest.raises(DecoderyError, match="the judge judge does not answer: connection refused"):
        compare(judge(down), PAIRS, AnswerStore())


def test_pairs_without_sense_are_refused() -> None:
    with pytest.raises(ParameterError, match="nothing to compare"):
        compare(judge(prefers("good")), [], AnswerStore())
    with pytest.raises(ParameterError, match="two comparisons have the same id"):
        compare(judge(prefers("good")), [PAIRS[0], PAIRS[0]], AnswerStore())


def test_most_judges_decide_and_equal_votes_are_undecided() -> None:
    one = summary("1", [Judged("a", ("A", "B")), Judged("b", ("A", "B")), Judged("c", ("A", "B"))])
    two = summary("2", [Judged("a", ("A", "B")), Judged("b", ("B", "A")), Judged("c", ("tie", "tie"))])
    three = summary("3", [Judged("a", ("B", "A")), Judged("b", ("A", "A")), Judged("c", ("tie", "tie"))])
    assert most_judges([one, two, three]) == {"a": "one", "b": "undecided", "c": "tie"}


def test_agreement_leaves_failures_out() -> None:
    results = {
        "one": {"a": "one", "b": "other", "c": "tie", "d": "failed"},
        "two": {"a": "one", "b": "other", "c": "tie", "d": "one"},
        "people": {"d": "one"},
    }
    found = agreements(results)
    assert found["one", "two"].value == 1.0
    assert found["one", "two"].counted == 3
    assert found["one", "people"].value is None


def test_marks_have_a_mean_and_a_distribution() -> None:
    def verdict(text: str) -> str:
        return json.dumps({"reason": "so", "verdict": 5 if "[Answer]\ngood" in text else 2})

    texts = {"1": ("q", "good"), "2": ("q", "bad"), "3": ("q", "good")}
    found = mark(judge(verdict), Rubric("5 is good, 1 is bad"), texts, AnswerStore())
    assert found.marks == {"1": 5, "2": 2, "3": 5}
    assert found.distribution == {1: 0, 2: 1, 3: 0, 4: 0, 5: 2}
    assert found.score.value == 4.0
    assert found.score.unit == "mark from 1 to 5"


def test_a_mark_outside_the_rubric_is_a_failure() -> None:
    with pytest.raises(ParameterError, match="no verdict on 1 of 1"):
        mark(judge(lambda t: says("9")), Rubric("so"), {"1": ("q", "a")}, AnswerStore())


def test_a_request_that_failed_is_asked_again(monkeypatch: pytest.MonkeyPatch) -> None:
    store, model = AnswerStore(), judge(prefers("good"))
    with monkeypatch.context() as failing:
        broken = RequestOutput(None, [], [], 0, error="out of memory")
        failing.setattr(MadeUp, "generate", lambda self, prompts, *a, **k: [broken] * len(prompts))
        with pytest.raises(ParameterError, match="gave no verdict on 4 of 4"):
            compare(model, PAIRS, store)
    assert compare(model, PAIRS, store).counts["failed"] == 0
