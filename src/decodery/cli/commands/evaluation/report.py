"""Implements `decodery eval report`."""

from __future__ import annotations

from pathlib import Path

from decodery.evaluation.runs.report_page import report_page
from decodery.evaluation.runs.run_folder import REPORT, RunFolder
from decodery.evaluation.runs.stored_run import StoredRun


def report(run: Path) -> None:
    """Writes the report of a run again. Raises `ParameterError` for a folder without a run that has ended."""
    RunFolder(run).write_report(report_page(StoredRun.read(run)))
    print(run / REPORT)
