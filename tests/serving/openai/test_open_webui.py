"""Checks the server with the bodies that Open WebUI 0.12 sends to a server of OpenAI's interface.

It sends JSON with a bearer key, and fields that a person sets in its page stand beside OpenAI's. It keeps
tool calls by the `index` of their pieces, and sends them back with the results of the tools.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

import httpx
import pytest

from decodery import LLM
from tests.conversations.models import template, write_chat_model
from tests.serving.live import LiveServer, Stream, read_stream, saying, serving

KEY = "sk-open-webui"
HEADERS = {"Content-Type": "application/json", "Authorization": f"Bearer {KEY}"}
SYSTEM = {"role": "system", "content": 'You are kind.\n\nContext:\n<source id="1">A file</source>'}
USER = {"role": "user", "content": "What is the weather in Ulm?"}
# As its function specifications are, of which the optional parameters have defaults.
TOOLS = [
    {
        "type": "function",
        "function": {
            "name": "get_weather",
            "description": "Get the weather of a place.",
            "parameters": {
                "properties": {
                    "place": {"description": "The place.", "type": "string"},
                    "days": {"default": 5, "description": "The days.", "type": "integer"},
                    "units": {"items": {"type": "string"}, "type": "array"},
                },
                "required": ["place"],
                "type": "object",
            },
        },
    },
    {
        "type": "function",
        "function": {
            "name": "get_current_timestamp",
            "description": "Get the time.",
            "parameters": {"properties": {}, "type": "object"},
        },
    },
]
CALL = '<tool_call>\n{"name": "get_weather", "arguments": {"place": "Ulm", "days": 2}}\n</tool_call>'
NOW = '<tool_call>\n{"name": "get_current_timestamp", "arguments": {}}\n</tool_call>'


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[LiveServer]:
    """Returns a server with a key, whose model's template takes tools."""
    path = write_chat_model(tmp_path_factory.mktemp("webui"), template("hermes"))
    with serving(LLM(path, dtype="float32", kv_memory="16MB"), keys=(KEY,)) as found:
        yield found


def sent(server: LiveServer, body: dict[str, Any], path: str = "/v1/chat/completions") -> httpx.Response:
    """Returns the answer to a body, sent as that client sends it."""
    data = json.dumps({"model": "tiny", **body})
    return server.client.post(path, content=data, headers=HEADERS)


def answered(server: LiveServer, body: dict[str, Any]) -> dict[str, Any]:
    answer = sent(server, body)
    assert answer.status_code == 200, answer.text
    (choice,) = answer.json()["choices"]
    found: dict[str, Any] = choice
    return found


def streamed(server: LiveServer, body: dict[str, Any]) -> Stream:
    answer = sent(server, {**body, "stream": True})
    assert answer.status_code == 200, answer.text
    assert "text/event-stream" in answer.headers["content-type"]
    return read_stream(answer.status_code, iter([answer.content]))


def calls_of(stream: Stream) -> list[dict[str, Any]]:
    """Returns the calls that the pieces of a stream join to, by their index as that client joins them."""
    found: dict[int, dict[str, Any]] = {}
    for choice in stream.choices:
        for piece in choice["delta"].get("tool_calls", ()):
            if piece["index"] not in found:
                assert isinstance(piece["function"]["arguments"], str)
                found[piece["index"]] = piece
            else:
                assert not piece["function"].get("name")
                found[piece["index"]]["function"]["arguments"] += piece["function"]["arguments"]
    return list(found.values())


def test_models_are_listed_with_what_the_client_reads(server: LiveServer) -> None:
    answer = server.client.get("/v1/models", headers=HEADERS)
    (model,) = answer.json()["data"]
    assert model["id"] == "tiny"
    # Models of other owners get Ollama's fields.
    assert model["owned_by"] not in ("ollama", "arena")
    refused = server.client.get("/v1/models", headers={"Content-Type": "application/json"})
    assert refused.status_code == 401
    assert refused.json()["error"]["message"]


SET_IN_THE_PAGE: dict[str, Any] = {
    "temperature": 0.8,
    "top_p": 0.9,
    "top_k": 40,
    "min_p": 0.05,
    "max_tokens": 12,
    "frequency_penalty": 0.1,
    "presence_penalty": 0.1,
    "seed": 42,
    "stop": ["\n\n"],
    "logit_bias": {"65": -100},
    "response_format": {"type": "text"},
}


def test_a_chat_is_streamed_with_its_usage(server: LiveServer) -> None:
    body = {**SET_IN_THE_PAGE, "messages": [SYSTEM, USER], "stream_options": {"include_usage": True}}
    stream = streamed(server, body)
    assert stream.done
    assert stream.events[-1]["usage"]["completion_tokens"] > 0
    joined = "".join(choice["delta"].get("content") or "" for choice in stream.choices)
    plain = answered(server, {**SET_IN_THE_PAGE, "messages": [SYSTEM, USER], "stream": False})
    assert plain["message"]["content"] == joined


TASKS = {
    "title": {"max_completion_tokens": 100},
    "title of a server that is not OpenAI's": {"max_tokens": 100},
    "follow-ups, tags, queries": {},
    "emoji": {"max_tokens": 4},
}


