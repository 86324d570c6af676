from __future__ import annotations

import json
from dataclasses import fields
from typing import Any

import pytest

from decodery import LLM, GenerationParams
from decodery.decoding.request.plain import params_from_plain
from decodery.pictures.generation_trace import traces_of
from decodery.serving.schemas.operations import TRACE
from decodery.serving.settings import RequestLimits, ServerSettings
from decodery.serving.trace_route import TraceRequest, read_trace_request
from decodery.wire.trace_lines import VERSION, TracedRequest, TraceReader
from tests.serving.live import LiveServer, begin_request, serving, until

ONE = {"prompt": "Hello", "params": {"max_tokens": 3, "temperature": 0}}


def lines_of(server: LiveServer, **body: Any) -> list[dict[str, Any]]:
    """Returns the lines of a trace, read to the end."""
    with server.client.stream("POST", "/trace", json=body) as answer:
        assert answer.status_code == 200, answer.read()
        texts = [line for line in answer.iter_lines() if line.startswith("data: ")]
    return [json.loads(text.removeprefix("data: ")) for text in texts]


def refused(server: LiveServer, status: int = 400, **body: Any) -> dict[str, Any]:
    answer = server.post("/trace", body)
    assert answer.status_code == status, answer.text
    found: dict[str, Any] = answer.json()["error"]
    return found


def test_a_trace_begins_with_its_header_and_ends_with_its_end(server: LiveServer) -> None:
    lines = lines_of(server, requests=[ONE], candidates=3)
    assert [line["kind"] for line in lines[:1] + lines[-2:]] == ["trace", "output", "end"]
    assert lines[0]["version"] == VERSION
    assert {line["kind"] for line in lines} == {"trace", "tokens", "event", "output", "end"}
    [trace] = traces_of(map(json.dumps, lines))
    assert sum(len(step.tokens) for step in trace.steps[0]) == 3
    assert all(len(c.candidates) >= 3 for step in trace.steps[0] for c in step.considered)


def test_without_candidates_there_are_no_events_and_with_texts_no_whole_outputs(server: LiveServer) -> None:
    kinds = [line["kind"] for line in lines_of(server, requests=[ONE])]
    assert "event" not in kinds
    assert "text" not in kinds
    lines = lines_of(server, requests=[ONE, {"prompt": [72, 105]}], texts=True)
    assert {line["request"] for line in lines if line["kind"] == "text"} == {0, 1}
    outputs = [line["output"] for line in lines if line["kind"] == "output"]
    assert [output["completions"] for output in outputs] == [[], []]


def test_the_progress_of_each_prompt_is_told_as_it_is_computed(server: LiveServer) -> None:
    # 65 is the only token, and the last: the text ends in the step that computes the rest of the prompt.
    params = {"max_tokens": 2, "allowed_token_ids": [65], "stop_token_ids": [65]}
    long = {"prompt": [20 + place % 90 for place in range(900)], "params": params}
    lines = lines_of(server, requests=[ONE, long], progress=True, candidates=0)
    told = [line["progress"] for line in lines if line["kind"] == "progress" and line["request"] == 1]
    assert len(told) >= 2
    assert {one["prompt"] for one in told} == {900}
    computed = [one["computed"] for one in told]
    assert computed == sorted(set(computed))
    assert computed[0] < computed[-1] == 900
    assert "progress" not in {line["kind"] for line in lines_of(server, requests=[long])}


def test_a_text_that_ends_in_the_step_of_its_whole_prompt_tells_its_progress(server: LiveServer) -> None:
    # A prompt that no other test has cached.
    one = {"prompt": [90 - place for place in range(20)], "params": {"max_tokens": 1}}
    lines = lines_of(server, requests=[one], progress=True)
    told = [line["progress"] for line in lines if line["kind"] == "progress"]
    assert told == [{"prompt": 20, "cached": 0, "computed": 20, "running": True}]
    lines = lines_of(server, requests=[one], progress=True)
    told = [line["progress"] for line in lines if line["kind"] == "progress"]
    assert told == [{"prompt": 20, "cached": 16, "computed": 20, "running": True}]


def test_beams_come_with_each_step(server: LiveServer) -> None:
    params = {"strategy": {"type": "beam_search", "num_beams": 3}, "max_tokens": 5}
    lines = lines_of(server, requests=[{"prompt": "Hello", "params": params}], candidates=2)
    assert sum(bool(line["event"].get("beams")) for line in lines if line["kind"] == "event") >= 4


