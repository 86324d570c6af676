"""Aggregates the runs of several models into one table, as the Open LLM leaderboard does."""

from __future__ import annotations

import hashlib
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from decodery.errors import ParameterError
from decodery.evaluation.runs.report_page import interval, number, styles, table
from decodery.evaluation.runs.stored_run import StoredRun
from decodery.metrics.score import Score
from decodery.pictures.html_document import html_document
from decodery.pictures.markup import Markup, element
from decodery.version import __version__

# All runs of a task must have these in common, or their scores cannot be compared.
COMMON = ("version", "data", "shots", "limit", "repeats", "seed", "form", "shots data")


@dataclass(frozen=True, slots=True)
class Entry:
    """Holds a model's score on a task: raw, its chance level, and normalised.

    A normalised score is (score - chance) / (1 - chance), and 0 for a score below chance. It is None for a
    score that is undefined or no fraction.
    """

    metric: str
    score: Score
    chance: float
    normalised: float | None
    error: float | None
    chat: bool


@dataclass(frozen=True, slots=True)
class LeaderboardRow:
    """Holds a model's entries by task. `mean` is that of the normalised scores of ranked tasks, or None."""

    model: str
    entries: Mapping[str, Entry]
    mean: float | None
    error: float | None


@dataclass(frozen=True, slots=True)
class Leaderboard:
    """Holds a row for each model, the best mean first; models without a mean come last.

    `ranked` are the tasks in the mean: those whose main metric is a fraction, of which more is better. Shares
    of stereotypes, perplexities and correlations are shown beside them.
    """

    tasks: Sequence[str]
    ranked: Sequence[str]
    rows: Sequence[LeaderboardRow]


def leaderboard(runs: Sequence[StoredRun]) -> Leaderboard:
    """Returns the table of the runs of several models.

    The mean of a model is told only where it has a score on every ranked task, and its error is that of
    this mean over fixed tasks. Raises `ParameterError`, which names the runs, for runs of a task that differ
    in what was asked, and for two runs of one model on one task.
    """
    if not runs:
        raise ParameterError("a leaderboard needs one run or more")
    first: dict[str, StoredRun] = {}
    models: dict[tuple[str, str], dict[str, Entry]] = {}
    for run in runs:
        before = first.setdefault(run.task, run)
        differing = [name for name in COMMON if before.settings.get(name) != run.settings.get(name)]
        if differing:
            raise ParameterError(
                f"{before.path} and {run.path} are runs of {run.task} with another {', '.join(differing)}"
            )
        entries = models.setdefault((run.model, _digest(run)), {})
        if run.task in entries:
            raise ParameterError(f"{run.path} is a second run of {run.model} on {run.task}")
        entries[run.task] = _entry(run)
    tasks = sorted(first)
    ranked = [task for task in tasks if first[task].results[first[task].main].unit == "fraction"]
    names = [name for name, _ in models]
    rows = [
        _row(name if names.count(name) == 1 else f"{name} ({digest[:8]})", entries, ranked)
        for (name, digest), entries in models.items()
    ]
    rows.sort(key=lambda row: (row.mean is None, -(row.mean or 0.0), row.model))
    return Leaderboard(tasks, ranked, rows)


def _digest(run: StoredRun) -> str:
    """Returns a hash of the weights and of how they are computed."""
    identity = run.settings.get("identity") or {}
    parts = [str(identity.get(name)) for name in ("files", "weights", "backend")]
    return hashlib.sha256("\n".join(parts).encode()).hexdigest()


def _entry(run: StoredRun) -> Entry:
    score = run.results[run.main]
    chance = _chance(run)
    normalised = error = None
    if score.value is not None and score.unit == "fraction":
        normalised = max((score.value - chance) / (1 - chance), 0.0)
        error = None if score.error is None else score.error / (1 - chance)
    return Entry(run.main, score, chance, normalised, error, bool(run.settings.get("chat")))


def _chance(run: StoredRun) -> float:
    """Returns the mean of the documents' chance levels; 0 where they have none.

    A main metric that is no mean of samples, such as a correlation, is 0 by chance.
    """
    found = [
        sample.get("details", {}).get("chance", 0.0)
        for sample in run.samples()
        if run.main in sample["values"]
    ]
    chance = math.fsum(found) / len(found) if found else 0.0
    return chance if chance < 1 else 0.0


def _row(model: str, entries: Mapping[str, Entry], tasks: Sequence[str]) -> LeaderboardRow:
    normalised = [entries[task].normalised for task in tasks if task in entries]
    known = [value for value in normalised if value is not None]
    if not known or len(known) < len(tasks):
        return LeaderboardRow(model, entries, None, None)
    errors = [entries[task].error for task in tasks]
    squares = [error * error for error in errors if error is not None]
    error = math.sqrt(math.fsum(squares)) / len(tasks) if len(squares) == len(tasks) else None
    return LeaderboardRow(model, entries, math.fsum(known) / len(tasks), error)


def plain_leaderboard(found: Leaderboard) -> dict[str, Any]:
    """Returns the table as plain values of JSON."""
    return {
        "tasks": list(found.tasks),
        "models": [
            {
                "model": row.model,
                "mean": row.mean,
                "error": row.error,
                "tasks": {
                    task: {
                        "metric": entry.metric,
                        "value": entry.score.value,
                        "error": entry.score.error,
                        "samples": entry.score.counted,
                        "chance": entry.chance,
                        "normalised": entry.normalised,
                        "chat": entry.chat,
                    }
                    for task, entry in sorted(row.entries.items())
                },
            }
            for row in found.rows
        ],
    }


def cells(found: Leaderboard) -> list[list[str]]:
    """Returns the table as texts, with its head: the normalised score of each task, then the mean."""
    rows = [["model", *found.tasks, "mean"]]
    for row in found.rows:
        entries = [row.entries.get(task) for task in found.tasks]
        rows.append([row.model, *map(_cell, entries), "–" if row.mean is None else number(row.mean)])
    return rows


def _cell(entry: Entry | None) -> str:
    if entry is None:
        return "–"
    if entry.normalised is None:
        value = (
            "undefined" if entry.score.value is None else f"{number(entry.score.value)} {entry.score.unit}"
        )
        return f"({value})"
    return number(entry.normalised) + (" chat" if entry.chat else "")


def leaderboard_page(found: Leaderboard) -> str:
    """Returns the table as one HTML page that needs no other file."""
    head, *body = cells(found)
    rows = [
        [row.model, *[_both(row.entries.get(task)) for task in found.tasks], last[-1]]
        for row, last in zip(found.rows, body, strict=True)
    ]
    note = (
        "Normalised scores: (score - chance) / (1 - chance), 0 below chance; below them the raw score with"
        " its 95% interval. The mean is told for models with a score on every task."
    )
    page = element(
        "main",
        element("h1", "Leaderboard"),
        element("p", note, class_="note"),
        table(head, rows),
        element("footer", f"Made by decodery {__version__}"),
        class_="report",
    )
    return html_document("Leaderboard – decodery", [page], styles())


def _both(entry: Entry | None) -> Markup:
    if entry is None or entry.score.value is None:
        return element("span", _cell(entry))
    between = interval(entry.score)
    raw = f"{entry.metric} {number(entry.score.value)}"
    if between is not None:
        raw += f", {number(between[0])} to {number(between[1])}"
    return Markup(element("b", _cell(entry)) + element("br") + element("small", raw))