@pytest.mark.parametrize("more", TASKS.values(), ids=TASKS)
def test_its_tasks_are_answered_whole(server: LiveServer, more: dict[str, Any]) -> None:
    prompt = "### Task:\nGenerate a title.\n### Output:\nJSON\n<chat_history>\nUSER: Hi\n</chat_history>"
    body = {"messages": [{"role": "user", "content": prompt}], "stream": False, **more}
    with saying(server, '{"title": "A walk"}'):
        choice = answered(server, body)
    assert (
        choice["message"]["content"]
        == '{"title": "A walk"}'[: 4 if len(more) and 4 in more.values() else None]
    )
    assert choice["message"]["role"] == "assistant"


def test_calls_of_tools_come_back_with_their_results(server: LiveServer) -> None:
    """The client calls tools in its native mode, and goes on with the same conversation."""
    asked = {"messages": [SYSTEM, USER], "tools": TOOLS, "stream_options": {"include_usage": True}}
    with saying(server, f"Let me see. {CALL}\n{NOW}"):
        stream = streamed(server, asked)
    assert stream.finishes == {0: "tool_calls"}
    calls = calls_of(stream)
    assert [call["function"]["name"] for call in calls] == ["get_weather", "get_current_timestamp"]
    assert [json.loads(call["function"]["arguments"]) for call in calls] == [{"place": "Ulm", "days": 2}, {}]
    assert len({call["id"] for call in calls}) == 2
    said = {
        "role": "assistant",
        "content": "Let me see.",
        "tool_calls": [{"id": c["id"], "type": "function", "function": c["function"]} for c in calls],
        "reasoning_content": "The user wants the weather.",
        "reasoning_details": [{"type": "reasoning.text", "text": "The user wants the weather."}],
    }
    results = [{"role": "tool", "tool_call_id": call["id"], "content": "Rain"} for call in calls]
    with saying(server, "It rains."):
        again = streamed(server, {**asked, "messages": [SYSTEM, USER, said, *results]})
    assert "".join(choice["delta"].get("content") or "" for choice in again.choices) == "It rains."
    assert again.finishes == {0: "stop"}
    assert calls_of(again) == []


def test_a_reply_goes_on_when_the_person_says_so(server: LiveServer) -> None:
    """Its button to continue sends the reply so far as the last message."""
    messages = [USER, {"role": "assistant", "content": "It ra"}]
    flags = {"continue_final_message": True, "add_generation_prompt": False}
    with saying(server, "ins."):
        stream = streamed(server, {"messages": messages, **flags})
    assert "".join(choice["delta"].get("content") or "" for choice in stream.choices) == "ins."
    assert answered(server, {"messages": messages, "max_tokens": 2})["finish_reason"]


def test_parts_of_a_message_are_text_alone(server: LiveServer) -> None:
    text = {"type": "text", "text": "Hi"}
    image = {"type": "image_url", "image_url": {"url": "data:image/png;base64,AAAA"}}
    assert answered(server, {"messages": [{"role": "user", "content": [text]}], "max_tokens": 2})
    for stream in (False, True):
        answer = sent(server, {"messages": [{"role": "user", "content": [text, image]}], "stream": stream})
        # The client shows the error of a JSON body; it takes a stream for an answer.
        assert (answer.status_code, answer.headers["content-type"]) == (400, "application/json")
        assert answer.json()["error"]["param"] == "messages[0].content[1]"


@pytest.mark.parametrize("name", ["repeat_penalty", "num_ctx", "keep_alive", "think"])
def test_a_parameter_of_ollama_that_a_person_sets_is_told(server: LiveServer, name: str) -> None:
    answer = sent(server, {"messages": [USER], "stream": True, name: 1})
    assert answer.status_code == 400
    assert answer.json()["error"]["param"] == name


def text_part(text: str) -> dict[str, str]:
    return {"type": "output_text", "text": text}


def test_a_connection_by_responses_is_answered(server: LiveServer) -> None:
    """The same conversation, as the client writes it for a connection of the type of responses."""
    said = [
        {
            "type": "reasoning",
            "id": "rs_1",
            "summary": [],
            "content": [{"type": "output_text", "text": "Hm."}],
        },
        {"type": "message", "role": "assistant", "content": [{"type": "output_text", "text": "Let me see."}]},
        {
            "type": "function_call",
            "id": "fc_1",
            "call_id": "call_1",
            "name": "get_weather",
            "arguments": '{"place": "Ulm"}',
        },
        {
            "type": "function_call_output",
            "call_id": "call_1",
            "output": [{"type": "input_text", "text": "Rain"}],
        },
    ]
    user = {"type": "message", "role": "user", "content": [{"type": "input_text", "text": "The weather?"}]}
    tools = [{"type": "function", **tool["function"], "strict": False} for tool in TOOLS]  # type: ignore[dict-item]
    body = {
        "input": [user, *said, user],
        "instructions": "You are kind.",
        "max_output_tokens": 200,
        "temperature": 0.8,
        "tools": tools,
    }
    with saying(server, f"Again. {CALL}"):
        answer = sent(server, {**body, "stream": False, "temperature": 0}, "/v1/responses")
    assert answer.status_code == 200, answer.text
    assert [item["type"] for item in answer.json()["output"]] == ["message", "function_call"]
    with saying(server, f"Again. {CALL}"):
        stream = sent(server, {**body, "stream": True, "temperature": 0}, "/v1/responses")
    assert "response.completed" in stream.text