def test_a_model_is_described(server: LiveServer, library: LLM) -> None:
    found = server.client.get("/trace").json()
    assert found["model"] == "tiny"
    assert found["capacity"] == library.capacity
    assert found["layers"] == library.model.depth
    assert params_from_plain(found["default_params"]) == library.default_params
    assert server.client.get("/trace", params={"model": "other"}).status_code == 404


def test_the_documents_fields_are_those_that_are_read() -> None:
    one = {**ONE, "params": {"max_tokens": 1}}
    flags = {"texts": True, "logits": True, "progress": True}
    body = {"requests": [one], "candidates": 1, **flags, "cache_salt": "a", "priority": 1}
    assert set(TRACE) == {*body, "model"}
    read_trace_request(body, GenerationParams(), ServerSettings(), [])
    properties = TRACE["requests"][0]["items"]["properties"]
    assert set(properties) == {"prompt", "params", "generated", "stream", "suffix"}
    assert {f.name for f in fields(TraceRequest)} == set(body)
    assert {f.name for f in fields(TracedRequest)} >= set(properties) - {"suffix"}


def test_each_of_several_completions_goes_on_from_its_ids(server: LiveServer) -> None:
    params = {"max_tokens": 12, "n": 3, "seed": 4, "repetition_penalty": 1.3}
    [*_, first, _] = lines_of(server, requests=[{"prompt": "Hello", "params": params}], candidates=1)
    prompt = first["output"]["prompt_token_ids"]
    for completion in first["output"]["completions"]:
        ids, stream = completion["token_ids"], completion.get("index", 0)
        asked = {"prompt": prompt + ids[:5], "params": params, "generated": 5, "stream": stream}
        lines = lines_of(server, requests=[asked], candidates=1)
        [header] = lines[0]["requests"]
        assert (header["seed"], header["generated"], header["stream"]) == (4, 5, stream)
        [rest] = lines[-2]["output"]["completions"]
        assert rest["token_ids"] == ids[5:]


def test_a_text_that_goes_on_is_found_in_the_prefix_cache(server: LiveServer) -> None:
    params = {"max_tokens": 70, "seed": 3, "ignore_eos": True}
    prompt = list(range(40, 75))
    [*_, output, _] = lines_of(server, requests=[{"prompt": prompt, "params": params}], candidates=1)
    known = prompt + output["output"]["completions"][0]["token_ids"][:40]
    known[-1] = (known[-1] + 1) % 256
    asked = {"prompt": known, "params": params, "generated": 40}
    lines = lines_of(server, requests=[asked], candidates=1)
    assert {line["event"]["cached_tokens"] for line in lines if line["kind"] == "event"} == {64}


def test_an_end_that_was_picked_is_the_only_event(server: LiveServer) -> None:
    asked = {"prompt": [72, 105, 256], "params": {"max_tokens": 9, "seed": 1}, "generated": 2}
    events = [line["event"] for line in lines_of(server, requests=[asked], candidates=3) if "event" in line]
    assert [event.get("finish") for event in events] == ["stop"]
    assert not any(event.get("tokens") for event in events)


