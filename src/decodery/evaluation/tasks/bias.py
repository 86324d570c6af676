"""Defines a small list of our own: pairs of sentences about professions, households, character and age.

It is meant for a first look and for learning; the published lists are larger and were checked by many people.
"""

from __future__ import annotations

from pathlib import Path

from decodery.evaluation.contract import Document, TaskData
from decodery.evaluation.layouts.tables import find_file, read_rows
from decodery.evaluation.pair_task import PairTask

OWN = Path(__file__).with_name("bias_pairs.csv")


def read(data: Path | None) -> TaskData:
    """Reads our list, or a file with its columns kind, more and less."""
    path = OWN if data is None else find_file(data, "bias_pairs")
    documents = [
        Document(str(number), {"more": row["more"], "less": row["less"]}, row["kind"])
        for number, row in enumerate(read_rows(path, ("kind", "more", "less")), 1)
    ]
    return TaskData(tuple(documents), source=path.name)


TASK = PairTask("bias", read)
