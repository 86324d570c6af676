from __future__ import annotations

import json
import random
from typing import Any

import pytest
from bench.schema_set import odd_text, random_schema, random_value, value_near
from jsonschema import Draft7Validator, Draft202012Validator
from jsonschema.validators import extend

from decodery.decoding.json_schema.formats import FORMATS
from decodery.decoding.json_schema.schema_check import SchemaCheck
from decodery.errors import ParameterError

ORACLE: Any = extend(Draft202012Validator, {"dependencies": Draft7Validator.VALIDATORS["dependencies"]})
DRAFT4, DRAFT7 = "http://json-schema.org/draft-04/schema#", "http://json-schema.org/draft-07/schema#"


def problem(schema: Any, text: str) -> str | None:
    found = SchemaCheck(json.dumps(schema)).problem(text)
    return None if found is None else found.keyword


def without_formats(schema: Any) -> Any:
    """Returns a schema without formats, which the oracle does not enforce."""
    if isinstance(schema, dict):
        return {name: without_formats(part) for name, part in schema.items() if name != "format"}
    return [without_formats(part) for part in schema] if isinstance(schema, list) else schema


def differences(seeds: range) -> list[tuple[Any, str, bool]]:
    """Returns the texts on which the check and jsonschema disagree, of random schemas."""
    found = []
    for seed in seeds:
        source = random.Random(seed)
        schema = without_formats(random_schema(source))
        check = SchemaCheck(json.dumps(schema))
        oracle = ORACLE(schema)
        for _ in range(8):
            near = source.random() < 0.7
            text = odd_text(source, value_near(source, schema) if near else random_value(source))
            accepted = check.problem(text) is None
            if accepted != oracle.is_valid(json.loads(text)):
                found.append((schema, text, accepted))
    return found


def test_random_texts_are_judged_as_jsonschema_judges_them() -> None:
    assert differences(range(150)) == []


@pytest.mark.slow
def test_many_random_texts_are_judged_as_jsonschema_judges_them() -> None:
    assert differences(range(1000, 3000)) == []


@pytest.mark.parametrize(
    ("schema", "text", "keyword"),
    [
        ({"properties": {"a": {"const": 1}}}, '{"a":1,"\\u0061":2}', "const"),
        ({"patternProperties": {"^a": False}}, '{"\\u0061":2}', "patternProperties"),
        ({"minProperties": 2}, '{"a":1,"a":2}', "minProperties"),
        ({"maximum": 2**64}, str(2**64 + 1), "maximum"),
        ({"maximum": 2**64}, str(2**64), None),
        ({"maximum": 10**400}, "1e399", None),
        ({"exclusiveMaximum": 0.3}, "0.3", "exclusiveMaximum"),
        ({"exclusiveMaximum": 0.3}, "0.29999999999999999999999999", None),
        ({"multipleOf": 0.1}, "0.3", None),
        ({"multipleOf": 0.1}, "0.35", "multipleOf"),
        ({"multipleOf": 3}, "1e1000000000", "multipleOf"),
        ({"multipleOf": 2}, "1e1000000000", None),
        ({"multipleOf": 2}, "1e-1000000000", "multipleOf"),
        ({"type": "number"}, "1e" + "9" * 30, None),
        ({"type": "number"}, "-1.5E-" + "9" * 5000, None),
        ({"maximum": 3}, "1e+" + "0" * 30 + "9" * 30, "maximum"),
        ({"const": 10}, "1e" + "0" * 50 + "1", None),
        ({"type": "integer"}, "2.0", None),
        ({"const": 1}, "true", "const"),
        ({"enum": [[1, {"a": 2}]]}, '[1.0, {"a": 2}]', None),
        ({"uniqueItems": True}, "[1, true, 1.0]", "uniqueItems"),
        ({"uniqueItems": True}, '[{"a":1,"b":2},{"b":2,"a":1}]', "uniqueItems"),
        ({"pattern": "^(?!a)b$"}, '"b"', None),
        ({"pattern": "^(?!a)b$"}, '"ab"', "pattern"),
        ({"pattern": "é"}, '"\\ud800é"', None),
        ({"dependencies": {"a": ["b"]}}, '{"a":1}', "dependencies"),
        ({"format": "date"}, '"2023-02-29"', "format"),
        ({"format": "mongoId"}, '"x"', None),
        ({"not": {"required": ["a"]}}, '{"a":1}', "not"),
        ({"unevaluatedProperties": False, "allOf": [{"properties": {"a": True}}]}, '{"a":1}', None),
        (
            {"unevaluatedProperties": False, "allOf": [{"properties": {"a": True}}]},
            '{"b":1}',
            "unevaluatedProperties",
        ),
        ({"prefixItems": [True], "contains": {"const": 1}, "unevaluatedItems": False}, "[0, 1]", None),
        (
            {"prefixItems": [True], "contains": {"const": 1}, "unevaluatedItems": False},
            "[0, 2, 1]",
            "unevaluatedItems",
        ),
        ({"properties": {"a": False}}, '{"a":1}', "properties"),
        ({}, "NaN", "json"),
        ({}, '{"a":1', "json"),
        ({}, "[" * 5000 + "]" * 5000, "depth"),
        ({}, "[" * 120 + "]" * 120, "depth"),
    ],
)
def test_a_text_is_judged_by_the_values_that_json_parsers_see(
    schema: Any, text: str, keyword: str | None
) -> None:
    assert problem(schema, text) == keyword


