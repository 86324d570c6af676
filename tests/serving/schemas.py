"""Sends random schemas and tools, also wrong ones: `python -m tests.serving.schemas` sends 1,000 and 500.

Each is asked for twice, plain and streamed, which must be the same. A whole text must be what the schema
accepts, and one that was cut must be its beginning. After a schema with a fault the next request works.
"""

from __future__ import annotations

import argparse
import json
import random
import re
import sys
import tempfile
from collections import Counter
from collections.abc import Callable, Mapping
from contextlib import ExitStack
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import jsonschema
import referencing

from decodery import LLM
from decodery.serving.settings import RequestLimits
from tests.conversations.models import CALLS, template, write_chat_model
from tests.serving.live import LiveServer, serving
from tests.serving.partial_json import whole_part, without_later
from tests.serving.random_schemas import SchemaMaker

HI: list[dict[str, str]] = [{"role": "user", "content": "Hi"}]
# The formats of calls of which a tiny model's template says that it writes them; None takes no tools.
FORMS: tuple[str | None, ...] = (None, *CALLS)
LIMITS = RequestLimits(preparing_seconds=5.0)
_FORMATS = jsonschema.FormatChecker(("date", "email", "ipv4", "uuid"))
_DRAFTS = (jsonschema.Draft202012Validator, jsonschema.Draft7Validator)


@dataclass(frozen=True)
class Reply:
    """Holds a text or the calls of a reply, each a name with its arguments, and if the reply was cut."""

    text: str
    calls: tuple[tuple[str, str], ...] = ()
    cut: bool = False


def validator(schema: Any) -> Any:
    """Returns what checks values by a schema; None if it is none by any draft. It fetches nothing."""
    for draft in _DRAFTS:
        try:
            draft.check_schema(schema, format_checker=None)
        except (jsonschema.SchemaError, RecursionError):
            continue
        return draft(schema, registry=referencing.Registry(), format_checker=_FORMATS)
    return None


def check_text(schema: Any, text: str, *, cut: bool) -> None:
    """Raises `AssertionError` unless the schema accepts the text, or what is whole of it if it was cut."""
    if not cut:
        value = json.loads(text)
    else:
        begun, value = whole_part(text)
        schema = without_later(schema)
        if not begun:
            return
    checks = validator(json.loads(schema) if isinstance(schema, str) else schema)
    assert checks is not None, "this is no schema"
    error = jsonschema.exceptions.best_match(checks.iter_errors(value))
    assert error is None, error.message[:300]


def _chat(schema: Any) -> dict[str, Any]:
    return {
        "messages": HI,
        "response_format": {"type": "json_schema", "json_schema": {"name": "a", "schema": schema}},
    }


# The routes and fields by which a schema can be given.
WAYS: tuple[tuple[str, Callable[[Any], dict[str, Any]]], ...] = (
    ("/v1/chat/completions", _chat),
    ("/v1/chat/completions", lambda s: {"messages": HI, "structured_outputs": {"json": s}}),
    ("/v1/completions", lambda s: {"prompt": "a", "response_format": _chat(s)["response_format"]}),
    ("/v1/completions", lambda s: {"prompt": "a", "grammar": {"type": "json_schema", "schema": s}}),
    ("/v1/responses", lambda s: {
        "input": "Hi", "text": {"format": {"type": "json_schema", "name": "a", "schema": s}}}),
    ("/v1/messages", lambda s: {
        "messages": HI, "output_config": {"format": {"type": "json_schema", "schema": s}}}),
)  # fmt: skip


