"""Checks schemas and tools at random, and that the check detects a wrong text.

`python -m tests.serving.schemas` is the long form.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from decodery.decoding.request.grammar_params import LOOSER
from tests.serving.live import serving
from tests.serving.partial_json import whole_part
from tests.serving.schemas import (
    FORMS,
    HI,
    LIMITS,
    WAYS,
    Asking,
    check_text,
    open_chat_model,
    schema_runs,
    tool_runs,
)


def test_a_schema_is_refused_or_followed_and_the_next_request_works(tmp_path: Path) -> None:
    with serving(open_chat_model(tmp_path, None), LIMITS) as server:
        asking = Asking(server, 120)
        schema_runs(asking, 40, seed=11)
    assert asking.statuses["whole"] > 8
    assert asking.statuses["cut"] > 3
    assert asking.statuses["refused"] > 3


@pytest.mark.parametrize("form", FORMS, ids=str)
def test_pieces_of_arguments_join_to_what_the_parameters_accept(tmp_path: Path, form: str | None) -> None:
    with serving(open_chat_model(tmp_path, form), LIMITS) as server:
        asking = Asking(server, 120)
        tool_runs(asking, 4, seed=len(form or ""))
    assert asking.statuses["whole"] + asking.statuses["cut"] == 4


def _one_of(levels: int) -> dict[str, Any]:
    schema: dict[str, Any] = {"type": "string"}
    for _ in range(levels):
        schema = {"oneOf": [schema, {"type": "null"}]}
    return schema


MET_ELSEWHERE: list[dict[str, Any]] = [
    {"properties": {"foo": "bar"}},
    {"type": "integer", "maximum": 20_000_000_000},
    {"type": "string", "pattern": "^(|.*)$"},
    {"type": "string", "pattern": "(["},
    _one_of(12),
    {"type": "string", "maxLength": 1_000_000},
]


def test_schemas_that_broke_other_servers_are_refused_or_followed_one_after_the_other(
    tmp_path: Path,
) -> None:
    with serving(open_chat_model(tmp_path, None), LIMITS) as server:
        asking = Asking(server, 60)
        for place, schema in enumerate((MET_ELSEWHERE[1], *MET_ELSEWHERE, *MET_ELSEWHERE)):
            path, body = WAYS[place % len(WAYS)]
            for reply in asking.replies(path, body(schema)) or ():
                check_text(schema, reply.text, cut=reply.cut)
            asking.works()


# The routes by which the parameters of a tool can be given.
TOOLS: tuple[tuple[str, Callable[[Any], dict[str, Any]]], ...] = (
    ("/v1/chat/completions", lambda s: {
        "messages": HI, "tools": [{"type": "function", "function": {"name": "f", "parameters": s}}]}),
    ("/v1/messages", lambda s: {
        "messages": HI, "max_tokens": 1, "tools": [{"name": "f", "input_schema": s}]}),
    ("/v1/responses", lambda s: {
        "input": "Hi", "tools": [{"type": "function", "name": "f", "parameters": s}]}),
)  # fmt: skip


def test_a_schema_with_a_wrong_draft_is_refused_with_its_place(tmp_path: Path) -> None:
    with serving(open_chat_model(tmp_path, None)) as server:
        for draft in (3, True, ["a"], {}, "http://["):
            for path, body in (*WAYS, *TOOLS):
                asked = {"max_tokens": 1} if path == "/v1/messages" else {}
                answer = server.post(path, {**body({"$schema": draft, "type": "object"}), **asked})
                assert answer.status_code == 400, answer.text
                assert "fails at /$schema" in answer.json()["error"]["message"]


def test_a_schema_that_cannot_be_followed_is_refused_with_the_fields_own_way_out(tmp_path: Path) -> None:
    schema = {"type": "array", "uniqueItems": True}
    described = {"name": "a", "schema": schema, "strict": True}
    strict = {"type": "json_schema", "json_schema": described}
    parameters = {"type": "object", "properties": {"a": schema}}
    tool = {"name": "f", "parameters": parameters, "strict": True}
    grammar = '"unsupported": "approximate"'
    asked: list[tuple[str, dict[str, Any], str]] = [
        ("/v1/chat/completions", {"messages": HI, "response_format": strict}, '"strict": false'),
        ("/v1/completions", {"prompt": "a", "response_format": strict}, '"strict": false'),
        (
            "/v1/chat/completions",
            {"messages": HI, "tools": [{"type": "function", "function": tool}]},
            '"strict": false',
        ),
        ("/v1/responses", {"input": "Hi", "tools": [{"type": "function", **tool}]}, '"strict": false'),
        (
            "/v1/responses",
            {"input": "Hi", "text": {"format": {"type": "json_schema", **described}}},
            '"strict": false',
        ),
        ("/v1/completions", {"prompt": "a", "grammar": {"type": "json_schema", "schema": schema}}, LOOSER),
        ("/v1/completions", {"prompt": "a", "structured_outputs": {"json": schema}}, grammar),
    ]
    with serving(open_chat_model(tmp_path, None)) as server:
        for path, body, advice in asked:
            answer = server.post(path, body)
            assert answer.status_code == 400, (path, body, answer.text)
            message = answer.json()["error"]["message"]
            assert f"{advice} follows a looser schema" in message
            assert ("unsupported=" in message) == (advice == LOOSER)


def test_a_number_that_never_ends_is_cut(tmp_path: Path) -> None:
    with serving(open_chat_model(tmp_path, None)) as server:
        digit = server.llm.tokenizer.encode("7", add_special_tokens=False)[0]
        body = {"prompt": "a", "max_tokens": 50, "logit_bias": {str(digit): 100}, "temperature": 0}
        for schema in ({}, {"type": "number"}, {"type": "integer"}):
            found = server.complete(**body, structured_outputs={"json": schema})["choices"][0]
            assert (found["text"].lstrip(), found["finish_reason"]) == ("7" * 50, "length")


CUT: list[tuple[str, Any]] = [
    ("{", {}),
    ("[", []),
    (" ", None),
    ("12", None),
    ('"a\\u00', None),
    ("tr", None),
    ('{"a": 1', {}),
    ('{"a": 1,', {"a": 1}),
    ('{"a": [1, 2], "b": {"c', {"a": [1, 2], "b": {}}),
    ('{"a": "}", "b": [true, fal', {"a": "}", "b": [True]}),
    ('[{"a": 1}, {"a": 2}', [{"a": 1}, {"a": 2}]),
    ("[[[1", [[[]]]),
]


@pytest.mark.parametrize(("text", "value"), CUT)
def test_what_is_whole_of_a_cut_text_is_found(text: str, value: Any) -> None:
    assert whole_part(text) == (value is not None, value)


@pytest.mark.parametrize("text", ["x", "{a", '{"a": 1, 2', "[1 2", '{"a": nil', "[1}", '["a" "b', '"\\x'])
def test_what_is_no_beginning_of_json_is_told(text: str) -> None:
    with pytest.raises(AssertionError):
        whole_part(text)


OBJECT: dict[str, Any] = {
    "type": "object",
    "properties": {"a": {"enum": [1, 2]}, "b": {"type": "array", "items": {"type": "null"}, "minItems": 2}},
    "required": ["a", "b"],
    "additionalProperties": False,
}


def test_a_text_is_checked_whole_or_as_far_as_it_goes() -> None:
    check_text(OBJECT, '{"a": 1, "b": [null, null]}', cut=False)
    check_text(OBJECT, '{"a": 1, "b": [null, nu', cut=True)
    check_text({"anyOf": [OBJECT]}, '{"b": [', cut=True)
    for wrong in ('{"a": 1}', '{"a": 3, "b": [null, null]}', '{"a": 1, "b": [null, null], "c": 1}'):
        with pytest.raises(AssertionError):
            check_text(OBJECT, wrong, cut=False)
    for wrong in ('{"a": 3, "b"', '{"a": 1, "b": [1, ', '{"c": 1, "a', "[1, "):
        with pytest.raises(AssertionError):
            check_text(OBJECT, wrong, cut=True)
