"""Writes a line of JSON for each line that an encoder reads."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from decodery.cli.flags.line_options import EncoderOptions, LineOptions
from decodery.cli.line_work import as_json_lines, begun_file, output_path, work_through
from decodery.cli.load_encoder import encoder_settings, load_encoder
from decodery.cli.text_lines import Line
from decodery.llm import LLM


def write_json_lines(
    files: Sequence[Path],
    options: LineOptions,
    model: EncoderOptions,
    settings: Mapping[str, Any],
    work: Callable[[LLM], Callable[[Sequence[Line]], Iterable[Any]]],
    description: str,
) -> None:
    """Writes a JSON value for each line to stdout or into a resumable file.

    `settings` are what the results depend on, besides the model. `work` checks the arguments and returns the
    function of the values of some lines; `description` names it on the progress bar.
    """
    path = output_path(options, suffixes=(".jsonl",))
    llm = load_encoder(model)
    values = work(llm)
    out = None if path is None else begun_file(path, options, {**settings, **encoder_settings(model, llm)})
    work_through(files, options, out, lambda lines: as_json_lines(values(lines)), description)
    if out is not None:
        out.finish()
