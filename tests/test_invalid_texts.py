"""Checks what becomes of texts that their grammar allows and their JSON schema does not accept."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from decodery import LLM, GenerationParams, JsonSchema
from decodery.outputs import RequestOutput
from tests.cli.conftest import write_model

ITEM = {"type": "number", "minimum": 1, "maximum": 2, "multipleOf": 1}
PAIRS = {"type": "array", "items": ITEM, "minItems": 2, "maxItems": 2, "uniqueItems": True}
# Its grammar allows two equal numbers alone.
NEVER = {**PAIRS, "items": {**ITEM, "maximum": 1}}


def params(schema: Any, **changes: Any) -> GenerationParams:
    return GenerationParams(grammar=JsonSchema(schema, "approximate"), max_tokens=20, seed=1, **changes)


def steered(llm: LLM, text: str, schema: Any, **changes: Any) -> RequestOutput:
    """Returns the output of a model that wants to write exactly this text."""
    wanted = llm.tokenizer.encode(text, add_special_tokens=False)

    def push(token_ids: list[int], logits: Any) -> Any:
        pushed = logits.clone()
        if len(token_ids) - 2 < len(wanted):
            pushed[wanted[len(token_ids) - 2]] += 1e4
        return pushed

    asked = GenerationParams(
        grammar=JsonSchema(schema, **changes),
        temperature=0,
        max_tokens=len(wanted) + 1,
        logits_processors=(push,),
    )
    return llm.generate([120, 121], asked)[0]


@pytest.fixture(scope="module")
def llm(tmp_path_factory: pytest.TempPathFactory) -> LLM:
    return LLM(write_model(tmp_path_factory.mktemp("bytes")), dtype="float32", kv_memory="16MB")


@pytest.mark.parametrize(
    ("schema", "text", "keyword"),
    [
        ({"type": "object", "properties": {"a": {"const": 1}}}, '{"a":1,"\\u0061":2}', "const"),
        (
            {"type": "object", "patternProperties": {"^a": False}, "additionalProperties": True},
            '{"\\u0061":2}',
            "patternProperties",
        ),
        (
            {"additionalProperties": {"type": "integer"}, "minProperties": 2, "maxProperties": 2},
            '{"a":1,"a":2}',
            "minProperties",
        ),
    ],
)
def test_a_key_is_what_json_parsers_see(llm: LLM, schema: Any, text: str, keyword: str) -> None:
    output = steered(llm, text, schema)
    (completion,) = output.completions
    assert (completion.text, completion.finish_reason) == (text, "invalid")
    assert completion.error is not None
    assert keyword in completion.error
    assert output.error == completion.error


def test_an_invalid_text_ends_its_stream_and_says_why(llm: LLM) -> None:
    *_, last = llm.stream("x", params(NEVER))
    assert last.finish_reason == "invalid"
    assert last.error == "the text does not satisfy uniqueItems of the JSON schema"


def test_of_several_completions_the_valid_ones_are_left(llm: LLM) -> None:
    events = list(llm.stream("x", params(PAIRS, n=8)))
    ends = {event.index: event.finish_reason for event in events if event.finish_reason}
    assert set(ends.values()) == {"stop", "invalid"}
    (output,) = llm.generate("x", params(PAIRS, n=8))
    assert output.error is None
    assert [c.index for c in output.completions] == [i for i in sorted(ends) if ends[i] == "stop"]
    assert all(len(set(json.loads(c.text))) == 2 for c in output.completions)


def test_best_of_chooses_among_the_valid_ones(llm: LLM) -> None:
    (output,) = llm.generate("x", params(PAIRS, n=1, best_of=8))
    (best,) = output.completions
    assert best.finish_reason == "stop"
    assert len(set(json.loads(best.text))) == 2


@pytest.mark.parametrize("changes", [{"n": 3}, {"n": 1, "best_of": 3}])
def test_if_none_is_valid_the_output_says_so(llm: LLM, changes: dict[str, Any]) -> None:
    (output,) = llm.generate("x", params(NEVER, **changes))
    assert {c.finish_reason for c in output.completions} == {"invalid"}
    assert output.error is not None
    assert "uniqueItems" in output.error
    (*_, last) = llm.stream("x", params(NEVER, **changes))
    assert last.finish_reason == "invalid"


def test_a_text_that_is_cut_keeps_its_reason(llm: LLM) -> None:
    (output,) = llm.generate("x", params(NEVER).replace(max_tokens=3))
    assert [c.finish_reason for c in output.completions] == ["length"]
    (output,) = llm.generate("x", params(NEVER, stop=","))
    assert [(c.finish_reason, c.stop_reason) for c in output.completions] == [("stop", ",")]
    assert output.error is None


def test_a_stop_string_that_ends_a_whole_text_does_not_excuse_it(llm: LLM) -> None:
    (output,) = llm.generate("x", params(NEVER, stop="]", include_stop=True))
    assert [c.finish_reason for c in output.completions] == ["invalid"]


def test_an_unknown_format_is_told_once(llm: LLM) -> None:
    schema = {"type": "string", "format": "mongoId", "maxLength": 2}
    (output,) = llm.generate("x", params(schema, n=2))
    assert len(output.warnings) == 1
    assert "mongoId" in output.warnings[0]
    told = [event.warnings for event in llm.stream("x", params(schema, n=2)) if event.warnings]
    assert told == [output.warnings]


def test_calls_of_tools_with_invalid_arguments_are_told(tmp_path: Path) -> None:
    llm = LLM(write_model(tmp_path, context=1024), dtype="float32", kv_memory="16MB")
    parameters = {"type": "object", "properties": {"of": NEVER}, "required": ["of"]}
    tool = {"type": "function", "function": {"name": "add", "parameters": parameters}}
    (output,) = llm.chat(
        [{"role": "user", "content": "Hi"}],
        GenerationParams(max_tokens=200, seed=1),
        tools=[tool],
        tool_choice="required",
        parallel_tool_calls=False,
    )
    assert [c.finish_reason for c in output.completions] == ["invalid"]
    assert output.error is not None
    assert "uniqueItems" in output.error
