"""Writes docs/benchmarks.md from docs/benchmarks.json (`python -m bench.peers.tables`)."""

from __future__ import annotations

import json
from pathlib import Path

from bench.peers.catalogue import OURS
from bench.peers.results import Figure, Results, from_json, to_json
from bench.remote import ROOT

PAGE = ROOT / "docs" / "benchmarks.md"
DATA = ROOT / "docs" / "benchmarks.json"

HEAD = """# Benchmarks

This page is written by `make bench-peers`; do not edit it. Its numbers are in
[benchmarks.json](benchmarks.json). All engines are measured in turn in each round of one run; the processes
of the others are stopped meanwhile. All get the same prompts of random token ids and the same number of
threads, decode greedily and ignore end tokens. A cell has the median over the rounds, and in brackets how
many times better Decodery is: the median of the ratios within the rounds. A ratio above 1 means that Decodery
is better, also for figures where less is better. Absolute numbers depend on the machine; compare the ratios.
"""

NOTES = """
- *prefill*: prompt tokens a second up to the first new token. *decode*: new tokens a second of all streams
  together, after prompts of 16 tokens or of the context that is named; the time of the prompts is not
  counted. *beam*: steps a second, with the time of the prompt.
- *mixed load*: requests of 16 to 384 tokens that ask for 8 to 64 new ones, of which 25 arrive a second. The
  figures are tokens a second from the first arrival to the last token, and the times that requests wait.
- *text*: new tokens a second of one text of at most 160 tokens, after its first, with the settings of
  `python -m bench.speculation`. Engines draw different texts. *drafts* are Decodery's `speculate="auto"` and
  llama-cpp-python's `LlamaPromptLookupDecoding`. Everything else is measured without drafts.
- *start*: the time from the start of a Python process, whose files are in the system's cache, to the first
  token after a prompt of 16. *memory*: the peak of that process after a prompt of 1,984 tokens and 64 new
  ones, and the part of it beyond importing the libraries (for Decodery and transformers: torch).
- *share*: bytes of weights that Decodery's steps read a second, divided by the memory bandwidth measured in
  the same round (weights that stay in caches make it larger); int8 operations a second of its prefill,
  divided by the most that the processor does in registers.
"""


def page(runs: list[Results]) -> str:
    """Returns the whole page."""
    return "\n".join([HEAD, *(section(results) for results in runs), NOTES.strip(), ""])


def section(results: Results) -> str:
    """Returns the section of a run: its table of figures, its contenders, and what was left out."""
    title = {
        "default": "The default model",
        "default drafts": "The default model, texts with and without drafts",
        "1b": "A Llama of 1 billion parameters with random weights",
    }
    machine = ", ".join(str(value) for value in results.machine.values())
    lines = [
        f"## {title.get(results.shape, results.shape)}",
        "",
        f"{results.date}, {machine}; {results.rounds} rounds.",
        "",
        *([] if not results.figures else [table(results), ""]),
        *([] if not results.drafts else [drafts_table(results), ""]),
        "| | version | weights | requests that arrive over time |",
        "|---|---|---|---|",
        *(f"| {c.name} | {c.version} | {c.weights} | {c.serving} |" for c in results.contenders),
        "",
        *(f"Left out: {line}" for line in results.left_out),
    ]
    return "\n".join(lines).rstrip() + "\n"


def table(results: Results) -> str:
    """Returns a table: a row for each figure, a column for each contender and for the lead over the best."""
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


def drafts_table(results: Results) -> str:
    """Returns a table of texts with and without drafts; the last columns compare our drafts with the rest."""
    ours, plain = f"{OURS}, drafts", f"{OURS}, plain"
    columns = list(dict.fromkeys(column for figure in results.drafts for column in figure.values))
    lines = [
        f"| text | {' | '.join(columns)} | over plain | over the best peer |",
        "|---" * (len(columns) + 3) + "|",
    ]
    for figure in results.drafts:
        cells = [_rate(figure, column) for column in columns]
        peers = Figure(
            figure.name, figure.unit, values={k: v for k, v in figure.values.items() if k != plain}
        )
        best = peers.best(ours)
        leads = (figure.lead(ours, plain), None if best is None else figure.lead(ours, best))
        ratios = ["" if lead is None else f"**{lead:.2f}x**" for lead in leads]
        lines.append(f"| {figure.name} | {' | '.join([*cells, *ratios])} |")
    return "\n".join(lines)


def _rate(figure: Figure, column: str) -> str:
    median = figure.median(column)
    return "-" if median is None else shown(median, figure.unit)


def cell(figure: Figure, contender: str) -> str:
    """Returns the contender's median; a peer's has Decodery's lead over it in brackets."""
    median = figure.median(contender)
    if median is None:
        return "-"
    lead = None if contender == OURS else figure.lead(OURS, contender)
    return shown(median, figure.unit) + ("" if lead is None else f" ({lead:.2f}x)")


def shown(value: float, unit: str) -> str:
    """Returns a value with its unit and few digits."""
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
    """Puts a run into the JSON, in place of the last one over that model, and writes the page.

    One that measured drafts alone has a section of its own.
    """
    runs = {r.shape: r for r in read(DATA)}
    if results.drafts and not results.figures:
        results.shape = f"{results.shape} drafts"
    runs[results.shape] = results
    content = [json.loads(to_json(r)) for r in runs.values()]
    DATA.write_text(json.dumps(content, indent=1) + "\n", encoding="utf-8")
    PAGE.write_text(page(read(DATA)), encoding="utf-8")


def read(path: Path) -> list[Results]:
    """Returns the runs of a JSON file; none if it is missing."""
    if not path.exists():
        return []
    return [from_json(json.dumps(content)) for content in json.loads(path.read_text(encoding="utf-8"))]


if __name__ == "__main__":
    PAGE.write_text(page(read(DATA)), encoding="utf-8")
    print(f"{PAGE} is written")
