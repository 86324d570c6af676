"""Defines LAMBADA: texts whose last word follows from the whole text.

Paperno et al., The LAMBADA Dataset: Word Prediction Requiring a Broad Discourse Context (2016).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from decodery.errors import ParameterError
from decodery.evaluation.contract import (
    Answer,
    Continuation,
    ContinuationAnswer,
    Document,
    Outcome,
    Prompt,
    Request,
    Sample,
    Shot,
    TaskData,
)
from decodery.evaluation.generation_task import mean_of
from decodery.evaluation.layouts.splits import Splits
from decodery.evaluation.layouts.tables import Row
from decodery.evaluation.split_task import SplitTask
from decodery.metrics.likelihood import perplexity
from decodery.metrics.score import Score


@dataclass(frozen=True, slots=True)
class LastWordTask(SplitTask):
    """Holds the task in which the last word of a text is scored after the words before it."""

    name: str = "lambada"

    def read(self, data: Path | None) -> TaskData:
        """Reads rows with a column `text`."""
        return replace(_SPLITS.read(data, self.split), settings={"split": self.split})

    def requests(self, document: Document, shots: Sequence[Document], repeats: int) -> Sequence[Request]:
        """Returns the request for the last word."""
        before, last = _divided(document)
        return [Continuation(Prompt(before, tuple(Shot(*_divided(shot)) for shot in shots)), last)]

    def outcome(self, document: Document, answers: Sequence[Answer]) -> Outcome:
        """Judges the answer: it is right if each of its tokens is the likeliest one."""
        (answer,) = answers
        if not isinstance(answer, ContinuationAnswer) or answer.logprob != answer.logprob:
            raise ParameterError(f"{self.name}: document {document.id}: a log-probability is NaN")
        counts = {"encoded apart": int(not answer.joined), "cut": int(answer.cut > 0)}
        values = {"acc": float(answer.greedy), "logprob": answer.logprob}
        return Outcome(values, _divided(document)[1], None, "", counts)

    def results(self, samples: Sequence[Sample]) -> Mapping[str, Score]:
        """Returns the accuracy, and the perplexity of a last word."""
        logprobs = [sample.outcome.values["logprob"] or 0.0 for sample in samples]
        return {
            "acc": mean_of(samples, "acc"),
            "perplexity": perplexity(logprobs, [1] * len(logprobs), unit="last word"),
        }


def _divided(document: Document) -> tuple[str, str]:
    before, _, last = document.fields["text"].rstrip().rpartition(" ")
    return before, last


def _document(row: Row, place: str, group: str) -> Document:
    if len(str(row["text"]).split()) < 2:
        raise ParameterError(f"{place}: the text has fewer than two words")
    return Document(place, {"text": str(row["text"]).strip()}, group)


_SPLITS = Splits(
    "lambada", asked=("test", "validation"), shots=("train",), document=_document, required=("text",)
)
TASK = LastWordTask()
