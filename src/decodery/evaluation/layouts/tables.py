"""Reads rows from JSON lines, JSON, CSV, TSV and Parquet files, and names the place of a fault."""

from __future__ import annotations

import csv
import gzip
import io
import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from decodery.errors import ParameterError

Row = Mapping[str, Any]
SUFFIXES = (".jsonl", ".ndjson", ".json", ".csv", ".tsv", ".jsonl.gz", ".parquet")


def read_rows(
    path: Path, required: Iterable[str] = (), *, header: Sequence[str] | None = None
) -> list[dict[str, Any]]:
    """Returns the rows of a file, whose kind its name tells; a JSON file is a list of rows.

    `header` are the columns of a CSV file without a first line of names. Raises `ParameterError` with file
    and line for a fault, a row that lacks a required column or has null there, and a file without rows.
    """
    rows = []
    for number, row in _rows(path, header):
        if missing := [name for name in required if name not in row]:
            raise ParameterError(
                f"{path}, row {number} has no {', '.join(missing)}; it has {', '.join(map(str, row))}"
            )
        if empty := [name for name in required if row[name] is None]:
            raise ParameterError(f"{path}, row {number}: {', '.join(empty)} is null")
        rows.append(row)
    if not rows:
        raise ParameterError(f"{path} has no rows")
    return rows


def find_file(data: Path, *names: str) -> Path:
    """Returns a file itself, or the first of these names, with any known ending, that a folder holds.

    Raises `ParameterError` if there is none.
    """
    if data.is_file():
        return data
    for name in names:
        for suffix in ("", *SUFFIXES):
            path = data / f"{name}{suffix}"
            if path.is_file():
                return path
    if not data.exists():
        raise ParameterError(f"{data} does not exist")
    raise ParameterError(f"{data} holds none of {', '.join(names)} ({', '.join(SUFFIXES)})")


def read_text(path: Path) -> str:
    """Returns the text of a file, which may be packed with gzip. Raises `ParameterError`."""
    try:
        return _text(path)
    except OSError as error:
        raise ParameterError(f"{path} cannot be read: {error.strerror or error}") from error
    except UnicodeDecodeError as error:
        raise ParameterError(f"{path} is not UTF-8: byte {error.start} is wrong") from error


def _text(path: Path) -> str:
    data = path.read_bytes()
    if path.name.lower().endswith(".gz"):
        try:
            data = gzip.decompress(data)
        except (OSError, EOFError) as error:
            raise ParameterError(f"{path} is not a whole gzip file") from error
    return data.decode("utf-8-sig")


def _rows(path: Path, header: Sequence[str] | None) -> Iterator[tuple[int, dict[str, Any]]]:
    kind = path.name.lower().removesuffix(".gz").rpartition(".")[2]
    if kind == "parquet":
        yield from enumerate(_parquet_rows(path), 1)
        return
    text = read_text(path)
    if kind in ("csv", "tsv"):
        yield from _csv_rows(path, text, "\t" if kind == "tsv" else ",", header)
    elif kind == "json":
        content = _parsed(path, 1, text)
        if not isinstance(content, list):
            raise ParameterError(f"{path} must hold a list of rows")
        for number, row in enumerate(content, 1):
            yield number, _object(path, number, row)
    elif kind in ("jsonl", "ndjson"):
        for number, line in enumerate(text.split("\n"), 1):
            if line.strip():
                yield number, _object(path, number, _parsed(path, number, line))
    else:
        raise ParameterError(f"{path} is of no known kind: {', '.join(SUFFIXES)}")


def _csv_rows(
    path: Path, text: str, delimiter: str, header: Sequence[str] | None
) -> Iterator[tuple[int, dict[str, Any]]]:
    # GLUE's tables have single quotation marks in their texts.
    lines = io.StringIO(text, newline="")
    if delimiter == "\t":
        reader = csv.reader(lines, delimiter="\t", quoting=csv.QUOTE_NONE)
    else:
        reader = csv.reader(lines)
    names = list(header) if header is not None else next(reader, [])
    for row in reader:
        if not row:
            continue
        if len(row) != len(names):
            raise ParameterError(
                f"{path}, line {reader.line_num} has {len(row)} columns in place of {len(names)}"
            )
        yield reader.line_num, dict(zip(names, row, strict=True))


def _parquet_rows(path: Path) -> list[dict[str, Any]]:
    try:
        from pyarrow import ArrowException  # type: ignore[import-not-found, unused-ignore]
        from pyarrow.parquet import read_table  # type: ignore[import-not-found, unused-ignore]
    except ImportError as error:
        raise ParameterError(
            f'{path}: reading Parquet files needs pyarrow: pip install "decodery[parquet]"'
        ) from error
    try:
        rows: list[dict[str, Any]] = read_table(path).to_pylist()
    except (OSError, ArrowException) as error:
        raise ParameterError(f"{path} cannot be read: {error}") from error
    return rows


def _parsed(path: Path, number: int, text: str) -> Any:
    try:
        return json.loads(text)
    except ValueError as error:
        raise ParameterError(f"{path}, line {number} is not JSON: {error}") from error


def _object(path: Path, number: int, row: Any) -> dict[str, Any]:
    if not isinstance(row, dict):
        raise ParameterError(f"{path}, row {number} is not an object")
    return row
