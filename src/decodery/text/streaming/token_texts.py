"""Declares what showing tokens needs of a tokenizer, so that it can be done where there is no vocabulary."""

from __future__ import annotations

from collections.abc import Iterable, Set
from typing import Protocol


class TokenTexts(Protocol):
    """Offers the bytes and texts of tokens, as a `Tokenizer` does."""

    @property
    def vocab_size(self) -> int:
        """Returns the number of token ids."""

    @property
    def special_ids(self) -> Set[int]:
        """Returns the ids of special tokens."""

    def token_bytes(self, token: int) -> bytes:
        """Returns the bytes of a token."""

    def token_label(self, token: int) -> str:
        """Returns a token on one line, with control characters and spaces visible."""

    def decode(self, ids: Iterable[int], *, skip_special_tokens: bool = True) -> str:
        """Returns the text of ids that continue a prompt."""
