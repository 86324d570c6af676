"""Lets a judge give single texts a mark by a rubric."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from decodery.errors import ParameterError
from decodery.evaluation.judge.judging_model import JudgingModel
from decodery.evaluation.judge.pairwise import check_failures
from decodery.evaluation.judge.verdicts import read_verdict
from decodery.evaluation.runs.answer_store import AnswerStore
from decodery.metrics.score import Score, mean


@dataclass(frozen=True, slots=True)
class Rubric:
    """Says what a mark means: `text` describes the marks from 1, the worst, to `best`."""

    text: str
    best: int = 5

    def __post_init__(self) -> None:
        if type(self.best) is not int or not 2 <= self.best <= 100:
            raise ParameterError(f"best must be a whole number from 2 to 100, not {self.best!r}")
        if not self.text.strip():
            raise ParameterError("the rubric has no text")


@dataclass(frozen=True, slots=True)
class Marked:
    """Holds the marks of one judge by the ids of the texts, None where it failed, with their mean."""

    judge: str
    marks: Mapping[str, int | None]
    distribution: Mapping[int, int]
    score: Score


def mark(
    judge: JudgingModel,
    rubric: Rubric,
    texts: Mapping[str, tuple[str, str]],
    store: AnswerStore,
    *,
    advance: Callable[[], None] = lambda: None,
) -> Marked:
    """Asks a judge for the mark of each answer; `texts` are questions and answers by id.

    Raises `ParameterError` without texts, or if more than 5 % of the marks are missing, and `DecoderyError`
    if the judge cannot be reached.
    """
    if not texts:
        raise ParameterError("there is nothing to mark")
    allowed = [str(number) for number in range(1, rubric.best + 1)]
    asked = [_conversation(rubric, *pair, judge.instructions) for pair in texts.values()]
    answers = judge.answers(asked, {"enum": list(range(1, rubric.best + 1))}, store, advance)
    found = [read_verdict(text, allowed) for text in answers]
    marks = {key: None if one is None else int(one) for key, one in zip(texts, found, strict=True)}
    return summary(judge.name, marks, rubric.best)


def summary(judge: str, marks: Mapping[str, int | None], best: int) -> Marked:
    """Counts marks. Raises `ParameterError` if more than 5 % are missing."""
    known: Sequence[int] = [one for one in marks.values() if one is not None]
    check_failures(judge, len(marks) - len(known), len(marks))
    counts = Counter(known)
    return Marked(
        judge,
        dict(marks),
        {number: counts[number] for number in range(1, best + 1)},
        mean(list(marks.values()), unit=f"mark from 1 to {best}"),
    )


def _conversation(
    rubric: Rubric, question: str, answer: str, instructions: str | None
) -> list[dict[str, str]]:
    asked = instructions or f"Give the answer a mark from 1 to {rubric.best}, by this rubric."
    parts = {"Rubric": rubric.text, "Question": question, "Answer": answer}
    shown = "".join(f"\n\n[{name}]\n{text}" for name, text in parts.items())
    return [{"role": "user", "content": f"{asked}{shown}\n\n[End of the answer]"}]
