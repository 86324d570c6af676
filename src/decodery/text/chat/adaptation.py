"""Adapts a conversation to what the model's chat template can express."""

from __future__ import annotations

import hashlib
import json
import string
from collections.abc import Mapping, Sequence
from typing import Any

from decodery.errors import RequestError
from decodery.text.chat.template import template_variables
from decodery.text.chat.template_traits import dropped_messages, template_traits
from decodery.text.chat.tool_formats import PLAIN, ToolFormat
from decodery.text.chat.tools import Adapted, Tool

_ALPHANUMERICS = string.digits + string.ascii_lowercase
# A place is looked for in conversations of at most so many messages: it takes a render for each.
_MOST_TRIED = 64
_PLAIN_HEAD = (
    "You may call functions. To call one, answer with nothing but one JSON object on one line:\n"
    '{"name": "<name of the function>", "arguments": {<its arguments>}}\n'
    "For several calls, write a line for each. The functions, with the JSON schemas of their arguments:"
)


def adapt(
    template: str, messages: Sequence[dict[str, Any]], tools: Sequence[Tool], *, for_tools: bool = False
) -> Adapted:
    """Returns a conversation, read by `read_messages`, as a template takes it.

    If the template cannot have its system messages where they are, they are joined in front. If it takes no
    tools, or writes their calls in an unknown format, the declarations go into the system message. A template
    `for_tools` always gets them, and one that writes none knows its tools. Calls and results that it cannot
    write become texts of the model and of the user.

    Raises `RequestError` that names a message which the template would drop.
    """
    traits = template_traits(template)
    declarations = [tool.declaration for tool in tools] or None
    if "messages" not in template_variables(template):
        # It writes no conversation, so there is nothing that it could drop.
        return Adapted(list(messages), declarations, PLAIN, traits.short_ids, traits.part_roles)
    declares = for_tools or (traits.declares_tools and traits.form is not None)
    form = traits.form if declares and traits.form is not None else PLAIN
    found = list(messages)
    if not traits.renders_calls or (tools and not declares):
        found = _written_out(found, traits.form or PLAIN if not tools else form)
    else:
        found = [_with_native_calls(m, traits.arguments_as_text, traits.short_ids) for m in found]
    if tools and not declares:
        found = _with_declarations(template, found, tools)
    native = declarations if declares else None
    found = _with_systems(template, found, native is not None)
    return Adapted(found, native, form, traits.short_ids, traits.part_roles)


def _with_native_calls(message: dict[str, Any], as_text: bool, short_ids: bool) -> dict[str, Any]:
    message = dict(message)
    if "tool_calls" in message:
        message["tool_calls"] = [_native_call(call, as_text, short_ids) for call in message["tool_calls"]]
    if short_ids and "tool_call_id" in message:
        message["tool_call_id"] = _short_id(message["tool_call_id"])
    return message


def _native_call(call: Mapping[str, Any], as_text: bool, short_ids: bool) -> dict[str, Any]:
    function = call["function"]
    arguments = function["arguments"]
    if as_text:
        arguments = json.dumps(arguments, ensure_ascii=False)
    id_ = _short_id(call["id"]) if short_ids else call["id"]
    return {**call, "id": id_, "function": {**function, "arguments": arguments}}


def _short_id(id_: str) -> str:
    """Returns an id of 9 letters and digits for an id; the same for the same."""
    if len(id_) == 9 and id_.isascii() and id_.isalnum():
        return id_
    number = int.from_bytes(hashlib.sha256(id_.encode("utf-8", "replace")).digest()[:8], "big")
    return "".join(_ALPHANUMERICS[number // 36**k % 36] for k in range(9))


def _written_out(messages: Sequence[dict[str, Any]], form: ToolFormat) -> list[dict[str, Any]]:
    """Returns messages in which calls and results are text; results of one turn share a message."""
    found: list[dict[str, Any]] = []
    for number, message in enumerate(messages):
        message = dict(message)
        calls = message.pop("tool_calls", None)
        if calls:
            written = form.calls((c["function"]["name"], _json(c["function"]["arguments"])) for c in calls)
            message["content"] = f"{message['content']}\n{written}" if message["content"] else written
        if message["role"] == "tool":
            text = f"Result of {message.get('name', 'the call')}: {message['content']}"
            if number and messages[number - 1]["role"] == "tool":
                found[-1]["content"] += f"\n{text}"
                continue
            message = {"role": "user", "content": text}
        found.append(message)
    return found


def _json(value: Any) -> str:
    return json.dumps(value, ensure_ascii=False)


def plain_declarations(tools: Sequence[Tool]) -> str:
    """Returns the text that declares tools to a model whose template takes none."""
    lines = [_json({k: v for k, v in t.declaration["function"].items() if k != "strict"}) for t in tools]
    return "\n".join([_PLAIN_HEAD, *lines])


def _with_declarations(
    template: str, messages: Sequence[dict[str, Any]], tools: Sequence[Tool]
) -> list[dict[str, Any]]:
    text = plain_declarations(tools)
    roles = (("system", False), ("user", False))
    if dropped_messages(template, roles) != ():
        first = next((k for k, message in enumerate(messages) if message["role"] == "user"), None)
        if first is not None:
            changed = {**messages[first], "content": f"{text}\n\n{messages[first]['content']}"}
            return [*messages[:first], changed, *messages[first + 1 :]]
    if messages[0]["role"] == "system":
        return [{**messages[0], "content": f"{messages[0]['content']}\n\n{text}"}, *messages[1:]]
    return [{"role": "system", "content": text}, *messages]


def _with_systems(template: str, messages: list[dict[str, Any]], tools: bool) -> list[dict[str, Any]]:
    """Returns messages that the template renders all; system messages may be joined in front."""
    dropped = dropped_messages(template, _roles(messages), tools)
    if dropped == ():
        return messages
    systems = [message["content"] for message in messages if message["role"] == "system"]
    others = [message for message in messages if message["role"] != "system"]
    if systems and others:
        joined = [{"role": "system", "content": "\n\n".join(systems)}, *others]
        if dropped_messages(template, _roles(joined), tools) == ():
            return joined
    place = dropped[0] if dropped else _refused(template, messages, tools)
    if place is None:
        return messages
    role = messages[place]["role"]
    raise RequestError(
        f"messages[{place}]: the model's chat template has no place for a message of the role {role!r} here",
        param=f"messages[{place}].role",
    )


def _refused(template: str, messages: Sequence[dict[str, Any]], tools: bool) -> int | None:
    """Returns the place of the first message with which, and after which, a template refuses.

    Returns None if the template refuses even a question, so that its own message says why, and if the search
    would take long.
    """
    roles = _roles(messages)
    if len(roles) > _MOST_TRIED or dropped_messages(template, (("user", False),), tools) is None:
        return None
    place = len(roles) - 1
    while place > 0 and dropped_messages(template, roles[:place], tools) is None:
        place -= 1
    return place


def _roles(messages: Sequence[Mapping[str, Any]]) -> tuple[tuple[str, bool], ...]:
    return tuple((message["role"], bool(message.get("tool_calls"))) for message in messages)
