"""Describes the bodies of requests: the fields that the readers of `serving.openai` take."""

from __future__ import annotations

from collections.abc import Mapping

from decodery.serving.openai.chat import PROMPT_FIELDS
from decodery.serving.openai.completions import DEFAULT_MAX_TOKENS
from decodery.serving.openai.fields import ALIASES, NEUTRAL, NO_EFFECT
from decodery.serving.schemas.values import Schema, any_of, nullable, parameters
from decodery.serving.settings import RequestLimits

_TEXT: Schema = {"type": "string"}
_FLAG: Schema = {"type": "boolean"}
_IDS: Schema = {"type": "array", "items": {"type": "integer", "minimum": 0}}
_OBJECT: Schema = {"type": "object"}
_SCHEMA: Schema = {"type": ["object", "boolean"]}

MODEL = {"model": (_TEXT, "The model's name, as /v1/models lists it; without it, the first one.")}
_STREAM_OPTIONS = {
    "include_usage": (_FLAG, "Ends the stream with a chunk that has the usage."),
    "continuous_usage_stats": (_FLAG, "Puts the usage so far into every chunk."),
    "include_hypotheses": (_FLAG, "Sends the beams of a beam search as events of their own."),
    "include_obfuscation": (_FLAG, "Has no effect."),
}


# A null counts as absent, also under a name that does not exist.
NO_OTHERS: Schema = {"type": "null"}


def described(fields: Mapping[str, tuple[Schema, str]], *, required: tuple[str, ...] = ()) -> Schema:
    """Returns the schema of an object with these fields and no others; null counts as absent."""
    properties = {
        name: {**(schema if name in required else nullable(schema)), "description": text}
        for name, (schema, text) in fields.items()
    }
    found: Schema = {"type": "object", "properties": properties, "additionalProperties": NO_OTHERS}
    return {**found, "required": list(required)} if required else found


_JSON_SCHEMA = described(
    {
        "name": (_TEXT, "A name, which has no effect."),
        "description": (_TEXT, "A description, which has no effect."),
        "schema": (_SCHEMA, "The schema."),
        "strict": (_FLAG, "Has no effect: the text always matches."),
    },
    required=("schema",),
)
_RESPONSE_FORMAT: Schema = {
    "type": "object",
    "oneOf": [
        described({"type": ({"enum": ["text", "json_object"]}, "The kind.")}, required=("type",)),
        described(
            {
                "type": ({"const": "json_schema"}, "The kind."),
                "json_schema": (_JSON_SCHEMA, "The schema, with a name."),
            },
            required=("type", "json_schema"),
        ),
    ],
}
_STRUCTURED: Schema = {
    "type": "object",
    "minProperties": 1,
    "maxProperties": 1,
    **{
        key: value
        for key, value in described(
            {
                "json": (
                    any_of([*({"type": kind} for kind in ("object", "boolean", "string"))]),
                    "A schema.",
                ),
                "regex": (_TEXT, "A regular expression."),
                "choice": ({"type": "array", "items": _TEXT, "minItems": 1}, "Texts of which one is chosen."),
                "grammar": (_TEXT, "A grammar of Lark (with `start:`) or of llama.cpp."),
                "json_object": (_FLAG, "Any JSON object."),
            }
        ).items()
        if key != "type"
    },
}
GENERATING = {
    **MODEL,
    "stream": (_FLAG, "Sends the answer as server-sent events while it is generated."),
    "stream_options": (described(_STREAM_OPTIONS), "What a stream tells besides the text."),
    "return_progress": (_FLAG, "Tells in a stream how much of the prompt is computed, as llama.cpp does."),
    "return_token_ids": (_FLAG, "Adds the token ids of prompt and text, as vLLM does."),
    "cache_salt": (_TEXT, "Requests with different salts share no cached prefixes."),
    "priority": ({"type": "integer"}, "Requests with smaller numbers run first."),
    "use_beam_search": (_FLAG, "Searches with n beams, as vLLM does; `strategy` says more."),
    "length_penalty": ({"type": "number"}, "The length penalty of use_beam_search."),
    "early_stopping": (any_of([_FLAG, {"const": "never"}]), "The early stopping of use_beam_search."),
    "response_format": (_RESPONSE_FORMAT, "What the text must match, as OpenAI writes it."),
    "structured_outputs": (_STRUCTURED, "What the text must match, as vLLM writes it: one of the fields."),
}
_PROMPT: Schema = {
    "anyOf": [
        {"type": "string", "minLength": 1},
        {**_IDS, "minItems": 1},
        {
            "type": "array",
            "minItems": 1,
            "items": {"anyOf": [{"type": "string", "minLength": 1}, {**_IDS, "minItems": 1}]},
        },
    ]
}
COMPLETION = {
    **GENERATING,
    "prompt": (_PROMPT, "A text, token ids, or a list of those."),
    "suffix": (_TEXT, "The text after the gap, for models that can fill in."),
    "max_tokens": (
        {"type": "integer", "minimum": 0, "default": DEFAULT_MAX_TOKENS},
        "Most tokens to generate; 0 with echo scores the prompt alone.",
    ),
}
_MESSAGE: Schema = {
    "type": "object",
    "properties": {
        "role": {"enum": ["system", "developer", "user", "assistant", "tool"]},
        "content": {
            "anyOf": [
                _TEXT,
                {"type": "array", "items": {"type": "object", "required": ["type"]}},
                {"type": "null"},
            ]
        },
        "name": nullable(_TEXT),
        "tool_calls": nullable({"type": "array", "items": _OBJECT}),
        "tool_call_id": nullable(_TEXT),
        "reasoning_content": nullable(_TEXT),
    },
    "required": ["role"],
}
MESSAGES: Schema = {"type": "array", "items": _MESSAGE, "minItems": 1}
_TOOL: Schema = {
    "type": "object",
    "properties": {
        "type": {"const": "function"},
        "function": {
            "type": "object",
            "properties": {"name": _TEXT, "description": nullable(_TEXT), "parameters": nullable(_OBJECT)},
            "required": ["name"],
        },
    },
    "required": ["type", "function"],
}
TEMPLATE = {
    "tools": ({"type": "array", "items": _TOOL}, "The functions that the model may call."),
    "add_generation_prompt": (_FLAG, "Ends the prompt with the beginning of a reply."),
    "continue_final_message": (_FLAG, "Lets the model go on with the last message."),
    "chat_template": (_TEXT, "The name of one of the model's chat templates."),
    "chat_template_kwargs": (_OBJECT, "Variables of the model's chat template."),
    "special_in_content": (_FLAG, "Makes texts of control tokens in messages such tokens, not plain text."),
    "thinking_token_budget": (
        {"type": "integer", "minimum": 0},
        "Most tokens of reasoning; 0 leaves the reasoning empty.",
    ),
    "reasoning_effort": (_TEXT, "An argument of chat templates that take it."),
    "add_special_tokens": (
        {"enum": [False, None]},
        "Never true: templates write special tokens themselves.",
    ),
}
_TOOL_CHOICE = any_of([{"enum": ["auto", "none", "required", "any"]}, _OBJECT])
CHAT = {
    **GENERATING,
    "max_tokens": (
        {"type": "integer", "minimum": 1},
        "Most tokens to generate; without it, until the context is full.",
    ),
    **TEMPLATE,
    "messages": (MESSAGES, "The conversation."),
    "tool_choice": (_TOOL_CHOICE, "Whether the model must call a function: one of the texts, or a function."),
    "parallel_tool_calls": (_FLAG, "False allows one call."),
    "logprobs": (_FLAG, "Reports the log-probability of each token."),
    "top_logprobs": ({"type": "integer", "minimum": 0}, "Reports this many alternatives; needs logprobs."),
}

