"""Reads a request of `/v1/messages` as a conversation in the form of `/v1/chat/completions`."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from decodery.serving.anthropic.blocks import chat_messages, system_text
from decodery.serving.errors import invalid
from decodery.serving.openai.chat import PROMPT_FIELDS
from decodery.serving.openai.fields import Fields
from decodery.serving.openai.origins import ORIGIN, separated, tool_places

# Fields of this interface that change no text here.
NO_EFFECT = (
    "cache_control",
    "container",
    "context_management",
    "inference_geo",
    "metadata",
    "service_tier",
    "speed",
)
# The same for tools.
_TOOL_NO_EFFECT = (
    "allowed_callers",
    "cache_control",
    "eager_input_streaming",
    "input_examples",
    "strict",
)
_CHOICES = {"auto": "auto", "any": "required", "none": "none"}
_PLACES = {
    "stop": "stop_sequences",
    "response_format": "output_config.format",
    "response_format.json_schema": "output_config.format",
    "reasoning_effort": "output_config.effort",
}


@dataclass(frozen=True, slots=True)
class MessageRequest:
    """Holds the body of a chat completion, and the caller's names of its places."""

    chat: dict[str, Any]
    places: Mapping[str, str]


def read_message_request(body: Mapping[str, Any], *, lenient: bool, counts: bool = False) -> MessageRequest:
    """Returns the chat completion for the reply that a body asks for. Raises `ApiError`.

    With `counts` the reply is only counted: it needs no `max_tokens`.
    """
    fields = Fields(body)
    system = system_text(fields.raw("system"))
    conversation = chat_messages(fields.raw("messages"))
    if system:
        origin = dict.fromkeys(("", ".role", ".content"), "system")
        conversation.insert(0, {"role": "system", "content": system, ORIGIN: origin})
    messages, places = separated(conversation)
    chat: dict[str, Any] = {"messages": messages, "stream": fields.take("stream", bool, False)}
    # The reply goes on with what it is said to begin with.
    if messages[-1]["role"] == "assistant" and "tool_calls" not in messages[-1]:
        chat |= {"continue_final_message": True, "add_generation_prompt": False}
    stops = fields.take("stop_sequences", list, [])
    if stops:
        chat["stop"] = stops
    chat |= _tools(fields, lenient)
    chat |= _output(fields, lenient)
    for name in ("model", "cache_salt", "priority", *PROMPT_FIELDS):
        if name in fields:
            chat[name] = fields.raw(name)
    chat |= _thinking(fields, lenient, chat.get("chat_template_kwargs"))
    for name in NO_EFFECT:
        fields.raw(name)
    chat |= fields.parameters()
    fields.close(lenient=lenient)
    if "max_tokens" not in chat and not counts:
        raise invalid("max_tokens is needed", "max_tokens")
    tools = tool_places(len(chat.get("tools", ())), "input_schema")
    return MessageRequest(chat, {**_PLACES, **tools, **places})


def _tools(fields: Fields, lenient: bool) -> dict[str, Any]:
    """Takes the tools and what is said of their calls."""
    chat: dict[str, Any] = {}
    tools = fields.take("tools", list, [])
    if tools:
        chat["tools"] = [_tool(tool, f"tools[{place}]", lenient) for place, tool in enumerate(tools)]
    given = fields.take("tool_choice", dict, {})
    if not given:
        return chat
    choice = Fields(given, "tool_choice.")
    kind = choice.take("type", str, "")
    if kind == "tool":
        chat["tool_choice"] = {"type": "function", "function": {"name": choice.take("name", str, "")}}
    elif kind in _CHOICES:
        chat["tool_choice"] = _CHOICES[kind]
    else:
        raise invalid("type must be auto, any, tool or none", "tool_choice.type")
    if choice.take("disable_parallel_tool_use", bool, False):
        chat["parallel_tool_calls"] = False
    choice.close(lenient=lenient)
    return chat


def _tool(tool: Any, place: str, lenient: bool) -> dict[str, Any]:
    """Returns a tool in the form of chat completions."""
    if not isinstance(tool, dict):
        raise invalid("a tool must be an object", place)
    inner = Fields(tool, f"{place}.")
    if inner.take("type", str, "custom") != "custom":
        raise invalid("the server runs no tools of its own: only custom tools can be called", f"{place}.type")
    if "input_schema" not in inner:
        raise invalid("a tool needs an input_schema", f"{place}.input_schema")
    function = {"name": inner.take("name", str, ""), "parameters": inner.take("input_schema", dict, {})}
    if "description" in inner:
        function["description"] = inner.take("description", str, "")
    for name in _TOOL_NO_EFFECT:
        inner.raw(name)
    inner.close(lenient=lenient)
    return {"type": "function", "function": function}


def _thinking(fields: Fields, lenient: bool, variables: Any) -> dict[str, Any]:
    """Takes whether the model thinks, for templates that can be told, and for how many tokens.

    `variables` are those of the template that the body gives, if it does. They come first.
    """
    thinking = Fields(fields.take("thinking", dict, {}), "thinking.")
    kind = thinking.take("type", str, "")
    budget = thinking.take("budget_tokens", int, 0)
    thinking.raw("display")
    thinking.close(lenient=lenient)
    if kind == "enabled":
        if budget < 1:
            raise invalid("budget_tokens must be 1 or more", "thinking.budget_tokens")
        return {**_with_thinking(variables, thinks=True), "thinking_token_budget": budget}
    if kind == "disabled":
        return _with_thinking(variables, thinks=False)
    if kind not in ("", "adaptive", "between_tools"):
        raise invalid("type must be enabled, disabled or adaptive", "thinking.type")
    return {}


def _with_thinking(variables: Any, *, thinks: bool) -> dict[str, Any]:
    if variables is not None and not isinstance(variables, dict):
        # The chat completion refuses it.
        return {}
    return {"chat_template_kwargs": {"enable_thinking": thinks, **(variables or {})}}


def _output(fields: Fields, lenient: bool) -> dict[str, Any]:
    """Takes the effort, and the schema that the text must match."""
    chat: dict[str, Any] = {}
    output = Fields(fields.take("output_config", dict, {}), "output_config.")
    effort = output.take("effort", str, "")
    if effort:
        chat["reasoning_effort"] = effort
    form = Fields(output.take("format", dict, {}), "output_config.format.")
    output.close(lenient=lenient)
    kind, schema = form.take("type", str, ""), form.raw("schema")
    form.close(lenient=lenient)
    if kind == "json_schema":
        chat["response_format"] = {"type": "json_schema", "json_schema": {"schema": schema}}
    elif kind:
        raise invalid("type must be json_schema", "output_config.format.type")
    return chat
