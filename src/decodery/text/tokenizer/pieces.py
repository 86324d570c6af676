"""Builds tokenizers of the tokenizers library from SentencePiece vocabularies."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import tokenizers
from tokenizers import AddedToken, NormalizedString, PreTokenizedString, decoders, models, pre_tokenizers

from decodery.errors import CheckpointError
from decodery.text.tokenizer import spelling
from decodery.text.tokenizer.character_rules import CharacterRules
from decodery.text.tokenizer.score_merges import ScoreMerges, order_is_by_place
from decodery.text.tokenizer.spelling import BYTE, CONTROL, NORMAL, UNKNOWN, UNUSED, USER_DEFINED

Merges = list[tuple[str, str]]


@dataclass(frozen=True, slots=True)
class Pieces:
    """Holds a SentencePiece vocabulary and the way in which it changes a text.

    `texts`, `scores` and `kinds` have one entry for each id. `rules` is a compiled character map (b"" for
    none). `merge_spaces`: runs of spaces become one, and those at both ends are removed. `space_prefix`: a
    text gets a space in front, or behind with `space_behind`. `prefix_each`: so does the text after each
    special token. `mark_spaces`: spaces become U+2581.
    """

    texts: Sequence[str]
    scores: Sequence[float]
    kinds: Sequence[int]
    unknown: int | None
    rules: bytes = b""
    merge_spaces: bool = False
    space_prefix: bool = True
    space_behind: bool = False
    prefix_each: bool = False
    mark_spaces: bool = True


def unigram_backend(pieces: Pieces) -> tokenizers.Tokenizer:
    """Returns a tokenizer that finds the likeliest pieces (Kudo 2018). Raises `CheckpointError`.

    Its model also finds the pieces of special tokens in a text that is not cut at them, so a text of which
    special tokens are no part needs the model of `literal_unigram`.
    """
    # The library finds byte tokens in a text, too. They are cut before their last character.
    names = [text for text, kind in zip(pieces.texts, pieces.kinds, strict=True) if kind == BYTE]
    return _backend(
        _unigram(pieces, ()), pieces, [rf"(?<={re.escape(name[:-1])})(?={name[-1]})" for name in names]
    )


def literal_unigram(pieces: Pieces) -> models.Unigram:
    """Returns the model of a tokenizer that does not find special tokens in a text."""
    return _unigram(pieces, (CONTROL, UNKNOWN))


def _unigram(pieces: Pieces, hidden: Sequence[int]) -> models.Unigram:
    if pieces.unknown is None:
        raise CheckpointError("the vocabulary has no unknown token, which the Unigram model needs")
    scored = list(zip(_written(pieces, hidden), map(float, pieces.scores), strict=True))
    return models.Unigram(scored, pieces.unknown, BYTE in pieces.kinds)


def bpe_backend(pieces: Pieces) -> tokenizers.Tokenizer:
    """Returns a tokenizer that merges the neighbours whose piece has the best score."""
    vocabulary = {text: place for place, text in enumerate(_written(pieces))}
    merges = merges_from_scores(pieces.texts, pieces.scores, pieces.kinds)
    model = _bpe(vocabulary, merges, pieces)
    columns = (pieces.texts, pieces.scores, pieces.kinds)
    by_place = ScoreMerges(*columns, pieces.unknown) if order_is_by_place(*columns) else None
    return _backend(model, pieces, merges=by_place)


def character_backend(pieces: Pieces) -> tokenizers.Tokenizer:
    """Returns a tokenizer that makes each character a token."""
    vocabulary = {text: place for place, text in enumerate(_written(pieces))}
    return _backend(_bpe(vocabulary, [], pieces), pieces)


def word_backend(pieces: Pieces) -> tokenizers.Tokenizer:
    """Returns a tokenizer that makes each word a token, with the space mark in front of it."""
    if pieces.unknown is None:
        raise CheckpointError("the vocabulary has no unknown token, which a vocabulary of words needs")
    vocabulary = {text: place for place, text in enumerate(_written(pieces))}
    model = models.WordLevel(vocabulary, pieces.texts[pieces.unknown])
    return _backend(model, pieces, [f"(?={spelling.SPACE_MARK})"])


def merges_from_scores(texts: Sequence[str], scores: Sequence[float], kinds: Sequence[int]) -> Merges:
    """Returns the merges that scores imply: pairs whose text is a normal piece, best score first.

    Of the pairs with the same text the one with the longer left half comes first, so that repetitions of one
    character merge from the left. This is SentencePiece's order unless `order_is_by_place`.
    """
    normal = {text for text, kind in zip(texts, kinds, strict=True) if kind == NORMAL}
    found: list[tuple[float, int, str, str]] = []
    for text, score, kind in zip(texts, scores, kinds, strict=True):
        if kind != NORMAL:
            continue
        for cut in range(len(text) - 1, 0, -1):
            left = text[:cut]
            if left in normal and text[cut:] in normal:
                found.append((-score, -cut, left, text[cut:]))
    found.sort(key=lambda pair: pair[:2])
    return [(left, right) for _, _, left, right in found]


def _bpe(vocabulary: dict[str, int], merges: Merges, pieces: Pieces) -> models.BPE:
    unknown = pieces.texts[pieces.unknown] if pieces.unknown is not None else None
    byte_fallback = BYTE in pieces.kinds
    return models.BPE(vocabulary, merges, unk_token=unknown, fuse_unk=True, byte_fallback=byte_fallback)


def _written(pieces: Pieces, hidden: Sequence[int] = ()) -> list[str]:
    """Returns the pieces' texts as the library compares them with a text.

    Those of the `hidden` kinds, and unused ones, are in no text. Those of the user are found before spaces
    are marked.
    """
    written = []
    for place, (text, kind) in enumerate(zip(pieces.texts, pieces.kinds, strict=True)):
        if kind == UNUSED or kind in hidden or not text:
            text = f"\uffff{place}\uffff"
        written.append(text.replace(spelling.SPACE_MARK, " ") if kind == USER_DEFINED else text)
    return written


def _backend(
    model: Any, pieces: Pieces, cuts: Sequence[str] = (), merges: ScoreMerges | None = None
) -> tokenizers.Tokenizer:
    """Returns a tokenizer that changes a text, cuts it where a regex matches, and encodes it."""
    backend = tokenizers.Tokenizer(model)
    backend.pre_tokenizer = pre_tokenizers.PreTokenizer.custom(_Change(pieces, cuts, merges))
    marks = [decoders.Replace(spelling.SPACE_MARK, " ")] if pieces.mark_spaces else []
    backend.decoder = decoders.Sequence([*marks, decoders.ByteFallback(), decoders.Fuse()])
    backend.add_tokens(
        [
            AddedToken(text, special=kind != USER_DEFINED, normalized=False)
            for text, kind in zip(_written(pieces), pieces.kinds, strict=True)
            if kind in (UNKNOWN, CONTROL, USER_DEFINED)
        ]
    )
    return backend


class _Change:
    """Changes the text between added tokens as SentencePiece's normalizer does, for `PreTokenizer.custom`."""

    def __init__(self, pieces: Pieces, cuts: Sequence[str], merges: ScoreMerges | None) -> None:
        self._pieces = pieces
        self._merges = merges
        self._rules = CharacterRules(pieces.rules) if pieces.rules else None
        self._cuts = re.compile("|".join(cuts)) if cuts else None

    def pre_tokenize(self, text: PreTokenizedString) -> None:
        parts = text.get_splits()
        inside = [tokens is not None and self._is_user_defined(tokens) for _, _, tokens in parts]
        each = self._pieces.prefix_each
        last = len(parts) - 1

        def change(place: int, part: NormalizedString) -> list[NormalizedString]:
            front = place == 0 or (each and not inside[place - 1])
            behind = place == last or (each and not inside[place + 1])
            changed = self._changed(str(part), front, behind, place == last or not inside[place + 1])
            return [NormalizedString(piece) for piece in self._cut(changed)]

        text.split(change)
        if self._merges is not None:
            self._merges.pre_tokenize(text)

    def _is_user_defined(self, tokens: Sequence[tokenizers.Token]) -> bool:
        kinds = self._pieces.kinds
        return any(token.id < len(kinds) and kinds[token.id] == USER_DEFINED for token in tokens)

    def _changed(self, text: str, front: bool, behind: bool, trimmed: bool) -> str:
        """Returns a changed part. `front`, `behind`: it ends the text there; `trimmed`: no space stays."""
        pieces = self._pieces
        if self._rules is not None:
            text = self._rules(text)
        if pieces.merge_spaces:
            text = re.sub(" {2,}", " ", text)
            text = text.lstrip(" ") if front else text
            text = text.rstrip(" ") if trimmed else text
        if text and pieces.space_prefix:
            text = f"{text} " if pieces.space_behind and behind else text
            text = f" {text}" if front and not pieces.space_behind else text
        return text.replace(" ", spelling.SPACE_MARK) if pieces.mark_spaces else text

    def _cut(self, text: str) -> list[str]:
        parts = [text] if self._cuts is None else self._cuts.split(text)
        return [part for part in parts if part]
