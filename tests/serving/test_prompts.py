"""Checks that all routes read a conversation as the same prompt, and that none trusts a model's template."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import tokenizers

from decodery import LLM
from tests.conversations.models import template, write_chat_model
from tests.serving.live import LiveServer, serving

BOS = "<|python_tag|>"
SAID: list[dict[str, Any]] = [
    {"role": "user", "content": "The first question of a long conversation"},
    {"role": "assistant", "content": "An answer"},
    {"role": "user", "content": "Another one"},
]


def chat_server(folder: Path, chat_template: str) -> LLM:
    """Returns a model with this template, whose tokenizer puts a BOS in front of a text."""
    path = Path(write_chat_model(folder, chat_template))
    backend = tokenizers.Tokenizer.from_file(str(path / "tokenizer.json"))
    place = backend.token_to_id(BOS)
    backend.post_processor = tokenizers.processors.TemplateProcessing(
        single=f"{BOS} $A", special_tokens=[(BOS, place)]
    )
    backend.save(str(path / "tokenizer.json"))
    config = json.loads((path / "tokenizer_config.json").read_text())
    (path / "tokenizer_config.json").write_text(
        json.dumps({**config, "bos_token": BOS, "add_bos_token": True})
    )
    return LLM(path, dtype="float32", kv_memory="16MB")


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[LiveServer]:
    folder = tmp_path_factory.mktemp("bos")
    with serving(chat_server(folder, "{{ bos_token }}" + template("hermes"))) as found:
        yield found


def posted(server: LiveServer, path: str, **body: Any) -> dict[str, Any]:
    answer = server.post(path, body)
    assert answer.status_code == 200, answer.text
    found: dict[str, Any] = answer.json()
    return found


def _of_messages(server: LiveServer, **body: Any) -> tuple[int, int]:
    usage = posted(server, "/v1/messages", messages=SAID, max_tokens=1, **body)["usage"]
    return usage["input_tokens"] + usage["cache_read_input_tokens"], usage["cache_read_input_tokens"]


def _of_responses(server: LiveServer, **body: Any) -> tuple[int, int]:
    usage = posted(server, "/v1/responses", input=SAID, max_output_tokens=1, **body)["usage"]
    return usage["input_tokens"], usage["input_tokens_details"]["cached_tokens"]


def _of_chat(server: LiveServer, **body: Any) -> tuple[int, int]:
    usage = posted(server, "/v1/chat/completions", messages=SAID, max_tokens=1, **body)["usage"]
    return usage["prompt_tokens"], usage["prompt_tokens_details"]["cached_tokens"]


ROUTES: dict[str, Callable[..., tuple[int, int]]] = {
    "chat": _of_chat,
    "responses": _of_responses,
    "messages": _of_messages,
}


def test_a_conversation_has_one_bos_on_every_route(server: LiveServer) -> None:
    ids = posted(server, "/tokenize", messages=SAID)["tokens"]
    bos = posted(server, "/tokenize", prompt="")["tokens"]
    assert len(bos) == 1
    assert ids[0] == bos[0]
    assert ids.count(bos[0]) == 1
    text = posted(server, "/apply-template", messages=SAID)["prompt"]
    assert posted(server, "/tokenize", prompt=text, add_special_tokens=False)["tokens"] == ids
    chat = posted(server, "/v1/chat/completions", messages=SAID, max_tokens=1, return_token_ids=True)
    assert chat["choices"][0]["prompt_token_ids"] == ids
    assert posted(server, "/v1/messages/count_tokens", messages=SAID)["input_tokens"] == len(ids)


@pytest.mark.parametrize("second", ROUTES)
@pytest.mark.parametrize("first", ROUTES)
def test_a_prompt_of_one_route_is_found_by_another_one(server: LiveServer, first: str, second: str) -> None:
    """Only the same tokens hit the prefix cache."""
    salt = f"{first} then {second}"
    count, cached = ROUTES[first](server, cache_salt=salt)
    assert cached == 0
    assert ROUTES[second](server, cache_salt=salt) == (count, (count - 1) // 16 * 16)


ASKED: dict[str, dict[str, Any]] = {
    "/v1/chat/completions": {"messages": SAID},
    "/v1/responses": {"input": SAID},
    "/v1/messages": {"messages": SAID, "max_tokens": 3},
    "/v1/messages/count_tokens": {"messages": SAID},
    "/tokenize": {"messages": SAID},
    "/apply-template": {"messages": SAID},
}
HOSTILE = {
    "reaches out": "{{ lipsum.__globals__['os'].popen('touch PWNED').read() }}",
    "climbs": "{{ ''.__class__.__mro__[1].__subclasses__() }}",
    "reads": "{% include '/etc/passwd' %}",
    "never ends": "{% for a in range(99999) %}{% for b in range(99999) %}{% endfor %}{% endfor %}x",
    "grows": "{{ 'x' * 10000000000 }}",
}


@pytest.mark.parametrize("hostile", HOSTILE.values(), ids=HOSTILE)
def test_a_template_that_does_more_than_write_is_refused_on_every_route(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, hostile: str
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("decodery.text.chat.budget.MAX_SECONDS", 0.1)
    with serving(chat_server(tmp_path, hostile)) as server:
        for path, body in ASKED.items():
            answer = server.post(path, body)
            assert answer.status_code == 400, (path, answer.text)
            assert "Traceback" not in answer.text
            assert "root:" not in answer.text
        assert server.complete(prompt="a", max_tokens=1)["choices"]
    assert not (tmp_path / "PWNED").exists()
