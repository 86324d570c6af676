"""Reads the messages of a conversation, in the forms in which clients give them."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any, NoReturn

from decodery.text.chat.faults import check_depth, fault

_MEDIA = ("image", "audio", "video", "file")
# Arguments of the interfaces, which a client must not give as variables of the template.
_RESERVED = frozenset(
    {
        *("chat_template", "messages", "tools", "tool_choice", "parallel_tool_calls", "params", "self"),
        *("bos_token", "eos_token", "template"),
        *("thinking_token_budget", "salt", "cache_salt", "part_roles", "special_in_content"),
    }
)
_TEXTS = ("text", "input_text", "output_text")


def read_messages(messages: Any) -> list[dict[str, Any]]:
    """Returns messages in one form, whatever form the client gave them in.

    `content` is a string; for a message with `tool_calls`, None, no content and "" are the same. The role
    "developer" is "system". Each of the `tool_calls` has an id, and its arguments are a dict. A result of a
    tool has the name of its call. Keys with the value None are left out.

    Raises `RequestError` with the place of a fault, such as "messages[2].content".
    """
    if isinstance(messages, (str, Mapping)) or not isinstance(messages, Sequence) or not messages:
        raise fault(
            "messages must be a list of at least one message, each with a role and a content", "messages"
        )
    found = [_message(message, f"messages[{place}]", place) for place, message in enumerate(messages)]
    _name_results(found)
    return found


def check_template_kwargs(variables: Mapping[str, Any]) -> None:
    """Raises `RequestError` if a client's variables of a template have names of arguments."""
    for name in variables:
        if not isinstance(name, str) or not name.isidentifier() or name in _RESERVED:
            place = f"chat_template_kwargs.{name}" if isinstance(name, str) else "chat_template_kwargs"
            raise fault("this cannot be a variable of the template", place)


def read_arguments(arguments: Any, place: str) -> dict[str, Any]:
    """Returns the arguments of a call, given as JSON text or as a dict; {} for "" and None."""
    if arguments is None or arguments == "":
        return {}
    if isinstance(arguments, str):
        try:
            arguments = json.loads(arguments, parse_constant=_no_constant)
        except (ValueError, RecursionError):
            raise fault("the arguments of a call must be a JSON object: this is no JSON", place) from None
    if not isinstance(arguments, Mapping):
        raise fault("the arguments of a call must be a JSON object", place)
    check_depth(arguments, place)
    return dict(arguments)


def _no_constant(name: str) -> NoReturn:
    raise ValueError(name)


def _message(message: Any, place: str, number: int) -> dict[str, Any]:
    if not isinstance(message, Mapping) or not isinstance(message.get("role"), str):
        raise fault("a message must be a dict with a role (a string) and a content", place)
    plain = {key: value for key, value in message.items() if value is not None}
    if plain["role"] == "developer":
        plain["role"] = "system"
    if "function_call" in plain:  # OpenAI's former name.
        plain.setdefault("tool_calls", [{"function": plain.pop("function_call")}])
    calls = plain.pop("tool_calls", None)
    if calls is not None and not isinstance(calls, (list, tuple)):
        raise fault("tool_calls must be a list", f"{place}.tool_calls")
    if calls:
        plain["tool_calls"] = [
            _call(call, f"{place}.tool_calls[{k}]", f"call_{number}_{k}") for k, call in enumerate(calls)
        ]
    optional = bool(calls) or plain["role"] == "tool"
    plain["content"] = _content(plain.get("content"), f"{place}.content", optional=optional)
    for name in ("tool_call_id", "name"):
        if not isinstance(plain.get(name, ""), str):
            raise fault(f"{name} must be a string", f"{place}.{name}")
    return plain


def _content(content: Any, place: str, *, optional: bool) -> str:
    if isinstance(content, str):
        return content
    if content is None and optional:
        return ""
    if not isinstance(content, (list, tuple)):
        raise fault("the content of a message must be a string or a list of text parts", place)
    return "".join(_part(part, f"{place}[{k}]") for k, part in enumerate(content))


def _part(part: Any, place: str) -> str:
    kind = part.get("type") if isinstance(part, Mapping) else None
    if kind in _TEXTS and isinstance(part.get("text"), str):
        return str(part["text"])
    if isinstance(kind, str) and any(medium in kind for medium in _MEDIA):
        raise fault("this model reads text alone: no images, sound or files", place)
    raise fault('a part of a content must be {"type": "text", "text": "..."}', place)


def _call(call: Any, place: str, default_id: str) -> dict[str, Any]:
    function = call.get("function") if isinstance(call, Mapping) else None
    if not isinstance(function, Mapping):
        raise fault('a call must be {"id": "...", "type": "function", "function": {...}}', place)
    name = function.get("name")
    if not isinstance(name, str) or not name:
        raise fault("the name of a called function must be a string", f"{place}.function.name")
    id_ = call.get("id")
    if id_ is not None and not isinstance(id_, str):
        raise fault("the id of a call must be a string", f"{place}.id")
    arguments = read_arguments(function.get("arguments"), f"{place}.function.arguments")
    return {
        "id": id_ or default_id,
        "type": "function",
        "function": {"name": name, "arguments": arguments},
    }


def _name_results(messages: Sequence[dict[str, Any]]) -> None:
    """Gives each result of a tool the name of the call that it answers."""
    names: dict[str, str] = {}
    for message in messages:
        for call in message.get("tool_calls", ()):
            names[call["id"]] = call["function"]["name"]
        name = names.get(message.get("tool_call_id", ""))
        if message["role"] == "tool" and name is not None:
            message.setdefault("name", name)
