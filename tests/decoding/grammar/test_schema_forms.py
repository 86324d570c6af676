from __future__ import annotations

import json
import random
import re
from typing import Any, Literal

import pytest
from bench.schema_set import random_schema, random_value, value_near

from decodery.decoding.grammar.schema_forms import SchemaForm
from decodery.decoding.grammar.state import MatcherState
from decodery.decoding.request.grammar_params import JsonSchema
from decodery.errors import ParameterError
from tests.decoding.grammar.token_sequences import GRAMMARS, random_text, unspell
from tests.decoding.json_schema.test_schema_check import ORACLE, without_formats

NUMBER = {"type": "integer", "minimum": 0, "maximum": 9}
PAIR = {"type": "object", "properties": {"a": NUMBER, "b": NUMBER}, "additionalProperties": False}
OPEN = {"type": "object", "properties": {"a": NUMBER, "b": NUMBER}}
DIGITS = {"type": "array", "items": NUMBER}
ONE, OTHER, BOTH, NONE = '{"a":1}', '{"b":1}', '{"a":1,"b":1}', "{}"


def followed(schema: Any, unsupported: Literal["error", "approximate"] = "error") -> SchemaForm:
    return GRAMMARS.schema(JsonSchema(schema, unsupported))


def allows(schema: Any, text: str, unsupported: Literal["error", "approximate"] = "error") -> bool:
    """True if the grammar of a schema allows a text."""
    state = GRAMMARS.compile(JsonSchema(schema, unsupported))
    assert isinstance(state, MatcherState)
    found = state.after_text(text.encode())
    return found is not None and found.accepting


@pytest.mark.parametrize(
    ("schema", "good", "bad"),
    [
        ({"oneOf": [{**OPEN, "required": ["a"]}, {**OPEN, "required": ["b"]}]}, [ONE, OTHER], [BOTH, NONE]),
        ({"oneOf": [{**PAIR, "required": ["a"]}, {**PAIR, "required": ["b"]}]}, [ONE, OTHER], [BOTH, NONE]),
        (
            {
                "oneOf": [
                    {"type": "string", "pattern": "^a", "_format": "x"},
                    {"type": "number"},
                    {"type": "number", "minimum": 3},
                ]
            },
            ['"a"', "2", "0.5"],
            ['"b"', "3"],
        ),
        (
            {
                "oneOf": [
                    {**OPEN, "properties": {"a": {"const": 1}, "b": {"pattern": "x"}}, "required": ["a"]},
                    {**OPEN, "properties": {"a": {"const": 2}, "b": {"pattern": "y"}}, "required": ["a"]},
                    {"type": "null"},
                ]
            },
            [ONE, '{"a":2}', "null"],
            ['{"a":3}', NONE],
        ),
        ({**NUMBER, "not": {"const": 3}}, ["2", "4"], ["3"]),
        ({"type": "integer", "not": {"enum": [3, 5]}}, ["2", "4", "6", "-3"], ["3", "5"]),
        ({"type": "string", "not": {"enum": ["a", "ab"]}}, ['""', '"b"', '"abc"'], ['"a"', '"ab"']),
        ({"not": {"type": "object"}}, ["1", "null"], ["{}"]),
        ({**PAIR, "not": {"required": ["a", "b"]}}, [ONE, OTHER, NONE], [BOTH]),
        ({**PAIR, "not": {"anyOf": [{"required": ["a"]}, {"required": ["b"]}]}}, [NONE], [ONE, OTHER, BOTH]),
        ({**PAIR, "dependencies": {"a": ["b"]}}, [BOTH, OTHER, NONE], [ONE]),
        ({**PAIR, "dependentRequired": {"a": ["b"]}}, [BOTH, OTHER, NONE], [ONE]),
        ({**PAIR, "dependentSchemas": {"a": {"required": ["b"]}}}, [BOTH, OTHER, NONE], [ONE]),
        (
            {**PAIR, "if": {"required": ["b"]}, "then": {"properties": {"a": {"const": 1}}}},
            [BOTH, NONE, '{"a":2}'],
            ['{"a":2,"b":1}'],
        ),
        (
            {
                **PAIR,
                "if": {"properties": {"a": {"const": 1}}, "required": ["a"]},
                "then": {"required": ["b"]},
                "else": {"properties": {"b": False}},
            },
            [BOTH, NONE, '{"a":2}'],
            [ONE, OTHER],
        ),
        ({**DIGITS, "contains": {"const": 1}, "maxItems": 2}, ["[1]", "[2,1]"], ["[]", "[2,2]"]),
        ({**DIGITS, "uniqueItems": True, "maxItems": 1}, ["[]", "[1]"], ["[1,1]"]),
        (
            {"type": "array", "items": {"enum": [1, 2]}, "uniqueItems": True},
            ["[]", "[2,1]"],
            ["[1,1]", "[1,2,1]"],
        ),
        (
            {"type": "object", "propertyNames": {"pattern": "^a"}, "additionalProperties": NUMBER},
            ['{"ab":1}', NONE],
            [OTHER, '{"ab":"x"}'],
        ),
        ({"type": "object", "propertyNames": {"maxLength": 1}}, [ONE], ['{"ab":1}']),
        ({"type": "object", "propertyNames": {"enum": ["a"]}}, [ONE, NONE], [OTHER]),
        ({**PAIR, "maxProperties": 1}, [ONE, OTHER, NONE], [BOTH]),
        ({**PAIR, "minProperties": 1}, [ONE, OTHER, BOTH], [NONE]),
        ({**PAIR, "minProperties": 1, "maxProperties": 1}, [ONE, OTHER], [BOTH, NONE]),
        ({**OPEN, "unevaluatedProperties": False}, [ONE], ['{"c":1}']),
        ({"type": "array", "prefixItems": [NUMBER], "unevaluatedItems": False}, ["[1]"], ["[1,1]"]),
        (
            {"type": "object", "patternProperties": {"^a": NUMBER, "b$": NUMBER}},
            [BOTH, '{"ab":1}'],
            ['{"a":"x"}', '{"b":"x"}'],
        ),
    ],
)
def test_keywords_that_other_keywords_can_say_are_followed_exactly(
    schema: Any, good: list[str], bad: list[str]
) -> None:
    form = followed(schema)
    assert [text for text in good if not allows(schema, text)] == []
    assert [text for text in bad if allows(schema, text)] == []
    assert [text for text in good if form.check.problem(text) is not None] == []
    assert [text for text in bad if form.check.problem(text) is None] == []


