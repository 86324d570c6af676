"""Draws a run as one HTML page that needs no other file and no network."""

from __future__ import annotations

import heapq
import json
import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from importlib.resources import files
from typing import Any

from decodery.evaluation.runs.stored_run import StoredRun
from decodery.metrics.score import Score
from decodery.pictures.html_document import html_document
from decodery.pictures.markup import Markup, element
from decodery.pictures.svg_sheet import asset
from decodery.version import __version__

# The normal distribution has 95% within so many standard deviations.
WITHIN = 1.959964
# Samples that are shown, and the characters of a prompt's end that are shown with each.
WORST, PROMPT_END = 20, 2000
# The value of a sample that is right, by unit.
BEST = {"fraction": 1, "score 0-100": 100}


@dataclass(frozen=True, slots=True)
class RankedSample:
    """Holds a sample with its loss: how unlikely the right answer was, in nats; 0 where this is unknown."""

    loss: float
    place: int
    sample: Mapping[str, Any]


def interval(score: Score) -> tuple[float, float] | None:
    """Returns the 95% interval of a score, value -/+ 1.96 standard errors.

    None without an error, and where the error is 0: then all samples are equal, which says nothing about
    others.
    """
    if score.value is None or not score.error or not math.isfinite(score.value):
        return None
    return score.value - WITHIN * score.error, score.value + WITHIN * score.error


def report_page(run: StoredRun) -> str:
    """Returns the report of a run: results, groups, counts, speed, settings and the worst samples."""
    main = run.results[run.main]
    result = "undefined" if main.value is None else number(main.value)
    between = interval(main)
    about = f" {run.main}, {main.unit}, {main.counted} samples"
    if between is not None:
        about = f" 95% interval {number(between[0])} to {number(between[1])}{about and ' ·'}{about}"
    parts = [
        element("h1", f"{run.task} · {run.model}"),
        element("p", element("b", result), element("small", about), class_="main-result"),
        section("Results", scores_table(run.results)),
        *([section("Groups", _groups_table(run))] if run.groups else []),
        *([section("Counts", _pairs_table(run.counts))] if run.counts else []),
        section("Speed", _speed_table(run)),
        section("Settings", _pairs_table(_flat(run.settings))),
        _worst_section(run),
        element("footer", f"Made by decodery {__version__}; begun {run.about.get('begun', '')}"),
    ]
    title = f"{run.task}, {run.model} – decodery"
    page = element("main", parts, class_="report")
    return html_document(title, [page], styles())


def styles() -> list[Markup]:
    """Returns the stylesheets of the pages of runs."""
    own = files("decodery.evaluation.runs").joinpath("report.css").read_text(encoding="utf-8")
    return [asset("page.css"), Markup(own)]


def number(value: float) -> str:
    """Returns a number with four places, or four digits if it is large or tiny."""
    if not math.isfinite(value):
        return str(value)
    return f"{value:.4f}" if 1e-3 <= abs(value) < 1e4 or value == 0 else f"{value:.4g}"


def table(head: Sequence[str], rows: Iterable[Sequence[str | Markup]]) -> Markup:
    """Returns a table whose first column names the rows."""
    body = [
        element("tr", element("th", first, scope="row"), [element("td", cell) for cell in cells])
        for first, *cells in rows
    ]
    titles = element("tr", [element("th", title, scope="col") for title in head])
    found = element("table", element("thead", titles), element("tbody", body))
    return element("div", found, class_="scroll", tabindex=0)


def scale(score: Score) -> Markup:
    """Returns a bar from 0 to 1 with the value and its 95% interval; nothing for other units."""
    if score.unit != "fraction" or score.value is None:
        return Markup("")
    low, high = interval(score) or (score.value, score.value)
    left, right = (100 * min(max(end, 0.0), 1.0) for end in (low, high))
    band = element("i", style=f"left:{left:.1f}%;width:{right - left:.1f}%")
    mark = element("b", style=f"left:{100 * min(max(score.value, 0), 1):.1f}%")
    return element("span", band, mark, class_="scale")


def section(title: str, *content: Markup) -> Markup:
    """Returns a part of a page with its title."""
    return element("section", element("h2", title), *content)


def _score_cells(score: Score) -> list[str | Markup]:
    between = interval(score)
    return [
        "undefined" if score.value is None else number(score.value),
        scale(score),
        "–" if between is None else f"{number(between[0])} to {number(between[1])}",
        "–" if score.error is None else number(score.error),
        str(score.counted),
        str(score.undefined),
    ]


_COLUMNS = ("value", "", "95% interval", "standard error", "samples", "without a value")


def scores_table(scores: Mapping[str, Score]) -> Markup:
    """Returns a table of scores with their intervals, errors and settings."""
    rows = [[name, *_score_cells(score), score.unit, score.settings] for name, score in scores.items()]
    return table(("metric", *_COLUMNS, "unit", "settings"), rows)


