"""Makes the OpenAPI document of a server."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from decodery.serving.errors import is_anthropic
from decodery.serving.schemas.answers import ANSWERS
from decodery.serving.schemas.operations import ERRORS, OPERATIONS, Operation
from decodery.serving.schemas.values import Schema, objects
from decodery.serving.settings import ServerSettings
from decodery.version import __version__


def openapi(routes: Iterable[tuple[str, str]], settings: ServerSettings) -> dict[str, Any]:
    """Returns the OpenAPI 3.1 document of a server with these routes (methods and Starlette's paths).

    Limits and keys are those of the settings.
    """
    paths: dict[str, dict[str, Any]] = {}
    for method, path in routes:
        # Starlette's name of a parameter may say its kind.
        path = path.replace(":path}", "}")
        operation = OPERATIONS.get((method, path))
        if operation is not None:
            paths.setdefault(path, {})[method.lower()] = _operation(operation, method, path, settings)
    document: dict[str, Any] = {
        "openapi": "3.1.0",
        "info": {
            "title": "Decodery",
            "version": __version__,
            "description": "Generates text; its routes and fields are those of OpenAI and vLLM.",
            "license": {"name": "Apache-2.0", "identifier": "Apache-2.0"},
        },
        "paths": paths,
        "components": {"schemas": {**ANSWERS, **objects()}},
    }
    if settings.keys:
        document["components"]["securitySchemes"] = {
            "bearer": {"type": "http", "scheme": "bearer"},
            "key": {"type": "apiKey", "in": "header", "name": "x-api-key"},
        }
        document["security"] = [{"bearer": []}, {"key": []}]
    return document


def _operation(operation: Operation, method: str, path: str, settings: ServerSettings) -> dict[str, Any]:
    found: dict[str, Any] = {
        "summary": operation.summary,
        "operationId": (method.lower() + path.replace("/", "_").replace("-", "_"))
        .replace("{", "")
        .rstrip("}_"),
        "responses": {
            "200": {"description": "The answer.", "content": _content(operation)},
            **{
                str(status): _error(status, path)
                for status in sorted(operation.errors)
                if _may(status, settings)
            },
        },
    }
    if operation.open:
        found["security"] = []
    if operation.parameters:
        found["parameters"] = list(operation.parameters)
    if operation.body is not None:
        schema: Schema = operation.body(settings)
        content = {"schema": schema, "examples": {"short": {"value": operation.example}}}
        found["requestBody"] = {"required": True, "content": {"application/json": content}}
    return found


def _may(status: int, settings: ServerSettings) -> bool:
    """True if a server with these settings can answer with this status."""
    return status != 401 or bool(settings.keys)


def _content(operation: Operation) -> Mapping[str, Any]:
    if "/" in operation.answer:
        return {operation.answer: {}}
    content: dict[str, Any] = {
        "application/json": {"schema": {"$ref": f"#/components/schemas/{operation.answer}"}}
    }
    if operation.streams:
        content["text/event-stream"] = {"schema": {"type": "string"}}
    return content


def _error(status: int, path: str) -> dict[str, Any]:
    name = "AnthropicError" if is_anthropic(path) else "Error"
    error: dict[str, Any] = {
        "description": ERRORS[status],
        "content": {"application/json": {"schema": {"$ref": f"#/components/schemas/{name}"}}},
    }
    if status in (429, 503):
        error["headers"] = {"Retry-After": {"schema": {"type": "string"}, "description": "Seconds to wait."}}
    return error
