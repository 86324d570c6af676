"""Makes bodies of requests that are wrong at random: `python -m tests.serving.fuzz` sends 10,000."""

from __future__ import annotations

import argparse
import json
import logging
import random
import sys
import tempfile
from collections import Counter
from pathlib import Path
from typing import Any

import httpx

from decodery.serving.app import HANDLERS
from decodery.serving.schemas.operations import READING
from tests.cli.conftest import write_model
from tests.serving.conftest import CONTEXT, open_tiny
from tests.serving.live import LiveServer, serving

READING_PATHS = tuple(path for _, path in READING)
PATHS = tuple(
    path for method, path, _ in HANDLERS if method == "POST" and "{" not in path and path not in READING_PATHS
)
MESSAGES: list[Any] = [
    {"role": "system", "content": "Be brief."},
    {"role": "user", "content": [{"type": "text", "text": "Hi"}]},
    {"role": "assistant", "content": None, "tool_calls": [
        {"id": "call_1", "type": "function", "function": {"name": "add", "arguments": '{"a": 1}'}}]},
    {"role": "tool", "tool_call_id": "call_1", "content": "2"},
    {"role": "user", "content": "Go on"},
]  # fmt: skip
TOOL: dict[str, Any] = {
    "type": "function",
    "function": {"name": "add", "parameters": {"type": "object", "properties": {"a": {"type": "integer"}}}},
}
SCHEMA: dict[str, Any] = {"type": "object", "properties": {"a": {"enum": [1, 2]}}, "required": ["a"]}
SEEDS: dict[str, Any] = {
    "prompt": "Once",
    "messages": MESSAGES,
    "input": MESSAGES[4:],
    "instructions": "Be brief.",
    "system": [{"type": "text", "text": "Be brief."}],
    "content": "Once",
    "tokens": [1, 2, 3],
    "suffix": "end",
    "stream_options": {"include_usage": True},
    "response_format": {"type": "json_schema", "json_schema": {"name": "a", "schema": SCHEMA}},
    "structured_outputs": {"regex": "[a-z]+"},
    "grammar": {"type": "json_schema", "schema": SCHEMA},
    "strategy": {"type": "beam_search", "num_beams": 2},
    "speculate": {"type": "prompt_lookup"},
    "watermark": {"type": "watermark"},
    "tools": [TOOL],
    "tool_choice": {"type": "function", "function": {"name": "add"}},
    "logit_bias": {"65": 3},
    "stop": ["a", "bc"],
    "chat_template_kwargs": {"enable_thinking": True},
    "return_progress": True,
    "use_beam_search": True,
    "cache_salt": "x",
    "candidates": 3,
}
SCALARS: tuple[Any, ...] = (
    None, True, False, 0, 1, -1, 2, 3, 7, 255, 256, 300, 10**6, 2**31, 2**63, 2**64, -(2**63), 10**30, 0.0,
    -0.0, 0.5, 1.5, -0.5, 1e-300, 1e300, -1e300, 2.0, "", "a", "0", "none", "auto", "required", "\x00", "é😀",
    "x" * 2000, "(", "[a", "(a|b)*", "root ::= root", "start: start", "{% for %}", "{{ x.__class__ }}",
    "../..", "<|end|>", "beam_search", "tiny", "tool", "user", "function", "json_object", "json_schema",
)  # fmt: skip


def field_names(server: LiveServer) -> dict[str, list[str]]:
    """Returns the names of the fields that each path takes, as the server describes them."""
    document = server.client.get("/openapi.json").json()
    found = {}
    for path in READING_PATHS if server.llm.is_encoder else PATHS:
        schema = document["paths"][path]["post"]["requestBody"]["content"]["application/json"]["schema"]
        while "$ref" in schema:
            schema = document["components"]["schemas"][schema["$ref"].rsplit("/", 1)[1]]
        # Where there are two forms of a body, the first one is OpenAI's or vLLM's.
        found[path] = sorted(schema.get("anyOf", [schema])[0]["properties"])
    return found


FIRST = {
    "/v1/chat/completions": "messages",
    "/v1/messages": "messages",
    "/apply-template": "messages",
    "/v1/responses": "input",
    "/detokenize": "tokens",
}


