"""Holds the tokens whose spelling is known, where there is no vocabulary."""

from __future__ import annotations

from collections.abc import Iterable

from decodery.errors import ParameterError
from decodery.text.tokenizer import spelling
from decodery.token_ids import plain


class KnownTokens:
    """Offers the bytes and texts of the tokens that it was given, as a `Tokenizer` does of all."""

    def __init__(self, vocab_size: int = 0) -> None:
        self.vocab_size = vocab_size
        self.special_ids: set[int] = set()
        self._bytes: dict[int, bytes] = {}

    def add(self, token: int, data: bytes, *, special: bool) -> None:
        """Adds a token with its bytes."""
        self._bytes[token] = data
        if special:
            self.special_ids.add(token)

    def token_bytes(self, token: int) -> bytes:
        """Returns the bytes of a token. Raises `ParameterError` for one that is not known."""
        data = self._bytes.get(token)
        if data is None:
            raise ParameterError(f"the spelling of token {token} is not known")
        return data

    def token_label(self, token: int) -> str:
        """Returns a token on one line, with control characters and spaces visible."""
        return spelling.label(self.token_bytes(token))

    def decode(self, ids: Iterable[int], *, skip_special_tokens: bool = True) -> str:
        """Returns the text of ids that continue a prompt, as `Tokenizer.decode` does."""
        kept = [
            token
            for token in map(plain, plain(ids))
            if not (skip_special_tokens and token in self.special_ids)
        ]
        return b"".join(self.token_bytes(token) for token in kept).decode("utf-8", "replace")
