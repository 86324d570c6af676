"""Lets judges compare pairs of texts, each in both orders."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from itertools import combinations
from typing import Any, Literal

from decodery.errors import ParameterError
from decodery.evaluation.judge.judging_model import JudgingModel
from decodery.evaluation.judge.verdicts import read_verdict
from decodery.evaluation.runs.answer_store import AnswerStore
from decodery.metrics.classification import cohen_kappa
from decodery.metrics.score import Score, mean

Result = Literal["one", "other", "tie", "inconsistent", "failed"]
Majority = Result | Literal["undecided"]
Rule = Literal["excluded", "half"]
WORDS = ("A", "B", "tie")
MOST_FAILED = 0.05
INSTRUCTIONS = (
    "You compare two answers to a question. Say which is better: A, B, or tie if neither is. Judge what they"
    " say: whether it is right, complete and helpful. The order of the answers and their length do not count."
)


@dataclass(frozen=True, slots=True)
class Comparison:
    """Holds a question and two answers to it. `id` is unique."""

    id: str
    question: str
    one: str
    other: str


@dataclass(frozen=True, slots=True)
class Judged:
    """Holds the verdicts of one judge on one comparison, in the order one-other and in the other order.

    `verdicts` are "A", "B" or "tie", or None where the judge failed. The result is "inconsistent" if the
    order of the answers changes it, and "failed" if a verdict is missing.
    """

    id: str
    verdicts: tuple[str | None, str | None]

    @property
    def result(self) -> Result:
        """Returns what both verdicts say together."""
        if None in self.verdicts:
            return "failed"
        first: Result = {"A": "one", "B": "other"}.get(self.verdicts[0] or "", "tie")  # type: ignore[assignment]
        second: Result = {"A": "other", "B": "one"}.get(self.verdicts[1] or "", "tie")  # type: ignore[assignment]
        return first if first == second else "inconsistent"


@dataclass(frozen=True, slots=True)
class PairwiseResult:
    """Holds the verdicts of one judge.

    `win_rate` is the share of comparisons that the first of the two wins; a tie counts one half, and an
    inconsistent pair is left out or counts one half, as its settings say. `first_shown` is the share of
    verdicts for one of the two that chose the answer shown first: 0.5 without a preference for a place.
    """

    judge: str
    judged: Sequence[Judged]
    counts: Mapping[str, int]
    win_rate: Score
    first_shown: Score


def conversation(comparison: Comparison, *, swapped: bool, instructions: str) -> list[dict[str, str]]:
    """Returns the conversation that asks for a verdict."""
    first, second = comparison.one, comparison.other
    if swapped:
        first, second = second, first
    text = (
        f"{instructions}\n\n[Question]\n{comparison.question}\n\n[Answer A]\n{first}\n\n[Answer B]\n{second}"
        "\n\n[End of the answers]"
    )
    return [{"role": "user", "content": text}]


def verdicts_on(
    judge: JudgingModel,
    comparisons: Sequence[Comparison],
    store: AnswerStore,
    *,
    advance: Callable[[], None] = lambda: None,
) -> list[Judged]:
    """Returns a judge's verdicts on each pair in both orders.

    Raises `ParameterError` if there is nothing to compare, if two comparisons have the same id, or if more
    than 5 % of the comparisons failed, and `DecoderyError` if the judge cannot be reached.
    """
    if not comparisons:
        raise ParameterError("there is nothing to compare")
    if len({one.id for one in comparisons}) != len(comparisons):
        raise ParameterError("two comparisons have the same id")
    instructions = judge.instructions or INSTRUCTIONS
    asked = [
        conversation(one, swapped=swapped, instructions=instructions)
        for one in comparisons
        for swapped in (False, True)
    ]
    schema: dict[str, Any] = {"enum": list(WORDS)}
    verdicts = [read_verdict(text, WORDS) for text in judge.answers(asked, schema, store, advance)]
    pairs = zip(comparisons, verdicts[::2], verdicts[1::2], strict=True)
    judged = [Judged(one.id, (first, second)) for one, first, second in pairs]
    check_failures(judge.name, sum(one.result == "failed" for one in judged), len(judged))
    return judged


def summary(judge: str, judged: Sequence[Judged], rule: Rule = "excluded") -> PairwiseResult:
    """Counts verdicts; those that failed are in no score."""
    if rule not in ("excluded", "half"):
        raise ParameterError(f'rule must be "excluded" or "half", not {rule!r}')
    results = Counter(one.result for one in judged)
    values = {"one": 1.0, "other": 0.0, "tie": 0.5, "inconsistent": 0.5 if rule == "half" else None}
    rates = [values.get(one.result) for one in judged]
    shown = [float(word == "A") for one in judged for word in one.verdicts if word in ("A", "B")]
    owners = [one.id for one in judged for word in one.verdicts if word in ("A", "B")]
    return PairwiseResult(
        judge,
        tuple(judged),
        {name: results[name] for name in ("one", "other", "tie", "inconsistent", "failed")},
        mean(rates, settings=f"a tie is one half, an inconsistent pair is {rule}"),
        mean(shown, groups=owners, settings="verdicts for one of the two")
        if shown
        else Score(None, None, "fraction", 0, len(judged), "verdicts for one of the two"),
    )


def check_failures(judge: str, failed: int, count: int) -> None:
    """Raises `ParameterError` if more than 5 % of a judge's verdicts are missing."""
    if failed > MOST_FAILED * count:
        raise ParameterError(
            f"the judge {judge} gave no verdict on {failed} of {count}, more than {MOST_FAILED:.0%}:"
            " its numbers would mean nothing. Give another judge, or shorter texts"
        )


def most_judges(results: Sequence[PairwiseResult]) -> dict[str, Majority]:
    """Returns the result that most judges give for each comparison: "undecided" if no result has most votes.

    Failed judges have no vote; with no vote at all the result is "failed".
    """
    found: dict[str, Majority] = {}
    for place, one in enumerate(results[0].judged):
        votes = Counter(r.judged[place].result for r in results if r.judged[place].result != "failed")
        best = votes.most_common(2)
        if not best:
            found[one.id] = "failed"
        else:
            alone = len(best) == 1 or best[0][1] > best[1][1]
            found[one.id] = best[0][0] if alone else "undecided"
    return found


def agreements(results: Mapping[str, Mapping[str, str]]) -> dict[tuple[str, str], Score]:
    """Returns Cohen's kappa of each two judges or voters, over the comparisons that both have.

    `results` has for each voter the result by comparison. Failed comparisons are left out; a pair of voters
    with nothing in common is undefined.
    """
    found = {}
    for one, other in combinations(results, 2):
        common = [
            key
            for key, result in results[one].items()
            if result != "failed" and results[other].get(key, "failed") != "failed"
        ]
        if common:
            left, right = ([results[name][key] for key in common] for name in (one, other))
            found[one, other] = cohen_kappa(left, right)
        else:
            found[one, other] = Score(None, None, "kappa", 0, 0, "no comparison in common")
    return found