_ITEM: Schema = {
    "type": "object",
    "properties": {"type": {"enum": ["message", "function_call", "function_call_output", "reasoning"]}},
}
RESPONSE = {
    **MODEL,
    "input": (any_of([_TEXT, {"type": "array", "items": _ITEM, "minItems": 1}]), "A text, or items."),
    "instructions": (_TEXT, "A system message for this response alone."),
    "stream": (_FLAG, "Sends the response as server-sent events while it is generated."),
    "store": (_FLAG, "Keeps the response in memory, for its key alone, until newer ones need the room."),
    "background": (_FLAG, "Answers at once; the response is generated meanwhile."),
    "previous_response_id": (_TEXT, "A stored response whose conversation goes on."),
    "max_output_tokens": ({"type": "integer", "minimum": 1}, "Most tokens to generate."),
    "tools": ({"type": "array", "items": _OBJECT}, "The functions that the model may call."),
    "tool_choice": (_TOOL_CHOICE, "Whether the model must call a function."),
    "parallel_tool_calls": (_FLAG, "False allows one call."),
    "reasoning": (_OBJECT, "The effort of reasoning, for chat templates that take it."),
    "text": (_OBJECT, "What the text must match, in `format`."),
    "top_logprobs": ({"type": "integer", "minimum": 0}, "Reports this many alternatives of each token."),
    "truncation": ({"enum": ["disabled"]}, "The input is never cut."),
    "metadata": (_OBJECT, "Is repeated in the response."),
    **{name: TEMPLATE[name] for name in PROMPT_FIELDS},
    "cache_salt": GENERATING["cache_salt"],
    "priority": GENERATING["priority"],
    "stream_options": (
        described({"include_obfuscation": (_FLAG, "Has no effect.")}),
        "What a stream tells besides the response.",
    ),
    "include": ({}, "Has no effect."),
    "max_tool_calls": ({}, "Has no effect."),
}


def generation_body(
    fields: Mapping[str, tuple[Schema, str]], required: str, limits: RequestLimits, *, lenient: bool
) -> Schema:
    """Returns the schema of a request that generates: its own fields, and all parameters of generation."""
    properties = _parameters()
    properties |= {name: {"description": "Has no effect."} for name in sorted(NO_EFFECT)}
    for name, values in sorted(NEUTRAL.items()):
        if name not in properties:
            schema: Schema = {"enum": [*values, None]}
            properties[name] = {**schema, "description": "Not supported: other values are refused."}
    own = described(fields, required=(required,))
    properties |= own["properties"]
    _bound(properties, limits)
    return {**own, "properties": properties, "additionalProperties": lenient or NO_OTHERS}


def _parameters() -> dict[str, Schema]:
    """Returns the schemas of the parameters of generation, also under their other names."""
    found = parameters()
    # vLLM's value for no limit.
    found["top_k"]["minimum"] = -1
    for alias, name in ALIASES.items():
        found[alias] = {**found[name], "description": f"Another name of {name}."}
    return found


def _bound(properties: Mapping[str, Schema], limits: RequestLimits) -> None:
    """Adds the limits of a server to the schemas of counts."""
    bounds = {
        "n": limits.n,
        "logprobs": limits.logprobs,
        "top_logprobs": limits.logprobs,
        "prompt_logprobs": limits.logprobs,
        "max_tokens": limits.max_tokens,
        "max_completion_tokens": limits.max_tokens,
    }
    for name, most in bounds.items():
        if most is not None and "integer" in properties.get(name, {}).get("type", ()):
            properties[name]["maximum"] = most
