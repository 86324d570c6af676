from __future__ import annotations

import dataclasses
import json
import math
import random
import types
from collections.abc import Sequence
from typing import Any, Literal, Union, get_args, get_origin, get_type_hints

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from decodery import (
    LLM,
    BeamSearch,
    Choice,
    ContrastiveSearch,
    DecoderyError,
    GenerationParams,
    PromptLookup,
    StochasticBeamSearch,
)
from decodery.decoding.event import Event, PromptProgress, Times
from decodery.decoding.request.plain import params_to_plain
from decodery.outputs import Completion, RequestOutput, StreamEvent
from decodery.pictures.generation_trace import GenerationTrace, traces_of
from decodery.pictures.html_page import html_page
from decodery.pictures.svg_picture import svg_picture
from decodery.wire.plain_forms import FormError, from_plain, to_plain
from decodery.wire.trace_lines import (
    VERSION,
    EndLine,
    ErrorLine,
    EventLine,
    Header,
    Line,
    OutputLine,
    TextLine,
    TracedRequest,
    TraceReader,
    TraceWriter,
    written,
)

TEXT = st.text(st.characters(exclude_categories=["Cs"]), max_size=6)
FLOATS = (0.1, -0.0, 1e-320, 1.7976931348623157e308, math.inf, -math.inf, 2 / 3)


def value_of(hint: Any, rng: random.Random) -> Any:
    """Returns a random value of a type hint."""
    origin, parts = get_origin(hint), get_args(hint)
    if origin in (Union, types.UnionType):
        return value_of(rng.choice(parts), rng)
    if origin is Literal:
        return rng.choice(parts)
    if origin is tuple and parts[1:] != (...,):
        return tuple(value_of(part, rng) for part in parts)
    if origin in (tuple, list, Sequence):
        listed = [value_of(parts[0], rng) for _ in range(rng.randrange(3))]
        return listed if origin is list else tuple(listed)
    if isinstance(hint, type) and dataclasses.is_dataclass(hint):
        hints = get_type_hints(hint)
        return hint(**{f.name: value_of(hints[f.name], rng) for f in dataclasses.fields(hint)})
    simple: dict[Any, Any] = {
        int: rng.choice((0, -1, 2**64, rng.randrange(1000))),
        float: rng.choice((*FLOATS, rng.random())),
        bool: rng.random() < 0.5,
        str: rng.choice(("", "inf", "é\n\u2028", '"<')),
        bytes: rng.choice((b"", b"\x00\xff\n", rng.randbytes(7))),
        types.NoneType: None,
    }
    return simple[hint]


KINDS = (Event, StreamEvent, RequestOutput, Completion, Times, PromptProgress)


@pytest.mark.parametrize("kind", KINDS, ids=lambda kind: kind.__name__)
def test_what_is_written_is_read_back_bit_for_bit(kind: type[Any]) -> None:
    for seed in range(100):
        value = value_of(kind, random.Random(seed))
        text = json.dumps(to_plain(value), allow_nan=False)
        back = from_plain(kind, json.loads(text))
        # Of floats that are equal, -0.0 and 0.0 alone have other bits; `repr` tells them apart.
        assert repr(back) == repr(value)
        assert back == value


def test_an_events_line_is_its_plain_form() -> None:
    for seed in range(300):
        event = value_of(Event, random.Random(seed))
        line = json.loads(written(EventLine(event)), parse_constant=pytest.fail)
        expected = {"kind": "event", "event": to_plain(event)}
        assert json.dumps(line, sort_keys=True) == json.dumps(expected, sort_keys=True)


def test_not_a_number_is_read_back() -> None:
    event = Event(0, 0, score=math.nan)
    text = json.dumps(to_plain(event), allow_nan=False)
    assert math.isnan(from_plain(Event, json.loads(text)).score or 0)


@pytest.mark.parametrize("kind", [k for k in KINDS if k is not Times], ids=lambda kind: kind.__name__)
@given(st.recursive(st.none() | st.integers() | TEXT, lambda x: st.lists(x, max_size=2), max_leaves=3))
@settings(max_examples=20, deadline=None)
def test_anything_else_is_refused(kind: type[Any], plain: Any) -> None:
    for found in (plain, {"request": plain, "index": plain, "tokens": plain}):
        with pytest.raises(FormError):
            from_plain(kind, found)


