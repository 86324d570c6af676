"""Defines tasks in which a model chooses among given options."""

from __future__ import annotations

import math
import random
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import cast

from decodery.decoding.request.params import GenerationParams
from decodery.errors import ParameterError
from decodery.evaluation.answer_marks import exact_logprobs, parsed_mark
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
from decodery.evaluation.generation_task import ends_of, mean_of
from decodery.evaluation.probes.consistency import voted_score
from decodery.evaluation.shots import seed_of
from decodery.evaluation.variant import Method, Options, Variant
from decodery.metrics.score import Score

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

    With `contexts`, where the options' texts are compared, each option has a prompt of its own and all have
    the same continuation, `rest`, as in WinoGrande's partial scoring. Raises `ParameterError` for fewer than
    two options, an option without text, and a right answer that is not an option.
    """

    question: str
    options: tuple[str, ...]
    gold: tuple[int, ...]
    contexts: tuple[str, ...] | None = None
    rest: str = ""

    def __post_init__(self) -> None:
        count = len(self.options)
        if not all(isinstance(option, str) and option.strip() for option in self.options):
            raise ParameterError(f"an option has no text: {list(self.options)}")
        if count < 2:
            raise ParameterError("a choice has two options or more")
        if not self.gold or not all(0 <= place < count for place in self.gold):
            raise ParameterError(f"the right answer {self.gold} is not one of {count} options")

    def shuffled(self, seed: int) -> ChoiceRow:
        """Returns the row with its options in an order that the seed decides."""
        order = list(range(len(self.options)))
        random.Random(seed).shuffle(order)
        contexts = None if self.contexts is None else tuple(self.contexts[place] for place in order)
        return replace(
            self,
            options=tuple(self.options[place] for place in order),
            gold=tuple(sorted(map(order.index, self.gold))),
            contexts=contexts,
        )


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
        text = self.question.replace("{question}", row.question)
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
    reader: Callable[[Path | None, str | None], TaskData]
    row: Callable[[Document], ChoiceRow]
    style: ChoiceStyle = ChoiceStyle()
    shots: int = 0
    first_shots: bool = False
    version: int = 1
    description: Callable[[Document], str] = lambda document: ""
    metrics: tuple[str, ...] = ("acc", "acc_norm", "acc_bytes", "acc_tokens")
    # Metrics of all samples together, which come first in the results.
    totals: Mapping[str, Callable[[Sequence[Sample]], Score]] = field(default_factory=dict)
    split: str | None = None
    # Of written answers where several are sampled; a single one is greedy.
    temperature: float = 0.8
    max_tokens: int = 64
    # The seed of the order in which each document's options are shown; None leaves that of the data.
    shuffle: int | None = None

    def shown(self, document: Document) -> ChoiceRow:
        """Returns a document's question with its options in the order in which they are shown.

        Raises `ParameterError`, which names the document, for a right answer that is not an option and for
        more options than there are marks.
        """
        try:
            row = self.row(document)
            self.style.compared(row)
        except ParameterError as error:
            raise ParameterError(f"{self.name}: document {document.id}: {error}") from error
        if self.shuffle is None:
            return row
        return row.shuffled(seed_of(self.shuffle, self.name, document.id))

    def read(self, data: Path | None) -> TaskData:
        """Reads the files. Raises `ParameterError` for them, and for a document as `shown` does."""
        found = self.reader(data, self.split)
        for document in found.documents:
            self.shown(document)
        written = {"max_tokens": self.max_tokens} if self.style.method == "parse" else {}
        form = {**asdict(self.style), "shuffle": self.shuffle, "split": self.split, **written}
        return replace(found, settings={**found.settings, **form})

    def varied(self, variant: Variant) -> ChoiceTask:
        """Returns the task in another form. White space at the end of an ending is the delimiter."""
        style = self.style
        if variant.options is not None:
            marked = style.options == "texts" and variant.options != "texts"
            default = ChoiceStyle()
            ending = style.ending or default.ending if marked else style.ending
            delimiter = style.delimiter or default.delimiter if marked else style.delimiter
            style = replace(style, options=cast(Options, variant.options), ending=ending, delimiter=delimiter)
        if variant.ending is not None:
            kept = variant.ending.rstrip()
            style = replace(style, ending=kept, delimiter=variant.ending[len(kept) :] or style.delimiter)
        if variant.method is not None:
            style = replace(style, method=cast(Method, variant.method))
        if variant.max_tokens is not None and style.method == "compare":
            raise ParameterError(f'{self.name} writes no text unless method is "parse": leave max_tokens out')
        return replace(
            self,
            style=style,
            split=variant.split or self.split,
            max_tokens=variant.max_tokens or self.max_tokens,
            shuffle=self.shuffle if variant.shuffle is None else variant.shuffle,
        )

    def prompt(self, document: Document, question: str, shots: Sequence[Document]) -> Prompt:
        """Returns the prompt of a question after shots."""
        shown = []
        for shot in map(self.shown, shots):
            gold = shot.gold[0]
            if shot.contexts is not None and self.style.options == "texts":
                shown.append(Shot(shot.contexts[gold], shot.rest))
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
        row = self.shown(document)
        if row.contexts is not None and self.style.options == "texts":
            return [Continuation(self.prompt(document, context, shots), row.rest) for context in row.contexts]
        prompt = self.prompt(document, self.style.rendered(row), shots)
        if self.style.method == "compare":
            return [Continuation(prompt, text) for text in self.style.compared(row)]
        temperature = 0.0 if repeats == 1 else self.temperature
        stop = (self.style.separator,) if self.style.separator else ()
        params = GenerationParams(max_tokens=self.max_tokens, temperature=temperature, stop=stop)
        return [Generation(prompt, params, sample) for sample in range(repeats)]

    def outcome(self, document: Document, answers: Sequence[Answer]) -> Outcome:
        """Judges the answers. Equal best options share the credit, and a tie is counted."""
        row = self.shown(document)
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
            {"unparsed": found.count(None), **ends_of(written), **_odd_options(row)},
            {"parsed": found, "chance": _chance(row)},
        )

    def results(self, samples: Sequence[Sample]) -> Mapping[str, Score]:
        """Returns the mean of each metric, with standard errors clustered where documents name clusters.

        With several written answers to each question, `maj@k` is the accuracy of the one that most of the k
        give.
        """
        names = [name for name in self.metrics if samples and name in samples[0].outcome.values]
        found = {name: total(samples) for name, total in self.totals.items()}
        found |= {name: mean_of(samples, name) for name in names}
        if self.style.options != "texts" and self.style.method == "compare":
            found["mass"] = mean_of(samples, "mass", unit="probability on the marks")
        parsed = [sample.outcome.details.get("parsed", ()) for sample in samples]
        if parsed and len(parsed[0]) > 1:
            golds = [sample.outcome.gold for sample in samples]
            found[f"maj@{len(parsed[0])}"] = voted_score(
                parsed, lambda place, vote: float(vote in golds[place])
            )
        return found


def _compared(
    task: ChoiceTask, document: Document, row: ChoiceRow, answers: Sequence[ContinuationAnswer]
) -> Outcome:
    marked = task.style.options != "texts"
    texts = task.style.compared(row) if marked or row.contexts is None else [row.rest] * len(answers)
    totals = [answer.logprob for answer in answers]
    if any(math.isnan(total) for total in totals):
        raise ParameterError(f"{task.name}: document {document.id}: a log-probability is NaN")
    values: dict[str, float | None] = {}
    best: dict[str, list[int]] = {}
    judged = exact_logprobs([answer.token_ids for answer in answers], totals) if marked else totals
    for name in ("acc",) if marked else task.metrics:
        lengths = [max(NORMS[name](text, one), 1) for text, one in zip(texts, answers, strict=True)]
        best[name] = best_places([total / length for total, length in zip(judged, lengths, strict=True)])
        values[name] = len(set(best[name]) & set(row.gold)) / len(best[name])
    first = best[next(iter(best))]
    counts = {
        "tie": int(len(first) > 1),
        "encoded apart": sum(not answer.joined for answer in answers),
        "cut": sum(answer.cut > 0 for answer in answers),
        **_odd_options(row),
    }
    if marked:
        values["mass"] = mass = sum(map(math.exp, judged))
        counts["mass below half"] = int(mass < 0.5)
    why = f"equal log-probabilities of {first}" if len(first) > 1 else ""
    predicted = first[0] if len(first) == 1 else None
    return Outcome(
        values, list(row.gold), predicted, why, counts, {"logprobs": totals, "chance": _chance(row)}
    )


def _chance(row: ChoiceRow) -> float:
    """Returns the accuracy of a choice by chance."""
    return len(set(row.gold)) / len(row.options)


def _odd_options(row: ChoiceRow) -> dict[str, int]:
    """Returns counts of 1 if the white space around options differs, and if two options are equal."""
    around = {
        (option[: len(option) - len(option.lstrip())], option[len(option.rstrip()) :])
        for option in row.options
    }
    equal = len({option.strip() for option in row.options}) < len(row.options)
    return {"white space differs": int(len(around) > 1), "equal options": int(equal and row.contexts is None)}


def best_places(values: Sequence[float]) -> list[int]:
    """Returns the places of the largest value, more than one if they are equal."""
    largest = max(values)
    return [place for place, value in enumerate(values) if value == largest]