def _groups_table(run: StoredRun) -> Markup:
    rows = [
        [name or "(none)", *_score_cells(scores[run.main])]
        for name, scores in run.groups.items()
        if run.main in scores
    ]
    return table((f"{run.main} of", *_COLUMNS), rows)


def _pairs_table(pairs: Mapping[str, Any]) -> Markup:
    return table(("", ""), [[name, str(value)] for name, value in pairs.items()])


def _flat(settings: Mapping[str, Any]) -> dict[str, str]:
    found: dict[str, str] = {}
    for name, value in settings.items():
        if isinstance(value, Mapping) and value:
            found |= {f"{name}: {key}": _plain(inner) for key, inner in value.items()}
        else:
            found[name] = _plain(value)
    return found


def _plain(value: Any) -> str:
    return value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)


def _speed_table(run: StoredRun) -> Markup:
    efforts = run.efforts
    seconds = sum(effort.seconds for effort in efforts)
    if not seconds:
        return element("p", "All answers were there already: nothing was asked.", class_="note")
    rows = []
    for name, total in (
        ("requests", sum(effort.asked for effort in efforts)),
        ("tokens of prompts, shared or not", sum(effort.prompt_tokens for effort in efforts)),
        ("tokens scored or generated", sum(effort.answer_tokens for effort in efforts)),
    ):
        rows.append([name, str(total), f"{total / seconds:.1f}"])
    note = f"{seconds:.1f} seconds; calls of the command that were stopped before the end are not counted."
    return element("div", table(("", "asked", "in a second"), rows), element("p", note, class_="note"))


def worst_samples(run: StoredRun, count: int = WORST) -> list[RankedSample]:
    """Returns the wrong samples with the largest loss, and of equal ones those with the least value.

    A sample with a right answer is wrong if its value of the main metric is less than that of a right one.
    """
    best = BEST.get(run.results[run.main].unit)
    if best is None:
        return []
    wrong = (
        RankedSample(_loss(sample), place, sample)
        for place, sample in enumerate(run.samples())
        if sample.get("gold") is not None
        and (value := sample["values"].get(run.main)) is not None
        and value < best
    )
    return heapq.nsmallest(
        count, wrong, key=lambda one: (-one.loss, one.sample["values"][run.main], one.place)
    )


def _loss(sample: Mapping[str, Any]) -> float:
    """Returns minus the logarithm of the share of the right options in the probability of all."""
    found = [request.get("logprob") for request in sample.get("requests", [])]
    gold = sample.get("gold")
    if not isinstance(gold, list) or not all(isinstance(one, (int, float)) for one in found):
        return 0.0
    if not gold or not all(isinstance(place, int) and place < len(found) for place in gold):
        return 0.0
    largest = max(found)
    right = sum(math.exp(found[place] - largest) for place in gold)
    return math.log(sum(math.exp(one - largest) for one in found) / right) if right else math.inf


def _worst_section(run: StoredRun) -> Markup:
    worst = worst_samples(run)
    if not worst:
        return Markup("")
    note = "Loss: minus the logarithm of the right options' share of the probability of all options."
    shown = [_sample(one) for one in worst]
    return section(f"The {len(worst)} worst samples", element("p", note, class_="note"), *shown)


def _sample(one: RankedSample) -> Markup:
    sample = one.sample
    group = f" · {sample['group']}" if sample.get("group") else ""
    loss = f" · loss {number(one.loss)}" if one.loss else ""
    facts = {"right": _plain(sample.get("gold")), "predicted": _plain(sample.get("predicted"))}
    if sample.get("why"):
        facts["why"] = sample["why"]
    requests = sample.get("requests", [])
    prompts = [sample["prompt"]] if "prompt" in sample else [r["prompt"] for r in requests if "prompt" in r]
    return element(
        "details",
        element("summary", str(sample["id"]), element("small", f"{group}{loss}".removeprefix(" · "))),
        [element("pre", _end(prompt), dir="auto") for prompt in prompts],
        _pairs_table(facts),
        _requests(sample, requests),
    )


def _requests(sample: Mapping[str, Any], requests: Sequence[Mapping[str, Any]]) -> Markup:
    gold = sample["gold"] if isinstance(sample.get("gold"), list) else []
    rows = []
    for place, request in enumerate(requests):
        marks = ["right"] if place in gold else []
        marks += ["taken"] if place == sample.get("predicted") else []
        logprob = request.get("logprob")
        cells = [
            element("th", repr(request.get("text", "")), scope="row"),
            element("td", number(logprob) if isinstance(logprob, (int, float)) else ""),
            element("td", str(len(request.get("token_ids", [])))),
            element("td", str(request.get("finish_reason", ""))),
        ]
        rows.append(element("tr", cells, class_=" ".join(marks) or None))
    titles = ("answer", "log-probability", "tokens", "ended by")
    head = element("thead", element("tr", [element("th", title, scope="col") for title in titles]))
    return element("div", element("table", head, element("tbody", rows)), class_="scroll", tabindex=0)


def _end(prompt: str) -> str:
    return prompt if len(prompt) <= PROMPT_END else f"… {prompt[-PROMPT_END:]}"
