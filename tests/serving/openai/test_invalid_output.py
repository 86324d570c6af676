"""Checks what a client sees of texts that do not satisfy their JSON schema, on all routes."""

from __future__ import annotations

import json
from typing import Any

import pytest

from tests.serving.live import LiveServer
from tests.test_invalid_texts import NEVER, PAIRS

MESSAGES = [{"role": "user", "content": "Hi"}]
ADD = {
    "name": "add",
    "parameters": {"type": "object", "properties": {"of": NEVER}, "required": ["of"]},
}


def strict(schema: Any, value: bool = False) -> dict[str, Any]:
    described = {"name": "s", "schema": schema, "strict": value}
    return {"type": "json_schema", "json_schema": described}


def bodies(schema: Any, **changes: Any) -> dict[str, dict[str, Any]]:
    """Returns a request for a text of a schema on each route."""
    sizes = {"seed": 1, **changes}
    grammar = {"type": "json_schema", "schema": schema, "unsupported": "approximate"}
    return {
        "/v1/chat/completions": {"messages": MESSAGES, "response_format": strict(schema), **sizes},
        "/v1/completions": {"prompt": "Hi", "grammar": grammar, "max_tokens": 30, **sizes},
        "/v1/responses": {
            "input": "Hi",
            "text": {"format": {"type": "json_schema", "name": "s", "schema": schema}},
            **sizes,
        },
    }


def anthropic(**changes: Any) -> dict[str, Any]:
    tool = {"name": "add", "input_schema": ADD["parameters"]}
    choice = {"type": "tool", "name": "add"}
    return {"messages": MESSAGES, "max_tokens": 300, "tools": [tool], "tool_choice": choice, **changes}


@pytest.mark.parametrize("path", list(bodies(NEVER)))
def test_an_answer_without_a_valid_text_is_an_error_with_the_keyword(server: LiveServer, path: str) -> None:
    answer = server.client.post(path, json=bodies(NEVER)[path])
    assert answer.status_code == 422, answer.text
    error = answer.json()["error"]
    assert error["code"] == "invalid_output"
    assert "uniqueItems" in error["message"]


@pytest.mark.parametrize("path", list(bodies(NEVER)))
def test_a_stream_of_an_invalid_text_ends_in_an_error(server: LiveServer, path: str) -> None:
    answer = server.client.post(path, json=bodies(NEVER, stream=True)[path])
    assert answer.status_code == 200
    assert "invalid_output" in answer.text or "uniqueItems" in answer.text
    assert '"finish_reason":"' not in answer.text
    assert '"status":"completed"' not in answer.text.split("response.completed")[-1]
    assert "[DONE]" not in answer.text


@pytest.mark.parametrize("stream", [False, True])
def test_calls_with_invalid_arguments_are_errors_on_both_interfaces(server: LiveServer, stream: bool) -> None:
    tools = [{"type": "function", "function": ADD}]
    body = {"messages": MESSAGES, "tools": tools, "tool_choice": "required", "stream": stream, "seed": 1}
    chat = server.client.post("/v1/chat/completions", json={**body, "parallel_tool_calls": False})
    message = server.client.post("/v1/messages", json=anthropic(stream=stream))
    for answer in (chat, message):
        assert answer.status_code == (200 if stream else 422), answer.text
        assert "uniqueItems" in answer.text
    assert '"stop_reason":"tool_use"' not in message.text


def test_of_several_choices_the_valid_ones_are_returned(server: LiveServer) -> None:
    answer = server.client.post("/v1/chat/completions", json=bodies(PAIRS, n=8)["/v1/chat/completions"])
    choices = answer.json()["choices"]
    assert 0 < len(choices) < 8
    assert {choice["finish_reason"] for choice in choices} == {"stop"}
    for choice in choices:
        assert len(set(json.loads(choice["message"]["content"]))) == 2


def test_a_stream_of_several_choices_ends_the_valid_ones_and_then_in_an_error(server: LiveServer) -> None:
    body = bodies(PAIRS, n=8, stream=True)["/v1/chat/completions"]
    lines = server.client.post("/v1/chat/completions", json=body).text.strip().split("\n\n")
    events = [json.loads(line.removeprefix("data: ")) for line in lines if line.startswith("data: {")]
    ends = [choice["finish_reason"] for event in events[:-1] for choice in event["choices"]]
    assert 0 < ends.count("stop") < 8
    assert set(ends) == {None, "stop"}
    assert events[-1]["error"]["code"] == "invalid_output"


def test_a_strict_schema_must_be_followed_exactly(server: LiveServer) -> None:
    body = {"messages": MESSAGES, "response_format": strict(NEVER, True)}
    answer = server.client.post("/v1/chat/completions", json=body)
    assert answer.status_code == 400
    assert "uniqueItems" in answer.json()["error"]["message"]
    tools = [{"type": "function", "function": {**ADD, "strict": True}}]
    answer = server.client.post("/v1/chat/completions", json={"messages": MESSAGES, "tools": tools})
    assert answer.status_code == 400
    assert answer.json()["error"]["param"] == "tools[0].function.parameters"


@pytest.mark.parametrize("stream", [False, True])
def test_an_unknown_format_is_told_in_a_header(server: LiveServer, stream: bool) -> None:
    schema = {"type": "string", "format": "mongoId\r\nx", "maxLength": 3}
    body = {"messages": MESSAGES, "response_format": strict(schema), "stream": stream}
    answer = server.client.post("/v1/chat/completions", json=body)
    assert answer.status_code == 200, answer.text
    assert answer.headers.get_list("x-decodery-warning") == [
        r'the format "mongoId\r\nx" is not known: it does not restrict the text'
    ]
