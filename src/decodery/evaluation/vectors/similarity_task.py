"""Defines tasks that compare the cosine of two sentences' vectors with people's judgements."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from decodery.errors import ParameterError
from decodery.evaluation.contract import Document, Outcome, Sample
from decodery.evaluation.layouts.splits import files_of
from decodery.evaluation.layouts.tables import Row, read_rows, read_text
from decodery.evaluation.vectors.contract import Embed, Evaluated, Floats, VectorData
from decodery.evaluation.vectors.vector_files import number_of, required_data, text_of
from decodery.metrics.correlation import pearson, spearman

SPLITS = ("test", "dev", "validation")
# The published archive has tables without a first line of names; some rows have more columns.
ORIGINAL = ("genre", "file", "year", "place", "score", "sentence1", "sentence2")


@dataclass(frozen=True, slots=True)
class SimilarityTask:
    """Holds a task of pairs of sentences with scores between two numbers."""

    name: str
    least: float
    most: float
    version: int = 1

    def read(self, data: Path | None) -> VectorData:
        """Reads sentence1, sentence2 and score (GLUE's `label` too) of each row."""
        path = required_data(self.name, data)
        if path.is_dir() and (original := path / f"{self.name[:3]}-test.csv").is_file():
            path = original
        if path.is_dir():
            files = next((found for split in SPLITS if (found := files_of(path, split))), [])
            if not files:
                raise ParameterError(f"{path} has no file test, dev or validation")
        else:
            files = [path]
        documents = [
            self._document(row, f"{file.name}, row {number}")
            for file in files
            for number, row in enumerate(_rows(file), 1)
        ]
        return VectorData(tuple(documents), {}, ", ".join(file.name for file in files))

    def _document(self, row: Row, place: str) -> Document:
        score = number_of(row, place, "score", "label")
        if not self.least <= score <= self.most:
            unlabelled = ": the split has no scores" if score == -1 else ""
            raise ParameterError(
                f"{place}: the score {score} is not from {self.least} to {self.most}{unlabelled}"
            )
        sentences = [text_of(row, place, name) for name in ("sentence1", "sentence2")]
        return Document(place, {"sentences": sentences, "score": score})

    def evaluate(self, data: VectorData, embed: Embed, *, seed: int) -> Evaluated:
        """Returns the correlations of cosines and scores. A vector of zeros has no cosine."""
        sides = [
            embed([document.fields["sentences"][side] for document in data.documents]) for side in (0, 1)
        ]
        cosines = cosines_of_pairs(sides[0].vectors, sides[1].vectors)
        scores = [document.fields["score"] for document in data.documents]
        samples = [
            Sample(
                document,
                Outcome(
                    {"cosine": cosine},
                    gold=document.fields["score"],
                    predicted=cosine,
                    why="" if cosine is not None else "a vector is zero",
                    counts={"cut": int(sides[0].lost[i] > 0) + int(sides[1].lost[i] > 0)},
                ),
            )
            for i, (document, cosine) in enumerate(zip(data.documents, cosines, strict=True))
        ]
        results = {"cosine_spearman": spearman(scores, cosines), "cosine_pearson": pearson(scores, cosines)}
        return Evaluated(samples, results)


def _rows(file: Path) -> Sequence[Row]:
    if file.name.startswith("sts-") and file.suffix == ".csv":
        lines = read_text(file).splitlines()
        rows = [dict(zip(ORIGINAL, line.split("\t"), strict=False)) for line in lines if line.strip()]
        if not rows:
            raise ParameterError(f"{file} has no rows")
        return rows
    return read_rows(file)


def cosines_of_pairs(one: Floats, other: Floats) -> list[float | None]:
    """Returns the cosine of each row of the two arrays [n, width]; None where a vector is zero."""
    a, b = one.astype(np.float64), other.astype(np.float64)
    lengths = np.sqrt((a * a).sum(1) * (b * b).sum(1))
    products = (a * b).sum(1)
    return [
        float(product / length) if length > 0 else None
        for product, length in zip(products, lengths, strict=True)
    ]
