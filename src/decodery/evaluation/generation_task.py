"""Defines tasks in which a model writes, and those in which the answer proper is taken from its text."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Self

from decodery.decoding.request.params import GenerationParams
from decodery.errors import ParameterError
from decodery.evaluation.contract import (
    Answer,
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
from decodery.evaluation.probes.consistency import voted_score
from decodery.evaluation.variant import Variant
from decodery.evaluation.written_answers import cut_before
from decodery.metrics.score import Score, mean

WRITTEN = GenerationParams(max_tokens=256, temperature=0)


@dataclass(frozen=True, slots=True)
class AnswerRow:
    """Holds a question, the right answers, and the answer that is shown where the row is a shot."""

    question: str
    gold: tuple[str, ...]
    shown: str


@dataclass(frozen=True, slots=True)
class AnswerMetric:
    """Says how the answer is taken from a text, None where there is none, and how it is judged.

    `measure` returns a value from 0 to 1 of the right answers and the answer.
    """

    extract: Callable[[str], str | None]
    measure: Callable[[Sequence[str], str], float]


@dataclass(frozen=True, slots=True)
class WrittenTask:
    """Holds what a model is asked to write. How it is judged is left to the classes below.

    `params` are greedy; with several samples of a prompt, `temperature` is that of each. The text is cut
    before the first of `cut`, also in a conversation, where the stop strings of `params` do not hold.
    """

    name: str
    reader: Callable[[Path | None, str | None], TaskData]
    row: Callable[[Document], AnswerRow]
    params: GenerationParams = field(default=WRITTEN, kw_only=True)
    temperature: float = field(default=0.8, kw_only=True)
    cut: tuple[str, ...] = field(default=(), kw_only=True)
    delimiter: str = field(default=" ", kw_only=True)
    separator: str = field(default="\n\n", kw_only=True)
    description: str = field(default="", kw_only=True)
    shots: int = field(default=0, kw_only=True)
    first_shots: bool = field(default=False, kw_only=True)
    version: int = field(default=1, kw_only=True)
    split: str | None = field(default=None, kw_only=True)

    def read(self, data: Path | None) -> TaskData:
        """Reads the files, and raises `ParameterError` for a document without a right answer."""
        found = self.reader(data, self.split)
        for document in found.documents:
            try:
                row = self.row(document)
            except ParameterError as error:
                raise ParameterError(f"{self.name}: document {document.id}: {error}") from error
            if not row.gold:
                raise ParameterError(f"{self.name}: document {document.id} has no right answer")
        form = {"split": self.split, "max_tokens": self.params.max_tokens}
        return replace(found, settings={**found.settings, **form})

    def varied(self, variant: Variant) -> Self:
        """Returns the task over another split, or with longer answers."""
        variant.only(self.name, "split", "max_tokens")
        params = self.params.replace(max_tokens=variant.max_tokens or self.params.max_tokens)
        return replace(self, split=variant.split or self.split, params=params)

    def requests(self, document: Document, shots: Sequence[Document], repeats: int) -> Sequence[Request]:
        """Returns a request for each sample of the answer."""
        shown = tuple(Shot(row.question, row.shown) for row in map(self.row, shots))
        prompt = Prompt(
            self.row(document).question,
            shown,
            self.description,
            delimiter=self.delimiter,
            separator=self.separator,
        )
        params = self.params if repeats == 1 else self.params.replace(temperature=self.temperature)
        return [Generation(prompt, params, sample) for sample in range(repeats)]

    def texts(self, answers: Sequence[Answer]) -> tuple[list[str], dict[str, int]]:
        """Returns the texts that were written, and how many of them ended in which way."""
        written = [answer for answer in answers if isinstance(answer, GenerationAnswer)]
        return [cut_before(answer.text, self.cut) for answer in written], dict(ends_of(written))


@dataclass(frozen=True, slots=True)
class GenerationTask(WrittenTask):
    """Holds a task of written answers, which are right or wrong. The first of `metrics` is the main one."""

    metrics: Mapping[str, AnswerMetric]

    def outcome(self, document: Document, answers: Sequence[Answer]) -> Outcome:
        """Judges the answers: a metric's value is the mean over the samples, and no answer is a wrong one."""
        row = self.row(document)
        texts, counts = self.texts(answers)
        extracted = {name: [m.extract(text) for text in texts] for name, m in self.metrics.items()}
        values: dict[str, float | None] = {}
        for name, metric in self.metrics.items():
            found = extracted[name]
            values[name] = sum(
                0.0 if answer is None else metric.measure(row.gold, answer) for answer in found
            ) / len(found)
            counts[f"unparsed ({name})" if len(self.metrics) > 1 else "unparsed"] = found.count(None)
        main = next(iter(self.metrics))
        predicted = extracted[main][0]
        why = "no answer was found in the text" if predicted is None else ""
        return Outcome(values, list(row.gold), predicted, why, counts, {"extracted": extracted})

    def results(self, samples: Sequence[Sample]) -> Mapping[str, Score]:
        """Returns the mean of each metric over the documents.

        With several samples of each prompt, `maj@k` is the main metric of the answer that most of the k
        samples give. Wang et al., Self-Consistency Improves Chain of Thought Reasoning (2022).
        """
        found = {name: mean_of(samples, name) for name in self.metrics}
        main, metric = next(iter(self.metrics.items()))
        answers = [sample.outcome.details["extracted"][main] for sample in samples]
        if answers and len(answers[0]) > 1:
            golds = [sample.outcome.gold for sample in samples]
            found[f"maj@{len(answers[0])}"] = voted_score(
                answers, lambda place, vote: metric.measure(golds[place], str(vote))
            )
        return found


def mean_of(samples: Sequence[Sample], name: str, *, unit: str = "fraction") -> Score:
    """Returns the mean of one number of each sample; its error is clustered where documents name clusters."""
    values = [sample.outcome.values.get(name) for sample in samples]
    clusters = [sample.document.cluster or sample.document.id for sample in samples]
    clustered = any(sample.document.cluster for sample in samples)
    return mean(values, unit=unit, groups=clusters if clustered else None)


def ends_of(answers: Sequence[GenerationAnswer]) -> Mapping[str, int]:
    """Returns how many answers were cut by their length, ended by a stop string, or are empty."""
    return {
        "cut by length": sum(answer.finish_reason == "length" for answer in answers),
        "ended by a stop string": sum(isinstance(answer.stop_reason, str) for answer in answers),
        "empty": sum(not answer.text.strip() for answer in answers),
        "cut": sum(answer.cut > 0 for answer in answers),
    }
