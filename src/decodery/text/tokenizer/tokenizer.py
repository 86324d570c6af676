"""Between text and token ids, over the tokenizers library."""

from __future__ import annotations

import operator
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import tokenizers

from decodery.errors import ParameterError
from decodery.text.tokenizer import folder_vocab, gguf_vocab, spelling
from decodery.text.tokenizer.vocabulary import Vocabulary


class Tokenizer:
    """A model's vocabulary: text to ids, ids to text, and the bytes of every token.

    `vocab_size` counts ids, holes included (the model's rows where its files say so). `eos_token_ids` are all
    the tokens that end a text or a turn. `bos_token` and `eos_token` are the strings that chat templates use
    ("" when the model has none). Read-only once a model is open, so threads may share it.
    """

    def __init__(self, vocabulary: Vocabulary) -> None:
        self.vocab_size = vocabulary.size
        self.bos_token_id = vocabulary.bos_token_id
        self.eos_token_ids = vocabulary.eos_token_ids
        self.pad_token_id = vocabulary.pad_token_id
        self.special_ids = vocabulary.special_ids
        self.bos_token = vocabulary.bos_token
        self.eos_token = vocabulary.eos_token
        self.chat_template = vocabulary.chat_template
        self._prefix = list(vocabulary.prefix)
        self._suffix = list(vocabulary.suffix)
        self._spell = vocabulary.spell
        self._spelled = vocabulary.size
        self._bytes: dict[int, bytes] = {}
        self._parsing = vocabulary.backend
        self._literal = _without_special(vocabulary.backend)

    @classmethod
    def from_folder(cls, path: Path) -> Tokenizer:
        """The tokenizer of a folder with a tokenizer.json; CheckpointError when it is missing or damaged."""
        return cls(folder_vocab.read_vocabulary(path))

    @classmethod
    def from_gguf(cls, metadata: Mapping[str, Any]) -> Tokenizer:
        """The tokenizer that a GGUF file's key-values describe (plain Python values, by their GGUF names).

        CheckpointError when the vocabulary is of an unknown kind, incomplete, or contradicts itself.
        """
        return cls(gguf_vocab.read_vocabulary(metadata))

    def cover(self, size: int) -> None:
        """Count ids up to `size`, if that is more; those without a token stand for no text."""
        self.vocab_size = max(self.vocab_size, size)

    def encode(self, text: str, *, add_special_tokens: bool = True, parse_special: bool = True) -> list[int]:
        """The ids of a text, with the tokens that the model expects around a prompt unless told otherwise.

        `parse_special=False` reads a special token's text, such as `<|im_end|>`, as plain characters.
        Two surrogates that make a pair become their character; a lone one becomes U+FFFD.
        """
        if not isinstance(text, str):
            raise ParameterError(f"text must be a str, not {type(text).__name__}")
        backend = self._parsing if parse_special else self._literal
        ids: list[int] = backend.encode(_without_surrogates(text), add_special_tokens=False).ids
        return [*self._prefix, *ids, *self._suffix] if add_special_tokens else ids

    def decode(self, ids: Iterable[int], *, skip_special_tokens: bool = True) -> str:
        """The text of ids that continue a prompt: the bytes of every token in a row, read as UTF-8.

        Invalid bytes become U+FFFD as `bytes.decode("utf-8", "replace")` makes them. The ids are taken
        to continue a text: the space in front of a SentencePiece token is kept on the first token too.
        """
        pieces = [
            self.token_bytes(token)
            for token in ids
            if not (skip_special_tokens and token in self.special_ids)
        ]
        return b"".join(pieces).decode("utf-8", "replace")

    def token_bytes(self, token: int) -> bytes:
        """The bytes that a token stands for: its text for a special token, none for an id without a token.

        ParameterError when the id is not an integer in `range(vocab_size)`.
        """
        known = self._bytes.get(token)
        if known is None:
            place = self._checked(token)
            known = self._bytes[token] = self._spell(place) if place < self._spelled else b""
        return known

    def token_label(self, token: int) -> str:
        """A token on one line, for tables: spaces as `␣`, controls escaped, partial UTF-8 as `\\xNN`."""
        return spelling.label(self.token_bytes(token))

    def _checked(self, token: int) -> int:
        try:
            place = operator.index(token)
        except TypeError:
            raise ParameterError(f"a token id must be an integer, not {type(token).__name__}") from None
        if not 0 <= place < self.vocab_size:
            raise ParameterError(
                f"token id {place} is outside the vocabulary of {self.vocab_size} tokens "
                f"(0 to {self.vocab_size - 1})"
            )
        return place


def _without_special(backend: tokenizers.Tokenizer) -> tokenizers.Tokenizer:
    """A second tokenizer over the same model that does not see special tokens in a text."""
    literal = tokenizers.Tokenizer(backend.model)
    literal.normalizer = backend.normalizer
    literal.pre_tokenizer = backend.pre_tokenizer
    literal.add_tokens([token for _, token in sorted(backend.get_added_tokens_decoder().items())])
    literal.encode_special_tokens = True
    return literal


def _without_surrogates(text: str) -> str:
    try:
        text.encode("utf-8")
    except UnicodeEncodeError:
        return text.encode("utf-16-le", "surrogatepass").decode("utf-16-le", "replace")
    return text
