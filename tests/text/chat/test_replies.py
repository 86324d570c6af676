"""Checks that replies are divided the same way however their text is cut, and that no text is lost."""

from __future__ import annotations

import itertools
import json
import re
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from decodery.text.chat.call_reader import CallArguments, CallStart, Part, new_call_id
from decodery.text.chat.replies import Reply, ReplyFormat, ToolCall, join
from decodery.text.chat.tool_formats import FORMATS, PLAIN, ToolFormat
from decodery.text.streaming.regions import ReplyMarks, begin

THINK = ("<think>", "</think>")
HERMES = FORMATS[0]
NAMES = ("get", "get_weather")
ALL = (*FORMATS, PLAIN)
PIECES = (
    *THINK,
    "<tool_call>",
    "</tool_call>",
    "[TOOL_CALLS]",
    "\n",
    " ",
    "a",
    "<",
    "th",
    '{"name": "get"',
    "{",
    "é",
)


def form(tools: ToolFormat | None = None, beginning: Any = "open", *, named: bool = False) -> ReplyFormat:
    calls = tools.triggers(NAMES) if tools is not None else ()
    marks = ReplyMarks(THINK, beginning, calls, anchored=tools is not None and not tools.marked)
    return ReplyFormat(marks, tools, named)


def without_ids(reply: Reply) -> tuple[Any, ...]:
    calls = [(call.name, call.arguments) for call in reply.tool_calls]
    return reply.content, reply.reasoning, calls, reply.finish_reason


def streamed(reply_format: ReplyFormat, text: str, cuts: list[int], reason: str) -> tuple[list[Part], Reply]:
    parser = reply_format.parser()
    places = [0, *sorted(min(cut, len(text)) for cut in cuts), len(text)]
    parts = [part for a, b in itertools.pairwise(places) for part in parser.feed(text[a:b])]
    parts += parser.finish(reason)
    return parts, join(parts, parser.finish_reason)


JSON = st.dictionaries(
    st.text(max_size=5), st.one_of(st.text(max_size=8), st.integers(), st.none()), max_size=3
)


@st.composite
def replies(draw: st.DrawFn) -> tuple[ReplyFormat, str]:
    tools = draw(st.sampled_from((None, *ALL)))
    text = "".join(draw(st.lists(st.sampled_from(PIECES), max_size=8)))
    if tools is not None and draw(st.booleans()):
        calls = draw(
            st.lists(st.tuples(st.sampled_from(NAMES), JSON.map(json.dumps)), min_size=1, max_size=2)
        )
        text += tools.calls(calls)
        text = text[: draw(st.integers(0, len(text)))]
    return form(tools, draw(st.sampled_from(("reasoning", "open", "content")))), text


@given(replies(), st.lists(st.integers(0, 200), max_size=12))
@settings(max_examples=400, deadline=None)
def test_a_stream_joins_to_the_plain_reply_wherever_its_text_is_cut(
    reply: tuple[ReplyFormat, str], cuts: list[int]
) -> None:
    reply_format, text = reply
    _, joined = streamed(reply_format, text, cuts, "length")
    assert without_ids(joined) == without_ids(reply_format.reply(text, "length"))


@given(replies(), st.lists(st.integers(0, 200), max_size=12))
@settings(max_examples=200, deadline=None)
def test_the_pieces_of_a_reply_are_all_of_its_text(reply: tuple[ReplyFormat, str], cuts: list[int]) -> None:
    reply_format, text = reply
    state, found = begin(reply_format.marks), ""
    places = [0, *sorted(min(cut, len(text)) for cut in cuts), len(text)]
    for a, b in itertools.pairwise(places):
        state = state.read(text[a:b])
        found += "".join(piece.text for piece in state.pieces)
        assert text[:b] == found + state.held
    assert found + "".join(piece.text for piece in state.flush()) == text


@pytest.mark.parametrize("tools", ALL, ids=lambda f: f.name)
@given(calls=st.lists(st.tuples(st.sampled_from(NAMES), JSON.map(json.dumps)), min_size=1, max_size=3))
@settings(max_examples=60, deadline=None)
def test_written_calls_are_read_back_with_exactly_their_arguments(
    tools: ToolFormat, calls: list[tuple[str, str]]
) -> None:
    calls = calls if tools.separator is not None else calls[:1]
    reply = form(tools).reply(tools.calls(calls), "stop")
    assert without_ids(reply) == (None, None, calls, "tool_calls")


