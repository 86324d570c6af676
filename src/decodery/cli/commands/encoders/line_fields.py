"""Reads what the lines and flags of the commands for heads mean."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

from decodery.cli.text_lines import Line, text_of
from decodery.errors import ParameterError, RequestError


def names_of(text: str | None) -> list[str] | None:
    """Returns the names of a flag that are separated by commas."""
    return None if text is None else [name.strip() for name in text.split(",") if name.strip()]


def switch_of(name: str, text: str | None) -> bool | None:
    """Returns a flag with the values yes and no; raises `ParameterError` for others."""
    if text not in (None, "yes", "no"):
        raise ParameterError(f"{name} must be yes or no, not {text!r}")
    return None if text is None else text == "yes"


def inputs_of(lines: Sequence[Line], field: str) -> list[Any]:
    """Returns the text, the pair of texts or the token ids of each line."""
    found = []
    for index, line in enumerate(lines):
        with of_line(index):
            found.append(_input(line, field))
    return found


def _input(line: Line, field: str) -> Any:
    value = line.value.get(field) if isinstance(line.value, Mapping) else line.value
    if isinstance(value, list) and len(value) == 2 and all(isinstance(part, str) for part in value):
        return (value[0], value[1])
    if isinstance(line.value, Mapping) and "text_pair" in line.value:
        return (string_of(line, field), string_of(line, "text_pair"))
    return text_of(line, field)


def texts_of(lines: Sequence[Line], field: str) -> list[str]:
    """Returns the text of each line."""
    found = []
    for index, line in enumerate(lines):
        with of_line(index):
            found.append(string_of(line, field))
    return found


def string_of(line: Line, field: str) -> str:
    """Returns the text of a line, in the field if it is an object. Raises `RequestError` if it has none."""
    value = text_of(line, field)
    if not isinstance(value, str):
        raise RequestError(f"{field!r} must be a string here, not token ids")
    return value


@contextmanager
def of_line(index: int) -> Iterator[None]:
    """Says in errors which line of a chunk they are about."""
    try:
        yield
    except RequestError as error:
        raise RequestError(str(error), param=f"texts[{index}]") from None