@pytest.mark.parametrize(
    ("schema", "keyword", "good", "bad"),
    [
        ({**DIGITS, "uniqueItems": True}, "uniqueItems", "[1,2]", "[1,1]"),
        ({**DIGITS, "contains": {"const": 1}}, "contains", "[2,1]", "[2]"),
        ({"type": "string", "pattern": "^(?!a)b$"}, "pattern", '"b"', '"ab"'),
        ({"not": {"pattern": "^a"}, "type": "string"}, "not", '"b"', '"a"'),
        (
            {"oneOf": [{"type": "string", "pattern": "^a"}, {"type": "string", "pattern": "b$"}]},
            "oneOf",
            '"a"',
            '"ab"',
        ),
        ({**OPEN, "minProperties": 2}, "minProperties", BOTH, ONE),
        (
            {**OPEN, "allOf": [{"properties": {"c": True}}], "unevaluatedProperties": False},
            "unevaluatedProperties",
            '{"a":1,"c":1}',
            '{"d":1}',
        ),
        (
            {"type": "object", "patternProperties": {"^(?!a)": {"const": 1}}, "additionalProperties": False},
            "patternProperties",
            '{"b":1}',
            '{"a":1}',
        ),
    ],
)
def test_other_keywords_are_refused_or_approximated_and_checked(
    schema: Any, keyword: str, good: str, bad: str
) -> None:
    with pytest.raises(ParameterError, match=f'{keyword}.*unsupported="approximate"'):
        followed(schema)
    form = followed(schema, "approximate")
    assert allows(schema, good, "approximate")
    assert form.check.problem(good) is None
    problem = form.check.problem(bad)
    assert problem is not None
    assert problem.keyword in (keyword, "additionalProperties")


def test_an_unknown_format_is_an_annotation_with_one_warning() -> None:
    part = {"type": "string", "format": "mongoId"}
    form = followed({"type": "object", "properties": {"a": part, "b": part}})
    (warning,) = form.warnings
    assert '"mongoId"' in warning
    assert allows(part, '"x"')
    assert not allows({"type": "string", "format": "date"}, '"x"')
    assert followed({"properties": {"format": {"const": "x"}}}).warnings == ()


@pytest.mark.parametrize("kind", ["integer", "number"])
def test_bounds_beyond_64_bits_are_taken_and_compared_exactly(kind: str) -> None:
    schema = {"type": kind, "minimum": -1e20, "maximum": 10**20}
    form = followed(schema)
    for text, holds in (("12", True), (str(10**20), True), (str(10**20 + 1), False)):
        assert allows(schema, text)
        assert (form.check.problem(text) is None) is holds


