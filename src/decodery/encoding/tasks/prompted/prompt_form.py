"""Writes prompts around texts, in which control tokens come from the chat template alone."""

from __future__ import annotations

import secrets
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from decodery.encoding.encoder_parts import EncoderParts
from decodery.encoding.spans import character_spans
from decodery.encoding.texts import Long, checked
from decodery.errors import ModelError, RequestError
from decodery.text.chat.added_finder import Mark
from decodery.text.tokenizer.tokenizer import without_surrogates

Messages = Callable[[Mapping[str, str]], list[dict[str, Any]]]
"""Returns the messages of a conversation with the given texts at their places."""


@dataclass(frozen=True)
class PromptForm:
    """Holds a prompt with places for texts: `pieces` and, between two of them, the text of a name.

    `names` are those of the texts in their order, one fewer than the pieces. `before` are tokens that begin
    the prompt. `opens_reply`: a chat template has opened the model's reply behind it.
    """

    pieces: tuple[str, ...]
    names: tuple[str, ...]
    before: tuple[int, ...] = ()
    opens_reply: bool = False

    def token_ids(self, parts: EncoderParts, texts: Mapping[str, str]) -> list[int]:
        """Returns the ids of the prompt with these texts; their control tokens are plain text.

        Raises `RequestError` if the vocabulary cannot express a text.
        """
        whole, marks = "", list[Mark]()
        for place, piece in enumerate(self.pieces):
            found = parts.marked.marks(piece)
            marks += [Mark(len(whole) + mark.start, len(whole) + mark.end, mark.token) for mark in found]
            whole += piece
            if place < len(self.names):
                whole += without_surrogates(texts[self.names[place]])
        return [*self.before, *parts.marked.encode(whole, marks)]


def chat_form(parts: EncoderParts, names: Sequence[str], messages: Messages) -> PromptForm:
    """Returns the prompt that the model's chat template makes of messages with the texts of these names.

    A model that can think answers at once. Raises `ModelError` if there is no template, or if it does not
    write each text once.
    """
    # Imported here, since only prompts need jinja2.
    from decodery.text.chat.adaptation import adapt
    from decodery.text.chat.template import render_chat

    tokenizer = parts.tokenizer
    template = tokenizer.chat_template
    if template is None:
        raise ModelError(f"{parts.folder}: the model has no chat template, of which a prompt could be made")
    places = {name: secrets.token_hex(12) for name in names}
    adapted = adapt(template, messages(places), ())
    rendered = render_chat(
        template,
        adapted.messages,
        part_roles=adapted.part_roles,
        bos_token=tokenizer.bos_token,
        eos_token=tokenizer.eos_token,
        enable_thinking=False,
    )
    return replace(form_of(rendered, places), opens_reply=True)


def form_of(text: str, places: Mapping[str, str]) -> PromptForm:
    """Returns the prompt of a text in which each name's text stands at its place once.

    Raises `ModelError` if one does not.
    """
    for name, place in places.items():
        if text.count(place) != 1:
            raise ModelError(f"the prompt holds the {name} {text.count(place)} times; it must hold it once")
    order = sorted(places, key=lambda name: text.index(places[name]))
    pieces = []
    for name in order:
        before, text = text.split(places[name])
        pieces.append(before)
    return PromptForm((*pieces, text), tuple(order))


def read_prompt(
    parts: EncoderParts,
    form: PromptForm,
    texts: Mapping[str, str],
    *,
    cut: str,
    behind: int = 0,
    long: Long = "error",
) -> tuple[list[int], int]:
    """Returns the ids of a prompt, and how many tokens of a text are lost.

    `behind` tokens must fit after it. Of a prompt that is too long, the end of the text `cut` is removed if
    `long` says so, and nothing else. Raises `RequestError` for one that is too long.
    """
    limit = parts.rules.limit - behind
    ids = form.token_ids(parts, texts)
    if len(ids) <= limit:
        return ids, 0
    others = len(form.token_ids(parts, {**texts, cut: ""}))
    if others > limit:
        raise RequestError(
            f"the prompt has {others} tokens without the {cut}, and {limit} fit: shorten the other texts"
        )
    checked(len(ids) - others, limit - others, others + behind, long)
    text = texts[cut]
    spans = character_spans(parts.tokenizer, text)[1]
    kept = len(spans)
    while len(ids) > limit and kept:
        kept = max(kept - (len(ids) - limit), 0)
        ids = form.token_ids(parts, {**texts, cut: text[: spans[kept - 1][1]] if kept else ""})
    return ids, len(spans) - kept