class Asking:
    """Asks a server, plain and streamed, and counts the statuses."""

    def __init__(self, server: LiveServer, tokens: int, faults: list[str] | None = None) -> None:
        self.server = server
        self.statuses: Counter[str] = Counter()
        self.refusal = ""
        self._tokens = tokens
        self._faults = faults

    def replies(self, path: str, body: Mapping[str, Any]) -> list[Reply] | None:
        """Returns the plain reply and the streamed one; None if the server refuses the request.

        The list is empty if the text is not as asked.
        """
        limit = "max_output_tokens" if path == "/v1/responses" else "max_tokens"
        asked = {**body, limit: self._tokens, "seed": 7, "temperature": 1.0}
        plain = self.server.post(path, asked)
        streamed = self.server.post(path, {**asked, "stream": True})
        for answer in (plain, streamed):
            assert answer.status_code in (200, 400, 422), f"{answer.status_code} {answer.text[:300]}"
            assert "Traceback" not in answer.text
        if plain.status_code == 400:
            # A stream tells at its end that no text is possible; what took long may be compiled meanwhile.
            late = "no text is as asked" in streamed.text or "too long to compile" in plain.text
            assert streamed.status_code == 400 or late, plain.text
            assert len(plain.content) <= 4096
            self.refusal = plain.json()["error"]["message"]
            assert self.refusal
            self.statuses["refused"] += 1
            return None
        assert streamed.status_code == 200, streamed.text
        if plain.status_code == 422:
            # The grammar was looser than the schema, which a stream tells at its end.
            assert "error" in streamed.text
            self.statuses["invalid"] += 1
            return []
        read = READERS[path]
        found = [read[0](plain.json()), read[1](events(streamed.text))]
        self.statuses["cut" if found[0].cut else "whole"] += 1
        return found

    def works(self) -> None:
        """Raises `AssertionError` unless the server still follows a schema."""
        body = {"prompt": "a", "max_tokens": 5, "structured_outputs": {"json": {"enum": [1, 20]}}}
        assert self.server.complete(**body)["choices"][0]["text"] in ("1", "20")

    def judge(self, name: str, shown: Any, work: Callable[[], None]) -> None:
        """Calls a function; an `AssertionError` is noted with what was sent, or raised if none are noted."""
        try:
            work()
        except (
            AssertionError,
            ValueError,
            RecursionError,
            jsonschema.exceptions._WrappedReferencingError,
        ) as error:
            told = f"{name}: {type(error).__name__} {error}\n  {json.dumps(shown)[:1500]}"
            if self._faults is None:
                raise AssertionError(told) from error
            self.statuses["wrong"] += 1
            self._faults.append(told)


def schema_runs(asking: Asking, count: int, seed: int) -> None:
    """Sends so many schemas, of which every third has a fault."""
    source = random.Random(seed)
    maker = SchemaMaker(source)
    for place in range(count):
        faulty = place % 3 == 0
        schema = maker.faulty() if faulty else maker.schema()
        path, body = source.choice(WAYS)
        work = partial(_schema_run, asking, path, body(schema), schema, faulty)
        asking.judge(f"schema {place} {path}", schema, work)


def _schema_run(asking: Asking, path: str, body: Any, schema: Any, faulty: bool) -> None:
    found = asking.replies(path, body)
    if faulty:
        asking.works()
    else:
        assert found is not None, f"a schema without a fault was refused: {asking.refusal}"
    for reply in found or ():
        check_text(schema, reply.text, cut=reply.cut)
    assert not found or found[0] == found[1], f"plain and streamed differ: {found}"


def _chat_tools(tools: list[Any], name: str | None) -> dict[str, Any]:
    choice = "required" if name is None else {"type": "function", "function": {"name": name}}
    return {"messages": HI, "tools": tools, "tool_choice": choice}


def _response_tools(tools: list[Any], name: str | None) -> dict[str, Any]:
    choice = "required" if name is None else {"type": "function", "name": name}
    flat = [{"type": "function", **tool["function"]} for tool in tools]
    return {"input": "Hi", "tools": flat, "tool_choice": choice}


def _message_tools(tools: list[Any], name: str | None) -> dict[str, Any]:
    choice = {"type": "any"} if name is None else {"type": "tool", "name": name}
    functions = [tool["function"] for tool in tools]
    flat = [{"name": one["name"], "input_schema": one["parameters"]} for one in functions]
    return {"messages": HI, "tools": flat, "tool_choice": choice}


