"""Implements `decodery answer`: writes the answers to a question that each line holds."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

from decodery.cli.commands.encoders.line_fields import string_of
from decodery.cli.commands.encoders.result_lines import write_json_lines
from decodery.cli.flags.line_options import EncoderOptions, LineOptions
from decodery.cli.flags.task_options import AnswerOptions
from decodery.cli.line_work import identity_of
from decodery.cli.text_lines import Line
from decodery.encoding.input_errors import numbered
from decodery.errors import ParameterError, RequestError
from decodery.llm import LLM


def answer(files: Sequence[Path], how: AnswerOptions, lines: LineOptions, model: EncoderOptions) -> None:
    """Writes the likeliest answers of each line, to one question or to the line's own."""
    arguments: dict[str, Any] = {
        "top_k": how.top_k,
        "overlap": how.overlap,
        "longest": how.longest,
        "no_answer": _null(how.no_answer),
    }
    settings = {"command": "answer", **dataclasses.asdict(how)}

    def work(llm: LLM) -> Callable[[Sequence[Line]], Iterator[dict[str, Any]]]:
        # Wrong arguments are an error here, before the first line.
        llm.answer("who", "a", **arguments)

        def values(chunk: Sequence[Line]) -> Iterator[dict[str, Any]]:
            for index, line in enumerate(chunk):
                with numbered(index, len(chunk)):
                    question, context = _question(line, how.question, lines.field)
                    found = llm.answer(question, context, **arguments)
                yield {**identity_of(line), "answers": [dataclasses.asdict(one) for one in found]}

        return values

    write_json_lines(files, lines, model, settings, work, "answering")


def _question(line: Line, question: str | None, field: str) -> tuple[str, str]:
    """Returns a question and its context."""
    if question is not None:
        return question, string_of(line, field)
    if isinstance(line.value, str):
        raise RequestError("a line must be JSON with question and context, or give --question")
    return string_of(line, "question"), string_of(line, "context")


def _null(text: str | None) -> bool | float | None:
    if text in (None, "yes", "no"):
        return None if text is None else text == "yes"
    try:
        return float(text)
    except ValueError:
        raise ParameterError(f"no_answer must be yes, no or a number, not {text!r}") from None
