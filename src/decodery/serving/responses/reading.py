"""Reads a request of `/v1/responses` as a conversation in the form of `/v1/chat/completions`."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from decodery.serving.errors import invalid
from decodery.serving.openai.chat import PROMPT_FIELDS
from decodery.serving.openai.fields import Fields
from decodery.serving.openai.origins import ORIGIN, tool_places

# Fields of this interface that change no text here.
_NO_EFFECT = ("include", "max_tool_calls", "prompt_cache_key", "safety_identifier", "service_tier", "user")

_PLACES = {
    "messages": "input",
    "response_format": "text.format",
    "response_format.json_schema": "text.format",
    "reasoning_effort": "reasoning.effort",
}


@dataclass(frozen=True, slots=True)
class ResponseRequest:
    """Holds a request: `chat` is the body of a chat completion for its last turn, without earlier ones.

    `given` are the fields that the response repeats. `places` has the names of the chat completion's fields
    that have other ones here.
    """

    messages: list[dict[str, Any]]
    chat: Mapping[str, Any]
    given: Mapping[str, Any]
    stream: bool
    stored: bool
    background: bool
    previous: str | None
    places: Mapping[str, str]


def read_response_request(body: Mapping[str, Any], *, lenient: bool) -> ResponseRequest:
    """Returns the request that a body describes. Raises `ApiError`."""
    fields = Fields(body)
    messages = _messages(fields.raw("input"))
    instructions = fields.take("instructions", str, "")
    stream = fields.take("stream", bool, False)
    stored = fields.take("store", bool, True)
    background = fields.take("background", bool, False)
    previous = fields.take("previous_response_id", str, "") or None
    if background and not stored:
        raise invalid("background needs store: else nobody could read the answer", "background")
    if fields.take("truncation", str, "disabled") != "disabled":
        raise invalid("truncation is not supported: shorten the input", "truncation")
    given = _repeated(fields, body)
    chat = {**_chat_fields(fields), **fields.parameters()}
    for name in _NO_EFFECT:
        fields.raw(name)
    for name in ("model", "cache_salt", "priority", *PROMPT_FIELDS):
        if name in fields:
            chat[name] = fields.raw(name)
    inner = Fields(fields.take("stream_options", dict, {}), "stream_options.")
    inner.take("include_obfuscation", bool, False)
    inner.close(lenient=lenient)
    fields.close(lenient=lenient)
    if instructions:
        origin = dict.fromkeys(("", ".role", ".content"), "instructions")
        messages = [{"role": "system", "content": instructions, ORIGIN: origin}, *messages]
    places = {**_PLACES, **tool_places(len(chat.get("tools", ())), "parameters")}
    if "max_completion_tokens" in chat:
        places |= {"max_tokens": "max_output_tokens", "max_completion_tokens": "max_output_tokens"}
    return ResponseRequest(messages, chat, given, stream, stored, background, previous, places)


def _repeated(fields: Fields, body: Mapping[str, Any]) -> dict[str, Any]:
    metadata = fields.take("metadata", dict, {})
    defaults: dict[str, Any] = {
        "instructions": None,
        "max_output_tokens": None,
        "parallel_tool_calls": True,
        "previous_response_id": None,
        "reasoning": {"effort": None, "summary": None},
        "store": True,
        "temperature": None,
        "text": {"format": {"type": "text"}},
        "tool_choice": "auto",
        "tools": [],
        "top_p": None,
        "truncation": "disabled",
        "background": False,
        "user": None,
    }
    found = {name: body.get(name, default) for name, default in defaults.items()}
    return {**found, "metadata": metadata}


def _chat_fields(fields: Fields) -> dict[str, Any]:
    """Takes the fields that chat completions have under other names."""
    chat: dict[str, Any] = {"parallel_tool_calls": fields.take("parallel_tool_calls", bool, True)}
    if "max_output_tokens" in fields:
        chat["max_completion_tokens"] = fields.take("max_output_tokens", int, 0)
    tools = fields.take("tools", list, [])
    if tools:
        chat["tools"] = [_tool(tool, place) for place, tool in enumerate(tools)]
    choice = fields.raw("tool_choice")
    if choice is not None:
        chat["tool_choice"] = _tool_choice(choice)
    reasoning = Fields(fields.take("reasoning", dict, {}), "reasoning.")
    effort = reasoning.take("effort", str, "")
    for name in ("summary", "generate_summary"):
        reasoning.raw(name)
    reasoning.close(lenient=False)
    if effort:
        chat["reasoning_effort"] = effort
    text = Fields(fields.take("text", dict, {}), "text.")
    text.raw("verbosity")
    form = text.take("format", dict, {})
    text.close(lenient=False)
    if form.get("type") == "json_schema":
        schema = {name: value for name, value in form.items() if name != "type"}
        chat["response_format"] = {"type": "json_schema", "json_schema": schema}
    elif form:
        chat["response_format"] = form
    top = fields.take("top_logprobs", int, 0)
    if top:
        chat |= {"logprobs": True, "top_logprobs": top}
    return chat


def _tool(tool: Any, place: int) -> dict[str, Any]:
    """Returns a tool in the form of chat completions."""
    if not isinstance(tool, dict) or tool.get("type") != "function":
        raise invalid("only tools of type function can be called here", f"tools[{place}].type")
    left_out = ("type",) if tool.get("strict") is True else ("type", "strict")
    return {"type": "function", "function": {k: v for k, v in tool.items() if k not in left_out}}


def _tool_choice(choice: Any) -> Any:
    if isinstance(choice, dict) and choice.get("type") == "function":
        return {"type": "function", "function": {"name": choice.get("name")}}
    return choice


def _messages(given: Any) -> list[dict[str, Any]]:
    if isinstance(given, str):
        return [{"role": "user", "content": given, ORIGIN: {"": "input", ".content": "input"}}]
    if not isinstance(given, list) or not given:
        raise invalid("input is needed: a text or a list of items", "input")
    messages: list[dict[str, Any]] = []
    for place, item in enumerate(given):
        _add_item(messages, item, f"input[{place}]")
    return messages


def _add_item(messages: list[dict[str, Any]], item: Any, path: str) -> None:
    """Adds an item to the messages; reasoning and calls become parts of one reply."""
    if not isinstance(item, dict):
        raise invalid("an item must be an object", path)
    kind = item.get("type", "message")
    if kind == "message":
        message = {"role": item.get("role"), "content": _text(item.get("content"), path), ORIGIN: {"": path}}
        open_turn = messages and messages[-1].get("_open") and message["role"] == "assistant"
        if open_turn and messages[-1]["content"] is None:
            messages[-1]["content"] = message["content"]
            messages[-1][ORIGIN][".content"] = f"{path}.content"
        else:
            messages.append(message)
    elif kind == "function_call":
        call = {
            "id": item.get("call_id"),
            "type": "function",
            "function": {"name": item.get("name"), "arguments": item.get("arguments", "")},
        }
        _add_call(messages, call, path)
    elif kind == "function_call_output":
        content = _text(item.get("output"), path, "output")
        origin = {"": path, ".content": f"{path}.output", ".tool_call_id": f"{path}.call_id"}
        messages.append(
            {"role": "tool", "tool_call_id": item.get("call_id"), "content": content, ORIGIN: origin}
        )
    elif kind == "reasoning":
        text = _reasoning_text(item, path)
        if text:
            origin = {"": path, ".reasoning_content": f"{path}.content"}
            reply = {"role": "assistant", "content": None, "reasoning_content": text, ORIGIN: origin}
            messages.append({**reply, "_open": True})
    else:
        raise invalid("items are messages, function calls, their outputs, and reasoning", f"{path}.type")


def _reasoning_text(item: Mapping[str, Any], path: str) -> str:
    texts: list[str] = []
    for name in ("content", "summary"):
        parts = item.get(name) or []
        if not isinstance(parts, list):
            raise invalid("the parts of reasoning must be a list", f"{path}.{name}")
        for part in parts:
            text = part.get("text", "") if isinstance(part, dict) else None
            if not isinstance(text, str):
                raise invalid("a part of reasoning must have a text", f"{path}.{name}")
            texts.append(text)
    return "".join(texts)


def _add_call(messages: list[dict[str, Any]], call: dict[str, Any], path: str) -> None:
    """Adds a call to the reply that is being built, a new one if need be."""
    if not messages or messages[-1].get("role") != "assistant":
        messages.append({"role": "assistant", "content": None, ORIGIN: {"": path}})
    calls = messages[-1].setdefault("tool_calls", [])
    here = f".tool_calls[{len(calls)}]"
    calls.append(call)
    messages[-1][ORIGIN] |= {here: path, f"{here}.function": path, f"{here}.id": f"{path}.call_id"}


def _text(content: Any, path: str, name: str = "content") -> Any:
    """Returns the text of parts, or the content as it is."""
    if content is None or isinstance(content, str):
        return content
    if not isinstance(content, list):
        raise invalid("this must be a text or a list of parts", f"{path}.{name}")
    texts = []
    for place, part in enumerate(content):
        kind = part.get("type") if isinstance(part, dict) else None
        if kind not in ("input_text", "output_text", "text", "refusal"):
            raise invalid("a part must be text", f"{path}.{name}[{place}].type")
        texts.append(part.get("refusal" if kind == "refusal" else "text", ""))
    if not all(isinstance(text, str) for text in texts):
        raise invalid("a part's text must be a text", f"{path}.{name}")
    return "".join(texts)