TOOL_WAYS: tuple[tuple[str, Callable[[list[Any], str | None], dict[str, Any]]], ...] = (
    ("/v1/chat/completions", _chat_tools),
    ("/v1/chat/completions", _chat_tools),
    ("/v1/responses", _response_tools),
    ("/v1/messages", _message_tools),
)


def tool_runs(asking: Asking, count: int, seed: int) -> None:
    """Sends so many requests with one to three tools, of which one must be called."""
    source = random.Random(seed)
    maker = SchemaMaker(source)
    for place in range(count):
        tools = [maker.tool(f"tool_{k}") for k in range(source.choice((1, 1, 2, 3)))]
        path, write = source.choice(TOOL_WAYS)
        body = write(tools, source.choice((None, "tool_0")))
        parameters = {tool["function"]["name"]: tool["function"]["parameters"] for tool in tools}
        asking.judge(f"tools {place} {path}", body, partial(_tool_run, asking, path, body, parameters))


def _tool_run(asking: Asking, path: str, body: Any, parameters: Mapping[str, Any]) -> None:
    found = asking.replies(path, body)
    assert found is not None, f"tools without a fault were refused: {asking.refusal}"
    for reply in found:
        assert reply.calls or reply.cut, "nothing was called"
        for place, (name, arguments) in enumerate(reply.calls):
            last = place == len(reply.calls) - 1
            check_text(parameters[name], arguments, cut=reply.cut and last)
    if not found:
        return
    plain, streamed = found
    if path == "/v1/messages" and plain.cut:
        # A message has no arguments that are not whole; a stream has told their beginning.
        streamed = replace(streamed, calls=streamed.calls[: len(plain.calls)])
    assert plain == streamed, f"plain and streamed differ: {found}"


def events(text: str) -> list[Any]:
    """Returns the values of the events of a stream."""
    data = re.findall(r"^data: (.*)$", text, re.MULTILINE)
    found = [json.loads(one) for one in data if one != "[DONE]"]
    assert not any("error" in one and one["error"] for one in found), text[-300:]
    return found


def _plain_chat(answer: Any) -> Reply:
    (choice,) = answer["choices"]
    message = choice["message"]
    called = [(c["function"]["name"], c["function"]["arguments"]) for c in message.get("tool_calls", ())]
    return Reply(message["content"] or "", tuple(called), choice["finish_reason"] == "length")


def _streamed_chat(found: list[Any]) -> Reply:
    text, calls, finish = "", [], None
    for choice in (choice for event in found for choice in event["choices"]):
        delta = choice["delta"]
        text += delta.get("content") or ""
        for call in delta.get("tool_calls", ()):
            if "id" in call:
                assert call["index"] == len(calls)
                calls.append([call["function"]["name"], call["function"]["arguments"]])
            else:
                calls[call["index"]][1] += call["function"]["arguments"]
        finish = choice["finish_reason"] or finish
    return Reply(text, tuple((name, arguments) for name, arguments in calls), finish == "length")


def _plain_text(answer: Any) -> Reply:
    (choice,) = answer["choices"]
    return Reply(choice["text"], (), choice["finish_reason"] == "length")


def _streamed_text(found: list[Any]) -> Reply:
    choices = [choice for event in found for choice in event["choices"]]
    return Reply("".join(c["text"] for c in choices), (), choices[-1]["finish_reason"] == "length")


def _response(answer: Any) -> Reply:
    output = answer["output"]
    texts = [part["text"] for item in output if item["type"] == "message" for part in item["content"]]
    calls = tuple((item["name"], item["arguments"]) for item in output if item["type"] == "function_call")
    return Reply("".join(texts), calls, answer["status"] == "incomplete")


