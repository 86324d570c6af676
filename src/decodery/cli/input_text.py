"""Reads the text that a command works on: from an argument, a file, or stdin."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any, BinaryIO

from decodery.errors import DecoderyError, ParameterError, RequestError


def given_text(argument: str | None, file: Path | None, name: str) -> str:
    """Returns the text of an argument or a file; reads stdin if both are missing or the argument is "-".

    The line end at the end of a file or of stdin is left out. Raises `ParameterError` when both or neither
    are given, `RequestError` when the text is empty, and `DecoderyError` when it is not UTF-8. `name` is how
    messages call the argument.
    """
    if argument is not None and file is not None:
        raise ParameterError(f"give {name} or --file, not both")
    if file is not None:
        text = file_text(file)
    elif argument is None or argument == "-":
        if argument is None and terminal_input():
            raise ParameterError(f"give {name} as an argument, with --file, or through a pipe")
        text = without_line_end(decoded(stdin().read(), "the standard input"))
    else:
        text = decoded(argument.encode("utf-8", "surrogateescape"), name)
    if not text:
        raise RequestError(f"{name} is empty: give some text")
    return text


def given_prompt(argument: str | None, file: Path | None, token_ids: str | None) -> str | list[int]:
    """Returns the token ids if they are given, else the text as `given_text` does.

    Raises its errors, and `ParameterError` for ids beside a text and for what is no list of ids.
    """
    if token_ids is None:
        return given_text(argument, file, "PROMPT")
    if argument is not None or file is not None:
        raise ParameterError("give the prompt as a text or as token-ids, not both")
    parts = [part.strip() for part in token_ids.split(",")]
    if not all(part.isascii() and part.isdigit() and len(part) < 10 for part in parts):
        raise ParameterError("token-ids must be whole numbers from 0 on with commas between them")
    return [int(part) for part in parts]


def terminal_input() -> bool:
    """True if stdin is a terminal, at which a person types."""
    return sys.stdin is not None and sys.stdin.isatty()


def piped_lines() -> Iterator[str]:
    """Yields the lines of stdin as they come, without line ends.

    Raises `DecoderyError` for a line that is not UTF-8.
    """
    for number, line in enumerate(stdin(), 1):
        yield without_line_end(decoded(line, f"line {number} of the standard input"))


def decoded(data: bytes, name: str) -> str:
    """Returns bytes as UTF-8 text without a byte order mark. Raises `DecoderyError` for other bytes."""
    try:
        return data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise DecoderyError(
            f"{name} is not UTF-8 text (byte 0x{data[error.start]:02x} at offset {error.start}):"
            " convert it to UTF-8 first"
        ) from None


def file_text(file: Path) -> str:
    """Returns the UTF-8 text of a file, without its last line end.

    Raises `DecoderyError` when the file cannot be read or is not UTF-8.
    """
    try:
        data = file.read_bytes()
    except OSError as error:
        raise DecoderyError(f"{file} cannot be read: {error.strerror}") from None
    return without_line_end(decoded(data, str(file)))


def prompt_arguments(template: str | None, special_in_content: bool) -> dict[str, Any]:
    """Returns the arguments of `chat_prompt` that the flags give; a template may be in a file.

    Raises `DecoderyError` for a file that is not there.
    """
    arguments: dict[str, Any] = {"special_in_content": True} if special_in_content else {}
    if template is not None:
        file = Path(template)
        is_file = file.is_file() or file.suffix == ".jinja" or len(file.parts) > 1
        arguments["chat_template"] = file_text(file) if is_file else template
    return arguments


def stdin() -> BinaryIO:
    """Returns the bytes of stdin; raises `DecoderyError` if it is closed."""
    if sys.stdin is None:
        raise DecoderyError("there is no standard input")
    return sys.stdin.buffer


def without_line_end(text: str) -> str:
    """Returns a line without the line end."""
    return text.removesuffix("\n").removesuffix("\r")
