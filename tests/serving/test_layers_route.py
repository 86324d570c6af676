"""Tests `/trace/layers` against the library."""

from __future__ import annotations

import base64
import threading
from typing import Any

import numpy as np
import pytest

from decodery import LLM
from decodery.serving.page.layers_route import MOST_TOKENS
from tests.serving.live import LiveServer, begin_request, until

PROMPT = "The trophy did not fit into the suitcase because it"


def asked(server: LiveServer, status: int = 200, **body: Any) -> dict[str, Any]:
    answer = server.post("/trace/layers", body)
    assert answer.status_code == status, answer.text
    found: dict[str, Any] = answer.json()
    return found


def test_the_numbers_are_those_of_the_library(server: LiveServer, library: LLM) -> None:
    views = library.layer_views(PROMPT, candidates=3)
    depth = library.model.depth
    for layer in (None, *range(1, depth + 1)):
        found = asked(server, prompt=PROMPT, layer=layer, candidates=3)
        assert (found["layers"], found["layer"]) == (depth, layer or depth)
        assert found["tokens"] == list(views.token_ids)
        shares = np.frombuffer(base64.b64decode(found["attention"]), "<f4").reshape(found["heads"], -1)
        assert np.array_equal(shares, views.layers[(layer or depth) - 1].attention)
        expected = [views.embedding, *(view.predicted for view in views.layers)]
        assert found["predicted"] == [[list(one) for one in tokens] for tokens in expected]
        pieces = dict(found["pieces"])
        named = {*found["tokens"], *(token for tokens in found["predicted"] for token, _ in tokens)}
        assert pieces == {token: library.tokenizer.token_bytes(token).hex() for token in named}
    ids = library.tokenizer.encode(PROMPT)
    assert asked(server, prompt=ids) == asked(server, prompt=PROMPT)


@pytest.mark.parametrize(
    ("body", "param"),
    [
        ({}, "prompt"),
        ({"prompt": ""}, "prompt"),
        ({"prompt": []}, "prompt"),
        ({"prompt": [1.5]}, "prompt"),
        ({"prompt": [True]}, "prompt"),
        ({"prompt": {"a": 1}}, "prompt"),
        ({"prompt": [65, 100_000]}, "prompt"),
        ({"prompt": [65, -1]}, "prompt"),
        ({"prompt": [65] * (MOST_TOKENS + 1)}, "prompt"),
        ({"prompt": "a", "layer": 0}, "layer"),
        ({"prompt": "a", "layer": -1}, "layer"),
        ({"prompt": "a", "layer": 99}, "layer"),
        ({"prompt": "a", "layer": "1"}, "layer"),
        ({"prompt": "a", "layer": True}, "layer"),
        ({"prompt": "a", "candidates": 0}, "candidates"),
        ({"prompt": "a", "candidates": 21}, "candidates"),
        ({"prompt": "a", "head": 1}, "head"),
    ],
)
def test_wrong_requests_name_their_field(server: LiveServer, body: dict[str, Any], param: str) -> None:
    error = asked(server, 400, **body)["error"]
    assert error["param"] == param


def test_the_longest_text_is_answered_and_an_unknown_model_is_not(server: LiveServer) -> None:
    found = asked(server, prompt=[65 + place % 20 for place in range(MOST_TOKENS)])
    assert len(found["tokens"]) == MOST_TOKENS
    asked(server, 404, prompt="a", model="other")


def test_passes_beside_texts_change_neither(server: LiveServer, library: LLM) -> None:
    body = {"prompt": "Hello", "max_tokens": 200, "seed": 3, "ignore_eos": True, "temperature": 0.9}
    alone = server.post("/v1/completions", body).json()["choices"][0]["text"]
    expected = asked(server, prompt=PROMPT)
    texts: list[str] = []
    writing = [
        threading.Thread(
            target=lambda: texts.append(server.post("/v1/completions", body).json()["choices"][0]["text"])
        )
        for _ in range(3)
    ]
    for thread in writing:
        thread.start()
    while any(thread.is_alive() for thread in writing):
        assert asked(server, prompt=PROMPT) == expected
    for thread in writing:
        thread.join()
    assert texts == [alone] * 3


def test_a_client_that_leaves_is_forgotten(server: LiveServer) -> None:
    connections = [begin_request(server.port, {"prompt": "a " * 200}, "/trace/layers") for _ in range(4)]
    for connection in connections:
        connection.close()
    until(lambda: not server.service.active)
    until(lambda: not server.service.layer_passes.locked())
