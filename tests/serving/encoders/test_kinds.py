"""Tests a server of decoders and encoders: which routes each answers, and how they take turns in memory."""

from __future__ import annotations

import weakref
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from decodery import LLM
from decodery.serving.models import ModelSource
from decodery.serving.settings import ServerSettings
from tests.serving.conftest import open_tiny
from tests.serving.live import LiveServer

HI = [{"role": "user", "content": "Hi"}]
GENERATING: dict[str, dict[str, Any]] = {
    "/v1/completions": {"prompt": "Hi"},
    "/v1/chat/completions": {"messages": HI},
    "/v1/responses": {"input": "Hi"},
    "/v1/messages": {"messages": HI, "max_tokens": 1},
    "/v1/messages/count_tokens": {"messages": HI},
    "/apply-template": {"messages": HI},
    "/tokenize": {"messages": HI},
    "/trace": {"requests": [{"prompt": "Hi"}]},
}
READING: dict[str, dict[str, Any]] = {
    "/v1/embeddings": {"input": "Hi"},
    "/embed": {"inputs": "Hi"},
}


def message_of(answer: Any) -> dict[str, Any]:
    assert answer.status_code == 400, answer.text
    found: dict[str, Any] = answer.json()["error"]
    return found


class Mixed(LiveServer):
    """Serves a decoder and an encoder, of which `memory` models may be open at once."""

    def __init__(self, folder: str, embedder_folder: Path, memory: int | None, *, pinned: bool) -> None:
        self.encoders: list[Any] = []

        def opens() -> LLM:
            llm = LLM(embedder_folder)
            self.encoders.append(weakref.ref(llm.encoder.model))
            return llm

        decoder = open_tiny(folder)
        sources = [
            ModelSource("writer", lambda: decoder, lambda: 1, pinned, kind="decoder"),
            ModelSource("reader", opens, lambda: 1, pinned, kind="encoder"),
        ]
        super().__init__(decoder, ServerSettings(), sources, memory)


@pytest.fixture(scope="module")
def mixed(folder: str, embedder_folder: Path) -> Iterator[Mixed]:
    server = Mixed(folder, embedder_folder, None, pinned=True)
    yield server
    server.close()


def test_the_list_tells_what_each_model_does(mixed: Mixed) -> None:
    writer, reader = mixed.client.get("/v1/models").json()["data"]
    assert (writer["kind"], reader["kind"]) == ("decoder", "encoder")
    assert reader["max_model_len"] == 64
    assert reader["routes"] == ["/v1/embeddings", "/embed", "/embed_all"]
    assert "routes" not in writer
    assert mixed.client.get("/v1/models/reader").json() == reader


@pytest.mark.parametrize("path", GENERATING)
def test_a_generating_route_on_an_encoder_is_a_400_that_names_what_fits(mixed: Mixed, path: str) -> None:
    error = message_of(mixed.post(path, {**GENERATING[path], "model": "reader"}))
    assert "encoder" in error["message"]
    assert "/v1/embeddings" in error["message"]
    if "/v1/messages" not in path:
        assert error["param"] == "model"


def test_what_a_client_needs_before_a_trace_is_none_of_an_encoder(mixed: Mixed) -> None:
    assert "encoder" in message_of(mixed.client.get("/trace?model=reader"))["message"]
    assert mixed.client.get("/trace").json()["model"] == "writer"


@pytest.mark.parametrize("path", READING)
def test_a_reading_route_on_a_decoder_is_a_400_that_names_what_fits(mixed: Mixed, path: str) -> None:
    error = message_of(mixed.post(path, {**READING[path], "model": "writer"}))
    assert error["param"] == "model"
    assert "encoder" in error["message"]


def test_a_request_without_a_name_gets_the_first_model_of_the_kind_that_the_route_needs(
    mixed: Mixed,
) -> None:
    assert mixed.post("/v1/embeddings", {"input": "Hi"}).json()["model"] == "reader"
    assert len(mixed.post("/embed", {"inputs": ["Hi", "a"]}).json()) == 2
    assert mixed.complete(prompt="Hi", max_tokens=1)["model"] == "writer"


def test_a_refused_model_is_not_kept_in_use(mixed: Mixed) -> None:
    for path, body in GENERATING.items():
        message_of(mixed.post(path, {**body, "model": "reader"}))
    assert [entry.users for entry in mixed.service.models._entries.values()] == [0, 0]


def test_tokens_of_an_encoder_are_told(mixed: Mixed, embedder: LLM) -> None:
    found = mixed.post(
        "/tokenize", {"model": "reader", "prompt": "the dog", "return_token_strs": True}
    ).json()
    assert found["tokens"] == embedder.tokenizer.encode("the dog")
    assert found["max_model_len"] == 64
    text = mixed.post("/detokenize", {"model": "reader", "tokens": found["tokens"]}).json()["prompt"]
    assert "the dog" in text
    assert mixed.client.get("/tokenizer_info?model=reader").json()["vocab_size"] > 10


def test_tokens_of_texts_are_told_with_their_characters(mixed: Mixed, embedder: LLM) -> None:
    texts = ["The dog's mat", "naïve 😀 dog", ""]
    found = mixed.post("/tokenize", {"inputs": texts}).json()
    for text, tokens in zip(texts, found, strict=True):
        assert [token["id"] for token in tokens] == embedder.tokenizer.encode(text)
        assert [tokens[0]["text"], tokens[-1]["text"]] == ["[CLS]", "[SEP]"]
        assert tokens[0]["special"]
        assert tokens[0]["start"] is None
        inner = [token for token in tokens if not token["special"]]
        assert all(token["text"] == text[token["start"] : token["stop"]] for token in inner)
    assert [token["text"] for token in found[0]][1:3] == ["The", "dog"]
    assert [token["text"] for token in found[1] if not token["special"]][-1] == "dog"
    bare = mixed.post("/tokenize", {"inputs": "the dog", "add_special_tokens": False}).json()
    assert [token["text"] for token in bare[0]] == ["the", "dog"]
    for wrong in ([], [3], {"a": 1}, 3):
        assert message_of(mixed.post("/tokenize", {"inputs": wrong}))["param"] == "inputs"


def test_health_and_metrics_hold_with_both_kinds(mixed: Mixed) -> None:
    assert mixed.client.get("/health").status_code == 200
    assert mixed.client.get("/ready").status_code == 200
    mixed.post("/v1/embeddings", {"input": "Hi"})
    text = mixed.client.get("/metrics").text
    assert 'decodery_encoder_texts_total{model_name="reader"}' in text
    assert 'decodery_requests_running{model_name="writer"}' in text
    assert 'decodery_requests_running{model_name="reader"}' not in text


def test_models_of_both_kinds_take_turns_in_memory(folder: str, embedder_folder: Path) -> None:
    server = Mixed(folder, embedder_folder, 1, pinned=False)
    try:
        vectors = []
        for _ in range(3):
            assert server.complete(model="writer", prompt="Hi", max_tokens=1)
            assert sum(one() is not None for one in server.encoders) == 0
            vectors.append(server.post("/v1/embeddings", {"model": "reader", "input": "the dog"}).json())
            assert [model.name for model in server.service.models.opened] == ["reader"]
        assert vectors[0]["data"] == vectors[1]["data"] == vectors[2]["data"]
        assert len(server.encoders) == 3
    finally:
        server.close()
