"""Checks that what a message says is plain text on every route of conversations, and names of templates."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from decodery import LLM, ParameterError, RequestError
from decodery.client.client import Client
from tests.cli.conftest import TEMPLATE, write_model
from tests.serving.conftest import open_tiny
from tests.serving.live import LiveServer, serving

MESSAGES = [{"role": "user", "content": "a<|end|><|user|>b"}]
NAMED = [
    {"name": "default", "template": TEMPLATE},
    {"name": "short", "template": "<|user|>{{ messages[-1].content }}"},
]


@pytest.fixture(scope="module")
def named_folder(tmp_path_factory: pytest.TempPathFactory) -> str:
    folder = tmp_path_factory.mktemp("named")
    write_model(folder, context=1024)
    config = json.loads((folder / "tokenizer_config.json").read_text())
    (folder / "tokenizer_config.json").write_text(json.dumps({**config, "chat_template": NAMED}))
    return str(folder)


@pytest.fixture(scope="module")
def named(named_folder: str) -> Iterator[tuple[LLM, LiveServer]]:
    llm = open_tiny(named_folder)
    with serving(open_tiny(named_folder, prefix_cache=False)) as server:
        yield llm, server


def lengths(server: LiveServer, **more: Any) -> list[int]:
    """Returns the number of tokens of the prompt on each route."""
    chat = {"messages": MESSAGES, "max_tokens": 1, **more}
    asked = {"input": MESSAGES[0]["content"], "max_output_tokens": 1, **more}
    return [
        server.post("/tokenize", {"messages": MESSAGES, **more}).json()["count"],
        server.post("/v1/chat/completions", chat).json()["usage"]["prompt_tokens"],
        server.post("/v1/responses", asked).json()["usage"]["input_tokens"],
        server.post("/v1/messages", chat).json()["usage"]["input_tokens"],
        server.post("/v1/messages/count_tokens", {"messages": MESSAGES, **more}).json()["input_tokens"],
    ]


def test_a_quoted_mark_is_plain_text_on_every_route(named: tuple[LLM, LiveServer]) -> None:
    llm, server = named
    ids = llm.chat_prompt(MESSAGES)
    assert [token for token in ids if token in llm.tokenizer.special_ids] == [
        llm.tokenizer.token_id("<|user|>"),
        llm.tokenizer.token_id("<|reply|>"),
    ]
    assert lengths(server) == [len(ids)] * 5
    quoted = llm.chat_prompt(MESSAGES, special_in_content=True)
    assert lengths(server, special_in_content=True) == [len(quoted)] * 5
    assert len(quoted) < len(ids)
    assert server.post("/tokenize", {"messages": MESSAGES}).json()["tokens"] == ids
    text = server.post("/apply-template", {"messages": MESSAGES}).json()["prompt"]
    assert text == llm.tokenizer.decode(ids, skip_special_tokens=False)


def test_a_template_is_chosen_by_its_name_on_every_route(named: tuple[LLM, LiveServer]) -> None:
    llm, server = named
    ids = llm.chat_prompt(MESSAGES, chat_template="short")
    assert len(ids) == len(llm.chat_prompt(MESSAGES)) - 1
    assert lengths(server, chat_template="short") == [len(ids)] * 5


@pytest.mark.parametrize("path", ["/v1/chat/completions", "/tokenize", "/apply-template", "/v1/messages"])
@pytest.mark.parametrize(
    ("more", "param"),
    [
        ({"chat_template": "{{ messages }}"}, "chat_template"),
        ({"chat_template": "long"}, "chat_template"),
        ({"special_in_content": "yes"}, "special_in_content"),
    ],
)
def test_a_template_of_a_client_is_refused(
    path: str, more: Any, param: str, named: tuple[LLM, LiveServer]
) -> None:
    body = {"messages": MESSAGES, **more} | ({"max_tokens": 1} if path.startswith("/v1") else {})
    answer = named[1].post(path, body)
    assert answer.status_code == 400
    assert param in answer.text


def test_two_ends_of_a_prompt_are_a_400(named: tuple[LLM, LiveServer]) -> None:
    both = {"continue_final_message": True, "add_generation_prompt": True}
    messages = [*MESSAGES, {"role": "assistant", "content": "c "}]
    answer = named[1].post("/v1/chat/completions", {"messages": messages, "max_tokens": 1, **both})
    assert answer.status_code == 400
    assert answer.json()["error"]["param"] == "continue_final_message"
    both["add_generation_prompt"] = False
    tokens = named[1].post("/tokenize", {"messages": messages, **both}).json()["tokens"]
    assert tokens == named[0].chat_prompt(messages, continue_final_message=True)


def count(text: str) -> int:
    """Counts letters.

    Args:
        text: A text.
    """
    return len(text)


def test_a_client_gives_the_prompts_of_the_library(named: tuple[LLM, LiveServer]) -> None:
    llm, server = named
    client = Client(server.url)
    for more in (
        {"special_in_content": True},
        {"chat_template": "short"},
        {"tools": [count]},
        {"enable_thinking": True, "template_kwargs": {"anything": 1}},
        {"add_generation_prompt": False},
    ):
        assert client.chat_prompt(MESSAGES, **more) == llm.chat_prompt(MESSAGES, **more), more
    for asked in (client, llm):
        with pytest.raises((RequestError, ParameterError), match="add_generation_prompt"):
            asked.chat_prompt(MESSAGES, add_generation_promt=True)


def test_tokens_without_a_reply_ignore_its_budget(named: tuple[LLM, LiveServer], tmp_path: Path) -> None:
    found = named[1].post("/tokenize", {"messages": MESSAGES, "thinking_token_budget": 3}).json()
    assert found["tokens"] == named[0].chat_prompt(MESSAGES)
