"""Spells a prompt, to put it in front of the text that follows."""

from __future__ import annotations

from collections.abc import Sequence

from decodery.text.streaming.detokenizer import start
from decodery.text.tokenizer.tokenizer import Tokenizer


def prompt_text(
    tokenizer: Tokenizer, token_ids: Sequence[int], given: str | None
) -> tuple[str, tuple[int, ...]]:
    """Returns the text of a prompt, and where each of its tokens begins in it, in characters.

    `given` is the prompt if it was a text; this text is then returned, and the tokens that the tokenizer put
    before it have none of it. The text of token ids has that of special tokens too.
    """
    prefix = 0 if given is None else len(tokenizer.prefix_ids)
    state, text = start(tokenizer, skip_special_tokens=False), ""
    offsets = []
    for place, token in enumerate(token_ids):
        offsets.append(len(text))
        if place >= prefix:
            state = state.after(token)
            text += state.piece
    text += state.flush()
    if given is None:
        return text, tuple(offsets)
    return given, tuple(min(offset, len(given)) for offset in offsets)
