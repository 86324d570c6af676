"""Describes how models write calls of tools: the texts around names and arguments."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace


@dataclass(frozen=True, slots=True)
class ToolFormat:
    """Holds the texts of which calls consist: `begin` and `opening`, then the calls with separators between
    them, then `end`.

    A call is one of the `heads` (models write the first), the name, the `middle`, the arguments as a JSON
    object, and the `tail`. Without a `separator` a reply has one call. If not `marked`, calls may lack
    `begin`, and are then recognized by a head with a tool's name at the beginning of the content. `tokens`
    are the texts which are special tokens in some vocabularies.
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
    tokens: tuple[str, ...] = ()

    def triggers(self, names: Sequence[str]) -> tuple[str, ...]:
        """Returns the texts with which calls of these tools begin."""
        if self.marked:
            return (self.begin,)
        boundary = self.middle[:1]
        heads = tuple(f"{head}{name}{boundary}" for head in self.heads for name in names)
        return (self.begin, *heads) if self.begin else heads

    def written(self, name: str) -> str:
        """Returns how a first call of this function begins, up to its arguments."""
        begin = self.begin + self.opening if self.marked else ""
        return f"{begin}{self.heads[0]}{name}{self.middle}"

    def calls(self, calls: Iterable[tuple[str, str]]) -> str:
        """Returns calls, each a name with its arguments as JSON text, as the model writes them."""
        begin = self.begin + self.opening if self.marked else ""
        separator = "\n" if self.separator is None else self.separator
        written = (f"{self.heads[0]}{name}{self.middle}{arguments}{self.tail}" for name, arguments in calls)
        return f"{begin}{separator.join(written)}{self.end}"


ARGUMENTS_MARK = "[ARGS]"
_HERMES = ToolFormat(
    "hermes",
    begin="<tool_call>",
    opening="",
    heads=('\n{"name": "',),
    middle='", "arguments": ',
    tail="}\n</tool_call>",
    separator="\n<tool_call>",
    tokens=("<tool_call>", "</tool_call>"),
)
_LLAMA = ToolFormat(
    "llama",
    begin="<|python_tag|>",
    opening="",
    heads=('{"name": "', '{"type": "function", "name": "'),
    middle='", "parameters": ',
    tail="}",
    marked=False,
    tokens=("<|python_tag|>",),
)
_MISTRAL = ToolFormat(
    "mistral",
    begin="[TOOL_CALLS]",
    opening=" [",
    heads=('{"name": "',),
    middle='", "arguments": ',
    tail="}",
    separator=", ",
    end="]",
    tokens=("[TOOL_CALLS]",),
)
_MISTRAL_ARGUMENTS = ToolFormat(
    "mistral-arguments",
    begin="[TOOL_CALLS]",
    opening="",
    heads=("",),
    middle=ARGUMENTS_MARK,
    tail="",
    separator="[TOOL_CALLS]",
    tokens=("[TOOL_CALLS]", ARGUMENTS_MARK),
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
# The formats that are recognized in templates. Mistral's later templates write no space before the list.
FORMATS = (
    _HERMES,
    replace(_HERMES, heads=('{"name": "',), tail="}</tool_call>"),
    _MISTRAL,
    replace(_MISTRAL, opening="["),
    _MISTRAL_ARGUMENTS,
    _LLAMA,
)
