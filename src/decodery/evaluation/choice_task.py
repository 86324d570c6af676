"""Defines tasks in which a model chooses among given options."""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from decodery.decoding.request.params import GenerationParams
from decodery.errors import ParameterError
from decodery.evaluation.contract import (
    Answer,
    Continuation,
    ContinuationAnswer,
    Document,
    Generation,
    GenerationAnswer,
    Outcome,
    Prompt,
    Request,
    Sample,
    Shot,
    TaskData,
)
from decodery.metrics.score import Score, mean

Options = Literal["texts", "letters", "numbers"]
Method = Literal["compare", "parse"]
LETTERS = "ABCDEFGHIJKLMNOPQRSTUVWXYZ"
# The length by which a log-probability is divided, under the names of results.
NORMS: Mapping[str, Callable[[str, ContinuationAnswer], int]] = {
    "acc": lambda text, answer: 1,
    "acc_norm": lambda text, answer: len(text),
    "acc_bytes": lambda text, answer: len(text.encode()),
    "acc_tokens": lambda text, answer: len(answer.token_ids),
}


@dataclass(frozen=True, slots=True)
class ChoiceRow:
    """Holds a question, its options and the places of the right ones.

    With `contexts`, each option has a question of its own and all have the same continuation, `options[0]`,
    as in WinoGrande's partial scoring.
    """

    question: str
    options: tuple[str, ...]
    gold: tuple[int, ...]
    contexts: tuple[str, ...] | None = None

    def __post_init__(self) -> None:
        count = len(self.contexts or self.options)
        if count < 2:
            raise ParameterError("a choice has two options or more")
        if not self.gold or not all(0 <= place < count for place in self.gold):
            raise ParameterError(f"the right answer {self.gold} is not one of {count} options")


@dataclass(frozen=True, slots=True)
class ChoiceStyle:
    """Says how options are shown and how the answer is found.

    "texts" compares the options themselves after the question. "letters" and "numbers" list the options
    with marks and compare the marks, exactly as the shots show them. With the method "parse", the model
    writes an answer and its mark is looked for. `question` is a template of the question, and `ending` comes
    after question and options.
    """

    options: Options = "texts"
    method: Method = "compare"
    question: str = "{question}"
    ending: str = "\nAnswer:"
    delimiter: str = " "
    separator: str = "\n\n"

    def __post_init__(self) -> None:
        if self.options == "texts" and self.method == "parse":
            raise ParameterError('method "parse" looks for a mark: let options be "letters" or "numbers"')

    def marks(self, count: int) -> tuple[str, ...]:
        """Returns the marks of so many options. Raises `ParameterError` for more than 26 letters."""
        if self.options == "letters" and count > len(LETTERS):
            raise ParameterError(f"there are {count} options and {len(LETTERS)} letters: use numbers")
        return tuple(LETTERS[:count]) if self.options == "letters" else tuple(map(str, range(1, count + 1)))

    def rendered(self, row: ChoiceRow) -> str:
        """Returns the question as the model reads it, with the ending."""
        text = self.question.format(question=row.question)
        if self.options != "texts":
            marks = self.marks(len(row.options))
            text += "".join(f"\n{m}. {o.strip()}" for m, o in zip(marks, row.options, strict=True))
        return text + self.ending

    def compared(self, row: ChoiceRow) -> tuple[str, ...]:
        """Returns the texts whose log-probabilities are compared, which are also those that shots show."""
        if self.options == "texts":
            return tuple(option.strip() for option in row.options)
        return self.marks(len(row.options))


