"""Checks that a request turns drafts off on every route, and what the metrics say of drafts."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

import pytest

from decodery import GenerationParams
from decodery.client.client import Client
from tests.engine.drafts.test_speculator import CheapRows
from tests.kernels.native.fixtures import built
from tests.serving.conftest import open_tiny
from tests.serving.live import LiveServer, serving

pytestmark = built

HI = [{"role": "user", "content": "abab abab abab"}]
GREEDY = {"temperature": 0, "max_tokens": 30, "ignore_eos": True}
ROUTES: dict[str, dict[str, Any]] = {
    "/v1/completions": {"prompt": "abab abab abab", **GREEDY},
    "/v1/chat/completions": {"messages": HI, **GREEDY},
    "/v1/responses": {
        "input": "abab abab abab",
        "temperature": 0,
        "max_output_tokens": 30,
        "ignore_eos": True,
    },
    "/v1/messages": {"model": "tiny", "messages": HI, **GREEDY},
    "/trace": {"requests": [{"prompt": "abab abab abab"}]},
}


@pytest.fixture(scope="module")
def server(folder: str) -> Iterator[LiveServer]:
    llm = open_tiny(folder)
    assert llm.engine._speculator is not None
    llm.engine._speculator._time = CheapRows()
    with serving(llm) as found:
        yield found


def asked(path: str, given: dict[str, Any]) -> dict[str, Any]:
    """Returns the body of a request with these parameters."""
    body = {**ROUTES[path], **given}
    if path == "/trace":
        body = {"requests": [{"prompt": "abab abab abab", "params": {**GREEDY, **given}}]}
    return body


def drafted(server: LiveServer, path: str, given: dict[str, Any]) -> tuple[int, str]:
    """Returns how many tokens the engine drafted for a request, and the text of the answer."""
    before = server.statistics().drafted
    answer = server.post(path, asked(path, given))
    assert answer.status_code == 200, answer.text
    found = server.statistics().drafted - before
    if path == "/trace":
        lines = [json.loads(one[6:]) for one in answer.text.splitlines() if one.startswith("data: {")]
        (output,) = [line for line in lines if line["kind"] == "output"]
        return found, output["output"]["completions"][0]["text"]
    body = answer.json()
    text = {
        "/v1/completions": lambda: body["choices"][0]["text"],
        "/v1/chat/completions": lambda: body["choices"][0]["message"]["content"],
        "/v1/responses": lambda: body["output"][0]["content"][0]["text"],
        "/v1/messages": lambda: body["content"][0]["text"],
    }[path]()
    return found, str(text)


@pytest.mark.parametrize("path", ROUTES)
def test_the_text_none_turns_drafts_off_and_null_is_the_default(server: LiveServer, path: str) -> None:
    count, text = drafted(server, path, {"speculate": "none"})
    assert (count, len(text) > 10) == (0, True)
    for given in ({}, {"speculate": None}, {"speculate": "auto"}, {"speculate": {"type": "auto"}}):
        count, found = drafted(server, path, given)
        assert count > 0, given
        assert found == text


@pytest.mark.parametrize("path", ROUTES)
def test_false_is_refused_with_the_values_that_are_known(server: LiveServer, path: str) -> None:
    answer = server.post(path, asked(path, {"speculate": False}))
    assert answer.status_code == 400
    assert "none" in answer.text


def test_a_client_turns_drafts_off_as_the_library_does(server: LiveServer) -> None:
    client = Client(server.url)
    params = GenerationParams(temperature=0, max_tokens=30, ignore_eos=True)
    before = server.statistics().drafted
    [plain] = client.generate("abab abab abab", params.replace(speculate=None))
    assert server.statistics().drafted == before
    [found] = client.generate("abab abab abab", params)
    assert server.statistics().drafted > before
    assert found.completions == plain.completions


def test_the_metrics_of_each_source_are_the_engines_counts(server: LiveServer) -> None:
    server.complete(**ROUTES["/v1/completions"])
    seen = server.statistics()
    lines = server.client.get("/metrics").text.splitlines()
    for place, name in enumerate(("draft", "accepted")):
        told = {
            line.split('source="')[1].split('"')[0]: float(line.split()[-1])
            for line in lines
            if line.startswith(f"decodery_auto_{name}_tokens_total{{")
        }
        assert told == {source: counts[place] for source, counts in seen.by_source.items()}
        assert sum(told.values()) == (seen.drafted, seen.accepted)[place]
