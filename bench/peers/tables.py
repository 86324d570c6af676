"""`python -m bench.peers.tables`: docs/benchmarks.md from docs/benchmarks.json."""

from __future__ import annotations

import json
from pathlib import Path

from bench.peers.catalogue import OURS
from bench.peers.results import Figure, Results, from_json, to_json
from bench.remote import ROOT

PAGE = ROOT / "docs" / "benchmarks.md"
DATA = ROOT / "docs" / "benchmarks.json"

HEAD = """# Benchmarks

Made by `make bench-peers`; do not edit. The numbers behind it are in [benchmarks.json](benchmarks.json). All
engines run in turn in every round of one run, in processes that stand still while another is measured, with
the same prompts of random token ids, the same number of threads, greedily and without end tokens. A cell is
the median over the rounds, and in brackets how many times better we are (the median of the ratios within the
rounds; above 1 means that we are ahead, also where less is better). Absolute numbers move with the machine;
the ratios are what counts.
"""

NOTES = """
- *prefill*: prompt tokens a second up to the first new token. *decode*: new tokens a second of all streams
  together, after prompts of 16 tokens or of the context that is named, whose time is not counted. *beam*:
  steps a second with the prompt.
- *mixed load*: requests of 16 to 384 tokens that ask for 8 to 64, 25 arriving a second; tokens a second from
  the first arrival to the last token, and what each request waits.
- *start*: a fresh Python process with its files in the system's cache, to the first token after 16 tokens.
  *memory*: the peak of that process after a prompt of 1,984 tokens and 64 new ones, and the part of it that
  is beyond importing the libraries (for us and transformers: torch).
- *share*: bytes of weights that our steps read a second, over the memory bandwidth measured in the same round
  (what stays in the caches makes it larger); int8 operations a second of our prefill, over the most that the
  processor does in registers.
"""


def page(runs: list[Results]) -> str:
    """The whole page."""
    return "\n".join([HEAD, *(section(results) for results in runs), NOTES.strip(), ""])


def section(results: Results) -> str:
    """A run's table and what ran."""
    title = {"default": "The default model", "1b": "A Llama of 1 billion parameters with random weights"}
    machine = ", ".join(str(value) for value in results.machine.values())
    lines = [
        f"## {title.get(results.shape, results.shape)}",
        "",
        f"{results.date}, {machine}; {results.rounds} rounds.",
        "",
        table(results),
        "",
        "| | version | weights | requests that arrive over time |",
        "|---|---|---|---|",
        *(f"| {c.name} | {c.version} | {c.weights} | {c.serving} |" for c in results.contenders),
        "",
        *(f"Left out: {line}" for line in results.left_out),
    ]
    return "\n".join(lines).rstrip() + "\n"


def table(results: Results) -> str:
    """A row for each figure, a column for each contender, and our lead over the best peer."""
    names = [c.name for c in results.contenders]
    peers = [name for name in names if name != OURS]
    lines = [f"| | {' | '.join(names)} | over the best peer |", "|---" * (len(names) + 2) + "|"]
    for figure in results.figures:
        cells = [cell(figure, name) for name in names]
        best = figure.best(OURS) if peers else None
        lead = figure.lead(OURS, best) if best is not None else None
        lines.append(
            f"| {figure.name} | {' | '.join(cells)} | {'' if lead is None else f'**{lead:.2f}x**'} |"
        )
    return "\n".join(lines)


def cell(figure: Figure, contender: str) -> str:
    """The contender's median, with our lead over a peer."""
    median = figure.median(contender)
    if median is None:
        return "-"
    lead = None if contender == OURS else figure.lead(OURS, contender)
    return shown(median, figure.unit) + ("" if lead is None else f" ({lead:.2f}x)")


def shown(value: float, unit: str) -> str:
    """A value with its unit, in few digits."""
    if unit == "share":
        return f"{value:.0%}"
    if unit == "s":
        return f"{value * 1000:.3g} ms" if value < 1 else f"{value:.2f} s"
    if unit == "bytes":
        return f"{value / 1e6:,.0f} MB"
    if unit == "ratio":
        return f"{value:.2f}"
    if unit in ("bytes/s", "op/s"):
        return f"{value / 1e9:,.1f} G{'B' if unit == 'bytes/s' else 'op'}/s"
    return f"{value:,.0f}" if value >= 100 else f"{value:.1f}"


def publish(results: Results) -> None:
    """Put a run into the JSON beside the page, in place of the last over that model, and write the page."""
    runs = {r.shape: r for r in read(DATA)}
    runs[results.shape] = results
    content = [json.loads(to_json(r)) for r in runs.values()]
    DATA.write_text(json.dumps(content, indent=1) + "\n", encoding="utf-8")
    PAGE.write_text(page(read(DATA)), encoding="utf-8")


def read(path: Path) -> list[Results]:
    """The runs of a JSON file; none if it is missing."""
    if not path.exists():
        return []
    return [from_json(json.dumps(content)) for content in json.loads(path.read_text(encoding="utf-8"))]


if __name__ == "__main__":
    PAGE.write_text(page(read(DATA)), encoding="utf-8")
    print(f"{PAGE} is written")
