"""Defines clustering: texts are grouped by their vectors, and the groups are compared with labels.

Rosenberg and Hirschberg, V-Measure (2007); Muennighoff et al., MTEB (2023).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from decodery.errors import ParameterError
from decodery.evaluation.contract import Document, Outcome, Sample
from decodery.evaluation.layouts.splits import files_of
from decodery.evaluation.vectors.contract import Embed, Evaluated, Floats, VectorData
from decodery.evaluation.vectors.rankings import SPLITS
from decodery.evaluation.vectors.sklearn_fits import one_thread, scikit_learn
from decodery.evaluation.vectors.vector_files import label_of, required_data, stored_rows, text_of
from decodery.metrics.score import mean

# MTEB's numbers.
SEED, BATCH = 42, 500


@dataclass(frozen=True, slots=True)
class ClusteringTask:
    """Holds a task of sets of labelled texts."""

    name: str = "clustering"
    version: int = 1

    def read(self, data: Path | None) -> VectorData:
        """Reads rows of lists, each a set, or rows of one text and label, which are one set together."""
        path = required_data(self.name, data)
        files = [path]
        if path.is_dir():
            files = next((found for split in SPLITS if (found := files_of(path, split))), [])
        rows = [(place, row) for file in files for place, row in stored_rows(file)]
        if not rows:
            raise ParameterError(f"{path} has no rows, or no file test, dev or validation")
        listed = [isinstance(_column(row, "sentences", "text"), list) for _, row in rows]
        if all(listed):
            documents = [_set_of(place, row) for place, row in rows]
        elif any(listed):
            raise ParameterError(f"{rows[listed.index(False)][0]} is one text, and other rows are lists")
        else:
            texts = [text_of(row, place, "sentences", "text") for place, row in rows]
            labels = [label_of(row, place, "labels", "label") for place, row in rows]
            documents = [Document("all", {"texts": texts, "labels": labels})]
        return VectorData(tuple(documents), {}, ", ".join(file.name for file in files))

    def evaluate(self, data: VectorData, embed: Embed, *, seed: int) -> Evaluated:
        """Returns the mean V-measure of the sets. That of a set with one label alone is undefined."""
        samples = [_sample(document, embed, SEED + seed) for document in data.documents]
        settings = f"mini-batch k-means with as many groups as labels, batches of {BATCH}, seed {SEED + seed}"
        values = [sample.outcome.values["v_measure"] for sample in samples]
        return Evaluated(samples, {"v_measure": mean(values, settings=settings)})


def _sample(document: Document, embed: Embed, seed: int) -> Sample:
    labels: Sequence[str] = document.fields["labels"]
    if len(set(labels)) < 2:
        return Sample(document, Outcome({"v_measure": None}, why="all texts have the same label"))
    found = embed(document.fields["texts"])
    groups = grouped(found.vectors, len(set(labels)), seed)
    value = float(scikit_learn("sklearn.metrics").v_measure_score(labels, groups))
    counts = {"cut": int((found.lost > 0).sum())}
    return Sample(document, Outcome({"v_measure": value}, predicted=groups, gold=list(labels), counts=counts))


def grouped(vectors: Floats, count: int, seed: int) -> list[int]:
    """Returns the group of each vector [texts, width], by mini-batch k-means."""
    library = scikit_learn("sklearn.cluster")
    with one_thread():
        model = library.MiniBatchKMeans(count, batch_size=BATCH, n_init="auto", random_state=seed)
        return [int(group) for group in model.fit(vectors).labels_]


def _column(row: Mapping[str, Any], *names: str) -> Any:
    return next((row[name] for name in names if row.get(name) is not None), None)


def _set_of(place: str, row: Mapping[str, Any]) -> Document:
    texts, labels = _column(row, "sentences", "text"), _column(row, "labels", "label")
    if not isinstance(labels, list) or len(labels) != len(texts) or not texts:
        raise ParameterError(f"{place}: labels must be a list with an entry for each text")
    return Document(
        place,
        {
            "texts": [text_of({"text": text}, place, "text") for text in texts],
            "labels": [label_of({"label": label}, place, "label") for label in labels],
        },
    )
