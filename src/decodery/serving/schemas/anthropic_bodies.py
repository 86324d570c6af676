"""Describes the bodies of requests in Anthropic's form: the fields that `serving.anthropic` takes."""

from __future__ import annotations

from decodery.serving.anthropic.reading import NO_EFFECT
from decodery.serving.openai.chat import PROMPT_FIELDS
from decodery.serving.schemas.request_bodies import MODEL, TEMPLATE, described, generation_body
from decodery.serving.schemas.values import Schema, any_of, nullable
from decodery.serving.settings import ServerSettings

_TEXT: Schema = {"type": "string"}
_FLAG: Schema = {"type": "boolean"}
_OBJECT: Schema = {"type": "object"}


def _block(kind: str, *required: str, **properties: Schema) -> Schema:
    known: Schema = {"type": {"const": kind}, **properties}
    return {"type": "object", "properties": known, "required": ["type", *required]}


_TEXT_BLOCK = _block("text", "text", text=_TEXT)
_TEXTS: Schema = {"anyOf": [_TEXT, {"type": "array", "items": _TEXT_BLOCK}]}
_BLOCK: Schema = {
    "anyOf": [
        _TEXT_BLOCK,
        _block("thinking", "thinking", thinking=_TEXT),
        _block("redacted_thinking"),
        _block("tool_use", "id", "name", id=_TEXT, name=_TEXT, input=_OBJECT),
        _block("tool_result", "tool_use_id", tool_use_id=_TEXT, content=nullable(_TEXTS)),
    ]
}
_MESSAGE: Schema = {
    "type": "object",
    "properties": {
        "role": {"enum": ["user", "assistant", "system"]},
        "content": {"anyOf": [_TEXT, {"type": "array", "items": _BLOCK}]},
    },
    "required": ["role", "content"],
}
_NAMED = {"name": (_TEXT, "The function's name."), "description": (_TEXT, "The function's description.")}
_TOOL = described(
    {
        **_NAMED,
        "type": ({"enum": ["custom"]}, "The kind: the server runs no tools of its own."),
        "input_schema": (_OBJECT, "The schema of the arguments."),
        **{
            name: ({}, "Has no effect.")
            for name in (
                "allowed_callers",
                "cache_control",
                "eager_input_streaming",
                "input_examples",
                "strict",
            )
        },
    },
    required=("name", "input_schema"),
)
_TOOL_CHOICE = described(
    {
        "type": ({"enum": ["auto", "any", "tool", "none"]}, "Whether the model must call a tool."),
        "name": (_TEXT, "The tool that must be called, for type tool."),
        "disable_parallel_tool_use": (_FLAG, "True allows one call."),
    },
    required=("type",),
)
_THINKING = described(
    {
        "type": ({"enum": ["enabled", "disabled", "adaptive", "between_tools"]}, "The kind."),
        "budget_tokens": ({"type": "integer", "minimum": 1}, "Most tokens of reasoning; for enabled."),
        "display": ({}, "Has no effect."),
    }
)
_FORMAT = described(
    {
        "type": ({"enum": ["json_schema"]}, "The kind."),
        "schema": ({"type": ["object", "boolean"]}, "The schema that the text must match."),
    }
)
_OUTPUT = described(
    {
        "effort": (_TEXT, "An argument of chat templates that take reasoning_effort."),
        "format": (_FORMAT, "What the text must match."),
    }
)
MESSAGE = {
    **MODEL,
    "messages": ({"type": "array", "items": _MESSAGE, "minItems": 1}, "The conversation."),
    "max_tokens": ({"type": "integer", "minimum": 1}, "Most tokens to generate."),
    "system": (_TEXTS, "The system message."),
    "stream": (_FLAG, "Sends the message as server-sent events while it is generated."),
    "stop_sequences": (
        {"type": "array", "items": {"type": "string", "minLength": 1}},
        "Texts that end the reply.",
    ),
    "tools": ({"type": "array", "items": _TOOL}, "The functions that the model may call."),
    "tool_choice": (any_of([_TOOL_CHOICE]), "Whether the model must call a function."),
    "thinking": (_THINKING, "Whether the model thinks, for chat templates that can be told."),
    "output_config": (_OUTPUT, "The effort, and what the text must match."),
    **{name: TEMPLATE[name] for name in PROMPT_FIELDS},
    "cache_salt": (_TEXT, "Requests with different salts share no cached prefixes."),
    "priority": ({"type": "integer"}, "Requests with smaller numbers run first."),
    **{name: ({}, "Has no effect.") for name in NO_EFFECT},
}


def message_body(settings: ServerSettings, *required: str) -> Schema:
    """Returns the schema of a request for a message, or of one for its tokens, with these fields required."""
    found = generation_body(MESSAGE, "messages", settings.limits, lenient=settings.lenient)
    return {**found, "required": ["messages", *required]}
