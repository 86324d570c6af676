"""Writes what the commands print: text and JSON to stdout, everything else to stderr."""

from __future__ import annotations

import json
import math
import os
import sys
import traceback
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager, suppress
from typing import Any

import typer

from decodery.decoding.request.grammar_params import LOOSER
from decodery.errors import DecoderyError, ParameterError
from decodery.progress import downloading

FAILED, MISUSED, INTERRUPTED, PIPE_CLOSED = 1, 2, 130, 141

# How a terminal shows control characters, in place of obeying them; tab, line feed and carriage return stay.
_CONTROLS = {c: f"\\x{c:02x}" for c in (*range(32), *range(127, 160)) if chr(c) not in "\t\n\r"}


@contextmanager
def exit_on_error(debug: bool) -> Iterator[None]:
    """Turns an exception inside into one line on stderr and an exit status; `debug` adds a traceback."""
    try:
        yield
    except typer.Exit:
        raise
    except KeyboardInterrupt:
        raise typer.Exit(INTERRUPTED) from None
    except BrokenPipeError:
        silence_stdout()
        raise typer.Exit(PIPE_CLOSED) from None
    except Exception as error:
        if debug:
            traceback.print_exc()
        if isinstance(error, DecoderyError):
            print_error(str(error))
        else:
            print_error(f"{type(error).__name__}: {error}" + ("" if debug else " (run again with --debug)"))
        raise typer.Exit(MISUSED if isinstance(error, ParameterError) else FAILED) from None


def print_error(message: str) -> None:
    """Prints an error message as one line on stderr, with flags in place of arguments in Python."""
    advised = message.replace(LOOSER, "--json-approximate")
    note(f"decodery: {' '.join(advised.split())}")


def note(message: str) -> None:
    """Prints a line on stderr for the person at the terminal; does nothing if it cannot be written."""
    with suppress(OSError):
        print(message, file=sys.stderr, flush=True)


def emit(text: str) -> None:
    """Writes text to stdout and flushes it; on a terminal, control characters are made visible."""
    sys.stdout.write(text.translate(_CONTROLS) if sys.stdout.isatty() else text)
    sys.stdout.flush()


@contextmanager
def fetch_progress() -> Iterator[Callable[[str, int, int], None]]:
    """Yields a function that shows a download: a bar on a terminal, otherwise one line on stderr a stage.

    The line is printed when the stage's first bytes are there, so that a missing model prints only an error.
    """
    with ExitStack() as stack:
        bar: list[Callable[[str, int, int], None]] = []
        printed: set[str] = set()

        def show(stage: str, done: int, total: int) -> None:
            if sys.stderr.isatty():
                if not bar:
                    bar.append(stack.enter_context(downloading()))
                bar[0](stage, done, total)
            elif done and stage not in printed:
                printed.add(stage)
                note(f"decodery: {stage}")

        yield show


def silence_stdout() -> None:
    """Redirects stdout to the null device, so that Python's flush at exit does not fail on a closed pipe."""
    null = os.open(os.devnull, os.O_WRONLY)
    os.dup2(null, sys.stdout.fileno())
    os.close(null)


def emit_json(value: Any) -> None:
    """Prints a value as one line of JSON on stdout; NaN and infinity, which JSON lacks, become null."""
    emit(json.dumps(finite(value), ensure_ascii=False, allow_nan=False) + "\n")


def finite(value: Any) -> Any:
    """Returns a value for JSON, in which numbers that are not finite are None."""
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if isinstance(value, Mapping):
        return {key: finite(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [finite(item) for item in value]
    return value


def aligned(rows: Sequence[Sequence[str]], right: Sequence[int] = ()) -> str:
    """Returns rows as lines with aligned columns; those whose numbers are in `right` are flush right."""
    widths = [max(len(row[k]) for row in rows) for k in range(len(rows[0]))]
    lines = []
    for row in rows:
        cells = [
            text.rjust(width) if k in right else text.ljust(width)
            for k, (text, width) in enumerate(zip(row, widths, strict=True))
        ]
        lines.append("  ".join(cells).rstrip() + "\n")
    return "".join(lines)


def size(nbytes: float) -> str:
    """Returns a number of bytes with three digits and a unit."""
    for unit in ("bytes", "kB", "MB"):
        if nbytes < 1000:
            return f"{nbytes:.3g} {unit}"
        nbytes /= 1000
    return f"{nbytes:.3g} GB"
