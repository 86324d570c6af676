"""Checks `/v1/chat/completions`: streams against plain answers, choices, tools, and wrong fields."""

from __future__ import annotations

import json
import random
from collections.abc import Mapping
from typing import Any

import pytest

from tests.serving.live import LiveServer, Stream
from tests.serving.openai.test_openai_client import ADD, TIME

PATH = "/v1/chat/completions"
ASKED: dict[str, Any] = {"messages": [{"role": "user", "content": "Hi"}], "max_tokens": 12, "seed": 1}


def ask(server: LiveServer, status: int = 200, **body: Any) -> dict[str, Any]:
    answer = server.post(PATH, {**ASKED, **body})
    assert answer.status_code == status, answer.text
    found: dict[str, Any] = answer.json()
    return found


def joined(stream: Stream) -> list[dict[str, Any]]:
    """Returns the choices that the chunks of a stream join to, by their index."""
    found: dict[int, dict[str, Any]] = {}
    for choice in stream.choices:
        one = found.setdefault(choice["index"], {"content": "", "calls": {}, "entries": [], "finish": None})
        delta = choice["delta"]
        one["content"] += delta.get("content") or ""
        for call in delta.get("tool_calls", ()):
            if "id" in call:
                assert (call["type"], call["function"]["arguments"]) == ("function", "")
                assert call["index"] == len(one["calls"])
                one["calls"][call["index"]] = [call["function"]["name"], ""]
            else:
                one["calls"][call["index"]][1] += call["function"]["arguments"]
        one["entries"] += (choice["logprobs"] or {}).get("content", ())
        if choice["finish_reason"] is not None:
            assert one["finish"] is None
            one["finish"] = choice["finish_reason"]
    return [found[index] for index in sorted(found)]


def plain(answer: Mapping[str, Any]) -> list[dict[str, Any]]:
    """Returns the choices of a plain answer in the same form."""
    return [
        {
            "content": choice["message"]["content"] or "",
            "calls": {
                place: [call["function"]["name"], call["function"]["arguments"]]
                for place, call in enumerate(choice["message"].get("tool_calls", ()))
            },
            "entries": (choice["logprobs"] or {}).get("content", []),
            "finish": choice["finish_reason"],
        }
        for choice in answer["choices"]
    ]


def random_body(source: random.Random) -> dict[str, Any]:
    body: dict[str, Any] = {
        "messages": [{"role": "user", "content": source.choice(["Hi", "ä", "1 + 1"])}],
        "max_tokens": source.choice([1, 5, 40, 90]),
        "temperature": source.choice([0, 0.7, 1.5]),
        "seed": source.randrange(1000),
        "n": source.choice([1, 1, 2]),
        "stop": source.choice([None, "e", ["ab", "}"]]),
        "logprobs": source.choice([False, True]),
    }
    if source.random() < 0.5:
        body["tools"] = source.choice([[ADD], [ADD, TIME]])
        named = {"type": "function", "function": {"name": "add"}}
        body["tool_choice"] = source.choice(["auto", "none", "required", named])
        body["parallel_tool_calls"] = source.choice([True, False])
    return body


def test_a_joined_stream_is_the_plain_reply(server: LiveServer) -> None:
    source = random.Random(5)
    for _ in range(25):
        body = random_body(source)
        asked = {**body, "stream_options": {"include_usage": True}}
        stream = server.stream_of(PATH, **asked)
        answer = ask(server, **body)
        assert joined(stream) == plain(answer), body
        for count in ("prompt_tokens", "completion_tokens"):
            assert stream.events[-1]["usage"][count] == answer["usage"][count], body


@pytest.mark.parametrize("include_usage", [False, True])
def test_each_choice_has_its_role_once_and_its_own_end(server: LiveServer, include_usage: bool) -> None:
    options = {"stream_options": {"include_usage": True}} if include_usage else {}
    stream = server.stream_of(PATH, **ASKED, n=3, **options)
    assert len({event["id"] for event in stream.events}) == 1
    assert len({event["created"] for event in stream.events}) == 1
    roles = [c["index"] for c in stream.choices if "role" in c["delta"]]
    assert sorted(roles) == [0, 1, 2]
    assert sorted(stream.finishes) == [0, 1, 2]
    empty = [event for event in stream.events if not event["choices"]]
    assert len(empty) == include_usage
    if include_usage:
        assert [event["usage"] for event in stream.events[:-1]] == [None] * (len(stream.events) - 1)
    for choice in stream.choices:
        if "role" not in choice["delta"] and choice["finish_reason"] is None:
            assert choice["delta"].get("content") or choice["logprobs"]


