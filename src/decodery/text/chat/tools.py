"""Reads the tools that a request declares, and its choice among them."""

from __future__ import annotations

import inspect
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

from decodery.text.chat.faults import check_depth, fault
from decodery.text.chat.function_schemas import declaration_of
from decodery.text.chat.tool_formats import ToolFormat

MOST_TOOLS = 256
_NAME = re.compile(r"[a-zA-Z0-9_.-]{1,128}")
_MODES: dict[str, Literal["auto", "none", "required"]] = {
    "auto": "auto",
    "none": "none",
    "required": "required",
    "any": "required",
}


@dataclass(frozen=True, slots=True)
class Tool:
    """Holds a function that a reply may call.

    `parameters` is the JSON schema of its arguments, an object's. `declaration` is what templates read.
    """

    name: str
    parameters: Mapping[str, Any]
    declaration: Mapping[str, Any]
    place: str


@dataclass(frozen=True, slots=True)
class ToolChoice:
    """Says whether a reply may or must call tools; `name` is the only one that it must call."""

    mode: Literal["auto", "none", "required"]
    name: str | None = None


@dataclass(frozen=True, slots=True)
class Adapted:
    """Holds a conversation as a template takes it.

    `tools` are the declarations for the template; `form` is how the model writes calls. The contents of the
    `part_roles` are lists of parts for the template.
    """

    messages: list[dict[str, Any]]
    tools: list[Mapping[str, Any]] | None
    form: ToolFormat
    short_ids: bool
    part_roles: frozenset[str]


def read_tools(tools: Any) -> list[Tool]:
    """Returns the declared tools, which have OpenAI's shape or are Python functions.

    Raises `RequestError` with the place, and for a function that says too little of its arguments.
    """
    if tools is None:
        return []
    if not isinstance(tools, Sequence) or isinstance(tools, (str, bytes)):
        raise fault("tools must be a list", "tools")
    if len(tools) > MOST_TOOLS:
        raise fault(f"a request has at most {MOST_TOOLS} tools", "tools")
    found = [_tool(tool, f"tools[{place}]") for place, tool in enumerate(tools)]
    names = [tool.name for tool in found]
    for place, name in enumerate(names):
        if name in names[:place]:
            raise fault("two tools have the same name", f"tools[{place}].function.name")
    return found


def read_choice(choice: Any, tools: Sequence[Tool]) -> ToolChoice:
    """Returns a request's `tool_choice`. Raises `RequestError` if these tools cannot fulfil it."""
    if choice is None:
        choice = "auto"
    if isinstance(choice, Mapping):
        function = choice.get("function", choice)
        name = function.get("name") if isinstance(function, Mapping) else None
        if choice.get("type") != "function" or not isinstance(name, str):
            raise fault(
                'a tool_choice must be {"type": "function", "function": {"name": "..."}}', "tool_choice"
            )
        if name not in [tool.name for tool in tools]:
            raise fault("it names a function that is none of the tools", "tool_choice")
        return ToolChoice("required", name)
    mode = _MODES.get(choice) if isinstance(choice, str) else None
    if mode is None:
        raise fault('tool_choice must be "auto", "none", "required" or a function', "tool_choice")
    if mode == "required" and not tools:
        raise fault("tool_choice requires a call, but there are no tools", "tool_choice")
    return ToolChoice(mode)


def _tool(tool: Any, place: str) -> Tool:
    if inspect.isfunction(tool) or inspect.ismethod(tool):
        tool = declaration_of(tool, place)
    if not isinstance(tool, Mapping) or tool.get("type", "function") != "function":
        raise fault('a tool must be {"type": "function", "function": {...}} or a Python function', place)
    function = tool.get("function")
    if not isinstance(function, Mapping):
        raise fault("a tool needs a function: a dict with a name and parameters", f"{place}.function")
    name = function.get("name")
    if not isinstance(name, str) or not _NAME.fullmatch(name):
        raise fault(
            "the name of a function must be 1 to 128 letters, digits, underscores, dashes and dots",
            f"{place}.function.name",
        )
    description = function.get("description")
    if description is not None and not isinstance(description, str):
        raise fault("the description of a function must be a string", f"{place}.function.description")
    parameters = function.get("parameters")
    if parameters is None:
        parameters = {"type": "object", "properties": {}}
    if not isinstance(parameters, Mapping) or parameters.get("type", "object") != "object":
        raise fault('parameters must be a JSON schema of the type "object"', f"{place}.function.parameters")
    check_depth(tool, place)
    declared = {key: value for key, value in function.items() if value is not None}
    declared["parameters"] = parameters
    declaration = {**tool, "type": "function", "function": declared}
    return Tool(name, {**parameters, "type": "object"}, declaration, f"{place}.function.parameters")