def test_the_problem_says_where_and_no_value() -> None:
    found = SchemaCheck('{"properties": {"a/b": {"items": {"maximum": 3}}}}').problem('{"a/b": [1, 77777]}')
    assert str(found) == "the text does not satisfy maximum of the JSON schema at /a~1b/1"


def test_a_schema_that_tries_exponentially_many_ways_ends_soon() -> None:
    part: Any = {"properties": {"x": {"$ref": "#/$defs/n"}}}
    schema = {"$ref": "#/$defs/n", "$defs": {"n": {"anyOf": [part, part], "type": "object"}}}
    text = '{"x":' * 60 + "1" + "}" * 60
    assert problem(schema, text) == "time"


@pytest.mark.parametrize("pattern", ["^(a+)+$", "^(?=(a+)+$)b", "(x+x+)+y"])
def test_patterns_take_no_exponential_time(pattern: str) -> None:
    assert problem({"pattern": pattern}, json.dumps("a" * 3000 + "!" + "x" * 3000)) == "pattern"


def test_many_items_are_compared_in_linear_time() -> None:
    items = [{"n": number} for number in range(20000)]
    assert problem({"uniqueItems": True}, json.dumps(items)) is None
    assert problem({"uniqueItems": True}, json.dumps([*items, {"n": 7.0}])) == "uniqueItems"


@pytest.mark.parametrize(
    "schema",
    [{"type": "nope"}, {"required": "a"}, {"pattern": "x("}, {"pattern": r"(a)\1"}, {"minLength": -1}],
)
def test_a_schema_that_breaks_the_rules_is_refused(schema: Any) -> None:
    with pytest.raises(ParameterError, match="JsonSchema"):
        SchemaCheck(json.dumps(schema))


@pytest.mark.parametrize("draft", [3, True, None, ["a"], {}, "http://["])
@pytest.mark.parametrize("rest", [{}, {"properties": {"a": {"$ref": "#/$defs/x"}}, "$defs": {"x": True}}])
def test_a_draft_that_is_no_name_is_refused_with_its_place(draft: Any, rest: dict[str, Any]) -> None:
    with pytest.raises(ParameterError, match=r"JsonSchema is no JSON schema: .* fails at /\$schema$"):
        SchemaCheck(json.dumps({"$schema": draft, **rest}))


@pytest.mark.parametrize(
    ("schema", "text", "holds"),
    [
        ({"items": [{"type": "null"}], "additionalItems": False}, "[null, 1]", False),
        ({"minimum": 3, "exclusiveMinimum": True}, "3", False),
        ({"$schema": DRAFT7, "dependentRequired": {"a": ["b"]}}, '{"a":1}', True),
        ({"$schema": DRAFT4, "type": "integer"}, "1.0", False),
        ({"$schema": DRAFT7, "$ref": "#/definitions/s", "maxLength": 1,
          "definitions": {"s": {"type": "string"}}}, '"abc"', True),
        ({"$ref": "#/$defs/s", "maxLength": 1, "$defs": {"s": {"type": "string"}}}, '"abc"', False),
    ],
)  # fmt: skip
def test_the_draft_of_a_schema_is_kept(schema: Any, text: str, holds: bool) -> None:
    assert (problem(schema, text) is None) is holds


@pytest.mark.parametrize(
    ("name", "good", "bad"),
    [
        ("date", "2024-02-29", "2023-02-29"),
        ("time", "23:59:60Z", "24:00:00Z"),
        ("date-time", "2024-01-01T00:00:00+01:00", "2024-01-01 00:00:00Z"),
        ("duration", "P1DT2H", "P"),
        ("email", "a.b@example.org", "a..b@example.org"),
        ("hostname", "a-b.example", "-a.example"),
        ("ipv4", "192.168.0.1", "192.168.0.256"),
        ("ipv6", "::1", "1::2::3"),
        ("uuid", "123e4567-e89b-12d3-a456-426614174000", "123e4567"),
        ("uri", "https://example.org/a?b#c", "a b"),
    ],
)
def test_known_formats_hold(name: str, good: str, bad: str) -> None:
    assert FORMATS[name](good)
    assert not FORMATS[name](bad)