@dataclass(frozen=True, slots=True)
class ChoiceTask:
    """Holds a task of choices: how its files are read, and how a document becomes a question."""

    name: str
    reader: Callable[[Path | None], TaskData]
    row: Callable[[Document], ChoiceRow]
    style: ChoiceStyle = ChoiceStyle()
    shots: int = 0
    first_shots: bool = False
    version: int = 1
    description: Callable[[Document], str] = lambda document: ""
    metrics: tuple[str, ...] = ("acc", "acc_norm", "acc_bytes", "acc_tokens")

    def read(self, data: Path | None) -> TaskData:
        """Reads the files, and raises `ParameterError` for a document whose right answer is not an option."""
        found = self.reader(data)
        for document in found.documents:
            try:
                self.row(document)
            except ParameterError as error:
                raise ParameterError(f"{self.name}: document {document.id}: {error}") from error
        return found

    def prompt(self, document: Document, question: str, shots: Sequence[Document]) -> Prompt:
        """Returns the prompt of a question after shots."""
        shown = []
        for shot in map(self.row, shots):
            gold = shot.gold[0]
            if shot.contexts is not None:
                shown.append(Shot(shot.contexts[gold], shot.options[0]))
            else:
                shown.append(Shot(self.style.rendered(shot), self.style.compared(shot)[gold]))
        return Prompt(
            question,
            tuple(shown),
            self.description(document),
            delimiter=self.style.delimiter,
            separator=self.style.separator,
        )

    def requests(self, document: Document, shots: Sequence[Document], repeats: int) -> Sequence[Request]:
        """Returns a request for each option, or for `repeats` written answers."""
        row = self.row(document)
        if row.contexts is not None:
            return [
                Continuation(self.prompt(document, context, shots), row.options[0])
                for context in row.contexts
            ]
        prompt = self.prompt(document, self.style.rendered(row), shots)
        if self.style.method == "compare":
            return [Continuation(prompt, text) for text in self.style.compared(row)]
        params = GenerationParams(max_tokens=64, temperature=0, stop=("\n\n",))
        return [Generation(prompt, params, sample) for sample in range(repeats)]

    def outcome(self, document: Document, answers: Sequence[Answer]) -> Outcome:
        """Judges the answers. Equal best options share the credit, and a tie is counted."""
        row = self.row(document)
        scored = [answer for answer in answers if isinstance(answer, ContinuationAnswer)]
        if scored:
            return _compared(self, document, row, scored)
        written = [answer for answer in answers if isinstance(answer, GenerationAnswer)]
        found = [parsed_mark(answer.text, self.style.marks(len(row.options))) for answer in written]
        right = [place in row.gold for place in found]
        return Outcome(
            {"acc": sum(right) / len(right)},
            list(row.gold),
            found[0],
            "" if found[0] is not None else "no mark was found in the text",
            {"unparsed": sum(place is None for place in found)},
            {"parsed": found},
        )

    def results(self, samples: Sequence[Sample]) -> Mapping[str, Score]:
        """Returns the mean of each metric, with standard errors clustered where documents name clusters."""
        names = [name for name in self.metrics if samples and name in samples[0].outcome.values]
        found = {name: mean_of(samples, name) for name in names}
        if self.style.options != "texts" and self.style.method == "compare":
            found["mass"] = mean_of(samples, "mass", unit="probability on the marks")
        return found


def mean_of(samples: Sequence[Sample], name: str, *, unit: str = "fraction") -> Score:
    """Returns the mean of one number of each sample."""
    values = [sample.outcome.values.get(name) for sample in samples]
    clusters = [sample.document.cluster or sample.document.id for sample in samples]
    clustered = any(sample.document.cluster for sample in samples)
    return mean(values, unit=unit, groups=clusters if clustered else None)


def _compared(
    task: ChoiceTask, document: Document, row: ChoiceRow, answers: Sequence[ContinuationAnswer]
) -> Outcome:
    texts = task.style.compared(row) if row.contexts is None else [row.options[0]] * len(answers)
    totals = [answer.logprob for answer in answers]
    if any(math.isnan(total) for total in totals):
        raise ParameterError(f"{task.name}: document {document.id}: a log-probability is NaN")
    values: dict[str, float | None] = {}
    best: dict[str, list[int]] = {}
    marked = task.style.options != "texts"
    for name in ("acc",) if marked else task.metrics:
        lengths = [max(NORMS[name](text, one), 1) for text, one in zip(texts, answers, strict=True)]
        best[name] = best_places([total / length for total, length in zip(totals, lengths, strict=True)])
        values[name] = len(set(best[name]) & set(row.gold)) / len(best[name])
    if marked:
        values["mass"] = sum(map(math.exp, totals))
    first = best["acc"]
    counts = {
        "tie": int(len(first) > 1),
        "encoded apart": sum(not answer.joined for answer in answers),
        "cut": sum(answer.cut > 0 for answer in answers),
    }
    why = f"equal log-probabilities of {first}" if len(first) > 1 else ""
    return Outcome(values, list(row.gold), first[0], why, counts, {"logprobs": totals})


def best_places(values: Sequence[float]) -> list[int]:
    """Returns the places of the largest value, more than one if they are equal."""
    largest = max(values)
    return [place for place, value in enumerate(values) if value == largest]


def parsed_mark(text: str, marks: Sequence[str]) -> int | None:
    """Returns the place of the mark that a text gives as its answer, or None.

    A mark after "answer is" or "answer:" counts first, the last one of several; then a mark that begins the
    text; then the only mark of the text. A mark stands alone: not within a word or a number.
    """
    mark = "|".join(sorted(map(re.escape, marks), key=len, reverse=True))
    alone = r"(?<![\w.]){0}(?![\w]|\.\d)"
    named = re.findall(rf"(?i:answer(?:\s+is)?)\s*:?\s*[*(\[]*({mark})(?![\w]|\.\d)", text)
    if named:
        return marks.index(named[-1])
    begun = re.match(rf"\s*[*(\[]*({mark})(?![\w]|\.\d)", text)
    if begun:
        return marks.index(begun[1])
    found = set(re.findall(alone.format(rf"({mark})"), text))
    return marks.index(found.pop()) if len(found) == 1 else None
