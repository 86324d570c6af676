"""Implements `decodery tag`: writes the labelled spans of each line."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from decodery.cli.commands.encoders.line_fields import names_of, of_line, string_of
from decodery.cli.commands.encoders.result_lines import write_json_lines
from decodery.cli.flags.line_options import EncoderOptions, LineOptions
from decodery.cli.flags.task_options import TagOptions
from decodery.cli.line_work import identity_of
from decodery.cli.text_lines import Line
from decodery.llm import LLM


def tag(files: Sequence[Path], how: TagOptions, lines: LineOptions, model: EncoderOptions) -> None:
    """Writes the labelled spans of each line."""
    arguments: dict[str, Any] = {**dataclasses.asdict(how), "ignore": names_of(how.ignore)}
    settings = {"command": "tag", **dataclasses.asdict(how)}

    def work(llm: LLM) -> Callable[[Sequence[Line]], Iterator[dict[str, Any]]]:
        # Wrong arguments are an error here, before the first line.
        llm.tag("a", **arguments)

        def values(chunk: Sequence[Line]) -> Iterator[dict[str, Any]]:
            found = llm.tag(_inputs(chunk, lines.field), **arguments)
            for line, spans in zip(chunk, found, strict=True):
                yield {**identity_of(line), "spans": [_span(span) for span in spans]}

        return values

    write_json_lines(files, lines, model, settings, work, "tagging")


def _span(span: Any) -> dict[str, Any]:
    return {name: value for name, value in dataclasses.asdict(span).items() if value is not None}


def _inputs(chunk: Sequence[Line], field: str) -> list[Any]:
    """Returns the text of each line, or the list of its words."""
    found = []
    for index, line in enumerate(chunk):
        value = line.value.get(field) if isinstance(line.value, Mapping) else line.value
        with of_line(index):
            is_words = isinstance(value, list) and all(isinstance(word, str) for word in value)
            found.append(value if is_words else string_of(line, field))
    return found
