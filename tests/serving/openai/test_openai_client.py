"""Checks the server with OpenAI's own client, unmodified: all of its features that the server has."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Iterator
from typing import Any

import openai
import pydantic
import pytest
from openai import OpenAI

from decodery import LLM
from decodery.serving.settings import RequestLimits
from tests.serving.live import NAME, LiveServer, serving, until
from tests.serving.test_load import slow

HI: list[Any] = [{"role": "user", "content": "Hi"}]
ADD: Any = {
    "type": "function",
    "function": {
        "name": "add",
        "description": "Adds two numbers.",
        "parameters": {
            "type": "object",
            "properties": {"a": {"enum": [1, 20, 300]}, "b": {"enum": [4, 50]}},
            "required": ["a", "b"],
            "additionalProperties": False,
        },
    },
}
TIME: Any = {
    "type": "function",
    "function": {"name": "time", "parameters": {"type": "object", "properties": {}}},
}
KEY = "sk-client"


class Answer(pydantic.BaseModel):
    """Is what a reply must be."""

    model_config = pydantic.ConfigDict(extra="forbid")
    kind: pydantic.constr(pattern="^(good|bad)$")  # type: ignore[valid-type]
    points: list[bool] = pydantic.Field(max_length=2)


@pytest.fixture(scope="module")
def guarded(served_llm: LLM) -> Iterator[LiveServer]:
    """Returns a server with a key."""
    with serving(served_llm, keys=(KEY,), pings=0.05) as found:
        yield found


@pytest.fixture(scope="module")
def client(guarded: LiveServer) -> Iterator[OpenAI]:
    """Returns a client of the server, which does not try again."""
    with open_client(guarded) as found:
        yield found


def open_client(server: LiveServer) -> OpenAI:
    """Returns a client of a server, which does not try again."""
    return OpenAI(base_url=f"{server.url}/v1", api_key=KEY, max_retries=0, timeout=60)


def chat(client: OpenAI, **options: Any) -> Any:
    asked = {"model": NAME, "messages": HI, "max_completion_tokens": 12, "seed": 1, **options}
    return client.chat.completions.create(**asked)


def test_models(client: OpenAI) -> None:
    assert [model.id for model in client.models.list()] == [NAME]
    assert client.models.retrieve(NAME).owned_by == "decodery"


def test_a_completion_plain_and_streamed(client: OpenAI) -> None:
    asked: Any = {
        "model": NAME,
        "prompt": ["Once", "Twice"],
        "n": 2,
        "max_tokens": 9,
        "seed": 4,
        "logprobs": 2,
    }
    plain = client.completions.create(**asked)
    texts = dict.fromkeys(range(4), "")
    for chunk in client.completions.create(**asked, stream=True):
        for choice in chunk.choices:
            texts[choice.index] += choice.text
    assert texts == {choice.index: choice.text for choice in plain.choices}
    assert plain.choices[0].logprobs is not None
    assert plain.usage is not None
    assert plain._request_id


def test_a_reply_plain_and_streamed(client: OpenAI) -> None:
    asked = {"n": 3, "logprobs": True, "top_logprobs": 2, "max_completion_tokens": 20}
    plain = chat(client, **asked)
    assert len({choice.message.content for choice in plain.choices}) == 3
    texts, finishes, roles = ["", "", ""], {}, []
    tokens: list[list[str]] = [[], [], []]
    chunks = list(chat(client, **asked, stream=True, stream_options={"include_usage": True}))
    for chunk in chunks:
        for choice in chunk.choices:
            texts[choice.index] += choice.delta.content or ""
            roles += [choice.index] if choice.delta.role else []
            if choice.logprobs and choice.logprobs.content:
                tokens[choice.index] += [entry.token for entry in choice.logprobs.content]
            if choice.finish_reason:
                assert choice.index not in finishes
                finishes[choice.index] = choice.finish_reason
    assert texts == [choice.message.content for choice in plain.choices]
    assert finishes == {choice.index: choice.finish_reason for choice in plain.choices}
    assert tokens == [[entry.token for entry in choice.logprobs.content] for choice in plain.choices]
    assert roles == [0, 1, 2]
    assert chunks[-1].choices == []
    assert chunks[-1].usage == plain.usage
    assert all(chunk.usage is None for chunk in chunks[:-1])


def test_bytes_of_the_entries_are_those_of_the_text(client: OpenAI) -> None:
    reply = chat(client, logprobs=True, max_completion_tokens=40, temperature=1.5)
    (choice,) = reply.choices
    data = b"".join(bytes(entry.bytes or ()) for entry in choice.logprobs.content)
    assert data.decode("utf-8", "replace") == choice.message.content
    assert all(entry.top_logprobs == [] for entry in choice.logprobs.content)


def test_a_pydantic_model_is_parsed(client: OpenAI) -> None:
    reply = client.chat.completions.parse(
        model=NAME, messages=HI, response_format=Answer, max_completion_tokens=200, seed=1
    )
    parsed = reply.choices[0].message.parsed
    assert parsed is not None
    assert parsed.kind in ("good", "bad")


def test_a_json_object_cut_by_the_length_is_told(client: OpenAI) -> None:
    reply = chat(client, response_format={"type": "json_object"}, max_completion_tokens=3)
    assert reply.choices[0].finish_reason == "length"
    with pytest.raises(openai.LengthFinishReasonError):
        client.chat.completions.parse(
            model=NAME, messages=HI, response_format=Answer, max_completion_tokens=3, seed=1
        )


def test_a_loop_of_tools(client: OpenAI) -> None:
    messages = list(HI)
    seen = set()
    for turn in range(2):
        reply = chat(
            client,
            messages=messages,
            tools=[ADD],
            tool_choice="required",
            max_completion_tokens=100,
            seed=turn,
        )
        (choice,) = reply.choices
        assert choice.finish_reason == "tool_calls"
        for call in choice.message.tool_calls:
            assert call.function.name == "add"
            assert set(json.loads(call.function.arguments)) == {"a", "b"}
            assert call.id not in seen
            seen.add(call.id)
        messages.append(choice.message.model_dump(exclude_none=True))
        messages += [
            {"role": "tool", "tool_call_id": call.id, "content": "51"} for call in choice.message.tool_calls
        ]
    assert (
        chat(client, messages=messages, tools=[ADD], tool_choice="none").choices[0].message.tool_calls is None
    )


@pytest.mark.parametrize(
    ("choice", "finish"),
    [("required", "tool_calls"), ({"type": "function", "function": {"name": "add"}}, "stop")],
)
def test_streamed_pieces_of_a_call_join_to_its_arguments(client: OpenAI, choice: Any, finish: str) -> None:
    asked = {"tools": [ADD, TIME], "tool_choice": choice, "max_completion_tokens": 150, "seed": 3}
    plain = chat(client, **asked).choices[0]
    calls: list[dict[str, Any]] = []
    for chunk in chat(client, **asked, stream=True):
        for one in chunk.choices:
            for piece in one.delta.tool_calls or ():
                if piece.index == len(calls):
                    assert piece.id
                    assert piece.type == "function"
                    calls.append({"name": piece.function.name, "arguments": ""})
                calls[piece.index]["arguments"] += piece.function.arguments
            if one.finish_reason:
                assert one.finish_reason == finish
    assert plain.finish_reason == finish
    assert calls == [
        {"name": call.function.name, "arguments": call.function.arguments}
        for call in plain.message.tool_calls
    ]


def test_a_call_has_the_arguments_that_are_declared_and_no_others(client: OpenAI) -> None:
    function = {"name": "time", "parameters": {"type": "object", "properties": {}}}
    tools = [{"type": "function", "function": function}]
    for seed in range(5):
        reply = chat(client, tools=tools, tool_choice="required", max_completion_tokens=80, seed=seed)
        (choice,) = reply.choices
        assert choice.finish_reason == "tool_calls"
        assert all(json.loads(call.function.arguments) == {} for call in choice.message.tool_calls)


def test_a_call_that_is_cut_is_a_length(client: OpenAI) -> None:
    reply = chat(client, tools=[ADD], tool_choice="required", max_completion_tokens=6)
    assert reply.choices[0].finish_reason == "length"


def test_the_clients_own_stream_helper_reads_ours(client: OpenAI) -> None:
    with client.chat.completions.stream(
        model=NAME, messages=HI, max_completion_tokens=150, seed=2, tools=[ADD], tool_choice="required"
    ) as stream:
        kinds = {event.type for event in stream}
        final = stream.get_final_completion()
    assert "chunk" in kinds
    assert final.choices[0].message.tool_calls


def test_pings_before_the_first_chunk_are_no_events(client: OpenAI, guarded: LiveServer) -> None:
    with slow(guarded, 0.2):
        chunks = list(chat(client, stream=True, max_completion_tokens=2))
    assert chunks[0].choices[0].delta.role == "assistant"


def test_a_stream_that_is_closed_frees_everything(client: OpenAI, guarded: LiveServer) -> None:
    with slow(guarded, 0.005):
        stream = chat(client, stream=True, max_completion_tokens=400, extra_body={"ignore_eos": True})
        next(stream)
        stream.close()
        until(guarded.is_idle)


def test_a_task_that_is_cancelled_frees_everything(guarded: LiveServer) -> None:
    async def run() -> None:
        async with openai.AsyncOpenAI(base_url=f"{guarded.url}/v1", api_key=KEY, max_retries=0) as client:
            asked = client.chat.completions.create(
                model=NAME, messages=HI, max_completion_tokens=400, extra_body={"ignore_eos": True}
            )
            task = asyncio.ensure_future(asked)
            await asyncio.sleep(0.2)
            assert not task.done()
            task.cancel()
            with pytest.raises(asyncio.CancelledError):
                await task

    with slow(guarded, 0.01):
        asyncio.run(run())
        until(guarded.is_idle)


def test_errors_are_the_clients_exceptions(client: OpenAI, guarded: LiveServer) -> None:
    with pytest.raises(openai.BadRequestError) as wrong:
        chat(client, extra_body={"temprature": 1})
    assert wrong.value.param == "temprature"
    with pytest.raises(openai.BadRequestError) as long:
        chat(client, messages=[{"role": "user", "content": "x" * 5000}])
    assert long.value.code == "context_length_exceeded"
    with pytest.raises(openai.NotFoundError) as unknown:
        chat(client, model="gpt-4")
    assert unknown.value.code == "model_not_found"
    with pytest.raises(openai.AuthenticationError):
        OpenAI(base_url=f"{guarded.url}/v1", api_key="wrong", max_retries=0).models.list()
    with pytest.raises(openai.BadRequestError):
        chat(client, extra_body={"n": 0}, stream=True)


def test_a_full_server_is_the_clients_rate_limit(served_llm: LLM) -> None:
    with (
        serving(served_llm, RequestLimits(queued=1)) as server,
        slow(server, 0.3),
        open_client(server) as client,
    ):
        first = chat(client, stream=True)
        with pytest.raises(openai.RateLimitError) as full:
            chat(client)
        assert int(full.value.response.headers["retry-after"]) >= 1
        first.close()


def test_a_deadline_in_a_stream_is_an_error_of_the_client(served_llm: LLM) -> None:
    limits = RequestLimits(seconds=0.3)
    asked: dict[str, Any] = {"max_completion_tokens": 400, "extra_body": {"ignore_eos": True}}
    with serving(served_llm, limits) as server, slow(server, 0.02), open_client(server) as client:
        with pytest.raises(openai.APIError):
            list(chat(client, stream=True, **asked))
        with pytest.raises(openai.InternalServerError):
            chat(client, **asked)
