"""Declares the commands for encoders, which read many lines."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from decodery.cli.command_registry import Debug, command
from decodery.cli.flags.line_options import EmbedOptions, EncoderOptions, LineOptions
from decodery.cli.flags.task_options import (
    AnswerOptions,
    ClassifyOptions,
    FillMaskOptions,
    RerankOptions,
    TagOptions,
)

Files = Annotated[
    list[Path] | None,
    typer.Argument(metavar="FILES", help="Files with a text in each line; without them, stdin is read."),
]
ENCODER = EncoderOptions()
LINES = LineOptions()
EMBED = EmbedOptions()
CLASSIFY = ClassifyOptions()
FILL_MASK = FillMaskOptions()
TAG = TagOptions()
ANSWER = AnswerOptions()
RERANK = RerankOptions()


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


@command("classify")
def _classify(
    files: Files = None,
    how: ClassifyOptions = CLASSIFY,
    lines: LineOptions = LINES,
    model: EncoderOptions = ENCODER,
    debug: Debug = False,
) -> None:
    """Finds the class of each line.

    The classes are the model's own, or --labels, or those of --examples. Writes a line of JSON for each. A
    line of JSON may be a pair of texts, or an object with text and text_pair.
    """
    from decodery.cli.commands.encoders.classify import classify

    classify(files or [], how, lines, model)


@command("fill-mask")
def _fill_mask(
    files: Files = None,
    how: FillMaskOptions = FILL_MASK,
    lines: LineOptions = LINES,
    model: EncoderOptions = ENCODER,
    debug: Debug = False,
) -> None:
    """Finds the likeliest tokens for the masks of each line.

    Writes a line of JSON for each, with a list of tokens for each mask.
    """
    from decodery.cli.commands.encoders.fill_mask import fill_mask

    fill_mask(files or [], how, lines, model)


@command("tag")
def _tag(
    files: Files = None,
    how: TagOptions = TAG,
    lines: LineOptions = LINES,
    model: EncoderOptions = ENCODER,
    debug: Debug = False,
) -> None:
    """Finds the labelled spans of each line, such as names.

    Writes a line of JSON for each. A line of JSON may be a list of words.
    """
    from decodery.cli.commands.encoders.tag import tag

    tag(files or [], how, lines, model)


@command("answer")
def _answer(
    files: Files = None,
    how: AnswerOptions = ANSWER,
    lines: LineOptions = LINES,
    model: EncoderOptions = ENCODER,
    debug: Debug = False,
) -> None:
    """Finds the answer to a question in each line.

    With --question, each line is a context. Else each line is a JSON object with question and context.
    Writes a line of JSON for each.
    """
    from decodery.cli.commands.encoders.answer import answer

    answer(files or [], how, lines, model)


@command("rerank")
def _rerank(
    files: Files = None,
    how: RerankOptions = RERANK,
    lines: LineOptions = LINES,
    model: EncoderOptions = ENCODER,
    debug: Debug = False,
) -> None:
    """Orders documents by how well they answer a query.

    With --query, each line is a document, and the lines of JSON come in their order. Else each line is a JSON
    object with query and documents, and gets a line with its ranking.
    """
    from decodery.cli.commands.encoders.rerank import rerank

    rerank(files or [], how, lines, model)
