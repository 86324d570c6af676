"""Checks `/v1/responses`: its events, its store, and its answers against those of chat completions."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

import pytest
from openai import OpenAI

from decodery import LLM
from decodery.serving.response_store import ResponseStore
from tests.serving.live import NAME, LiveServer, serving, until
from tests.serving.openai.test_openai_client import ADD

TOOL = {"type": "function", **ADD["function"]}
ASKED: dict[str, Any] = {"input": "Hi", "max_output_tokens": 12, "seed": 1, "ignore_eos": True}


@pytest.fixture(scope="module")
def two_keys(served_llm: LLM) -> Iterator[LiveServer]:
    """Returns a server with two keys."""
    with serving(served_llm, keys=("sk-a", "sk-b")) as found:
        yield found


def of(key: str) -> dict[str, dict[str, str]]:
    return {"headers": {"authorization": f"Bearer {key}"}}


def made(server: LiveServer, key: str = "sk-a", **body: Any) -> dict[str, Any]:
    answer = server.post("/v1/responses", {**ASKED, **body}, **of(key))
    assert answer.status_code == 200, answer.text
    found: dict[str, Any] = answer.json()
    return found


def events_of(server: LiveServer, **body: Any) -> list[dict[str, Any]]:
    """Returns the events of a streamed response; each stands under its own name."""
    asked = {**ASKED, **body, "stream": True}
    answer = server.post("/v1/responses", asked, **of("sk-a"))
    assert answer.status_code == 200, answer.text
    found = []
    for block in answer.text.split("\n\n")[:-1]:
        name, data = block.split("\n")
        event = json.loads(data.removeprefix("data: "))
        assert name == f"event: {event['type']}"
        found.append(event)
    return found


def without_ids(value: Any) -> Any:
    """Returns a value without ids and times, which are new each time."""
    if isinstance(value, dict):
        new = ("id", "item_id", "call_id", "created_at")
        return {name: without_ids(one) for name, one in value.items() if name not in new}
    return [without_ids(one) for one in value] if isinstance(value, list) else value


def test_a_text_is_told_by_these_events_in_this_order(two_keys: LiveServer) -> None:
    events = events_of(two_keys)
    assert [event["sequence_number"] for event in events] == list(range(len(events)))
    kinds = [event["type"].removeprefix("response.") for event in events]
    assert kinds[:4] == ["created", "in_progress", "output_item.added", "content_part.added"]
    assert set(kinds[4:-4]) == {"output_text.delta"}
    assert kinds[-4:] == ["output_text.done", "content_part.done", "output_item.done", "incomplete"]
    whole = events[-1]["response"]
    text = whole["output"][0]["content"][0]["text"]
    assert "".join(e["delta"] for e in events if e["type"].endswith("text.delta")) == text
    assert whole["incomplete_details"] == {"reason": "max_output_tokens"}
    assert without_ids(whole) == without_ids(made(two_keys))


def test_a_call_is_told_by_these_events_and_joins_to_its_arguments(two_keys: LiveServer) -> None:
    call = {"tools": [TOOL], "tool_choice": {"type": "function", "name": "add"}, "max_output_tokens": 100}
    events = events_of(two_keys, **call)
    kinds = [event["type"].removeprefix("response.") for event in events]
    first = kinds.index("output_item.added")
    assert kinds[:2] == ["created", "in_progress"]
    assert kinds[-3:] == ["function_call_arguments.done", "output_item.done", "completed"]
    assert set(kinds[first + 1 : -3]) == {"function_call_arguments.delta"}
    added = events[first]["item"]
    assert (added["type"], added["name"], added["arguments"]) == ("function_call", "add", "")
    (item,) = events[-1]["response"]["output"]
    joined = "".join(e["delta"] for e in events if e["type"].endswith("arguments.delta"))
    assert joined == item["arguments"] == events[-3]["arguments"]
    assert set(json.loads(joined)) == {"a", "b"}
    # The next turn takes the call and its output back.
    output = {"type": "function_call_output", "call_id": item["call_id"], "output": "24"}
    assert made(two_keys, input=[{"role": "user", "content": "Hi"}, item, output])["output"]


def test_the_text_is_that_of_a_chat_completion(two_keys: LiveServer) -> None:
    body = {
        "messages": [{"role": "system", "content": "Be"}, {"role": "user", "content": "Hi"}],
        "max_completion_tokens": 12,
        "seed": 1,
        "ignore_eos": True,
    }
    chat = two_keys.post("/v1/chat/completions", body, **of("sk-a")).json()
    response = made(two_keys, instructions="Be")
    assert response["output"][0]["content"][0]["text"] == chat["choices"][0]["message"]["content"]
    assert response["usage"]["input_tokens"] == chat["usage"]["prompt_tokens"]
    assert response["usage"]["output_tokens"] == chat["usage"]["completion_tokens"]


def test_a_response_belongs_to_its_key(two_keys: LiveServer) -> None:
    name = made(two_keys)["id"]
    assert two_keys.client.get(f"/v1/responses/{name}", **of("sk-a")).json()["id"] == name
    unknown = two_keys.client.get("/v1/responses/resp_none", **of("sk-b"))
    for answer in (
        two_keys.client.get(f"/v1/responses/{name}", **of("sk-b")),
        two_keys.client.delete(f"/v1/responses/{name}", **of("sk-b")),
        two_keys.client.post(f"/v1/responses/{name}/cancel", **of("sk-b")),
        two_keys.post("/v1/responses", {**ASKED, "previous_response_id": name}, **of("sk-b")),
    ):
        assert answer.status_code == 404
        assert answer.json()["error"]["message"] == unknown.json()["error"]["message"]
    assert two_keys.client.delete(f"/v1/responses/{name}", **of("sk-a")).json()["deleted"]
    assert two_keys.client.get(f"/v1/responses/{name}", **of("sk-a")).status_code == 404


def test_a_conversation_goes_on_as_if_it_were_sent_whole(two_keys: LiveServer) -> None:
    first = made(two_keys, instructions="Be")
    reply = {"role": "assistant", "content": first["output"][0]["content"][0]["text"]}
    next_ = made(two_keys, input="And", instructions="Go", previous_response_id=first["id"])
    turns = [{"role": "user", "content": "Hi"}, reply, {"role": "user", "content": "And"}]
    whole = made(two_keys, input=turns, instructions="Go")
    assert without_ids(next_["output"]) == without_ids(whole["output"])
    assert next_["usage"]["input_tokens"] == whole["usage"]["input_tokens"]
    assert made(two_keys, store=False)["store"] is False


def test_a_response_in_the_background_ends_or_is_cancelled(two_keys: LiveServer) -> None:
    def status(name: str) -> str:
        found: str = two_keys.client.get(f"/v1/responses/{name}", **of("sk-a")).json()["status"]
        return found

    short = made(two_keys, background=True)
    assert short["status"] in ("queued", "in_progress")
    until(lambda: status(short["id"]) == "incomplete")
    long = made(two_keys, background=True, max_output_tokens=400)
    cancelled = two_keys.client.post(f"/v1/responses/{long['id']}/cancel", **of("sk-a"))
    assert cancelled.json()["status"] == "cancelled"
    two_keys.settle()


def test_the_store_is_bounded_by_bytes() -> None:
    store = ResponseStore(most_bytes=100_000)
    for place in range(10_000):
        store.put(b"a", {"id": f"resp_{place}", "output": ["x" * 90]}, [{"role": "user", "content": "Hi"}])
    kept = [place for place in range(10_000) if has(store, f"resp_{place}")]
    assert kept == list(range(kept[0], 10_000))
    assert 200 < len(kept) < 1000


def has(store: ResponseStore, name: str) -> bool:
    try:
        store.get(b"a", name)
    except Exception:
        return False
    return True


def schema_of(schema: Any) -> dict[str, Any]:
    return {"text": {"format": {"type": "json_schema", "name": "a", "schema": schema}}}


USER = {"role": "user", "content": "Hi"}
CALLED = {"type": "function_call", "call_id": "c", "name": "add", "arguments": "{}"}
RESULT = {"type": "function_call_output", "call_id": "c", "output": "5"}


@pytest.mark.parametrize(
    ("body", "param"),
    [
        ({"input": [USER, {"role": 5, "content": "x"}]}, "input[1]"),
        ({"input": [USER, {**CALLED, "arguments": "{"}], "instructions": "x"}, "input[1].arguments"),
        ({"input": [USER, CALLED, {**CALLED, "arguments": "{"}, RESULT]}, "input[2].arguments"),
        ({"input": [USER, CALLED, RESULT, {**CALLED, "name": 5}]}, "input[3].name"),
        ({"input": [USER, CALLED, RESULT, {**CALLED, "call_id": 5}]}, "input[3].call_id"),
        ({"input": [USER, CALLED, {**RESULT, "call_id": 5}]}, "input[2].call_id"),
        ({"input": [USER], **schema_of({"type": 5})}, "text.format"),
        ({"input": [USER], **schema_of("a")}, "text.format.schema"),
        ({"text": {"format": {"type": "xml"}}}, "text.format.type"),
        ({"tools": [TOOL, {**TOOL, "parameters": {"type": "array"}}]}, "tools[1].parameters"),
        ({"tools": [TOOL, TOOL]}, "tools[1].name"),
        ({"tools": [{**TOOL, "name": "a b"}]}, "tools[0].name"),
        ({"reasoning": {"effort": "high"}}, "reasoning.effort"),
        ({"max_output_tokens": 5000}, "max_output_tokens"),
        ({"max_output_tokens": 0}, "max_output_tokens"),
        ({"input": "x" * 5000, "max_output_tokens": None}, "input"),
        ({"input": None}, "input"),
        ({"input": []}, "input"),
        ({"input": [5]}, "input[0]"),
        ({"input": [{"type": "image"}]}, "input[0].type"),
        ({"input": [{"role": "user", "content": 5}]}, "input[0].content"),
        ({"input": [{"role": "user", "content": [{"type": "input_image"}]}]}, "input[0].content[0].type"),
        ({"input": [{"type": "reasoning", "content": [{"text": 5}]}]}, "input[0].content"),
        ({"input": [{"type": "reasoning", "content": 5}]}, "input[0].content"),
        ({"n": 3}, "n"),
        ({"tools": [{"type": "web_search"}]}, "tools[0].type"),
        ({"truncation": "auto"}, "truncation"),
        ({"background": True, "store": False}, "background"),
        ({"previous_response_id": "resp_none"}, "previous_response_id"),
        ({"max_output_tokns": 3}, "max_output_tokns"),
    ],
)
def test_a_wrong_field_is_an_error_that_names_it(two_keys: LiveServer, body: Any, param: str) -> None:
    answer = two_keys.post("/v1/responses", {**ASKED, **body}, **of("sk-a"))
    assert answer.status_code in (400, 404), answer.text
    assert answer.json()["error"]["param"] == param


def test_openais_client_reads_ours(two_keys: LiveServer) -> None:
    with OpenAI(base_url=f"{two_keys.url}/v1", api_key="sk-a", max_retries=0, timeout=60) as client:
        asked: dict[str, Any] = {
            "model": NAME,
            "input": "Hi",
            "max_output_tokens": 12,
            "extra_body": {"seed": 1},
        }
        response = client.responses.create(**asked)
        assert response.output_text == client.responses.retrieve(response.id).output_text
        with client.responses.stream(**asked) as stream:
            deltas = [e.delta for e in stream if e.type == "response.output_text.delta"]
        assert "".join(deltas) == response.output_text
