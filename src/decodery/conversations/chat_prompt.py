"""Writes the prompt of a conversation, in which control tokens come from the chat template alone."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import lru_cache, partial
from typing import Any

from decodery.conversations.prompt_options import PromptOptions, read_options, template_values
from decodery.errors import DecoderyError, RequestError
from decodery.text.chat.faults import check_depth, fault
from decodery.text.chat.marked_encoder import MarkedEncoder
from decodery.text.chat.named_templates import WITH_TOOLS, chosen_template
from decodery.text.chat.reasoning import is_reasoning_mark, reasoning_marks
from decodery.text.chat.said_texts import END_OF_SAID, SaidTexts
from decodery.text.chat.tools import Adapted, Tool
from decodery.text.tokenizer.tokenizer import Tokenizer

# Variables whose value is the text of a control token.
_MARK_VARIABLES = ("bos_token", "eos_token")
_SHORTEST_MARK = 3


@dataclass(frozen=True, slots=True)
class ChatPrompt:
    """Holds the prompt of a conversation as text, and how it was written.

    `template` is the chat template, `adapted` the conversation as the template got it. `hidden` is the text
    in which `said` hides texts of control tokens. Without `said`, all of these are tokens.
    """

    text: str
    template: str
    adapted: Adapted
    said: SaidTexts | None = None
    hidden: str = ""


class PromptWriter:
    """Writes the prompts of conversations for one tokenizer. Threads may share it."""

    def __init__(self, tokenizer: Tokenizer) -> None:
        self._tokenizer = tokenizer
        # The controls of a conversation depend on its template, and seldom differ.
        self._said_for = lru_cache(maxsize=8)(self._new_said)

    def write(
        self, messages: list[dict[str, Any]], tools: Sequence[Tool], arguments: Mapping[str, Any]
    ) -> ChatPrompt:
        """Returns the prompt of messages, as `read_messages` returns them.

        `arguments` are those of `PromptOptions` and variables of the template. Raises `ParameterError`,
        `RequestError` and `ModelError`.
        """
        # Imported here, since only conversations need jinja2.
        from decodery.text.chat.template import template_variables

        options, variables = read_options(arguments)
        template = chosen_template(self._tokenizer.chat_templates, options.chat_template, tools=bool(tools))
        values = template_values(options, variables, template_variables(template))
        if options.continue_final_message:
            _check_continued(messages[-1])
        if options.special_in_content:
            adapted, text = self._rendered(template, messages, tools, options, values)
            return ChatPrompt(text, template, adapted)
        said = self._said_for(self._controls(template))
        kept = reasoning_marks(template, self._tokenizer.token_id) or ()
        hidden = [_hidden(said, m, f"messages[{k}]", frozenset(kept)) for k, m in enumerate(messages)]
        declared = [replace(tool, declaration=said.hide(tool.declaration)) for tool in tools]
        values = {n: v if n in _MARK_VARIABLES else said.hide(v) for n, v in values.items()}
        try:
            adapted, text = self._rendered(template, hidden, declared, options, values)
        except DecoderyError as error:
            raise type(error)(said.show(str(error)), param=error.param) from None
        return ChatPrompt(said.show(text), template, adapted, said, text)

    def token_ids(self, prompt: ChatPrompt) -> list[int]:
        """Returns the token ids of a prompt. Raises `RequestError` if the vocabulary cannot express it."""
        said = prompt.said
        if said is not None and said.holds_hidden(prompt.hidden):
            return said.encoder.encode(prompt.text, said.encoder.marks(prompt.hidden))
        ids = self._tokenizer.encode(prompt.text, add_special_tokens=False)
        if said is None or said.encoder.finds_all:
            return ids
        marks = said.encoder.marks(prompt.hidden)
        return said.encoder.encode(prompt.text, marks) if said.encoder.count(ids) > len(marks) else ids

    def _controls(self, template: str) -> frozenset[int]:
        """Returns the control tokens: the special ones, and those that a template writes around turns."""
        from decodery.text.chat.template_traits import template_traits

        turns = template_traits(template).turns
        added = self._tokenizer.added_tokens.items()
        return self._tokenizer.special_ids | {
            token for token, text in added if text in turns and _is_mark_of_turns(text)
        }

    def _new_said(self, controls: frozenset[int]) -> SaidTexts:
        return SaidTexts(MarkedEncoder(self._tokenizer, controls))

    def _rendered(
        self,
        template: str,
        messages: list[dict[str, Any]],
        tools: Sequence[Tool],
        options: PromptOptions,
        values: Mapping[str, Any],
    ) -> tuple[Adapted, str]:
        from decodery.text.chat.adaptation import adapt

        for_tools = template == self._tokenizer.chat_templates.get(WITH_TOOLS)
        adapted = adapt(template, messages, tools, for_tools=for_tools)
        render = partial(self._render, template, adapted, options, values)
        return adapted, _continued(adapted.messages, render) if options.continue_final_message else render(
            adapted.messages
        )

    def _render(
        self,
        template: str,
        adapted: Adapted,
        options: PromptOptions,
        values: Mapping[str, Any],
        messages: list[dict[str, Any]],
    ) -> str:
        from decodery.text.chat.template import render_chat

        marks = {"bos_token": self._tokenizer.bos_token, "eos_token": self._tokenizer.eos_token}
        return render_chat(
            template,
            messages,
            tools=adapted.tools,
            part_roles=adapted.part_roles,
            add_generation_prompt=options.opens_reply,
            **{**marks, **values},
        )


def _is_mark_of_turns(text: str) -> bool:
    """True if an added token that stands in a conversation is a mark around its turns.

    Others are marks of reasoning, which models and templates read in contents, and words.
    """
    bare = text.strip()
    is_word = len(bare) < _SHORTEST_MARK or bare[0].isalnum() or bare[-1].isalnum()
    return not is_word and not is_reasoning_mark(text)


def _hidden(said: SaidTexts, message: Mapping[str, Any], place: str, kept: frozenset[str]) -> dict[str, Any]:
    """Returns a message whose texts hold no control tokens.

    The model's own marks of reasoning, `kept`, stay in its content, for templates look for them.
    """
    check_depth(message, place)
    role, content = message["role"], message["content"]
    if said.encoder.marks(role):
        raise fault("a role cannot hold the text of a control token", f"{place}.role")
    hidden: dict[str, Any] = said.hide(message)
    written = said.hide(content, kept if role == "assistant" else frozenset())
    return {**hidden, "role": role, "content": written}


def _check_continued(message: Mapping[str, Any]) -> None:
    if message["role"] not in ("assistant", "user") or "tool_calls" in message:
        raise RequestError(
            "continue_final_message needs a last message of the model or of the user, without calls",
            param="continue_final_message",
        )


def _continued(messages: list[dict[str, Any]], render: Callable[[list[dict[str, Any]]], str]) -> str:
    """Returns a rendered conversation up to the end of its last message's content.

    White space at its end stays, unless the template removes it.
    """
    last = messages[-1]
    content = last["content"].rstrip()
    space = last["content"][len(content) :]
    text = render([*messages[:-1], {**last, "content": content + END_OF_SAID + space}])
    before, found, _ = text.rpartition(END_OF_SAID)
    if not found:
        raise RequestError(
            "the model's chat template cannot continue a message", param="continue_final_message"
        )
    trims = space and text == render([*messages[:-1], {**last, "content": content + END_OF_SAID}])
    return before if trims else before + space
