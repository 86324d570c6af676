"""Tests /v1/messages on tiny chat models, of which most write a given text."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import httpx
import pytest

from decodery import LLM
from decodery.serving.settings import RequestLimits
from tests.conversations.models import template, write_chat_model
from tests.serving.live import LiveServer, saying, serving
from tests.serving.test_load import slow

HI = [{"role": "user", "content": "Hi"}]
WEATHER = {
    "name": "weather",
    "description": "Tells the weather.",
    "input_schema": {
        "type": "object",
        "properties": {"place": {"type": "string", "maxLength": 8}, "days": {"type": "integer"}},
        "required": ["place", "days"],
        "additionalProperties": False,
    },
}
NOW = {"name": "now", "input_schema": {"type": "object", "properties": {}, "additionalProperties": False}}
CALL = '<tool_call>\n{"name": "weather", "arguments": {"place": "Ulm", "days": 2}}\n</tool_call>'
CALL_NOW = '<tool_call>\n{"name": "now", "arguments": {}}\n</tool_call>'


def opened(folder: Path, ending: str = "") -> LLM:
    path = write_chat_model(folder, template("hermes", ending=ending))
    return LLM(path, dtype="float32", kv_memory="16MB")


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[LiveServer]:
    with serving(opened(tmp_path_factory.mktemp("messages"))) as found:
        yield found


def ask(server: LiveServer, says: str | None = None, **body: Any) -> dict[str, Any]:
    """Returns the message that answers a body."""
    body = {"max_tokens": 300, "messages": HI, "temperature": 0, **body}
    if says is None:
        answer = server.post("/v1/messages", body)
    else:
        with saying(server, says):
            answer = server.post("/v1/messages", body)
    assert answer.status_code == 200, answer.text
    found: dict[str, Any] = answer.json()
    return found


def stream(server: LiveServer, says: str | None = None, **body: Any) -> list[dict[str, Any]]:
    """Returns the events that answer a body."""
    body = {"max_tokens": 300, "messages": HI, "temperature": 0, **body, "stream": True}
    if says is None:
        return events(server.post("/v1/messages", body))
    with saying(server, says):
        return events(server.post("/v1/messages", body))


def events(answer: httpx.Response) -> list[dict[str, Any]]:
    assert answer.status_code == 200, answer.text
    found = []
    for block in answer.text.strip().split("\n\n"):
        name, data = block.split("\n")
        event = json.loads(data.removeprefix("data: "))
        assert name == f"event: {event['type']}"
        found.append(event)
    return found


def joined(found: list[dict[str, Any]]) -> dict[str, Any]:
    """Returns the message that events join to; each block ends before the next one begins."""
    assert found[0]["type"] == "message_start"
    message: dict[str, Any] = found[0]["message"]
    assert message["content"] == []
    is_open, pieces = False, ""
    for event in found[1:]:
        match event["type"]:
            case "content_block_start":
                assert not is_open
                is_open, pieces = True, ""
                assert event["index"] == len(message["content"])
                message["content"].append(event["content_block"])
            case "content_block_delta":
                assert is_open
                (piece,) = (value for name, value in event["delta"].items() if name != "type")
                assert piece
                pieces += piece
            case "content_block_stop":
                assert is_open
                is_open = False
                block = message["content"][-1]
                if block["type"] == "tool_use":
                    block["input"] = json.loads(pieces)
                else:
                    block[block["type"]] = pieces
            case "message_delta":
                assert not is_open
                message |= event["delta"]
                message["usage"] |= event["usage"]
    assert found[-1]["type"] == "message_stop"
    return message


def without_ids(message: dict[str, Any]) -> dict[str, Any]:
    content = [{k: v for k, v in block.items() if k != "id"} for block in message["content"]]
    usage = {**message["usage"], "prompt": prompt_tokens(message)}
    for name in ("input_tokens", "cache_read_input_tokens"):  # What is cached changes from turn to turn.
        del usage[name]
    return {**message, "id": "", "content": content, "usage": usage}


def prompt_tokens(message: dict[str, Any]) -> int:
    usage = message["usage"]
    names = ("input_tokens", "cache_read_input_tokens", "cache_creation_input_tokens")
    return sum(usage[name] for name in names)


SAID = [
    ("Hello.", {}),
    ("", {}),
    (f"Let me look. {CALL}", {"tools": [WEATHER]}),
    (f"{CALL}\n{CALL}\n{CALL_NOW}", {"tools": [WEATHER, NOW]}),
    ("<think>Hm.</think>Well.", {}),
    (f"<think>Hm.</think>{CALL}", {"tools": [WEATHER]}),
    ("one two three", {"stop_sequences": ["x", " three"]}),
    ("one two three", {"max_tokens": 5}),
    (f"quoted {CALL}", {}),
]


@pytest.mark.parametrize(("says", "body"), SAID)
def test_a_stream_joins_to_the_plain_message(server: LiveServer, says: str, body: dict[str, Any]) -> None:
    plain = ask(server, says, **body)
    assert without_ids(joined(stream(server, says, **body))) == without_ids(plain)


def test_a_text_and_two_calls_are_three_blocks(server: LiveServer) -> None:
    found = stream(server, f"Let me look. {CALL}\n{CALL_NOW}", tools=[WEATHER, NOW])
    content = joined(found)["content"]
    assert [(b["type"], b.get("name")) for b in content] == [
        ("text", None),
        ("tool_use", "weather"),
        ("tool_use", "now"),
    ]
    assert content[0]["text"].strip() == "Let me look."
    assert [b["input"] for b in content[1:]] == [{"place": "Ulm", "days": 2}, {}]
    assert content[1]["id"] != content[2]["id"]
    deltas = [
        e["delta"]["partial_json"] for e in found if e.get("delta", {}).get("type") == "input_json_delta"
    ]
    assert deltas[0].startswith("{")
    assert found[-2]["delta"]["stop_reason"] == "tool_use"


@pytest.mark.parametrize(
    ("says", "body", "reason", "sequence"),
    [
        ("Hello.", {}, "end_turn", None),
        ("Hello.", {"max_tokens": 3}, "max_tokens", None),
        ("one two", {"stop_sequences": [" two"]}, "stop_sequence", " two"),
        (CALL, {"tools": [WEATHER]}, "tool_use", None),
        (CALL, {"tools": [WEATHER], "tool_choice": {"type": "any"}}, "tool_use", None),
        (
            CALL,
            {"tools": [WEATHER, NOW], "tool_choice": {"type": "tool", "name": "weather"}},
            "tool_use",
            None,
        ),
        (CALL, {"tools": [WEATHER], "max_tokens": 12}, "max_tokens", None),
        ("Hello.", {"tools": [WEATHER], "tool_choice": {"type": "none"}}, "end_turn", None),
    ],
)
def test_the_reason_of_an_end_is_the_same_in_both_forms(
    server: LiveServer, says: str, body: dict[str, Any], reason: str, sequence: str | None
) -> None:
    plain = ask(server, says, **body)
    assert (plain["stop_reason"], plain["stop_sequence"]) == (reason, sequence)
    ending = stream(server, says, **body)[-2]
    assert ending["delta"] == {"stop_reason": reason, "stop_sequence": sequence}


def test_a_call_that_was_cut_is_not_in_the_message_wherever_that_was(server: LiveServer) -> None:
    # Each character is a token, and the mark at the beginning is one.
    whole = CALL.index("2}") + len("2}") - len("<tool_call>") + 1
    for tokens in range(1, whole):
        message = ask(server, CALL, tools=[WEATHER], max_tokens=tokens)
        assert (message["content"], message["stop_reason"]) == ([], "max_tokens"), tokens
    assert ask(server, CALL, tools=[WEATHER], max_tokens=whole)["content"]


def test_one_call_alone_is_generated_without_parallel_calls(server: LiveServer) -> None:
    choice = {"type": "any", "disable_parallel_tool_use": True}
    message = ask(server, f"{CALL}\n{CALL}", tools=[WEATHER], tool_choice=choice)
    assert [block["type"] for block in message["content"]] == ["tool_use"]


def test_thinking_comes_in_a_block_of_its_own(server: LiveServer, tmp_path: Path) -> None:
    content = ask(server, "<think>Hm.</think>Well.")["content"]
    assert content == [
        {"type": "thinking", "thinking": "Hm.", "signature": ""},
        {"type": "text", "text": "Well."},
    ]
    with serving(opened(tmp_path, ending="<think>")) as thinker:
        body = {"thinking": {"type": "enabled", "budget_tokens": 4}}
        bounded = ask(thinker, "Hm, hm, hm.</think>Well.", **body)["content"]
    assert bounded[0]["type"] == "thinking"
    assert len(bounded[0]["thinking"]) <= 4


AGENT: dict[str, Any] = {
    "system": [
        {"type": "text", "text": "Be brief.", "cache_control": {"type": "ephemeral"}},
        {"type": "text", "text": "Be kind."},
    ],
    "metadata": {"user_id": "u"},
    "tools": [{**WEATHER, "cache_control": {"type": "ephemeral"}}, NOW],
    "messages": [
        {
            "role": "user",
            "content": [{"type": "text", "text": "Weather?", "cache_control": {"type": "ephemeral"}}],
        },
        {
            "role": "assistant",
            "content": [
                {"type": "thinking", "thinking": "Ask.", "signature": "s"},
                {"type": "text", "text": "Let me look."},
                {
                    "type": "tool_use",
                    "id": "toolu_1",
                    "name": "weather",
                    "input": {"place": "Ulm", "days": 2},
                },
                {"type": "tool_use", "id": "toolu_2", "name": "now", "input": {}},
            ],
        },
        {
            "role": "user",
            "content": [
                {
                    "type": "tool_result",
                    "tool_use_id": "toolu_1",
                    "content": [{"type": "text", "text": "rain"}, {"type": "text", "text": "wind"}],
                },
                {"type": "tool_result", "tool_use_id": "toolu_2", "content": "no clock", "is_error": True},
                {"type": "text", "text": "So?"},
            ],
        },
    ],
}


def test_the_count_of_tokens_is_what_the_message_takes(server: LiveServer) -> None:
    counted = server.post(
        "/v1/messages/count_tokens?beta=true", AGENT, headers={"anthropic-beta": "new-2030"}
    )
    assert counted.status_code == 200, counted.text
    first = ask(server, **AGENT, max_tokens=4)
    again = ask(server, **AGENT, max_tokens=4)
    assert counted.json() == {"input_tokens": prompt_tokens(first)}
    assert prompt_tokens(again) == prompt_tokens(first)
    assert again["usage"]["cache_read_input_tokens"] > 0
    started = stream(server, **AGENT, max_tokens=4)[0]["message"]
    assert prompt_tokens(started) == prompt_tokens(first)


def test_the_parts_of_a_conversation_reach_the_prompt(server: LiveServer) -> None:
    shorter = [
        {**AGENT, "system": "Be brief."},
        {**AGENT, "tools": [NOW]},
        {**AGENT, "messages": AGENT["messages"][:1]},
    ]
    whole = server.post("/v1/messages/count_tokens", AGENT).json()["input_tokens"]
    for body in shorter:
        assert server.post("/v1/messages/count_tokens", body).json()["input_tokens"] < whole
    together = {**AGENT, "system": "Be brief.\nBe kind."}
    assert server.post("/v1/messages/count_tokens", together).json()["input_tokens"] == whole


def test_the_line_for_a_clients_bill_is_not_in_the_prompt(server: LiveServer) -> None:
    def turn(nonce: str, *more: Any) -> dict[str, Any]:
        bill = {"type": "text", "text": f"x-anthropic-billing-header: cc_version=2; cch={nonce};"}
        system = [bill, {"type": "text", "text": "You are a careful helper that says little."}]
        return ask(server, system=system, messages=[*HI, *more], max_tokens=4)

    plain = ask(server, system="You are a careful helper that says little.", max_tokens=4)
    first = turn("a91f2")
    second = turn("77c03", {"role": "assistant", "content": "Yes?"}, {"role": "user", "content": "Go on."})
    assert prompt_tokens(first) == prompt_tokens(plain)
    assert second["usage"]["cache_read_input_tokens"] >= prompt_tokens(first) // 16 * 16 - 16


def test_a_reply_goes_on_with_its_beginning(server: LiveServer) -> None:
    begun = [*HI, {"role": "assistant", "content": "The answer is"}]
    message = ask(server, " 42.", messages=begun)
    assert message["content"] == [{"type": "text", "text": " 42."}]
    counted = server.post("/v1/messages/count_tokens", {"messages": begun}).json()
    assert counted["input_tokens"] == prompt_tokens(message)


def test_the_text_matches_the_schema_that_is_asked_for(server: LiveServer) -> None:
    schema = {"type": "object", "properties": {"ok": {"type": "boolean"}}, "required": ["ok"]}
    schema["additionalProperties"] = False
    form = {"format": {"type": "json_schema", "schema": schema}}
    (block,) = ask(server, '{"ok": true} and more', output_config=form)["content"]
    assert json.loads(block["text"]) == {"ok": True}


def test_the_first_event_is_followed_by_a_ping_and_never_by_a_comment(server: LiveServer) -> None:
    assert [event["type"] for event in stream(server, "Hello.")[:2]] == ["message_start", "ping"]


USE = {"type": "tool_use"}


@pytest.mark.parametrize("again", [False, True])
def test_the_first_event_counts_what_was_cached_as_the_last_one_does(server: LiveServer, again: bool) -> None:
    messages = [{"role": "user", "content": "once more " * 20}]
    if again:
        ask(server, messages=messages, cache_salt="counts")
    found = stream(server, "Hello.", messages=messages, cache_salt="counts" if again else "other")
    first, last = found[0]["message"]["usage"], found[-2]["usage"]
    assert first == {**last, "output_tokens": 0}
    assert (first["cache_read_input_tokens"] > 0) == again
    plain = ask(server, messages=messages, cache_salt="counts")["usage"]
    assert sum(plain[name] for name in plain if name != "output_tokens") == prompt_tokens(found[0]["message"])


def test_a_message_that_waits_begins_with_the_first_ping(
    tmp_path_factory: pytest.TempPathFactory,
) -> None:
    with (
        serving(opened(tmp_path_factory.mktemp("waits")), pings=0.05) as found,
        slow(found) as steps,
        ThreadPoolExecutor() as pool,
    ):
        steps.open.clear()
        asked = pool.submit(stream, found, "Hello.")
        time.sleep(0.3)
        steps.open.set()
        kinds = [event["type"] for event in asked.result()]
    assert kinds[:2] == ["message_start", "ping"]
    assert kinds.count("ping") > 2
    assert kinds.count("message_start") == 1


WRONG = [
    ({"max_tokens": None}, "max_tokens"),
    ({"messages": []}, "messages"),
    ({"messages": [{"role": "robot", "content": "x"}]}, "messages[0].role"),
    ({"messages": [{"role": "user", "content": 5}]}, "messages[0].content"),
    ({"messages": [{"role": "user", "content": [{"type": "image"}]}]}, "messages[0].content[0].type"),
    (
        {"messages": [{"role": "user", "content": [{"type": "text", "text": 5}]}]},
        "messages[0].content[0].text",
    ),
    ({"messages": [{"role": "assistant", "content": [{"type": "tool_use"}]}]}, "messages[0].content[0]"),
    ({"system": [{"type": "image"}]}, "system[0].type"),
    ({"tools": [{"type": "web_search_20250305", "name": "web_search"}]}, "tools[0].type"),
    ({"tools": [{"name": "x"}]}, "tools[0].input_schema"),
    ({"tool_choice": {"type": "sometimes"}}, "tool_choice.type"),
    ({"tools": [WEATHER], "tool_choice": {"type": "tool", "name": "other"}}, "tool_choice"),
    ({"thinking": {"type": "enabled"}}, "thinking.budget_tokens"),
    ({"output_config": {"effort": "high"}}, "output_config.effort:"),
    ({"output_config": {"format": {"type": "json_schema", "schema": {"type": 5}}}}, "output_config.format: "),
    (
        {"messages": [*HI, {"role": "assistant", "content": [{**USE, "name": "a", "input": {}, "id": 5}]}]},
        "messages[1].content[0].id",
    ),
    ({"stop_sequences": [5]}, "stop_sequences[0]"),
    ({"tools": [NOW, {**NOW, "name": "a b"}]}, "tools[1].name"),
    ({"tools": [{"name": "x", "input_schema": {"type": "array"}}]}, "tools[0].input_schema:"),
    ({"temprature": 1}, "temperature"),
    ({"n": 2}, "n:"),
]


@pytest.mark.parametrize(("body", "place"), WRONG)
@pytest.mark.parametrize("streams", [False, True])
def test_a_wrong_request_is_refused_in_anthropics_shape(
    server: LiveServer, body: dict[str, Any], place: str, streams: bool
) -> None:
    answer = server.post("/v1/messages", {"max_tokens": 5, "messages": HI, "stream": streams, **body})
    assert answer.status_code == 400
    found = answer.json()
    assert (found["type"], found["error"]["type"]) == ("error", "invalid_request_error")
    assert place in found["error"]["message"]
    server.settle()


def test_errors_of_the_gate_and_of_paths_have_the_shape_too(server: LiveServer) -> None:
    with serving(server.llm, keys=("secret",)) as guarded:
        refused = guarded.post("/v1/messages", {})
        assert (refused.status_code, refused.json()["error"]["type"]) == (401, "authentication_error")
        body = {"max_tokens": 2, "messages": HI}
        assert guarded.post("/v1/messages", body, headers={"x-api-key": "secret"}).status_code == 200
    nowhere = server.post("/v1/messages/nowhere", {})
    assert (nowhere.status_code, nowhere.json()["error"]["type"]) == (404, "not_found_error")
    unknown = server.post("/v1/messages", {"model": "other", "max_tokens": 5, "messages": HI})
    assert (unknown.status_code, unknown.json()["type"]) == (404, "error")


def test_a_stream_that_fails_ends_with_an_error_event(server: LiveServer) -> None:
    with serving(server.llm, limits=RequestLimits(seconds=0.05)) as hasty:
        found = stream(hasty, "word " * 380, max_tokens=1900)
    assert found[-1]["type"] == "error"
    assert found[-1]["error"]["type"] == "timeout_error"
    assert all(event["type"] not in ("message_delta", "message_stop") for event in found)


def test_parameters_of_our_own_are_taken(server: LiveServer) -> None:
    grammar = {"type": "choice", "options": ["alpha", "beta"]}
    (block,) = ask(server, "beta and more", grammar=grammar)["content"]
    assert block["text"] == "beta"


def test_variables_of_the_template_change_the_prompt_and_its_count(tmp_path: Path) -> None:
    thinking = "{{ 'yes' if enable_thinking is true else 'no' if enable_thinking is false else '' }}"
    path = write_chat_model(tmp_path, "{{ messages[0].content }}{{ style }}" + thinking)
    bodies: list[tuple[dict[str, Any], str]] = [
        ({"chat_template_kwargs": {"style": "abc"}}, "Hiabc"),
        ({"chat_template_kwargs": {"style": "abc"}, "thinking": {"type": "disabled"}}, "Hiabcno"),
        (
            {
                "chat_template_kwargs": {"enable_thinking": False},
                "thinking": {"type": "enabled", "budget_tokens": 1024},
            },
            "Hino",
        ),
        ({"chat_template_kwargs": None, "thinking": {"type": "enabled", "budget_tokens": 9}}, "Hiyes"),
    ]
    with serving(LLM(path, dtype="float32", kv_memory="16MB")) as server:
        for more, text in bodies:
            expected = len(server.llm.tokenizer.encode(text, add_special_tokens=False))
            body = {"messages": HI, **more}
            counted = server.post("/v1/messages/count_tokens", body)
            assert counted.json() == {"input_tokens": expected}
            answer = server.post("/v1/messages", {**body, "max_tokens": 1})
            assert answer.json()["usage"]["input_tokens"] == expected
        for wrong, place in (([], ""), ({"messages": 1}, ".messages")):
            for more in ({}, {"thinking": {"type": "disabled"}}):
                answer = server.post(
                    "/v1/messages/count_tokens", {"messages": HI, "chat_template_kwargs": wrong, **more}
                )
                assert answer.status_code == 400
                assert f"chat_template_kwargs{place}" in answer.json()["error"]["message"]
