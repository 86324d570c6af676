"""Renders a conversation with a model's chat template, to the form of prompt that it was trained on."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from functools import lru_cache
from types import CodeType
from typing import Any

import jinja2
from jinja2 import meta

from decodery.errors import ModelError, RequestError
from decodery.text.chat.budget import MAX_VALUE, LimitError
from decodery.text.chat.sandbox import BoundedEnvironment, RefusedError

MAX_TEMPLATE = 64_000
MAX_DEPTH = 64
# The keys under which a message's reasoning is given, and those that templates read.
_REASONING = ("reasoning_content", "thinking", "reasoning")
_READ_REASONING = ("reasoning_content", "thinking")


def render_chat(
    template: str | None,
    messages: Sequence[Mapping[str, Any]],
    /,
    *,
    add_generation_prompt: bool = True,
    bos_token: str = "",
    eos_token: str = "",
    tools: Sequence[Mapping[str, Any]] | None = None,
    part_roles: Collection[str] = (),
    **variables: Any,
) -> str:
    """Returns the prompt that a Jinja chat template renders from messages.

    A message has a `role` and a `content`, which is a string or a list of parts `{"type": "text", "text":
    ...}`; the parts are joined to one string, which is one part again for the `part_roles`. A message's
    reasoning may be called `reasoning_content`,
    `thinking` or `reasoning`, and a key with the value None counts as missing. The other keys, `tools` (JSON
    schemas) and `variables` are passed to the template unchanged, and must consist of strings, numbers, lists
    and dicts.
    The prompt contains the special tokens that the model expects, so encode it with
    `add_special_tokens=False`.

    Raises `RequestError` when there is no template, when a message is malformed or the conversation too long,
    and when the template refuses the conversation or fails. Raises `ModelError` when the template is not
    valid, or exceeds its limits of time and size.
    """
    if not template:
        raise RequestError(
            "this model has no chat template: give it a plain prompt, or a template of your own"
        )
    code = _compiled(template)
    environment = BoundedEnvironment()
    values = {
        "documents": None,
        **{name: _plain(value, name) for name, value in variables.items()},
        "messages": _conversation(messages, part_roles),
        "tools": _plain(tools, "tools"),
        "add_generation_prompt": add_generation_prompt,
        "bos_token": bos_token,
        "eos_token": eos_token,
    }
    if environment.budget.weigh(values) > MAX_VALUE:
        raise RequestError(f"the conversation is longer than {MAX_VALUE} characters; shorten it")
    try:
        text = jinja2.Template.from_code(environment, code, environment.make_globals(None)).render(values)
    except RefusedError as error:
        raise RequestError(f"the chat template refuses this conversation: {_one_line(error)}") from None
    except LimitError as error:
        raise ModelError(f"the model's chat template was stopped: {_one_line(error)}") from None
    except RecursionError:
        raise ModelError("the model's chat template was stopped: it nests too deeply") from None
    except Exception as error:  # A template may raise anything.
        kind = type(error).__name__
        raise RequestError(
            f"the chat template failed on this conversation: {kind}: {_one_line(error)}"
        ) from error
    if len(text) > MAX_VALUE:
        raise ModelError(f"the model's chat template was stopped: it wrote more than {MAX_VALUE} characters")
    return text


@lru_cache(maxsize=8)
def _compiled(template: str) -> CodeType:
    if len(template) > MAX_TEMPLATE:
        raise ModelError(
            f"the model's chat template has {len(template)} characters; more than {MAX_TEMPLATE} are not read"
        )
    try:
        return BoundedEnvironment().compile_metered(template)
    except jinja2.TemplateSyntaxError as error:
        raise ModelError(
            f"the model's chat template is not valid, line {error.lineno}: {_one_line(error.message)}"
        ) from None
    except Exception as error:  # For example, nesting too deep for either compiler, or a number too long.
        raise ModelError(f"the model's chat template cannot be compiled: {_one_line(error)}") from error


@lru_cache(maxsize=8)
def template_variables(template: str) -> frozenset[str]:
    """Returns the names of the variables that a template reads. Raises `ModelError` if it is not valid."""
    _compiled(template)
    environment = BoundedEnvironment()
    return frozenset(meta.find_undeclared_variables(environment.parse(template)) - environment.globals.keys())


def _conversation(messages: Sequence[Mapping[str, Any]], part_roles: Collection[str]) -> list[dict[str, Any]]:
    if isinstance(messages, (str, Mapping)) or not isinstance(messages, Sequence) or not messages:
        raise RequestError("messages must be a list of at least one message, each with a role and a content")
    return [_message(message, f"message {place}", part_roles) for place, message in enumerate(messages)]


def _message(message: Any, name: str, part_roles: Collection[str]) -> dict[str, Any]:
    if not isinstance(message, Mapping) or not isinstance(message.get("role"), str):
        raise RequestError(f"{name} must be a dict with a role (a string) and a content")
    plain: dict[str, Any] = {key: value for key, value in _plain(message, name).items() if value is not None}
    reasoning = next((plain[key] for key in _REASONING if key in plain), None)
    if reasoning is not None:
        plain = {**dict.fromkeys(_READ_REASONING, reasoning), **plain}
    content = plain.get("content")
    if isinstance(content, list):
        plain["content"] = "".join(_part(part, name) for part in content)
    elif not isinstance(content, str) and not (content is None and plain.get("tool_calls")):
        raise RequestError(f"the content of {name} must be a string or a list of text parts")
    if plain["role"] in part_roles and "content" in plain:
        plain["content"] = [{"type": "text", "text": plain["content"]}]
    return plain


def _part(part: Any, name: str) -> str:
    if not isinstance(part, dict) or part.get("type") != "text" or not isinstance(part.get("text"), str):
        raise RequestError(f'the content of {name} has a part that is not {{"type": "text", "text": "..."}}')
    return str(part["text"])


def _plain(value: Any, name: str, depth: int = 0) -> Any:
    """Returns a copy made of JSON's types alone, so that no object with other methods reaches the sandbox."""
    if depth > MAX_DEPTH:
        raise RequestError(f"{name} is nested more than {MAX_DEPTH} levels deep")
    if value is None or isinstance(value, bool):
        return value
    if isinstance(value, str):
        return str.__str__(value)
    if isinstance(value, int):
        return int(value)
    if isinstance(value, float):
        return float(value)
    if isinstance(value, Mapping):
        return {_plain(key, name, depth + 1): _plain(item, name, depth + 1) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [_plain(item, name, depth + 1) for item in value]
    raise RequestError(f"{name} holds a {type(value).__name__}; use strings, numbers, lists and dicts")


def _one_line(error: object) -> str:
    return " ".join(str(error).split())[:300]
