"""Reads the lines on which a command works, from files or from stdin."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, BinaryIO, NamedTuple

from decodery.cli.input_text import decoded, stdin, terminal_input, without_line_end
from decodery.errors import DecoderyError, ParameterError, RequestError

JSON_LINES = (".jsonl", ".ndjson")


class Line(NamedTuple):
    """Holds a line: its bytes, its place as messages name it, and its text or the value of its JSON."""

    raw: bytes
    place: str
    value: Any


def read_lines(files: Sequence[Path], as_json: bool) -> Iterator[Line]:
    """Yields the lines of files one after another; the file - is stdin, and so are no files.

    A line is a text, also an empty one. It is JSON where `as_json` is set and in files named .jsonl. Raises
    `ParameterError` if nothing can be read, and `DecoderyError`, naming the line, for one that is not UTF-8
    or no JSON.
    """
    if not files and terminal_input():
        raise ParameterError("name files to read, or give lines through a pipe")
    if not files:
        yield from _lines(stdin(), "the standard input", as_json)
    for file in files:
        if str(file) == "-":
            yield from _lines(stdin(), "the standard input", as_json)
            continue
        try:
            with file.open("rb") as source:
                yield from _lines(source, str(file), as_json or file.suffix in JSON_LINES)
        except OSError as error:
            raise DecoderyError(f"{file} cannot be read: {error.strerror}") from None


def count_lines(files: Sequence[Path]) -> int | None:
    """Returns the number of lines of files; None for stdin and for files that cannot be read twice."""
    if not files or not all(file.is_file() for file in files):
        return None
    count = 0
    for file in files:
        last = b""
        with file.open("rb") as source:
            while block := source.read(1 << 20):
                count += block.count(b"\n")
                last = block[-1:]
        count += last not in (b"", b"\n")
    return count


def text_of(line: Line, field: str) -> str | list[int]:
    """Returns the text or the token ids of a line; an object's are in a field. Raises `RequestError`."""
    value = line.value
    if isinstance(value, Mapping):
        if field not in value:
            raise RequestError(f"there is no field {field!r}, only {', '.join(map(repr, value)) or 'none'}")
        value = value[field]
    if isinstance(value, str) or (isinstance(value, list) and all(type(one) is int for one in value)):
        return value
    raise RequestError(f"a text must be a string or a list of token ids, not {type(value).__name__}")


def _lines(source: BinaryIO, name: str, as_json: bool) -> Iterator[Line]:
    for number, raw in enumerate(source, 1):
        place = f"line {number} of {name}"
        text = without_line_end(decoded(raw, place))
        yield Line(raw, place, _json(text, place) if as_json else text)


def _json(text: str, place: str) -> Any:
    try:
        return json.loads(text)
    except (ValueError, RecursionError) as error:
        raise RequestError(f"{place} is not JSON: {error}") from None
