"""Reads texts from files: one a line, or a field of each row."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from decodery.errors import ParameterError
from decodery.evaluation.layouts.tables import SUFFIXES, read_rows, read_text


def read_texts(path: Path, field: str) -> list[str]:
    """Returns the texts of a file: this field of its rows, or its lines if its name says that it has no rows.

    The last line end is dropped; an empty line is an empty text. Raises `ParameterError`, which names the
    row, for a field that is missing or no text, and for a file without texts.
    """
    return [_one(path, number, options) for number, options in enumerate(read_options(path, field), 1)]


def read_options(path: Path, field: str) -> list[list[str]]:
    """Returns the texts of a file, where the field of a row may also hold a list of texts."""
    if has_rows(path):
        rows = read_rows(path, (field,))
        return [_texts(path, number, field, row[field]) for number, row in enumerate(rows, 1)]
    text = read_text(path)
    if not text:
        raise ParameterError(f"{path} has no lines")
    return [[line.removesuffix("\r")] for line in text.removesuffix("\n").split("\n")]


def read_references(paths: Sequence[Path], field: str) -> list[list[str]]:
    """Returns the references of each text: the first ones of all files, then the second ones.

    Raises `ParameterError` for files of other lengths, and for a reference without text, which says nothing
    about what is compared with it.
    """
    columns = [read_options(path, field) for path in paths]
    for path, column in zip(paths, columns, strict=True):
        if len(column) != len(columns[0]):
            fewer = min(len(column), len(columns[0]))
            raise ParameterError(
                f"{paths[0]} has {len(columns[0])} references and {path} has {len(column)}:"
                f" number {fewer + 1} has no partner"
            )
        for number, options in enumerate(column, 1):
            if not all(option.strip() for option in options):
                raise ParameterError(f"{path}: reference {number} is empty")
    return [[one for options in row for one in options] for row in zip(*columns, strict=True)]


def has_rows(path: Path) -> bool:
    """True if the name of a file says that it holds rows with fields."""
    return path.name.lower().removesuffix(".gz").endswith(SUFFIXES)


def _texts(path: Path, number: int, field: str, value: Any) -> list[str]:
    options = [value] if isinstance(value, str) else value
    if not isinstance(options, Sequence) or not all(isinstance(one, str) for one in options) or not options:
        raise ParameterError(f"{path}, row {number}: {field} must be a text or a list of texts")
    return list(options)


def _one(path: Path, number: int, options: Sequence[str]) -> str:
    if len(options) != 1:
        raise ParameterError(f"{path}, row {number} has {len(options)} texts in place of one")
    return options[0]
