"""Checks a server of an encoder under load: shared batches, its queue, deadlines, clients that leave."""

from __future__ import annotations

import re
import time
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any

import httpx
import numpy as np
import pytest

from decodery import LLM
from decodery.serving.settings import RequestLimits
from tests.serving.encoders.gated import gated
from tests.serving.live import LiveServer, begin_request, serving, until
from tests.serving.test_load import leave

PATH = "/v1/embeddings"


def waiting(server: LiveServer) -> int:
    """Returns the number of requests whose texts wait."""
    return server.service.batches.waiting(server.llm.encoder.runner)


def vectors_of(answer: httpx.Response) -> Any:
    assert answer.status_code == 200, answer.text
    return np.array([entry["embedding"] for entry in answer.json()["data"]], np.float32)


def ask(pool: ThreadPoolExecutor, server: LiveServer, texts: Any, **body: Any) -> Future[httpx.Response]:
    return pool.submit(server.post, PATH, {"input": texts, **body})


def test_requests_that_wait_run_in_one_batch_and_get_the_vectors_of_each_alone(
    server: LiveServer, embedder: LLM
) -> None:
    given: list[tuple[Any, dict[str, Any]]] = [
        (["the dog", "dog cat " * 30], {}),
        ("bank", {"dimensions": 5}),
        (["a", "", "the bank of the river"], {"encoding_format": "float"}),
        ("movie " * 40, {}),
        ("movie " * 90, {"truncate_prompt_tokens": -1}),
        ("water", {"prompt": "word "}),
    ]
    with gated(server) as batches, ThreadPoolExecutor(16) as pool:
        batches.open.clear()
        first = ask(pool, server, "first")
        until(lambda: batches.batches == [1])
        asked = [ask(pool, server, texts, **body) for texts, body in given]
        until(lambda: waiting(server) == len(given))
        batches.open.set()
        assert np.array_equal(vectors_of(first.result()), embedder.embed("first").vectors)
        found = [vectors_of(one.result()) for one in asked]
    assert batches.batches == [1, 9]
    for (texts, body), vectors in zip(given, found, strict=True):
        alone = [
            embedder.embed(
                text,
                truncate_dim=body.get("dimensions"),
                prompt=body.get("prompt"),
                long="cut" if "truncate_prompt_tokens" in body else "error",
            )[0]
            for text in ([texts] if isinstance(texts, str) else texts)
        ]
        assert np.array_equal(vectors, np.stack(alone))


def test_a_short_request_does_not_wait_for_the_end_of_a_long_one(server: LiveServer) -> None:
    with gated(server) as batches, ThreadPoolExecutor(16) as pool:
        batches.seconds = 0.05
        long = ask(pool, server, ["dog cat " * 30] * 300)
        until(lambda: len(batches.batches) >= 1)
        short = ask(pool, server, "bank")
        vectors_of(short.result())
        assert len(batches.batches) <= 4
        assert not long.done()
        assert len(vectors_of(long.result())) == 300
    assert len(batches.batches) > 15


def test_a_full_queue_refuses_at_once_and_says_when_to_come_again(served_embedder: LLM) -> None:
    with (
        serving(served_embedder, RequestLimits(queued=2)) as server,
        gated(server) as batches,
        ThreadPoolExecutor(16) as pool,
    ):
        batches.open.clear()
        running = ask(pool, server, "one")
        until(lambda: batches.batches == [1] and server.service.admission.queued == 0)
        others = [ask(pool, server, text) for text in ("two", "three")]
        until(lambda: server.service.admission.queued == 2)
        for path, body in ((PATH, {"input": "a"}), ("/embed", {"inputs": "a"})):
            answer = server.post(path, body)
            assert answer.status_code == 429
            assert answer.json()["error"]["code"] == "queue_full"
            assert int(answer.headers["retry-after"]) >= 1
        batches.open.set()
        for one in (running, *others):
            vectors_of(one.result())


@pytest.mark.parametrize("phase", ["waiting", "running"])
def test_the_texts_of_a_client_that_leaves_do_not_run(server: LiveServer, phase: str) -> None:
    with gated(server) as batches, ThreadPoolExecutor(16) as pool:
        batches.open.clear()
        first = ask(pool, server, "first")
        until(lambda: batches.batches == [1])
        connection = begin_request(server.port, {"input": ["dog cat " * 30] * 300}, PATH)
        until(lambda: waiting(server) == 1)
        if phase == "running":
            batches.seconds = 0.02
            batches.open.set()
            until(lambda: len(batches.batches) >= 3)
        leave(connection)
        until(lambda: waiting(server) == 0)
        batches.open.set()
        vectors_of(first.result())
        server.settle()
    assert len(batches.batches) < 10


