"""What the commands write: text and JSON on stdout, everything else on stderr."""

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

from decodery.errors import DecoderyError, ParameterError
from decodery.progress import downloading

FAILED, MISUSED, INTERRUPTED, PIPE_CLOSED = 1, 2, 130, 141

# What a terminal would obey rather than show; tab, line feed and carriage return stay.
_CONTROLS = {c: f"\\x{c:02x}" for c in (*range(32), *range(127, 160)) if chr(c) not in "\t\n\r"}


@contextmanager
def reporting(debug: bool) -> Iterator[None]:
    """Make of whatever goes wrong inside one line on stderr, a traceback with `debug`, and an exit status."""
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
            complain(str(error))
        else:
            complain(f"{type(error).__name__}: {error}" + ("" if debug else " (run again with --debug)"))
        raise typer.Exit(MISUSED if isinstance(error, ParameterError) else FAILED) from None


def complain(message: str) -> None:
    """The one line on stderr that says what went wrong."""
    note(f"decodery: {' '.join(message.split())}")


def note(message: str) -> None:
    """A line for the person, not for the program that reads the output; lost where it cannot be written."""
    with suppress(OSError):
        print(message, file=sys.stderr, flush=True)


def emit(text: str) -> None:
    """Write text to stdout at once; on a terminal, control characters are shown and not obeyed."""
    sys.stdout.write(text.translate(_CONTROLS) if sys.stdout.isatty() else text)
    sys.stdout.flush()


@contextmanager
def fetching() -> Iterator[Callable[[str, int, int], None]]:
    """Shows a model being fetched, if it is: a bar on a terminal, else one line on stderr for each stage.

    The line waits for the first bytes: until then the only news may be that there is no such model.
    """
    with ExitStack() as stack:
        bar: list[Callable[[str, int, int], None]] = []
        told: set[str] = set()

        def show(stage: str, done: int, total: int) -> None:
            if sys.stderr.isatty():
                if not bar:
                    bar.append(stack.enter_context(downloading()))
                bar[0](stage, done, total)
            elif done and stage not in told:
                told.add(stage)
                note(f"decodery: {stage}")

        yield show


def silence_stdout() -> None:
    """Send what is still to be written nowhere, so that Python's exit does not stumble over a dead pipe."""
    nowhere = os.open(os.devnull, os.O_WRONLY)
    os.dup2(nowhere, sys.stdout.fileno())
    os.close(nowhere)


def emit_json(value: Any) -> None:
    """One line of JSON on stdout; a number that JSON has no notation for becomes null."""
    emit(json.dumps(_plain(value), ensure_ascii=False, allow_nan=False) + "\n")


def _plain(value: Any) -> Any:
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if isinstance(value, Mapping):
        return {key: _plain(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [_plain(item) for item in value]
    return value


def aligned(rows: Sequence[Sequence[str]], right: Sequence[int] = ()) -> str:
    """Rows as lines of columns, those in `right` flush right; the last column is not padded."""
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
    """Bytes for a person: three digits and a unit."""
    for unit in ("bytes", "kB", "MB"):
        if nbytes < 1000:
            return f"{nbytes:.3g} {unit}"
        nbytes /= 1000
    return f"{nbytes:.3g} GB"
