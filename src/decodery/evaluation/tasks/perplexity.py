"""Defines the task that measures how likely text files are to a model."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

from decodery.errors import ParameterError
from decodery.evaluation.contract import (
    Answer,
    Document,
    Outcome,
    Request,
    Sample,
    TaskData,
    WholeText,
    WholeTextAnswer,
)
from decodery.evaluation.layouts.splits import Splits
from decodery.evaluation.layouts.tables import Row, read_text
from decodery.evaluation.split_task import SplitTask
from decodery.metrics.likelihood import bits_per_byte, perplexity
from decodery.metrics.score import Score

TEXTS = (".txt", ".md")


@dataclass(frozen=True, slots=True)
class PerplexityTask(SplitTask):
    """Holds the task in which whole texts are scored. Each token counts once, whatever the window."""

    reader: Callable[[Path | None, str | None], TaskData] = field(kw_only=True)

    def read(self, data: Path | None) -> TaskData:
        """Reads the data. Raises `ParameterError` for data that cannot be read, and for an empty text."""
        found = self.reader(data, self.split)
        for document in found.documents:
            if not document.fields["text"]:
                raise ParameterError(f"{self.name}: document {document.id}: the text is empty")
        return replace(found, settings={**found.settings, "split": self.split})

    def requests(self, document: Document, shots: Sequence[Document], repeats: int) -> Sequence[Request]:
        """Returns the request for the whole text. Raises `ParameterError` for shots."""
        if shots:
            raise ParameterError(f"{self.name} scores texts alone: leave shots out")
        return [WholeText(document.fields["text"])]

    def outcome(self, document: Document, answers: Sequence[Answer]) -> Outcome:
        """Counts the units of the original text, by which its log-probability is divided."""
        (answer,) = answers
        if not isinstance(answer, WholeTextAnswer) or math.isnan(answer.logprob):
            raise ParameterError(f"{self.name}: document {document.id}: a log-probability is NaN")
        text = document.fields["text"]
        sizes = {
            "tokens": len(answer.logprobs),
            "words": len(text.split()),
            "bytes": len(text.encode("utf-8", "surrogatepass")),
        }
        bits = -answer.logprob / math.log(2) / sizes["bytes"]
        return Outcome(
            {"bits_per_byte": bits},
            counts={"windows": answer.windows},
            details={"logprob": answer.logprob, **sizes},
            weights={"bits_per_byte": sizes["bytes"]},
        )

    def results(self, samples: Sequence[Sample]) -> Mapping[str, Score]:
        """Returns bits per byte, which compares models with different tokenizers, and two perplexities."""
        found = [sample.outcome.details for sample in samples]
        logprobs = [one["logprob"] for one in found]
        return {
            "bits_per_byte": bits_per_byte(logprobs, [one["bytes"] for one in found]),
            "token_perplexity": perplexity(logprobs, [one["tokens"] for one in found]),
            "word_perplexity": perplexity(logprobs, [one["words"] for one in found], unit="word"),
        }


def read(data: Path | None, split: str | None) -> TaskData:
    """Reads text files, each of which is a document, or rows with a column `text`.

    A folder has .txt and .md files, or the files of its splits.
    """
    texts = [] if data is None or split is not None else _text_files(data)
    if not texts:
        return _SPLITS.read(data, split)
    documents = tuple(Document(file.name, {"text": read_text(file)}) for file in texts)
    return TaskData(documents, source=texts[0].name if len(texts) == 1 else f"{len(texts)} texts")


def _text_files(data: Path) -> list[Path]:
    files = [data] if data.is_file() else sorted(data.iterdir()) if data.is_dir() else []
    return [file for file in files if file.is_file() and file.name.endswith(TEXTS)]


def _document(row: Row, place: str, group: str) -> Document:
    if not isinstance(row["text"], str):
        raise ParameterError(f"{place}: the text is {row['text']!r}")
    return Document(place, {"text": row["text"]}, group)


_SPLITS = Splits("perplexity", asked=("test", "validation"), shots=(), document=_document, required=("text",))
TASK = PerplexityTask("perplexity", reader=read)
