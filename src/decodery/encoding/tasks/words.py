"""Divides texts into words, and finds the tokens of each."""

from __future__ import annotations

import unicodedata
from bisect import bisect_right
from collections.abc import Sequence
from itertools import accumulate
from typing import NamedTuple

from decodery.encoding.tasks.pieces import continues_word
from decodery.text.tokenizer.tokenizer import Tokenizer

Span = tuple[int, int]

# Marks that may stand inside a word, between two of its letters or digits.
_APOSTROPHES = "'\N{RIGHT SINGLE QUOTATION MARK}"
_INSIDE = frozenset(f"{_APOSTROPHES}-.@&_\N{MIDDLE DOT}\N{HYPHEN}\N{NON-BREAKING HYPHEN}")
# The names of letters in scripts that write no spaces between words.
_WITHOUT_SPACES = (
    *("CJK", "HIRAGANA", "KATAKANA", "HALFWIDTH KATAKANA", "IDEOGRAPHIC", "THAI", "LAO", "KHMER", "MYANMAR"),
    *("BOPOMOFO", "TIBETAN"),
)


class Word(NamedTuple):
    """Holds a word of a text: its characters, and its tokens as a slice of the text's tokens."""

    start: int
    end: int
    first: int
    last: int


def word_spans(text: str) -> list[Span]:
    """Returns the characters of each word of a text.

    A word is a run of letters, digits and the marks upon them; points, hyphens and the like inside it belong
    to it. A final 's is a word of its own, as in the data that taggers are trained on. Any other character
    that is no space is a word of its own, as is each letter of a script that writes no spaces between words.
    """
    spans: list[Span] = []
    joins = False  # True if the next letter continues the last word.
    for place, character in enumerate(text):
        kind = _kind(character)
        follows = bool(spans) and spans[-1][1] == place
        inside = kind == "inside" and place + 1 < len(text) and _kind(text[place + 1]) == "letter"
        if follows and (kind == "mark" or (joins and (kind == "letter" or inside))):
            spans[-1] = (spans[-1][0], place + 1)
        elif kind != "space":
            spans.append((place, place + 1))
            joins = kind == "letter"
    return [part for span in spans for part in _without_possessive(text, span)]


def _without_possessive(text: str, word: Span) -> list[Span]:
    """Returns a word, or the two that it is if it ends in 's."""
    start, end = word
    if end - start < 3 or text[end - 2] not in _APOSTROPHES or text[end - 1] not in "sS":
        return [word]
    return [(start, end - 2), (end - 2, end)]


def _kind(character: str) -> str:
    """Returns "letter", "mark" (upon a letter), "alone", "inside" (a word, maybe), "other" or "space"."""
    if character in _INSIDE:
        return "inside"
    category = unicodedata.category(character)
    if category[0] == "M" or category == "Cf":
        return "mark"
    if category[0] in "LN":
        if character.isascii() or not unicodedata.name(character, "").startswith(_WITHOUT_SPACES):
            return "letter"
        return "alone"
    return "space" if character.isspace() or category[0] in "ZC" else "other"


def token_spans(tokenizer: Tokenizer, text: str) -> tuple[list[int], list[Span]]:
    """Returns the tokens of a text, and the characters that each stands for, without spaces around them.

    The text must have no lone surrogates.
    """
    ids, spans = tokenizer.encode_spans(text, add_special_tokens=False)
    ends = [0, *accumulate(len(character.encode()) for character in text)]
    found = []
    for start, end in spans:
        # A token that is a part of a character stands for the whole character.
        first = bisect_right(ends, start) - 1
        last = first if end <= start else bisect_right(ends, end - 1)
        while first < last and text[first].isspace():
            first += 1
        while first < last and text[last - 1].isspace():
            last -= 1
        found.append((first, last))
    return ids, found


def words_with_tokens(
    tokenizer: Tokenizer, ids: Sequence[int], spans: Sequence[Span], words: Sequence[Span]
) -> list[Word]:
    """Returns the words that have tokens. `spans` are the characters of the tokens `ids`.

    Words that share a token are one, also if a token of WordPiece continues the word before it. A token that
    stands for no character belongs to the word of the next token.
    """
    found: list[Word] = []
    waiting: int | None = None  # The first of the tokens without characters that are before a word.
    index = 0
    for token, (start, end) in enumerate(spans):
        if start == end:
            waiting = token if waiting is None else waiting
            continue
        while index < len(words) and words[index][1] <= start:
            index += 1
        touched = _touched(words, index, start, end)
        if not touched:
            waiting = None
            continue
        begin, stop = touched[0][0], touched[-1][1]
        shared = found and (found[-1].end > begin or _glued(tokenizer, ids[token], found[-1], token, start))
        if shared:
            last = found.pop()
            found.append(Word(last.start, max(last.end, stop), last.first, token + 1))
        else:
            found.append(Word(begin, stop, token if waiting is None else waiting, token + 1))
        waiting = None
    return found


def _touched(words: Sequence[Span], index: int, start: int, end: int) -> list[Span]:
    """Returns the words from `index` on that have a character between `start` and `end`."""
    touched = []
    while index < len(words) and words[index][0] < end:
        if words[index][1] > start:
            touched.append(words[index])
        index += 1
    return touched


def _glued(tokenizer: Tokenizer, token: int, word: Word, place: int, start: int) -> bool:
    """True if a token of WordPiece continues a word that ends right before it."""
    return word.last == place and word.end == start and continues_word(tokenizer, token)
