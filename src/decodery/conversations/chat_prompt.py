"""Writes the prompt of a conversation, in which control tokens come from the chat template alone."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence, Set
from dataclasses import dataclass, replace
from functools import lru_cache
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
# Roles that a template may put into a mark without naming them.
_ROLES = frozenset({"system", "user", "assistant", "tool", "function"})
# Stands in a role of which no mark can be made.
_NO_MARK = "\udffe"

Hide = Callable[[Any, Set[str]], Any]


@dataclass(frozen=True, slots=True)
class _Talk:
    """Holds what a template renders: messages, declared tools, and variables."""

    messages: list[dict[str, Any]]
    tools: Sequence[Tool]
    values: Mapping[str, Any]

    def changed(self, hide: Hide, kept: Set[str]) -> _Talk:
        """Returns a conversation whose texts are hidden; those `kept` stay in the model's contents.

        Roles stay, since templates compare them.
        """
        none: Set[str] = frozenset()
        messages = [
            {
                **hide(message, none),
                "role": message["role"],
                "content": hide(message["content"], kept if message["role"] == "assistant" else none),
            }
            for message in self.messages
        ]
        tools = [replace(tool, declaration=hide(tool.declaration, none)) for tool in self.tools]
        values = {n: v if n in _MARK_VARIABLES else hide(v, none) for n, v in self.values.items()}
        return _Talk(messages, tools, values)


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
        talk = _Talk(messages, tools, values)
        if options.special_in_content:
            adapted, text = self._rendered(template, talk, options)
            return ChatPrompt(text, template, adapted)
        said = self._said_for(self._controls(template))
        for place, message in enumerate(messages):
            _check_message(said, message, f"messages[{place}]")
        kept = frozenset(reasoning_marks(template, self._tokenizer.token_id) or ())
        try:
            adapted, text = self._apart(template, talk.changed(said.hide, kept), options, said, kept)
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

    def _apart(
        self, template: str, talk: _Talk, options: PromptOptions, said: SaidTexts, kept: Set[str]
    ) -> tuple[Adapted, str]:
        """Returns a hidden conversation as the template gets it, and rendered so that it adds no mark.

        A template that changes a text might make a mark of it. So if a render of texts that can begin no mark
        has other marks, that one is returned.
        """
        found = self._rendered(template, talk, options, said)
        marks = said.tokens(found[1])
        self._check_roles(template, talk, options, said, marks)
        strict = talk.changed(said.hide_beginnings, kept)
        if strict == talk:
            return found
        other = self._rendered(template, strict, options, said)
        return found if said.tokens(other[1]) == marks else other

    def _check_roles(
        self, template: str, talk: _Talk, options: PromptOptions, said: SaidTexts, marks: Sequence[int]
    ) -> None:
        """Raises `RequestError` for roles which the template does not name, and of which it makes a mark."""
        roles = dict.fromkeys(message["role"] for message in talk.messages)
        unknown = [role for role in roles if role not in _ROLES and not _is_named(template, role)]
        if not unknown:
            return
        others = {role: f"{_NO_MARK}{place}{_NO_MARK}" for place, role in enumerate(unknown)}
        renamed = [{**m, "role": others.get(m["role"], m["role"])} for m in talk.messages]
        try:
            _, text = self._rendered(template, replace(talk, messages=renamed), options, said)
        except DecoderyError:
            text = None
        if text is None or said.tokens(text) != marks:
            place = next(k for k, message in enumerate(talk.messages) if message["role"] in others)
            names = ", ".join(map(repr, unknown))
            raise fault(f"the chat template does not know the role {names}", f"messages[{place}].role")

    def _rendered(
        self, template: str, talk: _Talk, options: PromptOptions, said: SaidTexts | None = None
    ) -> tuple[Adapted, str]:
        from decodery.text.chat.adaptation import adapt

        for_tools = template == self._tokenizer.chat_templates.get(WITH_TOOLS)
        adapted = adapt(template, talk.messages, talk.tools, for_tools=for_tools)

        def render(messages: list[dict[str, Any]]) -> str:
            text = self._render(template, adapted, options, talk.values, messages)
            return text if said is None else said.unescaped(text)

        messages = adapted.messages
        return adapted, _continued(messages, render) if options.continue_final_message else render(messages)

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


def _is_named(template: str, role: str) -> bool:
    """True if a template contains a role as a quoted word."""
    return role.isidentifier() and any(f"{quote}{role}{quote}" in template for quote in "'\"")


def _check_message(said: SaidTexts, message: Mapping[str, Any], place: str) -> None:
    check_depth(message, place)
    if said.encoder.marks(message["role"]):
        raise fault("a role cannot hold the text of a control token", f"{place}.role")


def _check_continued(message: Mapping[str, Any]) -> None:
    if message["role"] not in ("assistant", "user") or "tool_calls" in message:
        raise RequestError(
            "continue_final_message needs a last message of the model or of the user, without calls",
            param="continue_final_message",
        )


def _continued(messages: list[dict[str, Any]], render: Callable[[list[dict[str, Any]]], str]) -> str:
    """Returns a rendered conversation up to the end of its last message's content.

    White space at its end stays, unless the template removes it. A template may write the content more than
    once: the last place counts.
    """
    last = messages[-1]
    content = last["content"].rstrip()
    space = last["content"][len(content) :]
    text = render([*messages[:-1], {**last, "content": content + END_OF_SAID + space}])
    before, found, after = text.rpartition(END_OF_SAID)
    if not found:
        raise RequestError(
            "the model's chat template cannot continue a message", param="continue_final_message"
        )
    before = before.replace(END_OF_SAID, "")
    bare = render([*messages[:-1], {**last, "content": content + END_OF_SAID}]) if space else text
    trims = space and after == bare.rpartition(END_OF_SAID)[2]
    return before if trims else before + space
