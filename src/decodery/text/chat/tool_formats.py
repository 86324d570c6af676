"""Describes how models write calls of tools: the texts around names and arguments."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class ToolFormat:
    """Holds the texts of which calls consist: `begin` and `opening`, the calls with separators between them, and
    `end`.

    A call is one of the `heads` (models write the first), the name, the `middle`, the arguments as a JSON
    object, and the `tail`. Without a `separator` a reply has one call. If not `marked`, calls may lack
    `begin`, and are then recognized by a head with a tool's name at the beginning of the content.
    """

    name: str
    begin: str
    opening: str
    heads: tuple[str, ...]
    middle: str
    tail: str
    separator: str | None = None
    end: str = ""
    marked: bool = True

    def triggers(self, names: Sequence[str]) -> tuple[str, ...]:
        """Returns the texts with which calls of these tools begin."""
        if self.marked:
            return (self.begin,)
        boundary = self.middle[:1]
        heads = tuple(f"{head}{name}{boundary}" for head in self.heads for name in names)
        return (self.begin, *heads) if self.begin else heads


HERMES = ToolFormat(
    "hermes",
    begin="<tool_call>",
    opening="",
    heads=('\n{"name": "',),
    middle='", "arguments": ',
    tail="}\n</tool_call>",
    separator="\n<tool_call>",
)
LLAMA = ToolFormat(
    "llama",
    begin="<|python_tag|>",
    opening="",
    heads=('{"name": "', '{"type": "function", "name": "'),
    middle='", "parameters": ',
    tail="}",
    marked=False,
)
MISTRAL = ToolFormat(
    "mistral",
    begin="[TOOL_CALLS]",
    opening=" [",
    heads=('{"name": "',),
    middle='", "arguments": ',
    tail="}",
    separator=", ",
    end="]",
)
MISTRAL_ARGS = ToolFormat(
    "mistral-args",
    begin="[TOOL_CALLS]",
    opening="",
    heads=("",),
    middle="[ARGS]",
    tail="",
    separator="[TOOL_CALLS]",
)
PLAIN = ToolFormat(
    "plain",
    begin="",
    opening="",
    heads=('{"name": "',),
    middle='", "arguments": ',
    tail="}",
    separator="\n",
    marked=False,
)
