"""Draws the scores of texts in files as one HTML page that needs no other file and no network."""

from __future__ import annotations

import heapq
from collections.abc import Mapping, Sequence

from decodery.evaluation.runs.report_page import WORST, number, scores_table, section, styles, table
from decodery.evaluation.text_scores import References, TextScores
from decodery.metrics.differences import Difference
from decodery.pictures.html_document import html_document
from decodery.pictures.markup import Markup, element
from decodery.version import __version__


def text_report(
    title: str,
    predictions: Sequence[str],
    references: References,
    found: TextScores,
    *,
    sources: Sequence[str] | None = None,
    differences: Mapping[str, Difference] | None = None,
) -> str:
    """Returns the page: the scores, the differences from other texts, and the worst texts.

    `sources` are the texts that were summarised or translated.
    """
    main = next(iter(found.scores))
    worst = _worst(found, main)
    given = [""] * len(predictions) if sources is None else sources
    parts = [
        element("h1", title),
        element("p", f"{len(predictions)} texts", class_="note"),
        section("Results", scores_table(found.scores)),
        *([section("Differences", _differences_table(differences))] if differences else []),
        section(
            f"The {len(worst)} worst texts by {main}",
            *(
                _text(place, predictions[place], references[place], given[place], found.texts[place])
                for place in worst
            ),
        ),
        element("footer", f"Made by decodery {__version__}"),
    ]
    return html_document(f"{title} – decodery", [element("main", parts, class_="report")], styles())


def _worst(found: TextScores, main: str) -> list[int]:
    """Returns the places of the texts with the least values, those without a value left out."""
    known = [(value, place) for place, row in enumerate(found.texts) if (value := row[main]) is not None]
    return [place for _, place in heapq.nsmallest(WORST, known)]


def _differences_table(differences: Mapping[str, Difference]) -> Markup:
    rows = []
    for name, one in differences.items():
        between = "–" if one.low is None or one.high is None else f"{number(one.low)} to {number(one.high)}"
        value, p_value = ("–" if of is None else number(of) for of in (one.value, one.p_value))
        rows.append([name, value, between, p_value, str(one.counted), str(one.undefined), one.settings])
    head = ("metric", "other minus these", "95% interval", "p", "texts", "without a value", "settings")
    return table(head, rows)


def _text(
    place: int, prediction: str, references: Sequence[str], source: str, values: Mapping[str, float | None]
) -> Markup:
    scores = ", ".join(f"{name} {'undefined' if of is None else number(of)}" for name, of in values.items())
    rows = [["text", prediction], *(["reference", one] for one in references)]
    rows += [["source", source]] if source else []
    return element(
        "details",
        element("summary", f"Text {place + 1}", element("small", scores)),
        table(("", ""), rows),
    )
