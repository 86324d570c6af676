"""Reads what tasks of vectors share: texts, labels and numbers of rows, and large files row by row."""

from __future__ import annotations

import json
import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from decodery.errors import ParameterError
from decodery.evaluation.contract import Document
from decodery.evaluation.layouts.tables import Row, read_rows


def required_data(task: str, data: Path | None) -> Path:
    """Returns the path. Raises `ParameterError` without one, and if nothing is there."""
    if data is None:
        raise ParameterError(f"{task} needs --data: a file or folder in its published layout")
    if not data.exists():
        raise ParameterError(f"{data} does not exist")
    return data


def text_of(row: Row, place: str, *names: str) -> str:
    """Returns the text of the first column that is there. Raises `ParameterError` without a text."""
    value = _value(row, place, names)
    if not isinstance(value, str):
        raise ParameterError(f"{place}: {names[0]} is no text: {value!r}")
    return value


def number_of(row: Row, place: str, *names: str) -> float:
    """Returns the number of the first column that is there. Raises `ParameterError` for none, and for NaN."""
    value = _value(row, place, names)
    try:
        found = math.nan if isinstance(value, bool) else float(value)
    except (TypeError, ValueError):
        found = math.nan
    if not math.isfinite(found):
        raise ParameterError(f"{place}: {names[0]} is no number: {value!r}")
    return found


def label_of(row: Row, place: str, *names: str) -> str:
    """Returns the label of the first column that is there, as a text. Raises `ParameterError` for -1."""
    value = _value(row, place, names)
    if not isinstance(value, (str, int)) or isinstance(value, bool):
        raise ParameterError(f"{place}: {names[0]} is no label: {value!r}")
    if value in (-1, "-1"):
        raise ParameterError(f"{place}: {names[0]} is -1: the split has no labels")
    return str(value)


def _value(row: Row, place: str, names: tuple[str, ...]) -> Any:
    for name in names:
        if row.get(name) is not None:
            return row[name]
    raise ParameterError(f"{place} has no {' or '.join(names)}; it has {', '.join(map(str, row))}")


def stored_rows(path: Path) -> Iterator[tuple[str, Mapping[str, Any]]]:
    """Yields the place and the columns of each row. Lines of JSON are read one by one."""
    if path.suffix != ".jsonl":
        for number, row in enumerate(read_rows(path), 1):
            yield f"{path.name}, row {number}", row
        return
    with path.open("rb") as file:
        for number, line in enumerate(file, 1):
            if not line.strip():
                continue
            try:
                row = json.loads(line)
            except ValueError as error:
                raise ParameterError(f"{path}, line {number} is not JSON: {error}") from error
            if not isinstance(row, dict):
                raise ParameterError(f"{path}, line {number} is not an object")
            yield f"{path.name}, line {number}", row


@dataclass(frozen=True, slots=True)
class Corpus:
    """Holds a file of texts with ids. Each iteration reads it anew, so that it need not be in memory."""

    path: Path

    def __iter__(self) -> Iterator[Document]:
        """Yields each text: its title, if it has one, a space, and the text."""
        for place, row in stored_rows(self.path):
            title = row.get("title") or ""
            text = text_of(row, place, "text")
            yield Document(str(_value(row, place, ("_id", "id"))), {"text": f"{title} {text}".strip()})

    def ids(self) -> set[str]:
        """Returns the ids. Raises `ParameterError` for a faulty row, an id that is there twice, no rows."""
        found: set[str] = set()
        for document in self:
            if document.id in found:
                raise ParameterError(f"{self.path}: two texts have the id {document.id}")
            found.add(document.id)
        if not found:
            raise ParameterError(f"{self.path} has no rows")
        return found