def test_past_its_deadline_a_request_is_a_504_whether_it_waits_or_runs(served_embedder: LLM) -> None:
    with (
        serving(served_embedder, RequestLimits(seconds=0.2)) as server,
        gated(server) as batches,
        ThreadPoolExecutor(16) as pool,
    ):
        batches.open.clear()
        asked = [ask(pool, server, "one"), ask(pool, server, "two")]
        for one in asked:
            answer = one.result()
            assert answer.status_code == 504
            assert answer.json()["error"]["code"] == "timeout"
        batches.open.set()
        until(server.is_idle)
        assert len(vectors_of(server.post(PATH, {"input": "a"}))) == 1


def test_a_batch_that_fails_ends_its_requests_with_500_and_the_next_one_works(server: LiveServer) -> None:
    with gated(server) as batches:
        batches.failure = ValueError("the secret of the model")
        answer = server.post(PATH, {"input": "a"})
        assert answer.status_code == 500
        assert "secret" not in answer.text
        vectors_of(server.post(PATH, {"input": "a"}))


def test_a_text_has_no_more_tokens_than_the_server_allows(served_embedder: LLM) -> None:
    with serving(served_embedder, RequestLimits(prompt_tokens=6)) as server:
        vectors_of(server.post(PATH, {"input": "the dog sat on"}))
        answer = server.post(PATH, {"input": "the dog sat on the mat"})
        assert answer.status_code == 400
        assert answer.json()["error"]["param"] == "input"
        assert "6 tokens" in answer.json()["error"]["message"]


def test_keys_are_needed_as_elsewhere(served_embedder: LLM) -> None:
    with serving(served_embedder, keys=("secret",)) as server:
        assert server.post(PATH, {"input": "a"}).status_code == 401
        headers = {"authorization": "Bearer secret"}
        vectors_of(server.post(PATH, {"input": "a"}, headers=headers))


def test_a_server_that_stops_refuses_new_requests_and_ends_those_that_wait(served_embedder: LLM) -> None:
    with serving(served_embedder) as server, gated(server) as batches, ThreadPoolExecutor(16) as pool:
        batches.open.clear()
        running = ask(pool, server, "one")
        until(lambda: batches.batches == [1])
        server.service.admission.draining = True
        assert server.post(PATH, {"input": "a"}).status_code == 503
        batches.open.set()
        vectors_of(running.result())
        server.service.admission.draining = False


def test_threads_end_with_the_server_while_texts_wait(served_embedder: LLM) -> None:
    server = LiveServer(served_embedder, serving_settings())
    with gated(server) as batches, ThreadPoolExecutor(16) as pool:
        batches.open.clear()
        asked = [pool.submit(_quietly, server, text) for text in ("one", "two")]
        until(lambda: waiting(server) == 1)
        closing = pool.submit(server.close)
        time.sleep(0.1)
        batches.open.set()
        closing.result(30)
        for one in asked:
            assert one.result() in (None, 200, 503)
    assert not server.service.batches.is_alive


def serving_settings() -> Any:
    from decodery.serving.settings import ServerSettings

    return ServerSettings()


def _quietly(server: LiveServer, text: str) -> int | None:
    try:
        return httpx.post(f"{server.url}{PATH}", json={"input": text}, timeout=30).status_code
    except httpx.HTTPError:
        return None


def test_batches_and_requests_are_counted(served_embedder: LLM) -> None:
    with serving(served_embedder) as server:
        vectors_of(server.post(PATH, {"input": ["the dog", "bank"]}))
        vectors_of(server.post(PATH, {"input": "a"}))
        assert server.post(PATH, {"input": "dog " * 100}).status_code == 400
        text = server.client.get("/metrics").text

    def value(name: str, **labels: str) -> float:
        shown = ",".join(f'{key}="{text}"' for key, text in {**labels, "model_name": "tiny"}.items())
        found = re.search(rf"^{name}\{{{shown}\}} (\S+)$", text, re.MULTILINE)
        assert found is not None, name
        return float(found[1])

    assert value("decodery_encoder_texts_total") == 3
    assert value("decodery_encoder_tokens_total") == 4 + 3 + 3
    assert value("decodery_encoder_batch_texts_count") == 2
    assert value("decodery_encoder_batch_texts_sum") == 3
    assert value("decodery_encoder_batch_tokens_sum") == 10
    assert value("decodery_encoder_requests_waiting") == 0
    assert value("decodery_encoder_requests_total", finished_reason="error") == 1
    assert value("decodery_encoder_requests_total", finished_reason="stop") == 2
    assert value("decodery_e2e_request_latency_seconds_count") == 3
    assert value("decodery_request_queue_time_seconds_count") == 2
