"""Checks what a server tells besides its answers: beams, its log, and if it is ready."""

from __future__ import annotations

import io
import json
import logging
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest

from decodery import LLM, BeamSearch, GenerationParams
from decodery.serving.logs import log_to
from tests.serving.live import LiveServer, serving, until
from tests.serving.test_load import slow

BEAMS: dict[str, Any] = {"prompt": "a", "max_tokens": 6, "use_beam_search": True, "n": 3, "ignore_eos": True}


def test_hypotheses_come_only_when_asked_and_change_no_text(server: LiveServer, library: LLM) -> None:
    told = server.stream(**BEAMS, stream_options={"include_hypotheses": True})
    steps = [event for event in told.events if event["object"] == "decodery.hypotheses"]
    assert len(steps) == 6
    for step in steps:
        assert {beam["fate"] for beam in step["beams"]} <= {"kept", "finished", "pruned"}
        assert all(isinstance(beam["text"], str) for beam in step["beams"])
    plain = server.stream(**BEAMS)
    assert not any(event["object"] == "decodery.hypotheses" for event in plain.events)
    strategy = BeamSearch(num_beams=3, num_return_sequences=3)
    params = GenerationParams(max_tokens=6, strategy=strategy, ignore_eos=True)
    expected = [c.text for c in library.generate("a", params)[0].completions]
    for stream in (told, plain):
        assert [stream.text(index) for index in range(3)] == expected
        assert stream.comments == []


@pytest.mark.parametrize("shown", [False, True])
def test_texts_are_logged_only_when_asked(
    served_llm: LLM, shown: bool, caplog: pytest.LogCaptureFixture
) -> None:
    with (
        caplog.at_level("INFO", "decodery.serving.requests"),
        serving(served_llm, log_prompts=shown) as server,
    ):
        server.complete(prompt="a secret", max_tokens=2)
        server.post("/v1/chat/completions", {"messages": [{"role": "user", "content": "secret too"}]})
    lines = [json.loads(record.message) for record in caplog.records if record.name.endswith("requests")]
    assert {line["path"] for line in lines} == {"/v1/completions", "/v1/chat/completions"}
    assert all(line["request_id"] and line["completion_tokens"] for line in lines)
    assert ("secret" in caplog.text) == shown


@pytest.fixture
def root_logger() -> Iterator[logging.Logger]:
    """Returns the root logger, which has its handlers and its level again at the end."""
    root = logging.getLogger()
    before, level = list(root.handlers), root.level
    yield root
    root.handlers = before
    root.setLevel(level)


@pytest.mark.parametrize("shown", [False, True])
def test_a_logged_traceback_quotes_nothing_of_a_client_unless_asked(
    root_logger: logging.Logger, server: LiveServer, shown: bool
) -> None:
    written = io.StringIO()
    log_to(written, whole=shown)
    with slow(server) as steps:
        # A traceback shows lines of code, which quote nobody.
        given = "".join(["sec", "ret"])
        try:
            raise KeyError(given)
        except KeyError as cause:
            steps.failure = ValueError(given)
            steps.failure.__cause__ = cause
        assert server.post("/v1/completions", {"prompt": "a"}).status_code == 500
    text = written.getvalue()
    assert text.count("Traceback") >= 1
    assert "worker.py" in text
    assert text.index("KeyError") < text.index("ValueError")
    assert ("secret" in text) == shown


def test_a_server_whose_step_does_not_end_is_not_ready(
    served_llm: LLM, monkeypatch: pytest.MonkeyPatch
) -> None:
    engine, held = served_llm.engine, threading.Event()
    step = engine._step

    def waiting() -> Any:
        assert held.wait(10)
        return step()

    monkeypatch.setattr("decodery.serving.service.SLOWEST_STEP", 0.05)
    monkeypatch.setattr(engine, "_step", waiting)
    with serving(served_llm) as server, ThreadPoolExecutor() as pool:
        assert server.client.get("/ready").status_code == 200
        asked = pool.submit(server.complete, prompt="a", max_tokens=2)
        until(lambda: server.client.get("/ready").status_code == 503)
        held.set()
        assert asked.result()["choices"]
        assert server.client.get("/ready").status_code == 200
