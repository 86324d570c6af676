"""Declares the commands for encoders, which read many lines."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from decodery.cli.command_registry import Debug, command
from decodery.cli.flags.line_options import EmbedOptions, EncoderOptions, LineOptions

Files = Annotated[
    list[Path] | None,
    typer.Argument(metavar="FILES", help="Files with a text in each line; without them, stdin is read."),
]
ENCODER = EncoderOptions()
LINES = LineOptions()
EMBED = EmbedOptions()


@command("embed")
def _embed(
    files: Files = None,
    how: EmbedOptions = EMBED,
    lines: LineOptions = LINES,
    model: EncoderOptions = ENCODER,
    debug: Debug = False,
) -> None:
    """Makes a vector of each line.

    Writes a line of JSON for each to stdout, or a .jsonl, .npy or .safetensors file with --out. Without
    --model, uses minilm, a small model of English sentences, which is fetched once.
    """
    from decodery.cli.commands.encoders.embed import embed

    embed(files or [], how, lines, model)