def test_the_first_part_of_a_call_has_its_id_and_name_and_the_others_its_arguments() -> None:
    text = HERMES.calls([("get", '{"a": "}"}'), ("get", "{}")])
    parts, _ = streamed(form(HERMES), text, list(range(len(text))), "stop")
    starts = [part for part in parts if isinstance(part, CallStart)]
    assert [(start.index, start.name) for start in starts] == [(0, "get"), (1, "get")]
    for start in starts:
        pieces = [p.text for p in parts if isinstance(p, CallArguments) and p.index == start.index]
        assert "".join(pieces) == ('{"a": "}"}', "{}")[start.index]
        assert all(pieces)
        assert parts.index(start) < min(
            k for k, p in enumerate(parts) if isinstance(p, CallArguments) and p.index == start.index
        )


def test_ids_are_new_in_every_reply() -> None:
    text = HERMES.calls([("get", "{}"), ("get", "{}")])
    ids = [call.id for _ in range(3) for call in form(HERMES).reply(text, "stop").tool_calls]
    assert len(set(ids)) == 6
    assert re.fullmatch(r"[a-zA-Z0-9]{9}", new_call_id(short=True))


@pytest.mark.parametrize(
    ("beginning", "text", "content", "reasoning"),
    [
        ("reasoning", "\nhm\n\n</think>\n\nHi\n", "Hi\n", "hm"),
        ("reasoning", "hm", "", "hm"),
        ("content", "Hi <think> x </think>", "Hi <think> x </think>", None),
        ("content", "<think>x</think>Hi", "<think>x</think>Hi", None),
        ("open", "\n<think>\nhm</think>Hi </think> <think>", "Hi </think> <think>", "hm"),
        ("open", "Hi <think>x</think>", "Hi <think>x</think>", None),
        ("open", " <thi", " <thi", None),
        ("open", "<think></think>Hi", "Hi", None),
        (
            "open",
            "<think>\nI quote <tool_call> and <think>.</think>Hi",
            "Hi",
            "I quote <tool_call> and <think>.",
        ),
    ],
)
@pytest.mark.parametrize("tools", [None, HERMES])
def test_where_reasoning_begins_and_ends(
    beginning: str, text: str, content: str, reasoning: str | None, tools: ToolFormat | None
) -> None:
    assert form(tools, beginning).reply(text, "stop") == Reply(content, reasoning, (), "stop")


def test_without_tools_a_quoted_call_is_text() -> None:
    text = 'See <tool_call>\n{"name": "get", "arguments": {}}\n</tool_call>.'
    assert form(None).reply(text, "stop") == Reply(text, None, (), "stop")


def test_reasoning_comes_before_calls_and_content_between_them_is_kept() -> None:
    text = "<think>hm</think>\n\nSure.\n" + HERMES.calls([("get", "{}")])
    assert without_ids(form(HERMES).reply(text, "stop")) == ("Sure.\n", "hm", [("get", "{}")], "tool_calls")


@pytest.mark.parametrize(
    "text",
    ['{"name": "Bob", "age": 3}', '{"name": "gett", "arguments": {}}', "a " + PLAIN.calls([("get", "{}")])],
)
def test_json_that_is_no_call_of_a_tool_is_content(text: str) -> None:
    assert form(PLAIN).reply(text, "stop") == Reply(text, None, (), "stop")


@pytest.mark.parametrize("tools", ALL, ids=lambda f: f.name)
def test_the_reason_is_a_call_only_if_the_call_is_whole_and_was_not_named(tools: ToolFormat) -> None:
    text = tools.calls([("get", '{"a": 1}')])
    assert form(tools).reply(text, "stop").finish_reason == "tool_calls"
    assert form(tools).reply(text, "length").finish_reason == "length"
    assert form(tools, named=True).reply(text, "stop").finish_reason == "stop"
    assert form(tools).reply("Hi", "stop").finish_reason == "stop"
    for cut in range(1, len(text) - len(tools.tail + tools.end)):
        assert form(tools).reply(text[:cut], "length").finish_reason == "length"
        assert form(tools).reply(text[:cut], "stop").finish_reason == "stop"


def test_a_cut_call_keeps_the_arguments_that_were_written() -> None:
    text = HERMES.calls([("get", '{"a": 1}')])
    reply = form(HERMES).reply(text[: text.index("1")], "length")
    assert [(type(c), c.arguments) for c in reply.tool_calls] == [(ToolCall, '{"a": ')]


def test_text_after_a_call_that_is_no_call_becomes_content() -> None:
    text = HERMES.calls([("get", "{}")]) + " Done."
    reply = form(HERMES).reply(text, "stop")
    assert reply.content == " Done."
    assert len(reply.tool_calls) == 1
