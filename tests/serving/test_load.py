"""Checks a full server: its queue, deadlines, clients that leave, steps that fail, and salts."""

from __future__ import annotations

import socket
import struct
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from typing import Any

import httpx
import pytest

from decodery import LLM
from decodery.serving.settings import RequestLimits
from tests.serving.live import LiveServer, Stream, begin_request, read_stream, serving, until

LONG: dict[str, Any] = {
    "prompt": "Once upon a time, in a land far away",
    "max_tokens": 400,
    "ignore_eos": True,
    "seed": 1,
}


class SlowSteps:
    """Makes each step of an engine wait: for so many seconds, or until `go`, or fail."""

    def __init__(self, llm: LLM) -> None:
        self.seconds = 0.0
        self.failure: Exception | None = None
        self.open = threading.Event()
        self.open.set()
        self.steps = 0
        self._step = llm.engine.step_into
        llm.engine.step_into = self._slow  # type: ignore[method-assign]
        self._llm = llm

    def _slow(self, events: list[Any]) -> None:
        assert self.open.wait(30)
        self.steps += 1
        time.sleep(self.seconds)
        if self.failure is not None:
            failure, self.failure = self.failure, None
            raise failure
        self._step(events)

    def restore(self) -> None:
        self.open.set()
        self._llm.engine.step_into = self._step  # type: ignore[method-assign]


@contextmanager
def slow(server: LiveServer, seconds: float = 0.0) -> Iterator[SlowSteps]:
    """Slows the steps of a server's engine down inside the context."""
    steps = SlowSteps(server.llm)
    steps.seconds = seconds
    try:
        yield steps
    finally:
        steps.restore()


def leave(connection: socket.socket) -> None:
    """Ends a connection at once, as a process that dies does."""
    connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    connection.close()


def test_a_full_queue_refuses_at_once_and_says_when_to_come_again(served_llm: LLM) -> None:
    with serving(served_llm, RequestLimits(queued=3)) as server, slow(server) as steps:
        steps.open.clear()
        waiting = [begin_request(server.port, {**LONG, "max_tokens": 2}) for _ in range(3)]
        until(lambda: server.service.admission.queued == 3)
        for stream in (False, True):
            took = []
            for _ in range(5):
                began = time.perf_counter()
                answer = server.post("/v1/completions", {**LONG, "stream": stream})
                took.append(time.perf_counter() - began)
                assert answer.status_code == 429
                assert answer.json()["error"]["code"] == "queue_full"
                assert int(answer.headers["retry-after"]) >= 1
            assert min(took) < 0.02
        assert server.client.get("/health").status_code == 200
        steps.open.set()
        for connection in waiting:
            assert connection.recv(65536).startswith(b"HTTP/1.1 200")
            connection.close()
        assert server.complete(prompt="a", max_tokens=1)


@pytest.mark.parametrize(
    "body",
    [{}, {"best_of": 2}, {"use_beam_search": True, "n": 2}, {"stop": ["never"], "n": 2}],
    ids=["text", "best_of", "beams", "stop"],
)
def test_those_that_run_do_not_count_as_waiting(served_llm: LLM, body: dict[str, Any]) -> None:
    with serving(served_llm, RequestLimits(queued=1)) as server, slow(server, 0.002):
        running = []
        for place in range(4):
            running.append(begin_request(server.port, {**LONG, **body, "stream": place % 2 == 0}))
            until(
                lambda: (
                    server.service.admission.queued == 0 and server.service.admission.inside == len(running)
                )
            )
        assert server.statistics().running == 4
        for connection in running:
            leave(connection)


def test_past_its_deadline_a_plain_request_is_a_504_and_a_stream_ends_in_an_error(served_llm: LLM) -> None:
    with serving(served_llm, RequestLimits(seconds=0.2)) as server, slow(server, 0.01):
        began = time.monotonic()
        answer = server.post("/v1/completions", LONG)
        assert answer.status_code == 504
        assert answer.json()["error"]["code"] == "timeout"
        assert time.monotonic() - began < 2
        stream = server.stream(**LONG)
        assert stream.status == 200
        assert not stream.done
        assert stream.events[-1]["error"]["code"] == "timeout"
        assert stream.finishes == {}
        until(server.is_idle)


def test_a_deadline_holds_for_a_request_that_waits_too(served_llm: LLM) -> None:
    with serving(served_llm, RequestLimits(seconds=0.2)) as server, slow(server) as steps:
        steps.open.clear()
        with ThreadPoolExecutor() as pool:
            asked = [pool.submit(server.post, "/v1/completions", LONG) for _ in range(2)]
            time.sleep(0.4)
            steps.open.set()
            assert [one.result().status_code for one in asked] == [504, 504]


