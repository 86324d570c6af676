"""Gives texts vectors that a test chooses, and writes files."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from decodery.evaluation.vectors.contract import Role, Vectors


class FakeEncoder:
    """Gives each text the vector that a function of it and of its role returns; counts what it is asked."""

    def __init__(self, vector: Callable[[str, Role], Sequence[float]]) -> None:
        self._vector = vector
        self.asked: list[tuple[str, Role]] = []
        self.largest = 0

    def __call__(self, texts: Sequence[str], role: Role = "text") -> Vectors:
        self.asked += [(text, role) for text in texts]
        self.largest = max(self.largest, len(texts))
        rows = [self._vector(text, role) for text in texts]
        lost = [int(text.endswith("...")) for text in texts]
        return Vectors(np.array(rows, np.float32), np.array(lost, np.int64))


def by_words(*words: str) -> Callable[[str, Role], Sequence[float]]:
    """Returns a function that counts these words in a text."""
    return lambda text, role: [float(text.split().count(word)) for word in words]


def write_lines(
    path: Path, rows: Iterable[Mapping[str, Any]], names: Mapping[str, str] | None = None
) -> Path:
    """Writes rows as lines of JSON, with other names of columns where `names` has them."""
    path.parent.mkdir(parents=True, exist_ok=True)
    renamed = [{(names or {}).get(key, key): value for key, value in row.items()} for row in rows]
    path.write_text("".join(json.dumps(row) + "\n" for row in renamed), encoding="utf-8")
    return path
