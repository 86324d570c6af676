"""Holds the results of a run as plain values, and writes and reads them as JSON."""

from __future__ import annotations

import dataclasses
import json
import statistics
from dataclasses import dataclass, field
from pathlib import Path


@dataclass
class Figure:
    """Holds the values of one measurement: one for each round, by contender."""

    name: str
    unit: str
    less_is_better: bool = False
    values: dict[str, list[float]] = field(default_factory=dict)

    def median(self, contender: str) -> float | None:
        """Returns the contender's median; None if it has no values."""
        found = self.values.get(contender)
        return statistics.median(found) if found else None

    def lead(self, ours: str, peer: str) -> float | None:
        """Returns how many times better `ours` is than the peer: the median over the rounds that both have.

        None if one of them has no values.
        """
        if not self.values.get(ours) or not self.values.get(peer):
            return None
        pairs = zip(self.values[ours], self.values[peer], strict=False)
        return statistics.median(b / a if self.less_is_better else a / b for a, b in pairs)

    def best(self, ours: str) -> str | None:
        """Returns the peer with the best median; None if there is no peer with values."""
        medians = {peer: self.median(peer) for peer in self.values if peer != ours}
        found = {peer: value for peer, value in medians.items() if value is not None}
        if not found:
            return None
        return (min if self.less_is_better else max)(found, key=lambda peer: found[peer])


@dataclass
class RanContender:
    """Describes a contender that was measured."""

    name: str
    version: str
    weights: str
    serving: str


@dataclass
class Results:
    """Holds the results of a run over one model.

    `drafts` are the figures of texts with and without drafts, whose columns are contenders in both ways.
    """

    date: str
    shape: str
    machine: dict[str, str | int]
    rounds: int
    contenders: list[RanContender] = field(default_factory=list)
    left_out: list[str] = field(default_factory=list)
    figures: list[Figure] = field(default_factory=list)
    drafts: list[Figure] = field(default_factory=list)

    def add_draft(self, column: str, name: str, value: float) -> None:
        """Adds the tokens per second of one more round of a text, in a column of the table of drafts."""
        _add(self.drafts, column, Figure(name, "tok/s"), value)

    def add(self, contender: str, name: str, value: float, unit: str, less_is_better: bool = False) -> None:
        """Adds a contender's value of one more round."""
        _add(self.figures, contender, Figure(name, unit, less_is_better), value)


def _add(figures: list[Figure], column: str, new: Figure, value: float) -> None:
    figure = next((f for f in figures if f.name == new.name), None)
    if figure is None:
        figure = new
        figures.append(figure)
    figure.values.setdefault(column, []).append(value)


def to_json(results: Results) -> str:
    """Returns the results as JSON, with values of five significant digits."""
    content = dataclasses.asdict(results)
    for figure in (*content["figures"], *content["drafts"]):
        figure["values"] = {k: [float(f"{v:.5g}") for v in vs] for k, vs in figure["values"].items()}
    return json.dumps(content, indent=1) + "\n"


def from_json(text: str) -> Results:
    """Reads the results that `to_json` wrote."""
    content = json.loads(text)
    content["contenders"] = [RanContender(**c) for c in content["contenders"]]
    for name in ("figures", "drafts"):
        content[name] = [Figure(**f) for f in content.get(name, ())]
    return Results(**content)


def save(results: Results, path: Path) -> None:
    """Writes the results as JSON to a file, whose folder is made if it is missing."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(to_json(results), encoding="utf-8")
