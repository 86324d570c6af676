"""Tests the page of a run that opens without a server: it is that of `decodery explain --html`."""

from __future__ import annotations

import copy
import json
import random
import re
from typing import Any

import pytest

from decodery.errors import RequestError
from decodery.pictures.generation_trace import traces_of
from decodery.pictures.html_page import DATA_ID, html_page
from decodery.serving.page.run_page import page_of
from tests.serving.live import LiveServer

RUNS: dict[str, dict[str, Any]] = {
    "sampled": {"n": 2, "temperature": 1.2},
    "the best": {"n": 2, "best_of": 3},
    "beams": {"strategy": {"type": "beam_search", "num_beams": 3, "num_return_sequences": 2}},
    "drafts": {"speculate": {"type": "prompt_lookup"}, "temperature": 0},
    "a grammar": {"grammar": {"type": "regex", "pattern": "[ab]{3}c"}},
}


def lines_of(server: LiveServer, params: dict[str, Any], **more: Any) -> list[dict[str, Any]]:
    # The engine's own drafts depend on earlier texts, and are drawn.
    plain = {"max_tokens": 8, "seed": 5, "speculate": "none", **params}
    body = {"requests": [{"prompt": "abcabcabc", "params": plain}]}
    with server.client.stream("POST", "/trace", json={**body, "candidates": 3, **more}) as answer:
        return [json.loads(line[6:]) for line in answer.iter_lines() if line.startswith("data: ")]


def run_of(lines: list[dict[str, Any]], **more: Any) -> dict[str, Any]:
    return {"format": "decodery-run", "version": 1, "title": "a title", "lines": lines, **more}


def drawn(page: str) -> str:
    """Returns a page without the run that it holds."""
    return re.sub(rf'<script id="{DATA_ID}".*?</script>', "", page, flags=re.DOTALL)


@pytest.mark.parametrize("name", RUNS)
def test_a_run_whose_texts_came_as_they_grew_is_drawn_as_the_command_line_draws_it(
    server: LiveServer, name: str
) -> None:
    [trace] = traces_of(map(json.dumps, lines_of(server, RUNS[name])))
    lines = lines_of(server, RUNS[name], texts=True)
    answer = server.post("/trace/page", {"run": run_of(lines)})
    assert answer.status_code == 200
    assert answer.headers["content-type"] == "text/html; charset=utf-8"
    assert answer.headers["content-security-policy"].startswith("sandbox")
    assert answer.headers["content-disposition"].startswith("attachment")
    assert drawn(answer.text) == html_page(trace)


def test_the_page_holds_the_run_as_it_came(server: LiveServer) -> None:
    run = run_of(lines_of(server, {}), title="</script><script>alert(1)</script>\u2028<!--")
    page = page_of(run)
    [held] = re.findall(rf'<script id="{DATA_ID}" type="application/json">(.*?)</script>', page, re.DOTALL)
    assert json.loads(held) == run
    assert page.count("<script") == 2


def test_a_run_that_was_cut_or_failed_shows_what_there_was(server: LiveServer) -> None:
    lines = lines_of(server, {}, texts=True)
    for few in range(1, len(lines)):
        tokens = sum(len(line["event"].get("tokens", ())) for line in lines[:few] if line["kind"] == "event")
        page = page_of(run_of(lines[:few]))
        assert page.count('class="panel') - page.count('class="panels') == tokens
    failed = page_of(run_of([*lines[:4], {"kind": "error", "error": {"message": "<b>too late"}}]))
    assert "&lt;b&gt;too late" in failed


@pytest.mark.parametrize(
    "run",
    [
        {},
        {"format": "decodery-run", "version": 2, "lines": []},
        {"format": "decodery-run", "version": 1},
        {"format": "decodery-run", "version": 1, "lines": []},
        {"format": "decodery-run", "version": 1, "lines": [3]},
        {"format": "decodery-run", "version": 1, "lines": [{"kind": "end"}]},
        {"format": "decodery-run", "version": 1, "lines": [{"kind": "trace"}]},
    ],
)
def test_what_is_no_run_is_refused(server: LiveServer, run: dict[str, Any]) -> None:
    answer = server.post("/trace/page", {"run": run})
    assert answer.status_code == 400
    assert answer.json()["error"]["param"] == "run"


def changed(value: Any, drawn: random.Random) -> Any:
    """Returns a value in which something is another."""
    if isinstance(value, (dict, list)) and value and drawn.random() < 0.9:
        value = copy.copy(value)
        place = drawn.choice(list(value) if isinstance(value, dict) else range(len(value)))
        if drawn.random() < 0.15:
            del value[place]
        else:
            value[place] = changed(value[place], drawn)
        return value
    return drawn.choice([None, True, -1, 0, 3, 10**6, 0.5, "inf", "", "<b>", [], {}, [0], -0.25])


def test_a_run_whose_lines_do_not_fit_together_is_refused_or_drawn(server: LiveServer) -> None:
    found = random.Random(0)
    runs = [run_of(lines_of(server, params)) for params in RUNS.values()]
    refusals = 0
    for _ in range(600):
        run = found.choice(runs)
        run = {**run, "lines": changed(run["lines"], found)}
        refusals += not draws(run)
    assert 100 < refusals < 600


def draws(run: dict[str, Any]) -> bool:
    """True if a run is drawn, and False if it is refused in one line."""
    try:
        page_of(run)
    except RequestError as error:
        return "\n" in str(error)
    return True
