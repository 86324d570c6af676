"""Encodes texts in which control tokens stand only where they are meant."""

from __future__ import annotations

import secrets
from collections.abc import Sequence, Set

from tokenizers import AddedToken

from decodery.errors import RequestError
from decodery.text.chat.added_finder import AddedFinder, Mark
from decodery.text.tokenizer.tokenizer import Tokenizer, encoding, literal_backend


class MarkedEncoder:
    """Finds the texts of control tokens, and encodes a text in which only some of them are tokens.

    `controls` are the ids of control tokens. The other added tokens are always found. `finds_all` is True if
    the tokenizer finds no control token where `marks` does not: one with a normalizer may make its text of
    another. Threads may share it.
    """

    def __init__(self, tokenizer: Tokenizer, controls: Set[int]) -> None:
        vocabulary = tokenizer.vocabulary
        added = vocabulary.backend.get_added_tokens_decoder()
        self.texts = {token: added[token].content for token in sorted(controls) if token in added}
        self._finder = AddedFinder(added)
        found_after_changes = any(added[token].normalized for token in self.texts)
        self.finds_all = not found_after_changes and vocabulary.literal_model is None
        self._unknown = {vocabulary.named_ids.get(name) for name in ("unk", "unknown")}
        # A text that nobody can guess, so that no prompt contains it.
        self._guard = f"[{secrets.token_hex(16)}]"
        self._literal = literal_backend(vocabulary, controls)
        self._literal.add_tokens([AddedToken(self._guard, normalized=False)])
        self._guard_id = self._literal.token_to_id(self._guard)

    def marks(self, text: str) -> list[Mark]:
        """Returns the places of all texts of control tokens, from left to right."""
        return [mark for mark in self._finder.marks(text) if mark.token in self.texts]

    def count(self, ids: Sequence[int]) -> int:
        """Returns how many of these ids are control tokens."""
        return sum(token in self.texts for token in ids)

    def encode(self, text: str, marks: Sequence[Mark]) -> list[int]:
        """Returns the ids of a text in which the control tokens at `marks` are tokens.

        All other texts of control tokens are plain text. Raises `RequestError` for a vocabulary that cannot
        express such a text otherwise than by the token.
        """
        parts, end = [], 0
        for mark in marks:
            parts.append(text[end : mark.start])
            end = mark.end
        parts.append(text[end:])
        try:
            ids = encoding(self._literal, self._guard.join(parts)).ids
        except Exception as error:  # The library raises bare exceptions.
            raise RequestError(f"the model's vocabulary cannot express this text: {error}") from None
        said = "\0".join(parts)
        for token in set(ids) & (self.texts.keys() - self._unknown):
            if self.texts[token] in said:
                raise RequestError(
                    f"the text {self.texts[token]!r} always is a control token in this model's vocabulary: "
                    "leave it out, or give special_in_content=True"
                )
        meant = iter(mark.token for mark in marks)
        return [next(meant) if token == self._guard_id else token for token in ids]
