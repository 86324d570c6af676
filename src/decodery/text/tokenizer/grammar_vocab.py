"""Prepares a model's tokens for the grammar library."""

from __future__ import annotations

from collections.abc import Sequence
from typing import cast

from llguidance import LLTokenizer, TokenizerWrapper

from decodery.text.tokenizer.tokenizer import Tokenizer

# No byte-pair merge and no normalizer changes this character, so a text after it is encoded as in mid-text.
_ANCHOR = "\x02"


def grammar_vocabulary(tokenizer: Tokenizer) -> LLTokenizer:
    """Returns the bytes of all `vocab_size` tokens, and one more id, the last, for the end of the text.

    That id is not a token of the model, since the tokens that end a text differ from row to row. Special
    tokens, end tokens and ids without a token have no text here. Call `tokenizer.cover` with the number of
    the model's rows first.
    """
    return LLTokenizer(cast(TokenizerWrapper, _Tokens(tokenizer)))


class _Tokens:
    """Has the attributes and the call that LLTokenizer needs of a vocabulary."""

    is_tokenizer_wrapper = True
    bos_token_id = None

    def __init__(self, tokenizer: Tokenizer) -> None:
        size = tokenizer.vocab_size
        self.tokens = [*(tokenizer.token_bytes(token) for token in range(size)), b""]
        self.eos_token_id = size
        self.special_token_ids = sorted(tokenizer.special_ids | set(tokenizer.eos_token_ids))
        self._tokenizer = tokenizer
        self._ids: dict[bytes, int] = {}

    def __call__(self, text: str) -> list[int]:
        """Returns the ids of this text where it continues another text, as the model would encode it."""
        spelling = text.encode()
        ids = self._encode(text)
        if self._spelled(ids) == spelling:
            return ids
        ids = self._encode(_ANCHOR + text)
        for start in range(1, min(len(ids), 4)):
            if self._spelled(ids[:start]).endswith(_ANCHOR.encode()):
                ids = ids[start:]
                break
        return ids if self._spelled(ids) == spelling else self._longest_first(spelling)

    def _encode(self, text: str) -> list[int]:
        return self._tokenizer.encode(text, add_special_tokens=False, parse_special=False)

    def _spelled(self, ids: Sequence[int]) -> bytes:
        return b"".join(self.tokens[token] for token in ids)

    def _longest_first(self, text: bytes) -> list[int]:
        """Returns the longest token at each place, or no ids if none fits; for tokenizers that alter text."""
        if not self._ids:
            special = set(self.special_token_ids)
            self._ids = {b: i for i, b in reversed(list(enumerate(self.tokens))) if b and i not in special}
        longest = max(map(len, self._ids), default=0)
        ids: list[int] = []
        at = 0
        while at < len(text):
            for end in range(min(at + longest, len(text)), at, -1):
                token = self._ids.get(text[at:end])
                if token is not None:
                    ids.append(token)
                    at = end
                    break
            else:
                return []
        return ids
