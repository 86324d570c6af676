"""Implements `decodery fill-mask`: writes the likeliest tokens for the masks of each line."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

from decodery.cli.commands.encoders.line_fields import names_of, texts_of
from decodery.cli.commands.encoders.result_lines import write_json_lines
from decodery.cli.flags.line_options import EncoderOptions, LineOptions
from decodery.cli.flags.task_options import FillMaskOptions
from decodery.cli.line_work import identity_of
from decodery.cli.text_lines import Line
from decodery.llm import LLM


def fill_mask(files: Sequence[Path], how: FillMaskOptions, lines: LineOptions, model: EncoderOptions) -> None:
    """Writes the likeliest tokens for each mask of each line."""
    arguments: dict[str, Any] = {"top_k": how.top_k, "targets": names_of(how.targets)}
    settings = {"command": "fill-mask", **dataclasses.asdict(how)}

    def work(llm: LLM) -> Callable[[Sequence[Line]], Iterator[dict[str, Any]]]:
        # Wrong arguments are an error here, before the first line.
        llm.fill_mask([], **arguments)

        def values(chunk: Sequence[Line]) -> Iterator[dict[str, Any]]:
            found = llm.fill_mask(texts_of(chunk, lines.field), **arguments)
            for line, masks in zip(chunk, found, strict=True):
                fills = [[dataclasses.asdict(fill) for fill in mask] for mask in masks]
                yield {**identity_of(line), "masks": fills}

        return values

    write_json_lines(files, lines, model, settings, work, "filling masks")
