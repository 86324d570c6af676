"""Checks chat completions with calls and reasoning, streamed and plain; the model writes a given text."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

import pytest

from decodery import LLM
from tests.conversations.models import template, write_chat_model
from tests.serving.live import LiveServer, saying, serving
from tests.serving.openai.test_chat import joined

ASKED: dict[str, Any] = {"messages": [{"role": "user", "content": "Hi"}]}
FREE = {"type": "object", "properties": {"s": {"type": "string"}, "x": {"type": "number"}}}
TOOLS = [
    {"type": "function", "function": {"name": "note", "parameters": FREE}},
    {"type": "function", "function": {"name": "now", "parameters": {"type": "object", "properties": {}}}},
]


def call(name: str, arguments: str) -> str:
    return f'<tool_call>\n{{"name": "{name}", "arguments": {arguments}}}\n</tool_call>'


TEXT, NUMBER, NONE = '{"s": "a \\"b\\" {"}', '{"x": -1.5e3}', "{}"
THREE = "\n".join([call("note", TEXT), call("note", NUMBER), call("now", NONE)])


ENDINGS = {"open": "", "thinks": "<think>\n", "thought": "<think>\n\n</think>\n\n"}


@pytest.fixture(scope="module", params=ENDINGS.values(), ids=ENDINGS)
def server(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[LiveServer]:
    """Returns a server whose model's template takes tools and ends its prompt so."""
    ending = request.param.replace("\n", "\\n")
    folder = tmp_path_factory.mktemp("replies")
    path = write_chat_model(folder, template("hermes", ending=ending), special=False)
    with serving(LLM(path, dtype="float32", kv_memory="16MB")) as found:
        found.thinks = request.param == "<think>\n"  # type: ignore[attr-defined]
        yield found


def both(server: LiveServer, text: str, **body: Any) -> dict[str, Any]:
    """Returns the message that answers a body, plain and streamed the same, with its `finish_reason`."""
    body = {"max_completion_tokens": 300, **body}
    # What a model writes whose prompt has ended in the middle of its reasoning.
    text = f"Hm.</think>{text}" if server.thinks else text  # type: ignore[attr-defined]
    with saying(server, text):
        stream = server.stream_of("/v1/chat/completions", **ASKED, **body)
    with saying(server, text):
        answer = server.post("/v1/chat/completions", {**ASKED, **body})
    assert answer.status_code == 200, answer.text
    (choice,), (pieces,) = answer.json()["choices"], joined(stream)
    message: dict[str, Any] = {**choice["message"], "finish": choice["finish_reason"]}
    message["usage"] = answer.json()["usage"]["completion_tokens"]
    assert pieces["content"] == (message["content"] or "")
    assert pieces["finish"] == message["finish"]
    thought = "".join(c["delta"].get("reasoning_content") or "" for c in stream.choices)
    assert thought == message.get("reasoning_content", "")
    assert [*pieces["calls"].values()] == [
        [c["function"]["name"], c["function"]["arguments"]] for c in message.get("tool_calls", ())
    ]
    return message


def calls_of(message: dict[str, Any]) -> list[tuple[str, str]]:
    return [(c["function"]["name"], c["function"]["arguments"]) for c in message.get("tool_calls", ())]


def test_a_reply_may_have_several_calls_one_tool_twice_and_none_of_arguments(server: LiveServer) -> None:
    first, second = (both(server, THREE, tools=TOOLS) for _ in range(2))
    assert calls_of(first) == [("note", TEXT), ("note", NUMBER), ("now", NONE)]
    assert first["finish"] == "tool_calls"
    ids = [one["id"] for message in (first, second) for one in message["tool_calls"]]
    assert len(set(ids)) == 6


def test_without_parallel_calls_nothing_is_generated_after_the_first(server: LiveServer) -> None:
    alone = both(server, call("note", TEXT), tools=TOOLS, parallel_tool_calls=False)
    found = both(server, THREE, tools=TOOLS, parallel_tool_calls=False)
    assert calls_of(found) == [("note", TEXT)]
    assert found["usage"] <= alone["usage"]


def test_where_a_reply_begins_is_said_by_the_end_of_its_prompt(server: LiveServer) -> None:
    found = both(server, "Well.")
    assert found["content"] == "Well."
    assert found.get("reasoning_content") == ("Hm." if server.thinks else None)  # type: ignore[attr-defined]


@pytest.mark.parametrize("quoted", ["<think>", "</tool_call>", call("note", TEXT), "<think>a</think>"])
def test_marks_that_are_quoted_without_tools_stay_text(server: LiveServer, quoted: str) -> None:
    assert both(server, f"It writes {quoted}, then.")["content"] == f"It writes {quoted}, then."


def test_reasoning_comes_before_calls(server: LiveServer) -> None:
    found = both(server, f"Look. {call('now', NONE)}", tools=TOOLS)
    assert (found["content"], calls_of(found)) == ("Look. ", [("now", NONE)])


def test_a_stop_looks_at_visible_text_alone(server: LiveServer) -> None:
    found = both(server, f"One.{call('note', TEXT)}", tools=TOOLS, stop=["b", "m", "\n"])
    assert (found["content"], calls_of(found), found["finish"]) == ("One.", [("note", TEXT)], "tool_calls")
    found = both(server, "One, two m three", stop=[" m"])
    assert (found["content"], found["finish"]) == ("One, two", "stop")


def test_a_call_that_is_cut_is_a_length_and_keeps_what_was_written(server: LiveServer) -> None:
    found = both(server, call("note", TEXT), tools=TOOLS, max_completion_tokens=45)
    assert found["finish"] == "length"
    for _, arguments in calls_of(found):
        assert TEXT.startswith(arguments)
    with pytest.raises(json.JSONDecodeError):
        json.loads(arguments)
