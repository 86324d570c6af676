"""What a run found, as plain values that go to JSON and come from it."""

from __future__ import annotations

import dataclasses
import json
import statistics
from dataclasses import dataclass, field
from pathlib import Path


@dataclass
class Figure:
    """A measurement: a value a round for each contender that has it."""

    name: str
    unit: str
    less_is_better: bool = False
    values: dict[str, list[float]] = field(default_factory=dict)

    def median(self, contender: str) -> float | None:
        """The contender's median; None where it has none."""
        found = self.values.get(contender)
        return statistics.median(found) if found else None

    def lead(self, ours: str, peer: str) -> float | None:
        """How many times better we are than the peer: the median over the rounds that both have."""
        if not self.values.get(ours) or not self.values.get(peer):
            return None
        pairs = zip(self.values[ours], self.values[peer], strict=False)
        return statistics.median(b / a if self.less_is_better else a / b for a, b in pairs)

    def best(self, ours: str) -> str | None:
        """The peer with the best median."""
        medians = {peer: self.median(peer) for peer in self.values if peer != ours}
        found = {peer: value for peer, value in medians.items() if value is not None}
        if not found:
            return None
        return (min if self.less_is_better else max)(found, key=lambda peer: found[peer])


@dataclass
class Ran:
    """A contender that ran."""

    name: str
    version: str
    weights: str
    serving: str


@dataclass
class Results:
    """A run over one model."""

    date: str
    shape: str
    machine: dict[str, str | int]
    rounds: int
    contenders: list[Ran] = field(default_factory=list)
    left_out: list[str] = field(default_factory=list)
    figures: list[Figure] = field(default_factory=list)

    def add(self, contender: str, name: str, value: float, unit: str, less_is_better: bool = False) -> None:
        """A value of one more round."""
        figure = next((f for f in self.figures if f.name == name), None)
        if figure is None:
            figure = Figure(name, unit, less_is_better)
            self.figures.append(figure)
        figure.values.setdefault(contender, []).append(value)


def to_json(results: Results) -> str:
    """As text, with enough digits and not more."""
    content = dataclasses.asdict(results)
    for figure in content["figures"]:
        figure["values"] = {k: [float(f"{v:.5g}") for v in vs] for k, vs in figure["values"].items()}
    return json.dumps(content, indent=1) + "\n"


def from_json(text: str) -> Results:
    """What `to_json` wrote."""
    content = json.loads(text)
    content["contenders"] = [Ran(**c) for c in content["contenders"]]
    content["figures"] = [Figure(**f) for f in content["figures"]]
    return Results(**content)


def save(results: Results, path: Path) -> None:
    """Write the JSON."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(to_json(results), encoding="utf-8")
