"""Checks the server with litellm."""

from __future__ import annotations

from typing import Any

import pytest

litellm = pytest.importorskip("litellm")

HI = [{"role": "user", "content": "Say hello."}]
TOOL = {
    "type": "function",
    "function": {
        "name": "add",
        "parameters": {"type": "object", "properties": {"a": {"enum": [1, 2]}}, "required": ["a"]},
    },
}


@pytest.fixture
def asked(url: str) -> dict[str, Any]:
    return {
        "model": "openai/default",
        "api_base": f"{url}/v1",
        "api_key": "none",
        "messages": HI,
        "max_tokens": 20,
        "temperature": 0,
        "num_retries": 0,
    }


def test_a_reply_plain_and_streamed(asked: dict[str, Any]) -> None:
    plain = litellm.completion(**asked)
    assert plain.choices[0].message.content
    assert plain.usage.completion_tokens > 0
    chunks = list(litellm.completion(**asked, stream=True, stream_options={"include_usage": True}))
    assert (
        "".join(c.choices[0].delta.content or "" for c in chunks if c.choices)
        == plain.choices[0].message.content
    )
    built = litellm.stream_chunk_builder(chunks, messages=HI)
    assert built.choices[0].message.content == plain.choices[0].message.content
    assert built.usage.completion_tokens == plain.usage.completion_tokens


def test_tools_plain_and_streamed(asked: dict[str, Any]) -> None:
    asked |= {"tools": [TOOL], "tool_choice": "required", "max_tokens": 200}
    plain = litellm.completion(**asked)
    (call, *_) = plain.choices[0].message.tool_calls
    assert call.function.name == "add"
    assert plain.choices[0].finish_reason == "tool_calls"
    built = litellm.stream_chunk_builder(list(litellm.completion(**asked, stream=True)), messages=HI)
    assert built.choices[0].message.tool_calls[0].function.arguments == call.function.arguments


def test_text_completion(asked: dict[str, Any]) -> None:
    options = {**asked, "model": "text-completion-openai/default", "prompt": "Once upon"}
    del options["messages"]
    assert litellm.text_completion(**options).choices[0].text


def test_logprobs_and_json(asked: dict[str, Any]) -> None:
    reply = litellm.completion(**asked, logprobs=True, top_logprobs=2)
    assert len(reply.choices[0].logprobs["content"]) == reply.usage.completion_tokens
    reply = litellm.completion(**{**asked, "max_tokens": 100}, response_format={"type": "json_object"})
    assert reply.choices[0].message.content.startswith("{")


def test_errors(asked: dict[str, Any]) -> None:
    with pytest.raises(litellm.BadRequestError):
        litellm.completion(**asked, extra_body={"temprature": 1})
    with pytest.raises(litellm.NotFoundError):
        litellm.completion(**{**asked, "model": "openai/other"})
    with pytest.raises(litellm.BadRequestError):
        litellm.completion(**{**asked, "messages": [{"role": "user", "content": "word " * 20_000}]})
