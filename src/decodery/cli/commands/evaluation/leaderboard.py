"""Implements `decodery eval leaderboard`."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path

from decodery.cli.terminal import aligned, emit, emit_json
from decodery.errors import DecoderyError, ParameterError
from decodery.evaluation.runs.leaderboard import cells, leaderboard_page, plain_leaderboard
from decodery.evaluation.runs.leaderboard import leaderboard as aggregated
from decodery.evaluation.runs.stored_run import StoredRun


def leaderboard(runs: Sequence[Path], out: Path | None, *, as_json: bool) -> None:
    """Prints the table of runs, and writes it to a file. Raises `ParameterError` as `aggregated` does."""
    if out is not None and out.suffix not in (".json", ".html"):
        raise ParameterError(f"{out} must end in .json or .html")
    found = aggregated([StoredRun.read(run) for run in runs])
    plain = plain_leaderboard(found)
    if out is not None:
        page = leaderboard_page(found) if out.suffix == ".html" else json.dumps(plain, indent=1) + "\n"
        try:
            out.write_text(page, encoding="utf-8")
        except OSError as error:
            raise DecoderyError(f"{out} cannot be written: {error.strerror}") from error
    if as_json:
        emit_json(plain)
        return
    rows = cells(found)
    emit(aligned(rows, right=range(1, len(rows[0]))))