@pytest.mark.parametrize("stream", [False, True])
@pytest.mark.parametrize(
    ("choice", "finish"),
    [
        ("required", "tool_calls"),
        ("any", "tool_calls"),
        ({"type": "function", "function": {"name": "add"}}, "stop"),
    ],
)
def test_the_reason_of_a_call_is_that_of_openais_table(
    server: LiveServer, choice: Any, finish: str, stream: bool
) -> None:
    asked: dict[str, Any] = {**ASKED, "tools": [ADD], "tool_choice": choice, "max_tokens": 120}
    asked["parallel_tool_calls"] = False
    (found,) = joined(server.stream_of(PATH, **asked)) if stream else plain(ask(server, **asked))
    assert found["finish"] == finish
    ((name, arguments),) = found["calls"].values()
    assert name == "add"
    assert set(json.loads(arguments)) == {"a", "b"}
    asked["max_tokens"] = 20
    (cut,) = joined(server.stream_of(PATH, **asked)) if stream else plain(ask(server, **asked))
    assert cut["finish"] == "length"


def test_no_tools_and_no_choice_are_the_text_without_tools(server: LiveServer) -> None:
    expected = plain(ask(server))
    for body in ({"tools": []}, {"tool_choice": "none"}, {"tools": [], "tool_choice": "auto"}):
        assert plain(ask(server, **body)) == expected
    none = ask(server, tools=[ADD], tool_choice="none")["choices"][0]["message"]
    assert "tool_calls" not in none


def test_a_call_in_the_history_gives_the_same_prompt_in_all_its_forms(server: LiveServer) -> None:
    call = {"id": "call_1", "type": "function", "function": {"name": "add", "arguments": '{"a": 1, "b": 4}'}}
    counts = set()
    for content in ({"content": None}, {"content": ""}, {}, {"content": []}):
        messages = [
            {"role": "user", "content": "Hi"},
            {"role": "assistant", **content, "tool_calls": [call]},
            {"role": "tool", "tool_call_id": "call_1", "content": "5"},
        ]
        counts.add(ask(server, messages=messages, tools=[ADD])["usage"]["prompt_tokens"])
    assert len(counts) == 1
    broken = {**call, "function": {"name": "add", "arguments": "{"}}
    messages = [{"role": "user", "content": "Hi"}, {"role": "assistant", "tool_calls": [broken]}]
    error = ask(server, 400, messages=messages, tools=[ADD])["error"]
    assert error["param"] == "messages[1].tool_calls[0].function.arguments"


@pytest.mark.parametrize(
    ("body", "param"),
    [
        ({"messages": []}, "messages"),
        ({"messages": [{"role": "user"}]}, None),
        ({"temprature": 1}, "temprature"),
        ({"top_logprobs": 2}, "top_logprobs"),
        ({"max_completion_tokens": 3}, "max_completion_tokens"),
        ({"reasoning_effort": "high"}, "reasoning_effort"),
        ({"tool_choice": "required"}, "tool_choice"),
        ({"tools": [ADD, ADD]}, "tools[1].function.name"),
        ({"chat_template_kwargs": {"chat_template": "x"}}, "chat_template_kwargs.chat_template"),
        ({"response_format": {"type": "json_schema"}}, "response_format.json_schema.schema"),
        ({"functions": [{}]}, "functions"),
        ({"add_special_tokens": True}, "add_special_tokens"),
        ({"stream_options": {"include_usage": True}}, "stream_options"),
    ],
)
def test_a_wrong_field_is_a_400_that_names_it(server: LiveServer, body: Any, param: str | None) -> None:
    error = ask(server, 400, **body)["error"]
    assert param is None or error["param"] == param
    ask(server)


def test_fields_without_effect_are_accepted(server: LiveServer) -> None:
    neutral = {
        "user": "me",
        "store": True,
        "metadata": {"a": "b"},
        "service_tier": "auto",
        "modalities": ["text"],
        "reasoning_effort": "none",
        "logit_bias": None,
        "stop": None,
        "add_special_tokens": False,
    }
    assert plain(ask(server, **neutral)) == plain(ask(server))