def _streamed_response(found: list[Any]) -> Reply:
    texts: dict[int, str] = {}
    names: dict[int, str] = {}
    for event in found:
        if event["type"] in ("response.output_text.delta", "response.function_call_arguments.delta"):
            texts[event["output_index"]] = texts.get(event["output_index"], "") + event["delta"]
        elif event["type"] == "response.output_item.added" and event["item"]["type"] == "function_call":
            names[event["output_index"]] = event["item"]["name"]
    text = "".join(text for place, text in sorted(texts.items()) if place not in names)
    calls = tuple((name, texts.get(place, "")) for place, name in sorted(names.items()))
    return Reply(text, calls, found[-1]["type"] == "response.incomplete")


def _message(answer: Any) -> Reply:
    text = "".join(block["text"] for block in answer["content"] if block["type"] == "text")
    calls = [(b["name"], json.dumps(b["input"])) for b in answer["content"] if b["type"] == "tool_use"]
    return Reply(text, tuple(calls), answer["stop_reason"] == "max_tokens")


def _streamed_message(found: list[Any]) -> Reply:
    texts: list[str] = []
    blocks: list[Any] = []
    stop = None
    for event in found:
        if event["type"] == "content_block_start":
            blocks.append(event["content_block"])
            texts.append("")
        elif event["type"] == "content_block_delta":
            (piece,) = (value for name, value in event["delta"].items() if name != "type")
            texts[event["index"]] += piece
        elif event["type"] == "message_delta":
            stop = event["delta"]["stop_reason"]
    called = [(b["name"], _spelled(t)) for b, t in zip(blocks, texts, strict=True) if b["type"] == "tool_use"]
    text = "".join(t for b, t in zip(blocks, texts, strict=True) if b["type"] == "text")
    return Reply(text, tuple(called), stop == "max_tokens")


def _spelled(arguments: str) -> str:
    """Returns arguments as `json.dumps` writes them, as they are if they were cut."""
    try:
        return json.dumps(json.loads(arguments))
    except ValueError:
        return arguments


READERS: Mapping[str, tuple[Callable[[Any], Reply], Callable[[list[Any]], Reply]]] = {
    "/v1/chat/completions": (_plain_chat, _streamed_chat),
    "/v1/completions": (_plain_text, _streamed_text),
    "/v1/responses": (_response, _streamed_response),
    "/v1/messages": (_message, _streamed_message),
}


def open_chat_model(folder: Path, form: str | None) -> LLM:
    """Returns a tiny model that writes calls in this form."""
    path = write_chat_model(folder, template(form))
    return LLM(path, dtype="float32", kv_memory="16MB", token_budget=64)


def main() -> None:
    """Sends schemas and tools, and prints the counts of answers and what was wrong."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--count", type=int, default=1000)
    parser.add_argument("--tools", type=int, default=500)
    parser.add_argument("--tokens", type=int, default=200)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--model", help="a model in place of the tiny ones; default is the default model")
    given = parser.parse_args()
    faults: list[str] = []
    with ExitStack() as stack:
        root = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        for place, form in enumerate(FORMS[:1] if given.model else FORMS):
            llm = LLM(given.model) if given.model else open_chat_model(_folder(root, place), form)
            with serving(llm, LIMITS) as server:
                asking = Asking(server, given.tokens, faults)
                if place == 0:
                    schema_runs(asking, given.count, given.seed)
                    _say(f"schemas: {dict(asking.statuses)}")
                    asking.statuses.clear()
                tool_runs(asking, given.tools // (1 if given.model else len(FORMS)), given.seed + place)
                _say(f"tools, form {form}: {dict(asking.statuses)}")
    for fault in faults:
        _say(fault)
    if faults:
        raise SystemExit(1)


def _folder(root: Path, place: int) -> Path:
    folder = root / str(place)
    folder.mkdir()
    return folder


def _say(line: str) -> None:
    sys.stdout.write(f"{line}\n")
    sys.stdout.flush()


if __name__ == "__main__":
    main()