def test_pings_come_while_a_stream_waits_and_can_be_turned_off(served_llm: LLM) -> None:
    def waited(server: LiveServer) -> Stream:
        with slow(server) as steps, ThreadPoolExecutor() as pool:
            steps.open.clear()
            asked = pool.submit(server.stream, prompt="a", max_tokens=3, ignore_eos=True)
            time.sleep(0.3)
            steps.open.set()
            return asked.result()

    with serving(served_llm, pings=0.05) as server:
        stream = waited(server)
        assert len(stream.comments) >= 2
        # One line end, and never an id: a client must not take it for an event.
        assert stream.raw.startswith(b": ping\n: ping\n")
        assert b": ping\n\n" not in stream.raw.replace(b": ping\ndata", b"data")
        assert b"\nid:" not in stream.raw
        assert stream.choices[-1]["finish_reason"] == "length"
    with serving(served_llm, pings=None) as server:
        stream = waited(server)
        assert stream.comments == []
        assert stream.done


@pytest.mark.parametrize(
    "body", [{"best_of": 2}, {"use_beam_search": True, "n": 2}, {"include_hypotheses": True}], ids=str
)
def test_pings_come_while_steps_add_nothing_that_can_be_told(served_llm: LLM, body: dict[str, Any]) -> None:
    if "include_hypotheses" in body:
        body = {"use_beam_search": True, "n": 2, "stream_options": body}
    with serving(served_llm, pings=0.05) as server, slow(server, 0.01):
        stream = server.stream(prompt="a", max_tokens=40, ignore_eos=True, **body)
    told = [event for event in stream.events if event["object"] == "decodery.hypotheses"]
    assert (len(stream.comments) >= 3) != bool(told)
    assert stream.done


def test_prefill_progress_comes_only_when_asked(server: LiveServer) -> None:
    prompt = [*range(200)]
    stream = server.stream(prompt=prompt, max_tokens=2, return_progress=True, cache_salt="progress")
    told = [event["prompt_progress"] for event in stream.events if "prompt_progress" in event]
    assert told
    assert all(one["total"] == 200 for one in told)
    assert [one["processed"] for one in told] == sorted(one["processed"] for one in told)
    assert not any("prompt_progress" in e for e in server.stream(prompt=prompt, max_tokens=2).events)


PHASES = ("queued", "prefill", "decoding", "grammar")


@pytest.mark.parametrize("stream", [False, True], ids=["plain", "stream"])
@pytest.mark.parametrize("phase", PHASES)
def test_a_client_that_leaves_frees_its_pages_within_a_step(
    served_llm: LLM, phase: str, stream: bool
) -> None:
    body = {**LONG, "stream": stream, "cache_salt": f"{phase}{stream}"}
    with serving(served_llm) as server, slow(server) as steps:
        if phase == "queued":
            steps.open.clear()
        elif phase == "prefill":
            body |= {"prompt": [7] * 400, "max_tokens": 50}
            steps.seconds = 0.1
        elif phase == "grammar":
            body["structured_outputs"] = {"regex": "(a?b?c?){1,90}x"}
        connection = begin_request(server.port, body)
        until(lambda: server.service.admission.inside == 1)
        if phase == "prefill":
            until(lambda: steps.steps == 2)
        elif phase == "decoding":
            steps.seconds = 0.01
            until(lambda: server.llm.engine.statistics().generated_tokens > 0 and steps.steps > 8)
        leave(connection)
        if phase == "queued":
            time.sleep(0.05)
            steps.open.set()
        before = steps.steps
        until(server.is_idle, 20)
        if phase in ("prefill", "decoding"):
            assert steps.steps - before <= 3
        server.on_worker(server.llm.engine.check_integrity)
        if phase in ("prefill", "decoding"):
            # What it has computed is still found by the next one.
            steps.seconds = 0
            again = server.complete(**{**body, "stream": False, "max_tokens": 1})
            assert again["usage"]["prompt_tokens_details"]["cached_tokens"] >= 16


def test_a_client_that_leaves_with_many_choices_frees_them_all(server: LiveServer) -> None:
    with slow(server, 0.005) as steps:
        connection = begin_request(server.port, {**LONG, "prompt": ["a", "b", "c"], "n": 5})
        until(lambda: steps.steps > 5)
        leave(connection)
        until(server.is_idle)


def test_a_client_that_half_closes_still_gets_its_answer_or_is_dropped(server: LiveServer) -> None:
    connection = begin_request(server.port, {"prompt": "a", "max_tokens": 3})
    connection.shutdown(socket.SHUT_WR)
    connection.recv(65536)
    connection.close()
    until(server.is_idle)


def test_a_client_that_reads_nothing_delays_no_other(server: LiveServer) -> None:
    slow_reader = begin_request(server.port, {**LONG, "n": 8, "stream": True, "logprobs": 20})
    began = time.monotonic()
    assert server.complete(prompt="a", max_tokens=5)
    assert time.monotonic() - began < 10
    leave(slow_reader)
    until(server.is_idle)


