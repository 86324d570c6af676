"""Converts text to token ids and back with the tokenizers library."""

from __future__ import annotations

import operator
from collections.abc import Iterable, Mapping, Set
from functools import cached_property
from pathlib import Path
from typing import Any

import tokenizers
from tokenizers import AddedToken

from decodery.errors import ParameterError, RequestError
from decodery.text.tokenizer import folder_vocab, gguf_vocab, spelling
from decodery.text.tokenizer.byte_spans import Span, byte_spans
from decodery.text.tokenizer.vocabulary import TextLayout, Vocabulary, layout_of_pairs, layout_of_single
from decodery.token_ids import plain

# Characters from which on a text is encoded without holding Python's lock.
LONG = 20_000


class Tokenizer:
    """Converts text to ids and ids to text in a model's vocabulary, and returns the bytes of every token.

    `vocab_size` counts all ids, also those without a token (the model's rows, if its files give their
    number). `eos_token_ids` are all tokens that end a text or a turn. `named_ids` are the ids of all roles
    that the files declare, by GGUF's names (`bos`, `mask`, `fim_pre` ...). `bos_token` and `eos_token` are
    the strings that chat templates use ("" when the model has none). `chat_templates` are the model's chat
    templates by name. `prefix_ids` are the tokens that the model expects before a prompt. `warnings` say
    which faults of the files were corrected. Nothing changes once a model is open, so threads may share it.
    """

    def __init__(self, vocabulary: Vocabulary) -> None:
        self.vocab_size = vocabulary.size
        self.bos_token_id = vocabulary.bos_token_id
        self.eos_token_ids = vocabulary.eos_token_ids
        self.pad_token_id = vocabulary.pad_token_id
        self.special_ids = vocabulary.special_ids
        self.named_ids = vocabulary.named_ids
        self.bos_token = vocabulary.bos_token
        self.eos_token = vocabulary.eos_token
        self.chat_templates = vocabulary.chat_templates
        self.warnings = vocabulary.warnings
        self.prefix_ids = list(vocabulary.prefix)
        self._suffix = list(vocabulary.suffix)
        self._spell = vocabulary.spell
        self._spelled = vocabulary.size
        self._bytes: dict[int, bytes] = {}
        self._parsing = vocabulary.backend
        self.vocabulary = vocabulary

    @cached_property
    def _literal(self) -> tokenizers.Tokenizer:
        return literal_backend(self.vocabulary, self.special_ids)

    @cached_property
    def single_layout(self) -> TextLayout:
        """Returns the special tokens around a text, with their segments."""
        return layout_of_single(self._parsing, self.prefix_ids, self._suffix)

    @cached_property
    def pair_layout(self) -> TextLayout | None:
        """Returns the special tokens around and between two texts; None if the tokenizer declares none."""
        return layout_of_pairs(self._parsing)

    @cached_property
    def added_tokens(self) -> Mapping[int, str]:
        """Returns the texts of the tokens that are found in a text before it is split, by their ids."""
        return {token: added.content for token, added in self._parsing.get_added_tokens_decoder().items()}

    @classmethod
    def from_folder(cls, path: Path) -> Tokenizer:
        """Returns a folder's tokenizer. Raises `CheckpointError` if it has none, or if a file is damaged."""
        return cls(folder_vocab.read_vocabulary(path))

    @classmethod
    def from_gguf(cls, metadata: Mapping[str, Any]) -> Tokenizer:
        """Returns the tokenizer of a GGUF file's key-values (plain Python values, by their GGUF names).

        Raises `CheckpointError` when the vocabulary is of an unknown kind, incomplete or inconsistent.
        """
        return cls(gguf_vocab.read_vocabulary(metadata))

    def cover(self, size: int) -> None:
        """Raises `vocab_size` to `size` if that is larger; the new ids have no bytes."""
        self.vocab_size = max(self.vocab_size, size)

    @property
    def chat_template(self) -> str | None:
        """Returns the chat template for conversations without tools, or None."""
        return self.chat_templates.get("default")

    def encode(self, text: str, *, add_special_tokens: bool = True, parse_special: bool = True) -> list[int]:
        """Returns the ids of a text.

        `add_special_tokens` adds the tokens that the model expects around a prompt. With
        `parse_special=False`, the text of a special token, such as `<|im_end|>`, is encoded as plain
        characters. A pair of surrogates becomes its character; a lone one becomes U+FFFD. Raises
        `RequestError` when the vocabulary cannot express the text and has no unknown token.
        """
        ids = self._encoding(text, self._parsing if parse_special else self._literal).ids
        return [*self.prefix_ids, *ids, *self._suffix] if add_special_tokens else ids

    def continuing_ids(self, text: str) -> list[int]:
        """Returns the ids of a text that follows another one. Texts of special tokens in it are plain text.

        SentencePiece adds a space in front of a text, but not after a line end.
        """
        ids, line, both = (
            self.encode(part, add_special_tokens=False, parse_special=False)
            for part in (text, "\n", "\n" + text)
        )
        adds_space = text != "" and self.decode(ids) == " " + text
        return both[len(line) :] if adds_space and both[: len(line)] == line else ids

    def encode_spans(self, text: str, *, add_special_tokens: bool = True) -> tuple[list[int], list[Span]]:
        """Returns what `encode` returns, and the span in bytes of each token in the UTF-8 of the text.

        `byte_spans` says which; a token that is added around the text takes no bytes. A lone surrogate counts
        as the three bytes of U+FFFD. Raises the errors of `encode`.
        """
        found = self._encoding(text, self._parsing)
        text = without_surrogates(text)
        spans = byte_spans(text, [self.token_bytes(token) for token in found.ids], found.offsets)
        if not add_special_tokens:
            return found.ids, spans
        size = len(text.encode())
        before, after = [(0, 0)] * len(self.prefix_ids), [(size, size)] * len(self._suffix)
        return [*self.prefix_ids, *found.ids, *self._suffix], [*before, *spans, *after]

    def _encoding(self, text: str, backend: tokenizers.Tokenizer) -> tokenizers.Encoding:
        if not isinstance(text, str):
            raise ParameterError(f"text must be a str, not {type(text).__name__}")
        try:
            return encoding(backend, without_surrogates(text))
        except Exception as error:  # The library raises bare exceptions.
            raise RequestError(f"the model's vocabulary cannot express this text: {error}") from None

    def decode(self, ids: Iterable[int], *, skip_special_tokens: bool = True) -> str:
        """Returns the text of ids that continue a prompt: the bytes of all tokens, decoded as UTF-8.

        Invalid bytes become U+FFFD, as in `bytes.decode("utf-8", "replace")`. Since the ids continue a text,
        the first token too keeps the space in front of a SentencePiece token.
        """
        pieces = [
            self.token_bytes(token)
            for token in map(plain, plain(ids))
            if not (skip_special_tokens and token in self.special_ids)
        ]
        return b"".join(pieces).decode("utf-8", "replace")

    def token_id(self, text: str) -> int | None:
        """Returns the id of the token that the vocabulary writes as `text`, such as `<|fim_prefix|>`."""
        found: int | None = self._parsing.token_to_id(text)
        return found

    def token_text(self, token: int) -> str:
        """Returns a token as the vocabulary writes it, such as `##ing` or `▁the`; "" if it has none.

        Raises the errors of `token_bytes`.
        """
        return self._parsing.id_to_token(self._checked(token)) or ""

    def token_bytes(self, token: int) -> bytes:
        """Returns the bytes of a token: its own text for a special token, none for an id without a token.

        Raises `ParameterError` when the id is not an integer in `range(vocab_size)`.
        """
        known = self._bytes.get(token)
        if known is None:
            place = self._checked(token)
            known = self._bytes[place] = self._spell(place) if place < self._spelled else b""
        return known

    def token_label(self, token: int) -> str:
        """Returns a token on one line: spaces as `␣`, controls escaped, partial UTF-8 as `\\xNN`."""
        return spelling.label(self.token_bytes(token))

    def _checked(self, token: int) -> int:
        token = plain(token)
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