@pytest.mark.parametrize(
    "schema",
    [
        {"$ref": "#/x"},
        {"$ref": "https://example.com/s"},
        {"properties": {"a": {"$ref": "other.json"}}},
        {"$dynamicRef": "#nobody"},
    ],
)
def test_a_reference_that_leads_nowhere_is_an_error_when_the_schema_is_given(schema: Any) -> None:
    with pytest.raises(ParameterError, match=r"JsonSchema has the .*ever fetched"):
        JsonSchema(schema)


@pytest.mark.parametrize("name", [3, True, ["a"], {}])
@pytest.mark.parametrize(
    ("draft", "keyword"),
    [
        ("https://json-schema.org/draft/2020-12/schema", "$id"),
        ("http://json-schema.org/draft-07/schema#", "$id"),
        ("http://json-schema.org/draft-04/schema#", "id"),
    ],
)
def test_a_part_with_a_name_that_is_no_text_is_refused(draft: str, keyword: str, name: Any) -> None:
    part = {"definitions": {"x": {"type": "null"}}, "properties": {"a": {"$ref": "#/definitions/x"}}}
    inner = {"definitions": {"x": {keyword: name}}, "properties": {"a": {"$ref": "#/definitions/x"}}}
    for schema in ({keyword: name, **part}, inner):
        with pytest.raises(
            ParameterError, match=f"JsonSchema is no JSON schema: a {re.escape(keyword)} must"
        ):
            JsonSchema({"$schema": draft, **schema})


@pytest.mark.parametrize(
    "schema",
    [
        {"$ref": "#here", "$defs": {"x": {"$anchor": "here", "type": "null"}}},
        {"$ref": "other", "$defs": {"x": {"$id": "other", "type": "null"}}},
        {"$ref": "#/oneOf/1", "oneOf": [{"const": 1}, {"type": "null"}]},
        {"properties": {"$ref": {"type": "string"}}, "type": ["null", "object"]},
        {"$dynamicRef": "#n", "$defs": {"x": {"$dynamicAnchor": "n", "type": "null"}}},
        {
            "$schema": "https://json-schema.org/draft/2019-09/schema",
            "anyOf": [{"type": "null"}, {"type": "array", "items": {"$recursiveRef": "#"}}],
        },
    ],
)
def test_references_of_all_kinds_are_followed(schema: Any) -> None:
    assert allows(schema, "null", "approximate")
    assert followed(schema, "approximate").check.problem("null") is None
    assert not allows(schema, '"x"', "approximate")


def test_unsupported_is_one_of_two_words() -> None:
    with pytest.raises(ParameterError, match="unsupported"):
        JsonSchema(True, "ignore")  # type: ignore[arg-type]


def false_accepts(seeds: range) -> tuple[int, int, list[Any]]:
    """Returns how many random schemas were followed exactly, how many texts they allowed, and wrong ones."""
    exact = texts = 0
    wrong = []
    for seed in seeds:
        source = random.Random(seed)
        schema = random_schema(source)
        try:
            form = followed(schema)
            state = GRAMMARS.compile(JsonSchema(schema))
        except ParameterError:
            continue
        exact += 1
        assert isinstance(state, MatcherState)
        values = [value_near(source, schema) if k % 2 else random_value(source) for k in range(6)]
        for text in [json.dumps(value) for value in values]:
            after = state.after_text(text.encode())
            if after is not None and after.accepting:
                texts += 1
                if form.check.problem(text) is not None:
                    wrong.append((schema, text))
    return exact, texts, wrong


def test_what_the_grammar_of_an_exact_schema_allows_the_schema_accepts() -> None:
    exact, texts, wrong = false_accepts(range(150))
    assert wrong == []
    assert exact > 40
    assert texts > 60


@pytest.mark.slow
def test_what_many_exact_grammars_allow_the_schemas_accept() -> None:
    assert false_accepts(range(5000, 7000))[2] == []


def test_random_texts_of_approximated_schemas_are_valid_or_told() -> None:
    judged = 0
    for seed in range(60):
        source = random.Random(seed)
        schema = random_schema(source)
        try:
            form = followed(schema, "approximate")
            state = GRAMMARS.compile(JsonSchema(schema, "approximate"))
        except ParameterError:
            # The library sees that nothing satisfies it.
            continue
        tokens, state = random_text(state, source, most=60, ends=0.9)
        if state.accepting:
            text = unspell(tokens)
            judged += 1
            plain = without_formats(schema)
            if form.check.problem(text) is None:
                assert ORACLE(plain).is_valid(json.loads(text)), (schema, text)
    assert judged > 20
