"""Defines CrowS-Pairs: 1,508 pairs of sentences about nine kinds of groups.

Nangia et al., CrowS-Pairs: A Challenge Dataset for Measuring Social Biases in Masked Language Models (2020).
There the sentences are scored by a masked model; here each is scored whole, from left to right.
"""

from __future__ import annotations

from pathlib import Path

from decodery.errors import ParameterError
from decodery.evaluation.contract import Document, TaskData
from decodery.evaluation.layouts.tables import find_file, read_rows
from decodery.evaluation.pair_task import PairTask

COLUMNS = ("sent_more", "sent_less", "stereo_antistereo", "bias_type")


def read(data: Path | None) -> TaskData:
    """Reads crows_pairs_anonymized.csv, or a file with its columns."""
    if data is None:
        raise ParameterError("crows_pairs needs --data: crows_pairs_anonymized.csv or its folder")
    path = find_file(data, "crows_pairs_anonymized", "data/crows_pairs_anonymized")
    documents = []
    for number, row in enumerate(read_rows(path, COLUMNS)):
        if row["stereo_antistereo"] not in ("stereo", "antistereo"):
            raise ParameterError(
                f"{path}, row {number + 1}: stereo_antistereo is {row['stereo_antistereo']!r}"
            )
        fields = {"more": row["sent_more"], "less": row["sent_less"], "direction": row["stereo_antistereo"]}
        documents.append(Document(str(row.get("") or row.get("index") or number), fields, row["bias_type"]))
    return TaskData(tuple(documents), source=path.name)


TASK = PairTask("crows_pairs", read)