WRONG: dict[str, tuple[dict[str, Any], str]] = {
    "no requests": ({}, "requests"),
    "an empty list": ({"requests": []}, "requests"),
    "no list": ({"requests": ONE}, "requests"),
    "no object": ({"requests": ["Hello"]}, "requests[0]"),
    "no prompt": ({"requests": [{}]}, "requests[0].prompt"),
    "an empty prompt": ({"requests": [ONE, {"prompt": ""}]}, "requests[1].prompt"),
    "a prompt of texts": ({"requests": [{"prompt": ["a"]}]}, "requests[0].prompt"),
    "a prompt of true": ({"requests": [{"prompt": [True]}]}, "requests[0].prompt"),
    "a list of parameters": ({"requests": [{"prompt": "a", "params": []}]}, "requests[0].params"),
    "an unknown parameter": ({"requests": [{"prompt": "a", "params": {"temprature": 1}}]}, "temprature"),
    "a nested parameter": (
        {"requests": [{"prompt": "a", "params": {"strategy": {"type": "beam_search", "num_beems": 2}}}]},
        "strategy.num_beems",
    ),
    "a function": ({"requests": [{"prompt": "a", "params": {"stop_when": "f"}}]}, "stop_when"),
    "a second model by its path": (
        {"requests": [{"prompt": "a", "params": {"speculate": {"type": "draft_model", "model": "/etc"}}}]},
        "speculate.model",
    ),
    "a token that is not there": ({"requests": [{"prompt": [10**6]}]}, "prompt"),
    "candidates of text": ({"requests": [ONE], "candidates": "3"}, "candidates"),
    "candidates below 0": ({"requests": [ONE], "candidates": -1}, "candidates"),
    "candidates of true": ({"requests": [ONE], "candidates": True}, "candidates"),
    "too many candidates": ({"requests": [ONE], "candidates": 1001}, "candidates"),
    "an unknown field": ({"requests": [ONE], "candidate": 3}, "candidate"),
    "more generated ids than there are": (
        {"requests": [{"prompt": [65, 66], "generated": 2}]},
        "requests[0].generated",
    ),
    "generated ids of a text": ({"requests": [{"prompt": "abc", "generated": 1}]}, "requests[0].generated"),
    "generated ids below 0": ({"requests": [{"prompt": [65, 66], "generated": -1}]}, "requests[0].generated"),
    "a completion that is not there": (
        {"requests": [{"prompt": "a", "params": {"n": 2, "seed": 1}, "stream": 2}]},
        "requests[0].stream",
    ),
    "a completion without a seed": (
        {"requests": [{"prompt": "a", "params": {"n": 2}, "stream": 1}]},
        "requests[0].stream",
    ),
    "a beam as a completion": (
        {"requests": [{"prompt": "a", "params": {"strategy": {"type": "beam_search"}}, "stream": 0}]},
        "requests[0].stream",
    ),
    "a number as salt": ({"requests": [ONE], "cache_salt": 3}, "cache_salt"),
}


@pytest.mark.parametrize(("body", "param"), WRONG.values(), ids=WRONG)
def test_a_wrong_request_is_refused_with_its_place(
    server: LiveServer, body: dict[str, Any], param: str
) -> None:
    error = refused(server, **body)
    assert error["param"] == param
    assert error["type"] == "invalid_request_error"


@pytest.mark.parametrize("params", [{"top_p": 3}, {"logprobs": 10**6}, {"strategy": {"type": "x"}}, {"x": 1}])
def test_a_wrong_parameter_among_several_requests_is_named_with_its_request(
    server: LiveServer, params: dict[str, Any]
) -> None:
    [name] = params
    wrong = {"prompt": "a", "params": params}
    assert refused(server, requests=[ONE, wrong, ONE])["param"].startswith(f"requests[1].params.{name}")
    assert refused(server, requests=[wrong])["param"].startswith(name)


def test_limits_hold_here_too(served_llm: LLM) -> None:
    limits = RequestLimits(prompts=2, prompt_tokens=4, max_tokens=6, n=2, logprobs=3)
    with serving(served_llm, limits) as server:
        assert refused(server, requests=[ONE] * 3)["param"] == "requests"
        assert "4 tokens" in refused(server, requests=[{"prompt": "Hello you"}])["message"]
        for params in ({"max_tokens": 7}, {"n": 3}, {"logprobs": 4}):
            [name] = params
            assert refused(server, requests=[{"prompt": "Hi", "params": params}])["param"] == name
        for unbounded in ({}, {"max_tokens": None}):
            one = {"prompt": "Hi", "params": {"ignore_eos": True, **unbounded}}
            [*_, line, _] = lines_of(server, requests=[one])
            assert len(line["output"]["completions"][0]["token_ids"]) == 6


def test_a_client_that_goes_away_frees_its_pages(server: LiveServer) -> None:
    params = {"max_tokens": 400, "ignore_eos": True}
    body = {"requests": [{"prompt": "Hello", "params": params}] * 3, "candidates": 5}
    connection = begin_request(server.port, body, "/trace")
    connection.recv(1)
    until(lambda: server.statistics().running > 0)
    connection.close()
    server.settle()


def test_tokens_are_spelled_before_they_are_named(server: LiveServer, library: LLM) -> None:
    lines = lines_of(server, requests=[ONE], candidates=3)
    reader = TraceReader()
    for line in lines:
        reader.read(json.dumps(line))
        if line["kind"] == "event":
            for token in line["event"].get("tokens", ()):
                assert reader.tokens.token_bytes(token) == library.tokenizer.token_bytes(token)
