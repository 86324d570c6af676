"""Checks that messages mean the same in all forms that clients give, and that faults are named by place."""

from __future__ import annotations

import json
from typing import Any

import pytest

from decodery.errors import RequestError
from decodery.text.chat.messages import check_template_kwargs, read_messages

CALL = {"id": "c1", "type": "function", "function": {"name": "get", "arguments": '{"a": 1}'}}


def called(**more: Any) -> dict[str, Any]:
    return {"role": "assistant", "tool_calls": [CALL], **more}


def deep(levels: int) -> dict[str, Any]:
    value: dict[str, Any] = {}
    for _ in range(levels):
        value = {"a": value}
    return value


def with_arguments(arguments: Any) -> list[dict[str, Any]]:
    call = {**CALL, "function": {"name": "get", "arguments": arguments}}
    return [{"role": "assistant", "content": None, "tool_calls": [call]}]


def test_no_content_beside_calls_is_the_same_in_all_forms() -> None:
    forms = [called(content=None), called(content=""), called(), called(content=[])]
    forms += [called(content=[{"type": "text", "text": ""}])]
    read = [read_messages([form]) for form in forms]
    assert all(found == read[0] for found in read)
    assert read[0][0]["content"] == ""


def test_parts_are_joined_and_developers_are_systems() -> None:
    parts = [{"type": "text", "text": "a "}, {"type": "text", "text": "b"}]
    assert read_messages([{"role": "developer", "content": parts, "name": None}]) == [
        {"role": "system", "content": "a b"}
    ]


@pytest.mark.parametrize(
    ("given", "arguments"),
    [
        ('{"a": {"b": [1]}}', {"a": {"b": [1]}}),
        ({"a": 1}, {"a": 1}),
        ("", {}),
        (None, {}),
        ("{}", {}),
        (" {} ", {}),
    ],
)
def test_arguments_become_a_dict(given: Any, arguments: Any) -> None:
    (message,) = read_messages(with_arguments(given))
    assert message["tool_calls"][0]["function"] == {"name": "get", "arguments": arguments}


def test_a_result_has_the_name_of_its_call_and_calls_have_ids() -> None:
    nameless = {"role": "assistant", "tool_calls": [{"function": {"name": "get"}}] * 2}
    read = read_messages([called(), {"role": "tool", "tool_call_id": "c1", "content": "x"}, nameless])
    assert read[1]["name"] == "get"
    assert len({call["id"] for call in read[2]["tool_calls"]}) == 2


def test_the_former_name_of_calls_is_read() -> None:
    message = {"role": "assistant", "content": None, "function_call": {"name": "get", "arguments": "{}"}}
    (read,) = read_messages([message])
    assert read["tool_calls"][0]["function"] == {"name": "get", "arguments": {}}


@pytest.mark.parametrize(
    ("messages", "param"),
    [
        ("hi", "messages"),
        ([], "messages"),
        ([{"role": "user", "content": "a"}, 5], "messages[1]"),
        ([{"content": "a"}], "messages[0]"),
        ([{"role": "user"}], "messages[0].content"),
        ([{"role": "user", "content": None}], "messages[0].content"),
        ([{"role": "user", "content": 5}], "messages[0].content"),
        ([{"role": "user", "content": ["a"]}], "messages[0].content[0]"),
        (
            [
                {
                    "role": "user",
                    "content": [{"type": "text", "text": "a"}, {"type": "image_url", "image_url": {}}],
                }
            ],
            "messages[0].content[1]",
        ),
        ([{"role": "user", "content": [{"type": "text"}]}], "messages[0].content[0]"),
        ([{"role": "assistant", "tool_calls": 5}], "messages[0].tool_calls"),
        ([{"role": "assistant", "tool_calls": [5]}], "messages[0].tool_calls[0]"),
        (
            [{"role": "assistant", "tool_calls": [{"function": {}}]}],
            "messages[0].tool_calls[0].function.name",
        ),
        ([{"role": "assistant", "tool_calls": [{**CALL, "id": 5}]}], "messages[0].tool_calls[0].id"),
        (with_arguments("{a}"), "messages[0].tool_calls[0].function.arguments"),
        (with_arguments("[1]"), "messages[0].tool_calls[0].function.arguments"),
        (with_arguments("NaN"), "messages[0].tool_calls[0].function.arguments"),
        (with_arguments("[" * 100_000), "messages[0].tool_calls[0].function.arguments"),
        (with_arguments([1]), "messages[0].tool_calls[0].function.arguments"),
        (with_arguments(deep(100)), "messages[0].tool_calls[0].function.arguments"),
        (with_arguments(json.dumps(deep(100))), "messages[0].tool_calls[0].function.arguments"),
        ([{"role": "tool", "tool_call_id": 5, "content": "a"}], "messages[0].tool_call_id"),
    ],
)
def test_a_fault_is_named_by_its_place(messages: Any, param: str) -> None:
    with pytest.raises(RequestError) as caught:
        read_messages(messages)
    assert caught.value.param == param
    assert len(str(caught.value)) < 300


@pytest.mark.parametrize(
    "name", ["chat_template", "tools", "messages", "bos_token", "special_in_content", "self"]
)
def test_a_variable_of_the_template_cannot_have_the_name_of_an_argument(name: str) -> None:
    with pytest.raises(RequestError) as caught:
        check_template_kwargs({"enable_thinking": True, name: "x"})
    assert caught.value.param == f"chat_template_kwargs.{name}"
    check_template_kwargs({"enable_thinking": True, "documents": []})
