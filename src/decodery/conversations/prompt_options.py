"""Reads the arguments with which a conversation becomes a prompt."""

from __future__ import annotations

import difflib
from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from typing import Any

from decodery.errors import ParameterError, RequestError
from decodery.text.chat.faults import check_depth

# Variables that many templates read. The others ignore them.
COMMON_VARIABLES = ("documents", "enable_thinking")
# Arguments that may also stand among the variables of a template, as other libraries have them.
_ALSO_VARIABLES = ("add_generation_prompt", "continue_final_message")
# What `render_chat` gives to a template in any case.
_OTHER_ARGUMENTS = ("messages", "tools", "add_generation_prompt", "part_roles")
_CALL_ARGUMENTS = ("tool_choice", "parallel_tool_calls", "thinking_token_budget")


@dataclass(frozen=True, slots=True)
class PromptOptions:
    """Holds the arguments with which a conversation becomes a prompt.

    `add_generation_prompt` ends the prompt with the beginning of a reply (None: unless the last message is
    continued). With `continue_final_message` the prompt ends within the last message. `chat_template` is the
    name of one of the model's templates, or a template. `template_kwargs` are variables of the template.
    With `special_in_content`, the text of a control token in a message is that token.
    """

    add_generation_prompt: bool | None = None
    continue_final_message: bool = False
    chat_template: str | None = None
    template_kwargs: Mapping[str, Any] = field(default_factory=dict)
    special_in_content: bool = False

    @property
    def opens_reply(self) -> bool:
        """True if the prompt ends with the beginning of a reply."""
        return not self.continue_final_message and self.add_generation_prompt is not False


NAMES = tuple(option.name for option in fields(PromptOptions))


def read_options(given: Mapping[str, Any]) -> tuple[PromptOptions, dict[str, Any]]:
    """Returns the options among these arguments, and the others, which are variables of the template.

    Raises `ParameterError` for a value of the wrong type, and `RequestError` for options without meaning.
    """
    lifted = with_options(given, "template_kwargs")
    options = PromptOptions(**{name: lifted[name] for name in NAMES if name in lifted})
    for name in ("add_generation_prompt", "continue_final_message", "special_in_content"):
        value = getattr(options, name)
        if not isinstance(value, bool) and not (value is None and name == "add_generation_prompt"):
            raise ParameterError(f"{name} must be True or False, not {value!r}", param=name)
    if options.chat_template is not None and not isinstance(options.chat_template, str):
        raise ParameterError(
            "chat_template must be a text: a template, or the name of one", param="chat_template"
        )
    if not isinstance(options.template_kwargs, Mapping) or not all(
        isinstance(name, str) for name in options.template_kwargs
    ):
        raise ParameterError(
            "template_kwargs must be a dict with names of variables", param="template_kwargs"
        )
    if options.add_generation_prompt and options.continue_final_message:
        raise RequestError(
            "add_generation_prompt and continue_final_message exclude each other: a prompt ends either with"
            " the beginning of a new reply or within the last message",
            param="continue_final_message",
        )
    return options, {name: value for name, value in given.items() if name not in NAMES}


def with_options(given: Mapping[str, Any], place: str) -> dict[str, Any]:
    """Returns these arguments with the options among `template_kwargs` as arguments of their own.

    Raises `RequestError` for such an option that is not true or false, or that an argument contradicts;
    `place` is the caller's name of `template_kwargs`.
    """
    variables = given.get("template_kwargs")
    if not isinstance(variables, Mapping):
        return dict(given)
    found = {name: variables[name] for name in _ALSO_VARIABLES if name in variables}
    for name, value in found.items():
        if not isinstance(value, bool):
            raise RequestError(f"{place}.{name} must be true or false", param=f"{place}.{name}")
        if given.get(name, value) not in (None, value):
            raise RequestError(f"{place}.{name}: {name} says otherwise", param=f"{place}.{name}")
    rest = {name: value for name, value in variables.items() if name not in found}
    return {**given, **found, "template_kwargs": rest}


def template_values(
    options: PromptOptions, variables: Mapping[str, Any], read_by_template: frozenset[str]
) -> dict[str, Any]:
    """Returns the variables of a template: `template_kwargs`, and those that were given as arguments.

    Raises `RequestError` for an argument that the template does not read, with the nearest name, and for a
    variable with the name of an argument.
    """
    known = read_by_template.union(COMMON_VARIABLES) - set(_OTHER_ARGUMENTS)
    for name in variables:
        if name not in known:
            names = [*NAMES, *_OTHER_ARGUMENTS[1:3], *_CALL_ARGUMENTS, *sorted(known)]
            near = difflib.get_close_matches(name, [other for other in names if other != name], n=1)
            hint = f": did you mean {near[0]}?" if near else ""
            raise RequestError(
                f"{name} is neither an argument here nor a variable that the chat template reads{hint}",
                param=name,
            )
    for name in _OTHER_ARGUMENTS:
        if name in options.template_kwargs:
            raise RequestError(
                f"template_kwargs.{name}: this cannot be a variable of the template",
                param=f"template_kwargs.{name}",
            )
    values = {**options.template_kwargs, **variables}
    for name, value in values.items():
        check_depth(value, name)
    return values
