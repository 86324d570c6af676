"""Tests that /openapi.json says what the readers of requests accept."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping
from typing import Any

import httpx
import pytest

from decodery.decoding.request.params import REAL, GenerationParams
from decodery.decoding.request.plain import FORMS, params_from_plain
from decodery.errors import ParameterError
from decodery.serving.anthropic.reading import read_message_request
from decodery.serving.app import HANDLERS, create_app
from decodery.serving.errors import ApiError
from decodery.serving.openai.chat import read_conversation
from decodery.serving.openai.completions import read_request
from decodery.serving.openai.fields import NEUTRAL, NO_EFFECT, Fields
from decodery.serving.responses.reading import read_response_request
from decodery.serving.schemas.operations import OPERATIONS, READING
from decodery.serving.schemas.request_bodies import NO_OTHERS
from decodery.serving.schemas.values import BOUNDS, objects, parameters
from decodery.serving.service import Service
from decodery.serving.settings import RequestLimits, ServerSettings

KEYS = ServerSettings(keys=("secret",), limits=RequestLimits(n=7))
_HI = [{"role": "user", "content": "x"}]


def _read_message(body: Mapping[str, Any], defaults: GenerationParams, settings: ServerSettings) -> Any:
    return read_message_request(body, lenient=settings.lenient)


def _read_response(body: Mapping[str, Any], defaults: GenerationParams, settings: ServerSettings) -> Any:
    return read_response_request(body, lenient=settings.lenient)


READERS: Mapping[str, tuple[Callable[..., Any], dict[str, Any]]] = {
    "/v1/completions": (read_request, {"prompt": "x"}),
    "/v1/chat/completions": (read_conversation, {"messages": _HI}),
    "/v1/responses": (_read_response, {"input": "x"}),
    "/v1/messages": (_read_message, {"messages": _HI, "max_tokens": 1}),
}
_FORMAT = {"type": "json_schema", "json_schema": {"schema": True}}
_SHARED = {
    "stream_options.": {"stream": True, "stream_options": {"include_usage": True}},
    "response_format.": {"response_format": _FORMAT},
    "response_format.json_schema.": {"response_format": _FORMAT},
    "structured_outputs.": {"structured_outputs": {"regex": "a"}},
}
_TOOL = {"name": "x", "input_schema": {}}
# The objects in a body, with a body that has each.
NESTED: Mapping[str, Mapping[str, dict[str, Any]]] = {
    "/v1/completions": _SHARED,
    "/v1/chat/completions": _SHARED,
    "/v1/responses": {"stream_options.": {"stream_options": {"include_obfuscation": True}}},
    "/v1/messages": {
        "tools[0].": {"tools": [_TOOL]},
        "tool_choice.": {"tools": [_TOOL], "tool_choice": {"type": "tool", "name": "x"}},
        "thinking.": {"thinking": {"type": "enabled", "budget_tokens": 1}},
        "output_config.": {"output_config": {"effort": "low"}},
        "output_config.format.": {"output_config": {"format": {"type": "json_schema", "schema": {}}}},
    },
}


def document(settings: ServerSettings = KEYS) -> dict[str, Any]:
    async def get() -> dict[str, Any]:
        transport = httpx.ASGITransport(create_app(Service(settings, [])))
        async with httpx.AsyncClient(transport=transport, base_url="http://localhost") as client:
            answer = await client.get("/openapi.json", headers={"x-api-key": "secret"})
            found: dict[str, Any] = answer.json()
            return found

    return asyncio.run(get())


def body_of(path: str, settings: ServerSettings = KEYS) -> dict[str, Any]:
    operation = document(settings)["paths"][path]["post"]
    schema: dict[str, Any] = operation["requestBody"]["content"]["application/json"]["schema"]
    return schema


def known_fields(
    monkeypatch: pytest.MonkeyPatch, reader: Callable[..., Any], body: Mapping[str, Any]
) -> dict[str, set[str]]:
    """Returns the fields that a reader knows, by the path of the object that holds them."""
    known: dict[str, set[str]] = {}
    close, contains = Fields.close, Fields.__contains__

    def closing(self: Fields, *, lenient: bool) -> None:
        known.setdefault(self._path, set()).update(self._known)
        close(self, lenient=lenient)

    # Some fields are looked for, and taken only where they are given.
    def containing(self: Fields, name: str) -> bool:
        known.setdefault(self._path, set()).add(name)
        return contains(self, name)

    with monkeypatch.context() as patch:
        patch.setattr(Fields, "close", closing)
        patch.setattr(Fields, "__contains__", containing)
        reader(body, GenerationParams(), KEYS)
    return known


def test_each_route_is_described_and_nothing_else() -> None:
    routes = {(method, path.replace(":path}", "}")) for method, path, _ in HANDLERS}
    served = {(method.upper(), path) for path, methods in document()["paths"].items() for method in methods}
    assert routes <= served <= set(OPERATIONS)


@pytest.mark.parametrize("path", READERS)
def test_the_fields_of_a_body_are_those_that_its_reader_knows(
    path: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    reader, body = READERS[path]
    known = known_fields(monkeypatch, reader, body)[""]
    properties = set(body_of(path)["properties"])
    assert properties == known | NO_EFFECT | set(NEUTRAL)
    assert properties >= NO_EFFECT | set(NEUTRAL)


@pytest.mark.parametrize(("path", "inner"), [(path, inner) for path in READERS for inner in NESTED[path]])
def test_the_fields_of_an_inner_object_are_those_that_its_reader_knows(
    path: str, inner: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    reader, body = READERS[path]
    schema: Any = body_of(path)
    for name in inner.rstrip(".").split("."):
        schema = schema["properties"][name.removesuffix("[0]")]
        schema = schema.get("items", schema)
        schema = next((s for s in schema.get("oneOf", ()) if "json_schema" in s["properties"]), schema)
    assert (
        set(schema["properties"]) == known_fields(monkeypatch, reader, {**body, **NESTED[path][inner]})[inner]
    )
    assert schema["additionalProperties"] == NO_OTHERS


@pytest.mark.parametrize("path", READERS)
def test_other_fields_are_refused_as_the_document_says(path: str) -> None:
    reader, body = READERS[path]
    lenient = ServerSettings(lenient=True)
    assert body_of(path)["additionalProperties"] == NO_OTHERS
    reader({**body, "temprature": None}, GenerationParams(), KEYS)
    with pytest.raises(ApiError, match="temperature"):
        reader({**body, "temprature": 1}, GenerationParams(), KEYS)
    assert body_of(path, lenient)["additionalProperties"] is True
    reader({**body, "temprature": 1}, GenerationParams(), lenient)


@pytest.mark.parametrize("name", NEUTRAL)
def test_an_unsupported_field_takes_the_values_that_the_document_lists(name: str) -> None:
    reader, body = READERS["/v1/completions"]
    property_ = body_of("/v1/completions")["properties"][name]
    for value in property_["enum"]:
        reader({**body, name: value}, GenerationParams(), KEYS)
    with pytest.raises(ApiError) as error:
        reader({**body, name: "something"}, GenerationParams(), KEYS)
    assert error.value.param == name


@pytest.mark.parametrize("name", REAL)
def test_the_bounds_of_a_number_are_those_of_its_parameter(name: str) -> None:
    words, holds = REAL[name]
    assert words in BOUNDS
    schema = parameters()[name]
    for value in (-2.0, -1e-9, 0.0, 0.5, 1.0, 1 + 1e-9, 2.0):
        within = schema.get("minimum", value) <= value <= schema.get("maximum", value) and schema.get(
            "exclusiveMinimum", -9
        ) < value < schema.get("exclusiveMaximum", 9)
        assert within == holds(value), value


@pytest.mark.parametrize("name", sorted(parameters()))
def test_a_value_of_another_type_is_refused(name: str) -> None:
    reader, body = READERS["/v1/completions"]
    schema = parameters()[name]
    wrong: Any = True if "boolean" not in str(schema) else {"no": "such"}
    with pytest.raises(ApiError) as error:
        reader({**body, name: wrong}, GenerationParams(), KEYS)
    assert (error.value.param or "").split(".")[0] == name


KINDS = [(field, name) for field, form in FORMS.items() for name in form.kinds]


@pytest.mark.parametrize(("field", "name"), KINDS)
def test_an_object_has_the_fields_that_the_document_lists(field: str, name: str) -> None:
    kind = FORMS[field].kinds[name]
    schema = objects()[kind.__name__]
    values = {"amateur": "other", "model": "other", "options": ["a"], "schema": {}}
    given = {name: values.get(name, "root ::= x") for name in schema.get("required", ()) if name != "type"}
    assert schema["properties"]["type"] == {"const": name}
    params_from_plain({field: {"type": name, **given}}, models=["other"])
    known = {key: value["default"] for key, value in schema["properties"].items() if "default" in value}
    params_from_plain({field: {"type": name, **given, **known}}, models=["other"])
    for missing in given:
        with pytest.raises(ParameterError, match=missing):
            params_from_plain({field: {"type": name, **given} | {missing: None}}, models=["other"])
    with pytest.raises(ParameterError, match="unknown"):
        params_from_plain({field: {"type": name, **given, "no_such": 1}}, models=["other"])


@pytest.mark.parametrize("field", FORMS)
def test_the_bare_names_that_the_document_lists_are_accepted(field: str) -> None:
    schemas = parameters()[field].get("anyOf", ())
    bare = next((schema["enum"] for schema in schemas if "enum" in schema), ())
    assert bool(bare) == FORMS[field].bare
    for name in bare:
        params_from_plain({field: name})


def test_limits_and_keys_are_those_of_the_server() -> None:
    assert body_of("/v1/completions")["properties"]["n"]["maximum"] == 7
    with_keys, open_ = document(), document(ServerSettings())
    assert with_keys["security"] == [{"bearer": []}, {"key": []}]
    assert "security" not in open_
    assert "401" in with_keys["paths"]["/v1/models"]["get"]["responses"]
    assert "401" not in open_["paths"]["/v1/models"]["get"]["responses"]
    assert with_keys["paths"]["/health"]["get"]["security"] == []


def test_503_and_504_stand_only_where_they_can_come() -> None:
    found = {
        status: {
            path
            for path, methods in document()["paths"].items()
            for operation in methods.values()
            if status in operation["responses"]
        }
        for status in ("503", "504")
    }
    generating = {"/v1/completions", "/v1/chat/completions", "/v1/messages", "/v1/responses"}
    generating |= {"/trace", "/trace/layers"}
    assert found["504"] <= generating | {path for _, path in READING}
    assert not found["503"] & {"/health", "/metrics", "/openapi.json", "/v1/models"}


def test_each_reference_leads_somewhere() -> None:
    found = document()
    schemas = found["components"]["schemas"]

    def references(value: Any) -> set[str]:
        if isinstance(value, dict):
            own = {value["$ref"]} if "$ref" in value else set()
            return own.union(*(references(item) for item in value.values()))
        return set().union(*(references(item) for item in value)) if isinstance(value, list) else set()

    assert {reference.rsplit("/", 1)[1] for reference in references(found)} <= set(schemas)
