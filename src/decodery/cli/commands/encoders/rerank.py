"""Implements `decodery rerank`: writes documents in the order in which they answer a query."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from decodery.cli.commands.encoders.line_fields import names_of, string_of, texts_of
from decodery.cli.commands.encoders.result_lines import write_json_lines
from decodery.cli.flags.line_options import EncoderOptions, LineOptions
from decodery.cli.flags.task_options import RerankOptions
from decodery.cli.line_work import (
    as_json_lines,
    begun_file,
    identity_of,
    output_path,
    work_through,
)
from decodery.cli.load_encoder import encoder_settings, load_encoder
from decodery.cli.terminal import emit
from decodery.cli.text_lines import Line
from decodery.encoding.input_errors import numbered
from decodery.encoding.tasks.inputs import checked_long
from decodery.errors import RequestError
from decodery.llm import LLM


def rerank(files: Sequence[Path], how: RerankOptions, lines: LineOptions, model: EncoderOptions) -> None:
    """Writes all lines in the order in which they answer the query, or the order of each line's documents."""
    settings = {"command": "rerank", **dataclasses.asdict(how)}
    if how.query is not None:
        _order_lines(files, how, how.query, lines, settings, model)
        return

    def work(llm: LLM) -> Callable[[Sequence[Line]], Iterator[dict[str, Any]]]:
        # Wrong arguments are an error here, before the first line.
        llm.rerank("a", ["a"], top_n=how.top_n, **_arguments(how))
        return lambda chunk: _rankings(llm, chunk, how)

    write_json_lines(files, lines, model, settings, work, "reranking")


def _rankings(llm: LLM, chunk: Sequence[Line], how: RerankOptions) -> Iterator[dict[str, Any]]:
    arguments: dict[str, Any] = {"top_n": how.top_n, **_arguments(how)}
    for index, line in enumerate(chunk):
        with numbered(index, len(chunk)):
            query, documents = _query(line)
            found = llm.rerank(query, documents, **arguments)
        yield {**identity_of(line), "ranking": [dataclasses.asdict(one) for one in found]}


def _arguments(how: RerankOptions) -> dict[str, Any]:
    """Returns the arguments of `LLM.rerank` that say how each document is read."""
    return {
        "long": checked_long(how.long),
        "instruction": how.instruction,
        "answers": names_of(how.answers),
    }


def _query(line: Line) -> tuple[str, list[str]]:
    """Returns the query and the documents of a line of JSON."""
    if not isinstance(line.value, Mapping):
        raise RequestError("a line must be JSON with query and documents, or give --query")
    documents = line.value.get("documents")
    if not isinstance(documents, list) or not all(isinstance(one, str) for one in documents):
        raise RequestError("'documents' must be a list of strings")
    return string_of(line, "query"), documents


def _order_lines(
    files: Sequence[Path],
    how: RerankOptions,
    query: str,
    lines: LineOptions,
    settings: Mapping[str, Any],
    model: EncoderOptions,
) -> None:
    """Writes the lines once all have their scores, so that a command that was stopped begins again."""
    path = output_path(lines, suffixes=(".jsonl",))
    llm = load_encoder(model)
    arguments = _arguments(how)
    # Wrong arguments are an error here, before the first line.
    llm.rerank(query, ["a"], top_n=how.top_n, **arguments)
    out = None if path is None else begun_file(path, lines, {**settings, **encoder_settings(model, llm)})
    read: list[Line] = []
    results: list[dict[str, Any]] = []

    def work(chunk: Sequence[Line]) -> bytes:
        for one in llm.rerank(query, texts_of(chunk, lines.field), **arguments):
            line = chunk[one.index]
            results.append({**identity_of(line), **dataclasses.asdict(one), "index": len(read) + one.index})
        read.extend(chunk)
        return b""

    work_through(files, lines, None, work, "reranking")
    results.sort(key=lambda result: (-result["logit"], result["index"]))
    data = as_json_lines(results[: how.top_n])
    if out is None:
        emit(data.decode())
    else:
        out.write(data, read)
        out.finish()