class Fuzz:
    """Makes bodies: valid ones of which parts are replaced, removed, doubled or moved."""

    def __init__(self, seed: int, names: dict[str, list[str]]) -> None:
        self._source = random.Random(seed)
        self._fields = names
        self._names = sorted({name for listed in names.values() for name in listed})

    def request(self) -> tuple[str, dict[str, Any]]:
        """Returns a path and a body."""
        source = self._source
        path = source.choice(list(self._fields))
        first = FIRST.get(path, "prompt")
        operation = READING.get(("POST", path))
        body: dict[str, Any] = {first: SEEDS[first]} if operation is None else dict(operation.example)
        if "max_tokens" in self._fields[path]:
            body["max_tokens"] = source.randint(1, 4)
        for name in source.choices(self._fields[path], k=source.choice((0, 1, 1, 2, 2, 3, 4))):
            if name not in ("messages", "prompt", "tokens", "content", "input") and name not in body:
                body[name] = SEEDS[name] if name in SEEDS and source.random() < 0.8 else self._value(1)
        if source.random() < 0.5:
            body = self._changed(body)
        return path, body

    def _value(self, depth: int) -> Any:
        source = self._source
        kind = source.random()
        if depth == 0 or kind < 0.6:
            return source.choice(SCALARS)
        if kind < 0.8:
            return [self._value(depth - 1) for _ in range(source.randint(0, 3))]
        return {self._name(): self._value(depth - 1) for _ in range(source.randint(0, 3))}

    def _name(self) -> str:
        return self._source.choice(
            (*self._names, "type", "role", "name", "schema", "$ref", "properties", "x", "")
        )

    def _changed(self, value: Any) -> Any:
        """Returns the value with one change at a random place."""
        source = self._source
        if isinstance(value, dict) and value and source.random() < 0.8:
            name = source.choice(list(value))
            kind = source.random()
            if kind < 0.1:
                return {key: one for key, one in value.items() if key != name}
            if kind < 0.2:
                return {**value, self._name(): self._value(1)}
            return {**value, name: self._changed(value[name])}
        if isinstance(value, list) and value and source.random() < 0.8:
            place = source.randrange(len(value))
            if source.random() < 0.2:
                return [*value, *value]
            return [self._changed(one) if i == place else one for i, one in enumerate(value)]
        return self._value(2)


def check(path: str, body: Any, answer: httpx.Response) -> None:
    """Raises `AssertionError` unless a server may answer so to any body."""
    shown = f"{path} {json.dumps(body)[:1500]} -> {answer.status_code} {answer.text[:300]}"
    assert answer.status_code in (200, 400, 404, 413), shown
    assert "Traceback" not in answer.text, shown
    if answer.status_code != 200:
        assert len(answer.content) <= 4096, shown
        assert answer.json()["error"]["message"], shown
        return
    assert '"server_error"' not in answer.text, shown


def fuzz(server: LiveServer, count: int, seed: int, *, stops: bool = True) -> Counter[int]:
    """Sends so many bodies, and returns the counts of statuses; the server must still serve afterwards.

    With `stops` the first wrong answer raises `AssertionError`; else all are printed.
    """
    made = Fuzz(seed, field_names(server))
    statuses: Counter[int] = Counter()
    for _ in range(count):
        path, body = made.request()
        data = json.dumps(body).encode()
        answer = server.client.post(path, content=data, headers={"content-type": "application/json"})
        statuses[answer.status_code] += 1
        try:
            check(path, body, answer)
        except AssertionError as error:
            if stops:
                raise
            sys.stdout.write(f"{error}\n")
    after = {"inputs": "a"} if server.llm.is_encoder else {"prompt": "a", "max_tokens": 2}
    answer = server.post("/predict" if server.llm.is_encoder else "/v1/completions", after)
    assert answer.status_code == 200
    server.settle()
    return statuses


def main() -> None:
    """Sends bodies, and prints the counts of statuses."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--requests", type=int, default=10_000)
    parser.add_argument("--seed", type=int, default=0)
    asked = parser.parse_args()
    logging.basicConfig(level=logging.ERROR)
    with tempfile.TemporaryDirectory() as folder:
        write_model(Path(folder), context=CONTEXT)
        with serving(open_tiny(folder)) as server:
            statuses = fuzz(server, asked.requests, asked.seed, stops=False)
    sys.stdout.write(f"{dict(statuses)}\n")
    if statuses[500]:
        raise SystemExit(1)


if __name__ == "__main__":
    main()
