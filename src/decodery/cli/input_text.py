"""The text a command works on: an argument, a file, or what is piped in."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO

from decodery.errors import DecoderyError, ParameterError, RequestError


def given_text(argument: str | None, file: Path | None, name: str) -> str:
    """The text of an argument, a file, or stdin: without either, or for "-".

    The line end that closes a file or stdin is not part of it. Raises `ParameterError` when there is none or
    two, `RequestError` when it is empty, and `DecoderyError` when it cannot be read as UTF-8.
    """
    if argument is not None and file is not None:
        raise ParameterError(f"give {name} or --file, not both")
    if file is not None:
        text = file_text(file)
    elif argument is None or argument == "-":
        if argument is None and terminal_input():
            raise ParameterError(f"give {name} as an argument, with --file, or through a pipe")
        text = _without_line_end(decoded(_stdin().read(), "the standard input"))
    else:
        text = decoded(argument.encode("utf-8", "surrogateescape"), name)
    if not text:
        raise RequestError(f"{name} is empty: give some text")
    return text


def terminal_input() -> bool:
    """Whether a person types at stdin."""
    return sys.stdin is not None and sys.stdin.isatty()


def piped_lines() -> Iterator[str]:
    """The lines of stdin as they come, without their ends. Raises `DecoderyError` where one is not UTF-8."""
    for number, line in enumerate(_stdin(), 1):
        yield _without_line_end(decoded(line, f"line {number} of the standard input"))


def decoded(data: bytes, name: str) -> str:
    """Bytes as UTF-8 text, without a byte order mark. Raises `DecoderyError`."""
    try:
        return data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise DecoderyError(
            f"{name} is not UTF-8 text (byte 0x{data[error.start]:02x} at offset {error.start}):"
            " convert it to UTF-8 first"
        ) from None


def file_text(file: Path) -> str:
    """The UTF-8 text of a file, without its last line end. Raises `DecoderyError`."""
    try:
        data = file.read_bytes()
    except OSError as error:
        raise DecoderyError(f"{file} cannot be read: {error.strerror}") from None
    return _without_line_end(decoded(data, str(file)))


def _stdin() -> BinaryIO:
    if sys.stdin is None:
        raise DecoderyError("there is no standard input")
    return sys.stdin.buffer


def _without_line_end(text: str) -> str:
    return text.removesuffix("\n").removesuffix("\r")