CASES: dict[str, dict[str, Any]] = {
    "sampled": {"temperature": 0.9, "top_k": 20, "min_p": 0.01, "n": 2, "logprobs": 2},
    "greedy": {"temperature": 0, "prompt_logprobs": 1},
    "drafts": {"temperature": 0, "speculate": PromptLookup(num_tokens=3)},
    "grammar": {"grammar": Choice(("yes indeed", "no"))},
    "beams": {"strategy": BeamSearch(num_beams=3, num_return_sequences=2)},
    "stochastic beams": {"strategy": StochasticBeamSearch(num_beams=2)},
    "contrastive": {"strategy": ContrastiveSearch(top_k=3), "temperature": 0},
}


def traced(llm: LLM, params: GenerationParams, prompt: str) -> tuple[GenerationTrace, list[Line]]:
    """Returns the trace of a run made from its events, and the lines that tell the same."""
    trace = GenerationTrace(prompt, "model", params, llm.tokenizer)
    events: list[Line] = []

    def observe(event: Event) -> None:
        trace.add(event)
        events.append(EventLine(dataclasses.replace(event, request=0)))

    [output] = llm.generate(prompt, params, observer=observe, candidates=5)
    trace.output = output
    ids = tuple(output.prompt_token_ids)
    asked = TracedRequest(prompt, ids, output.seed, params_to_plain(params))
    header = Header(VERSION, "model", llm.tokenizer.vocab_size, (asked,))
    return trace, [header, *events, OutputLine(0, output), EndLine()]


@pytest.mark.parametrize("case", CASES)
def test_pictures_of_the_lines_are_those_of_the_engines_events(default_llm: LLM, case: str) -> None:
    params = GenerationParams(**{"max_tokens": 8, "seed": 5, **CASES[case]})
    trace, lines = traced(default_llm, params, "One two three one two")
    writer = TraceWriter(default_llm.tokenizer)
    [read] = traces_of([text for line in lines for text in writer.lines(line)])
    assert read.params == params
    assert read.output == trace.output
    assert read.steps == trace.steps
    assert read.beams == trace.beams
    assert html_page(read) == html_page(trace)
    assert svg_picture(read) == svg_picture(trace)


def test_lines_are_small_and_each_token_is_spelled_once(default_llm: LLM) -> None:
    params = GenerationParams(max_tokens=20, temperature=0)
    _, lines = traced(default_llm, params, "One two three one two")
    writer = TraceWriter(default_llm.tokenizer)
    texts = [text for line in lines for text in writer.lines(line)]
    spelled = [t for text in texts for t, _ in json.loads(text).get("tokens", []) if "special" in text]
    assert len(spelled) == len(set(spelled))
    assert max(map(len, texts)) < 4000
    assert not any("\n" in text for text in texts)


def test_a_trace_that_is_cut_or_failed_is_an_error(default_llm: LLM) -> None:
    _, lines = traced(default_llm, GenerationParams(max_tokens=2), "Hello")
    writer = TraceWriter(default_llm.tokenizer)
    texts = [text for line in lines for text in writer.lines(line)]
    for few in range(len(texts)):
        with pytest.raises(DecoderyError, match="cut"):
            traces_of(texts[:few])
    with pytest.raises(DecoderyError, match="too long"):
        traces_of([*texts[:2], written(ErrorLine({"message": "too long"}))])
    header = json.loads(texts[0])
    with pytest.raises(DecoderyError, match="version 2"):
        traces_of([json.dumps({**header, "version": 2})])


@pytest.mark.parametrize(
    "text",
    [
        "",
        "{",
        "[]",
        "null",
        "3",
        '{"kind": "absurd"}',
        '{"kind": ["trace"]}',
        '{"kind": "event"}',
        '{"kind": "event", "event": {"request": "0"}}',
        '{"kind": "tokens", "tokens": [[1, "zz"]]}',
        '{"kind": "trace", "version": true}',
        "[" * 100_000,
    ],
)
def test_a_wrong_line_is_an_error_of_one_line(text: str) -> None:
    with pytest.raises(DecoderyError) as caught:
        TraceReader().read(text)
    assert len(str(caught.value)) < 200


def test_fields_that_a_later_server_adds_are_ignored() -> None:
    text = '{"kind":"text","request":0,"new":1,"event":{"index":0,"text":"a","token_ids":[],"x":2}}'
    line = TraceReader().read(text)
    assert line == TextLine(0, StreamEvent(0, "a", ()))