def literal_backend(vocabulary: Vocabulary, hidden: Set[int]) -> tokenizers.Tokenizer:
    """Returns a tokenizer with the same ids that encodes the texts of the tokens `hidden` as plain text."""
    backend = vocabulary.backend
    model = backend.model if vocabulary.literal_model is None else vocabulary.literal_model()
    literal = tokenizers.Tokenizer(model)
    literal.normalizer = backend.normalizer
    literal.pre_tokenizer = backend.pre_tokenizer
    size = backend.get_vocab_size(with_added_tokens=False)
    added: Mapping[int, AddedToken] = backend.get_added_tokens_decoder()
    literal.add_tokens(
        [
            _flagged(token, special=place in hidden)
            for place, token in sorted(added.items())
            if place >= size or place not in hidden
        ]
    )
    literal.encode_special_tokens = True
    return literal


def encoding(backend: tokenizers.Tokenizer, text: str) -> tokenizers.Encoding:
    """Returns the tokens of a text, without those around it."""
    if len(text) < LONG:
        return backend.encode(text, add_special_tokens=False)
    # Other threads can run meanwhile, which they cannot during `encode`.
    return backend.encode_batch([text], add_special_tokens=False)[0]


def _flagged(token: AddedToken, *, special: bool) -> AddedToken:
    return AddedToken(
        token.content,
        single_word=token.single_word,
        lstrip=token.lstrip,
        rstrip=token.rstrip,
        normalized=token.normalized,
        special=special,
    )


def without_surrogates(text: str) -> str:
    """Returns a text in which pairs of surrogates are their character, and lone ones are U+FFFD."""
    try:
        text.encode("utf-8")
    except UnicodeEncodeError:
        return text.encode("utf-16-le", "surrogatepass").decode("utf-16-le", "replace")
    return text
