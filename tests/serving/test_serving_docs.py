"""Tests that the pages about the server say what the code does."""

from __future__ import annotations

import dataclasses
import re
from pathlib import Path

import pytest

from decodery.cli.flags.serve_options import ServeOptions
from decodery.serving.app import HANDLERS
from decodery.serving.metrics import Metrics
from decodery.serving.schemas.operations import ERRORS, OPERATIONS
from decodery.serving.settings import RequestLimits
from tests.serving.fields_page import PAGE, page

DOCS = Path(__file__).parents[2] / "docs"
TEXT = (DOCS / "serving.md").read_text(encoding="utf-8")


def metric_names() -> set[str]:
    """Returns the names of all metrics as Prometheus reads them, without the ends of histograms."""
    found = set()
    for family in Metrics(lambda: [], lambda: []).registry.collect():
        found.add(f"{family.name}_total" if family.type == "counter" else family.name)
    return found


def test_the_table_of_fields_is_that_of_the_code() -> None:
    assert PAGE.read_text(encoding="utf-8") == page(), "run python -m tests.serving.fields_page"


def test_the_options_are_those_of_the_command() -> None:
    rows = dict(re.findall(r"^\| `--([a-z-]+)` \| (\S*) ?\|", TEXT, re.MULTILINE))
    options = {field.name.replace("_", "-"): field.default for field in dataclasses.fields(ServeOptions)}
    assert rows.keys() == options.keys()
    for name, default in options.items():
        assert rows[name] == shown(default), name


def shown(default: object) -> str:
    """Returns a default as the page shows it."""
    if default is None or default == ():
        return ""
    if isinstance(default, float):
        return f"{default:g}"
    return "off" if default is False else str(default)


def test_the_routes_are_those_of_the_server() -> None:
    written = {
        (method, path) for method, path in re.findall(r"`(GET|POST|DELETE) (/[^`]*)`", TEXT) if path != "/"
    }
    written |= {(method, "/v1/responses/{name}") for method in ("GET", "DELETE")}
    served = {(method, path.replace(":path}", "}")) for method, path, _ in HANDLERS}
    assert served <= written <= set(OPERATIONS)


def test_the_statuses_of_errors_are_those_of_the_document() -> None:
    written = {int(status) for status in re.findall(r"^\| (\d{3}) \|", TEXT, re.MULTILINE)}
    # A method that a path does not take, and a fault of the server, are no part of an operation.
    assert written == {*ERRORS, 405, 500}


def test_the_metrics_are_those_of_the_server() -> None:
    section = TEXT.split("## Metrics")[1].split("## ")[0]
    assert set(re.findall(r"`(decodery_\w*[a-z])`", section)) == metric_names()


@pytest.mark.parametrize(
    "words",
    [
        "{prompts} prompts a request",
        "`n` and beams {n}",
        "`logprobs` {logprobs}",
        "{stops} stop strings",
        "JSON {depth} levels deep",
        "{preparing_seconds:g} s to read a prompt",
        "too slowly ({body_seconds:g} s)",
    ],
)
def test_the_limits_are_those_of_the_server(words: str) -> None:
    assert words.format(**dataclasses.asdict(RequestLimits())) in TEXT