def test_a_step_that_fails_ends_its_requests_with_500_and_the_next_one_works(server: LiveServer) -> None:
    with slow(server, 0.01) as steps, ThreadPoolExecutor() as pool:
        plain = [pool.submit(server.post, "/v1/completions", LONG) for _ in range(2)]
        stream = pool.submit(server.stream, **LONG)
        until(lambda: server.statistics().running == 3)
        steps.failure = ValueError("the secret of the engine")
        for one in plain:
            answer = one.result()
            assert answer.status_code == 500
            assert "secret" not in answer.text
        found = stream.result()
        assert found.events[-1]["error"]["type"] == "server_error"
        assert not found.done
        assert found.finishes == {}
        assert b"secret" not in found.raw
    assert server.complete(**LONG)["usage"]["completion_tokens"] == 400
    until(server.is_idle)


def test_a_step_that_fails_in_the_middle_of_a_stream_ends_it_with_an_error_event(server: LiveServer) -> None:
    with (
        slow(server, 0.002) as steps,
        httpx.stream(
            "POST", f"{server.url}/v1/completions", json={**LONG, "stream": True}, timeout=30
        ) as answer,
    ):
        parts = answer.iter_raw()
        first = next(parts)
        steps.failure = MemoryError()
        found = read_stream(answer.status_code, iter([first, *parts]))
    assert found.choices
    assert found.events[-1]["error"]["type"] == "server_error"
    assert not found.done
    assert found.finishes == {}


def test_a_grammar_that_is_slow_to_compile_is_a_400_and_delays_nobody(
    served_llm: LLM, monkeypatch: pytest.MonkeyPatch
) -> None:
    prepare = served_llm.intake.prepare

    def slowly(prompt: Any, params: Any, **options: Any) -> Any:
        if params.grammar is not None:
            time.sleep(0.6)
        return prepare(prompt, params, **options)

    monkeypatch.setattr(served_llm.intake, "prepare", slowly)
    with serving(served_llm, RequestLimits(preparing_seconds=0.15)) as server, ThreadPoolExecutor() as pool:
        asked = [
            pool.submit(
                server.post, "/v1/completions", {"prompt": "a", "structured_outputs": {"regex": f"a{i}"}}
            )
            for i in range(8)
        ]
        time.sleep(0.05)
        began = time.monotonic()
        assert server.complete(prompt="a", max_tokens=1)
        assert time.monotonic() - began < 0.5
        # Those that ran are too slow, and those that never did are told that the server is busy.
        assert {one.result().status_code for one in asked} == {400, 503}
        until(lambda: server.service.admission.inside == 0)


def cached(server: LiveServer, key: str, **body: Any) -> int:
    headers = {"authorization": f"Bearer {key}"}
    answer = server.post("/v1/completions", {"prompt": "s" * 64, "max_tokens": 1, **body}, headers=headers)
    assert answer.status_code == 200, answer.text
    found: int = answer.json()["usage"]["prompt_tokens_details"]["cached_tokens"]
    return found


def test_no_key_finds_the_pages_of_another_whatever_salt_it_sends(served_llm: LLM) -> None:
    keys = ("alpha", "beta", "a", "ab", "abc")
    with serving(served_llm, keys=keys) as server:
        for salt in ({}, {"cache_salt": "x"}, {"cache_salt": "bc"}):
            assert cached(server, "alpha", **salt) == 0
            assert cached(server, "alpha", **salt) == 48
        for salt in ({}, {"cache_salt": "x"}, {"cache_salt": "alphax"}, {"cache_salt": "alpha"}):
            assert cached(server, "beta", **salt) == 0
        # The lengths of key and salt are part of the page keys.
        assert cached(server, "a", cache_salt="bc") == 0
        assert cached(server, "ab", cache_salt="c") == 0
        assert cached(server, "abc") == 0
        assert cached(server, "alpha", cache_salt="y") == 0


def test_priority_is_heard_and_checked(server: LiveServer) -> None:
    assert server.complete(prompt="a", max_tokens=1, priority=-5)
    for wrong in (1.5, "1", True):
        assert server.refused(prompt="a", priority=wrong)["param"] == "priority"


def test_metrics_count_what_was_done(server: LiveServer) -> None:
    def count(name: str) -> float:
        lines = server.client.get("/metrics").text.splitlines()
        return sum(float(line.rsplit(" ", 1)[1]) for line in lines if line.startswith(name))

    before = {n: count(f"decodery_{n}") for n in ("request_success_total", "generation_tokens_total")}
    server.complete(prompt="a", max_tokens=5, n=2, ignore_eos=True)
    server.stream(prompt="a", max_tokens=5, ignore_eos=True)
    # A stream is counted after its client has read its end.
    until(lambda: not server.service.active)
    assert count("decodery_request_success_total") - before["request_success_total"] == 3
    assert count("decodery_generation_tokens_total") - before["generation_tokens_total"] == 15
    assert count("decodery_requests_running") == 0
    assert count("decodery_kv_cache_usage_perc") == 0
    assert count("decodery_time_to_first_token_seconds_count") > 0
