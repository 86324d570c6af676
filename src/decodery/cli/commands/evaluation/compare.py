"""Implements `decodery eval compare`."""

from __future__ import annotations

import json
from dataclasses import asdict
from pathlib import Path
from typing import Any

from decodery.cli.terminal import aligned, emit, emit_json
from decodery.evaluation.runs.comparison import Comparison, DifferingSample, MetricComparison
from decodery.evaluation.runs.comparison import compare as compare_runs
from decodery.evaluation.runs.report_page import number
from decodery.evaluation.runs.stored_run import StoredRun


def compare(one: Path, other: Path, show: int, *, as_json: bool) -> None:
    """Prints the comparison of two runs. Raises `ParameterError` for runs that cannot be compared."""
    found = compare_runs(StoredRun.read(one), StoredRun.read(other))
    if as_json:
        emit_json(_plain(found))
        return
    emit(_table(found, show))


def _plain(found: Comparison) -> dict[str, Any]:
    return {
        "task": found.one.task,
        "documents": found.documents,
        "settings": {name: list(values) for name, values in found.settings.items()},
        "metrics": {name: _plain_metric(metric) for name, metric in found.metrics.items()},
        "groups": {name: _plain_metric(metric) for name, metric in found.groups.items()},
        "differing": [asdict(sample) for sample in found.differing],
    }


def _plain_metric(metric: MetricComparison) -> dict[str, Any]:
    return {"verdict": metric.verdict, "p_value": metric.p_value, **asdict(metric)}


def _table(found: Comparison, show: int) -> str:
    main = next(iter(found.metrics))
    rows = [["metric", str(found.one.path), str(found.other.path), "difference", "95% interval", "p", ""]]
    rows += [_row(name, metric) for name, metric in found.metrics.items()]
    text = f"{found.one.task}: {found.documents} documents\n"
    for name, values in found.settings.items():
        if name != "identity":
            text += f"  {name}: {_value(values[0])} and {_value(values[1])}\n"
    text += aligned(rows, right=(1, 2, 3, 5)) + _verdict(main, found.metrics[main])
    if found.groups:
        text += f"\n{main} of each group\n"
        text += aligned([_row(name, metric) for name, metric in found.groups.items()], right=(1, 2, 3, 5))
    text += f"\n{len(found.differing)} of {found.documents} documents have another {main}"
    if not found.differing or show < 1:
        return f"{text}\n"
    listed = [["document", "group", "right", "predicted", "", main, ""]]
    listed += [_sample(sample) for sample in found.differing[:show]]
    more = len(found.differing) - show
    return f"{text}:\n{aligned(listed)}" + (
        f"and {more} more: --show {len(found.differing)}\n" if more > 0 else ""
    )


def _verdict(name: str, metric: MetricComparison) -> str:
    tested = metric.exact or metric.sampled
    if tested is None or tested.p_value is None:
        return f"The difference in {name} cannot be tested.\n"
    says = "is real" if metric.verdict == "real" else "cannot be told from chance"
    return f"The difference in {name} {says}: {tested.settings}.\n"


def _row(name: str, metric: MetricComparison) -> list[str]:
    values = [_number(score.value) for score in (metric.one, metric.other)]
    sampled = metric.sampled
    if sampled is None or sampled.value is None:
        return [name, *values, "", "", "", "no mean of samples" if sampled is None else "undefined"]
    low, high = sampled.low, sampled.high
    between = "" if low is None or high is None else f"{low:+.4f} to {high:+.4f}"
    p_value = "" if metric.p_value is None else f"{metric.p_value:.4f}"
    return [name, *values, f"{sampled.value:+.4f}", between, p_value, metric.verdict]


def _sample(sample: DifferingSample) -> list[str]:
    predicted = [_value(one) for one in sample.predicted]
    values = [_number(one) for one in sample.values]
    return [sample.id, sample.group, _value(sample.gold), *predicted, *values]


def _number(value: float | None) -> str:
    return "undefined" if value is None else number(value)


def _value(value: Any) -> str:
    text = " ".join((value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)).split())
    return text if len(text) <= 40 else f"{text[:39]}…"
