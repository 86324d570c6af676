"""Checks replies to conversations against JSON schemas: their content, and the arguments of their calls."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from decodery.decoding.json_schema.schema_check import Problem, SchemaCheck
from decodery.text.chat.replies import ReplyFormat


@dataclass(frozen=True, slots=True)
class ReplyCheck:
    """Holds the schema of a reply's content, if it has one, and those of the arguments of tools by name."""

    reply: ReplyFormat
    content: SchemaCheck | None
    arguments: Mapping[str, SchemaCheck]

    def problem(self, text: str) -> Problem | None:
        """Returns what is wrong with the raw text of a reply that has ended; None if nothing is."""
        reply = self.reply.reply(text, "stop")
        for call in reply.tool_calls:
            check = self.arguments.get(call.name)
            found = None if check is None else check.problem(call.arguments)
            if found is not None:
                return found
        if self.content is None or reply.tool_calls:
            return None
        return self.content.problem(reply.content or "")
