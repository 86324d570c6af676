"""Writes the grammar of calls of tools, in the form of the grammar library."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from decodery.decoding.grammar.llguidance_source import literal
from decodery.decoding.request.grammar_params import JsonSchema
from decodery.text.chat.tool_formats import ToolFormat
from decodery.text.chat.tools import Tool


@dataclass(frozen=True, slots=True)
class CallGrammar:
    """Holds what a reply's calls must match: those of `tools`, in a format; only one if not `parallel`.

    `tokens` are the ids of the format's texts that are special tokens.
    """

    form: ToolFormat
    tools: Sequence[Tool]
    parallel: bool
    tokens: Mapping[str, int]

    def source(self, arguments: Sequence[str], *, space: bool = False, content: str | None = None) -> str:
        """Returns the library's form of calls, or of calls or content, if its form is given.

        `arguments` are the forms of the tools' `schema_of`. With `space`, white space may come first.
        """
        form = self.form
        begin = self._written(form.begin + form.opening)
        if not form.marked:
            begin = f"({self._written(form.begin)})?" if form.begin else ""
        more = ""
        if self.parallel and form.separator is not None:
            more = f"({self._written(form.separator)} call)*"
        whole = f"{begin} call {more} {self._written(form.end)}"
        names = [f"{self._name(k)} @arguments{k} {self._written(form.tail)}" for k in range(len(self.tools))]
        lines = [f"start: {'SPACE? ' if space else ''}({whole}{' | @content' if content else ''})"]
        lines += ["SPACE: /[ \\n]{1,4}/"] if space else []
        lines += [f"call: {' | '.join(names)}"]
        grammars: list[Any] = [{"name": "calls", "lark_grammar": "\n".join(lines)}]
        grammars += [
            {**json.loads(form)["grammars"][0], "name": f"arguments{k}"} for k, form in enumerate(arguments)
        ]
        if content is not None:
            grammars.append({**json.loads(content)["grammars"][0], "name": "content"})
        return json.dumps({"grammars": grammars})

    def _name(self, place: int) -> str:
        heads = self.form.heads
        name, middle = self.tools[place].name, self.form.middle
        if len(heads) == 1:
            return self._written(f"{heads[0]}{name}{middle}")
        either = " | ".join(self._written(head) for head in heads)
        return f"({either}) {self._written(name + middle)}"

    def _written(self, text: str) -> str:
        """Returns the rule of a text, in which special tokens stand by their ids."""
        if not self.tokens:
            return f"/{literal(text)}/" if text else ""
        parts = re.split(f"({'|'.join(map(re.escape, self.tokens))})", text)
        written = [f"<[{self.tokens[p]}]>" if p in self.tokens else f"/{literal(p)}/" for p in parts if p]
        return " ".join(written)


# Keywords that give an object properties besides those in `properties`.
_OPEN = (
    *("additionalProperties", "unevaluatedProperties", "patternProperties"),
    *("allOf", "anyOf", "oneOf", "$ref", "if"),
)


def schema_of(tool: Tool) -> JsonSchema:
    """Returns the schema of a tool's arguments; only one that is declared as strict must be followed exactly.

    Raises `ParameterError` for one that is no schema.
    """
    strict = tool.declaration["function"].get("strict") is True
    return JsonSchema(_declared_alone(tool.parameters), "error" if strict else "approximate")


def _declared_alone(parameters: Mapping[str, Any]) -> dict[str, Any]:
    """Returns a tool's parameters without others than those declared, unless the schema speaks of others.

    A function has no other arguments, and a small model that may add some adds them without end.
    """
    closed = "properties" in parameters and not any(word in parameters for word in _OPEN)
    return {**parameters, "additionalProperties": False} if closed else dict(parameters)


def spaced(source: str) -> str:
    """Returns the form of a grammar before which white space may come."""
    inner = {**json.loads(source)["grammars"][0], "name": "inner"}
    outer = {"name": "outer", "lark_grammar": "start: SPACE? @inner\nSPACE: /[ \\n]{1,4}/"}
    return json.dumps({"grammars": [outer, inner]})
