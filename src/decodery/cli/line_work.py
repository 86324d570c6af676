"""Works through lines in chunks, and writes the results as they come."""

from __future__ import annotations

import json
import re
import sys
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path
from typing import Any

from decodery.cli.flags.line_options import LineOptions
from decodery.cli.resumable_file import ResumableFile, check_replaceable
from decodery.cli.terminal import emit, finite
from decodery.cli.text_lines import Line, count_lines, read_lines
from decodery.errors import DecoderyError, ParameterError
from decodery.progress import counting

CHUNK_LINES = 512
CHUNK_BYTES = 1 << 20
NAMES = ("text", "document")
"""How messages call the input of a line."""
TEXT = re.compile(r"texts\[(\d+)\]")

Work = Callable[[Sequence[Line]], bytes]
"""Returns the bytes that are written for some lines."""


def as_json_lines(values: Iterable[Any]) -> bytes:
    """Returns values as lines of JSON; numbers that are not finite become null."""
    lines = (json.dumps(finite(value), ensure_ascii=False, allow_nan=False) + "\n" for value in values)
    return "".join(lines).encode("utf-8", "replace")


def identity_of(line: Line) -> dict[str, Any]:
    """Returns the field "id" of a line of JSON, if it has one, for its result."""
    return {"id": line.value["id"]} if isinstance(line.value, Mapping) and "id" in line.value else {}


def output_path(options: LineOptions, *, suffixes: Sequence[str]) -> Path | None:
    """Returns the path of `--out`; None: stdout.

    Raises `ParameterError` for another suffix, and for a file that exists and is not to be replaced.
    """
    if options.out is None:
        return None
    path = Path(options.out)
    if path.suffix not in suffixes:
        raise ParameterError(f"out must end in {' or '.join(suffixes)}, not {path.name!r}")
    check_replaceable(path, options.overwrite)
    return path


def begun_file(
    path: Path, options: LineOptions, settings: Mapping[str, Any], *, head: int = 0
) -> ResumableFile:
    """Returns the file of results, begun anew or to go on with.

    Call it once the model is open and the arguments are checked: a command that fails before leaves nothing.
    """
    read = {"jsonl": options.jsonl, "field": options.field}
    return ResumableFile(path, {**settings, **read}, head=head, overwrite=options.overwrite)


def work_through(
    files: Sequence[Path], options: LineOptions, out: ResumableFile | None, work: Work, description: str
) -> None:
    """Writes what `work` makes of the lines of the input, in their order and in bounded memory.

    Raises `DecoderyError` that names the line at fault; the lines before its chunk are written then.
    """
    lines = read_lines(files, options.jsonl)
    show = sys.stderr.isatty() and (out is not None or not sys.stdout.isatty())
    with _bar(description, count_lines(files) if show else None, show) as advance:
        try:
            for _ in range(0 if out is None else out.done):
                advance()
            for chunk in _chunks(lines if out is None else out.left(lines)):
                data = _worked(work, chunk)
                if out is None:
                    emit(data.decode())
                else:
                    out.write(data, chunk)
                for _ in chunk:
                    advance()
        except BaseException:
            if out is not None:
                out.close()
            raise


def _chunks(lines: Iterable[Line]) -> Iterator[list[Line]]:
    chunk: list[Line] = []
    size = 0
    given = iter(lines)
    while True:
        try:
            line = next(given, None)
        except DecoderyError:
            # The lines before it are whole.
            if chunk:
                yield chunk
            raise
        if line is None:
            break
        chunk.append(line)
        size += len(line.raw)
        if len(chunk) == CHUNK_LINES or size > CHUNK_BYTES:
            yield chunk
            chunk, size = [], 0
    if chunk:
        yield chunk


def _worked(work: Work, lines: Sequence[Line]) -> bytes:
    try:
        return work(lines)
    except DecoderyError as error:
        found = TEXT.fullmatch(error.param or "")
        index = int(found[1]) if found else 0
        place = lines[index].place
        if not found and len(lines) > 1:
            place = f"between {place} and {lines[-1].place}"
        message = str(error)
        name = next((name for name in NAMES if message.startswith(f"{name} {index}: ")), None)
        if name is not None:
            message = message.removeprefix(f"{name} {index}: ")
        raise type(error)(f"{place}: {message}") from None


def _bar(description: str, total: int | None, show: bool) -> AbstractContextManager[Callable[[], None]]:
    return counting(description, total) if show else nullcontext(lambda: None)
