"""Finds by trial renders what a chat template can express."""

from __future__ import annotations

import json
import re
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from itertools import product
from typing import Any

from decodery.errors import DecoderyError
from decodery.text.chat.template import render_chat
from decodery.text.chat.tool_formats import FORMATS, ToolFormat

# Words that occur in no template.
_NAME, _KEY, _VALUE, _RESULT = "zqname", "zqkey", "zqvalue", "zqresult"
_ARGUMENTS = {_KEY: _VALUE}
# The longest conversation whose trial is kept.
_MOST_KEPT = 64
# Whether ids of calls are short, arguments are text, and results of tools are lists of parts.
_TRIALS = tuple(product((False, True), repeat=3))
_LONG_ID, _SHORT_ID = "call_0a1b2c3d4e5f", "a1b2c3d4e"
_TOOL = {
    "type": "function",
    "function": {
        "name": _NAME,
        "description": "zqdescription",
        "parameters": {"type": "object", "properties": {_KEY: {"type": "string", "description": "zqtext"}}},
    },
}


@dataclass(frozen=True, slots=True)
class TemplateTraits:
    """Says what a template does with tools.

    `declares_tools`: it writes the tools' declarations. `renders_calls`: it writes calls and their results.
    `arguments_as_text`: it expects a call's arguments as JSON text, not as a dict. `short_ids`: it refuses
    the ids of calls that are not 9 letters and digits. `form` is the format of calls that it writes, if it is
    a known one. `part_roles` are the roles whose contents it reads only as lists of parts. `turns` is the
    text that it renders for a conversation without tools.
    """

    declares_tools: bool
    renders_calls: bool
    arguments_as_text: bool
    short_ids: bool
    form: ToolFormat | None
    part_roles: frozenset[str]
    turns: str


@lru_cache(maxsize=8)
def template_traits(template: str) -> TemplateTraits:
    """Returns what a template can express."""
    part_roles = _part_roles(template)
    turns = _turns(template, part_roles)
    question = [{"role": "user", "content": "zqquestion"}]
    declared = _rendered(template, question, [_TOOL], part_roles)
    declares_tools = _NAME in declared
    tools = [_TOOL] if declares_tools else None
    for short, as_text, parts in _TRIALS:
        roles = part_roles | {"tool"} if parts else part_roles
        text = _rendered(template, _conversation(short, as_text), tools, roles)
        if all(word in text for word in (_NAME, _RESULT)) and _well_written(text, as_text):
            form = _form_of(text.replace(declared, "")) or _form_of(text)
            return TemplateTraits(declares_tools, True, as_text, short, form, roles, turns)
    return TemplateTraits(declares_tools, False, False, False, None, part_roles, turns)


def _part_roles(template: str) -> frozenset[str]:
    """Returns the roles of those messages whose words a template writes only if they are given as parts."""
    first, other = {"role": "user", "content": "zqfirst"}, {"role": "user", "content": "zqother"}
    found: frozenset[str] = frozenset()
    for role in ("user", "assistant", "system"):
        message = {"role": role, "content": _RESULT}
        messages = {"user": [message], "assistant": [first, message, other], "system": [message, other]}[role]
        if _RESULT not in _rendered(template, messages, None, found) and _RESULT in _rendered(
            template, messages, None, found | {role}
        ):
            found |= {role}
    return found


def _turns(template: str, part_roles: Collection[str]) -> str:
    """Returns what a template renders for a conversation with a system message, or for one without."""
    roles = ("system", "user", "assistant", "user")
    messages = [{"role": role, "content": f"zqtext{place}"} for place, role in enumerate(roles)]
    return _rendered(template, messages, None, part_roles) or _rendered(
        template, messages[1:], None, part_roles
    )


def dropped_messages(
    template: str, roles: tuple[tuple[str, bool], ...], tools: bool = False
) -> tuple[int, ...] | None:
    """Returns the places of the messages whose text a template drops; None if it refuses the conversation.

    `roles` has the role of each message, and whether it has calls. The text beside calls does not count, for
    many templates drop it. With `tools`, the template gets a declaration too.
    """
    # Long conversations are seldom alike, and their keys are large.
    found = _dropped if len(roles) <= _MOST_KEPT else _dropped.__wrapped__
    return found(template, roles, tools)


@lru_cache(maxsize=256)
def _dropped(template: str, roles: tuple[tuple[str, bool], ...], tools: bool) -> tuple[int, ...] | None:
    traits = template_traits(template)
    messages: list[dict[str, Any]] = []
    words = [f"zqtext{place}zq" for place in range(len(roles))]
    id_ = _SHORT_ID if traits.short_ids else _LONG_ID
    for (role, calls), word in zip(roles, words, strict=True):
        message: dict[str, Any] = {"role": role, "content": "" if calls else word}
        if calls:
            message["tool_calls"] = [_call(id_, traits.arguments_as_text)]
        if role == "tool":
            message |= {"tool_call_id": id_, "name": _NAME}
        messages.append(message)
    text = _rendered(template, messages, [_TOOL] if tools else None, traits.part_roles)
    if not text:
        return None
    written = set(re.findall(r"zqtext\d+zq", text))
    return tuple(k for k, (_, calls) in enumerate(roles) if not calls and words[k] not in written)


def _conversation(short: bool, as_text: bool) -> list[dict[str, Any]]:
    id_ = _SHORT_ID if short else _LONG_ID
    return [
        {"role": "user", "content": "zqquestion"},
        {"role": "assistant", "content": "", "tool_calls": [_call(id_, as_text)]},
        {"role": "tool", "tool_call_id": id_, "name": _NAME, "content": _RESULT},
    ]


def _call(id_: str, as_text: bool) -> dict[str, Any]:
    arguments: Any = json.dumps(_ARGUMENTS) if as_text else _ARGUMENTS
    return {"id": id_, "type": "function", "function": {"name": _NAME, "arguments": arguments}}


def _well_written(text: str, as_text: bool) -> bool:
    """True if the arguments are written as JSON, or in a notation of the template's own."""
    if as_text:
        return f'"{_KEY}"' in text and f'\\"{_KEY}' not in text
    return _KEY in text and _VALUE in text and f"'{_KEY}'" not in text


def _form_of(text: str) -> ToolFormat | None:
    """Returns the format in which a rendered text contains the call; white space counts only at first."""
    for ignored in ("", " \n"):
        removed = str.maketrans("", "", ignored)
        for form in FORMATS:
            if form.written(_NAME).translate(removed) in text.translate(removed):
                return form
    return None


def _rendered(
    template: str,
    messages: Sequence[Mapping[str, Any]],
    tools: Sequence[Mapping[str, Any]] | None,
    part_roles: Collection[str],
) -> str:
    """Returns what a template renders; "" if it refuses."""
    try:
        return render_chat(template, messages, tools=tools, part_roles=part_roles)
    except DecoderyError:
        return ""
