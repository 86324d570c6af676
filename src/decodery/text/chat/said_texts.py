"""Keeps what a conversation says apart from the marks that a chat template writes.

A template joins both to one text. While it runs, one character of each text of a control token in the
conversation is replaced by a lone surrogate, which Unicode text cannot contain. So the control tokens that
are found in the rendered text are those of the template. Lengths stay, so that their places hold for the text
with the characters put back. A template that changes the texts may still make a mark of one;
`hide_beginnings` shows whether it does.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence, Set
from typing import Any

from decodery.errors import ModelError
from decodery.text.chat.added_finder import Mark
from decodery.text.chat.marked_encoder import MarkedEncoder
from decodery.text.tokenizer.tokenizer import without_surrogates

_FIRST_SURROGATE = 0xD800
_MOST_CHARACTERS = 2047
_SURROGATE = re.compile("[\\ud800-\\udfff]")
# How `repr` writes a surrogate, for example in a list that a template writes as it is.
_ESCAPED = re.compile(r"\\u(d[89a-f][0-9a-f]{2})")
# Replaces no character. `render_chat` gives it to a template as the end of a message that is continued.
END_OF_SAID = "\udfff"
# Filters such as `escape` change these characters, and a template may change letters.
_CHANGED_BY_FILTERS = "<>&'\"\\"


class SaidTexts:
    """Hides the texts of control tokens in a conversation while a template renders it.

    `encoder` knows the control tokens. Threads may share it. Raises `ModelError` if their texts have more
    different characters than there are surrogates.
    """

    def __init__(self, encoder: MarkedEncoder) -> None:
        self.encoder = encoder
        texts = encoder.texts.values()
        characters = sorted({"u", *"".join(texts)})
        if len(characters) > _MOST_CHARACTERS:
            raise ModelError(
                f"the control tokens consist of {len(characters)} different characters, which cannot all be"
                " hidden from a chat template: give special_in_content=True"
            )
        self._hidden = {c: chr(_FIRST_SURROGATE + k) for k, c in enumerate(characters)}
        self._shown = str.maketrans({hidden: c for c, hidden in self._hidden.items()})
        firsts = (next((c for c in text if not (c.isalnum() or c.isspace())), "") for text in texts)
        self._beginnings = str.maketrans({c: self._hidden[c] for c in firsts if c})
        self._breaks = {token: _firm_character(text) for token, text in encoder.texts.items()}
        self._starts = {text[:k] for text in texts for k in range(1, len(text)) if not text[:k].isalnum()}
        self._ends = {text[k:] for text in texts for k in range(1, len(text)) if not text[k:].isalnum()}
        self._longest = max(map(len, texts), default=0)

    def hide(self, value: Any, kept: Set[str] = frozenset()) -> Any:
        """Returns a copy of a value of JSON's types in which all strings are Unicode text and hold no mark.

        Texts of control tokens in `kept` stay. The beginning of such a text at the end of a string, and the
        end of one at its beginning, are hidden too, for a template might complete them; words are not. Keys
        hide whole texts alone, since templates read them. Values of other types stay as they are.
        """
        if isinstance(value, str):
            text = self._hide_marks(value, kept)
            return self._replaced(text, self._edges(text))
        if isinstance(value, Mapping):
            return {
                self._hide_marks(key, kept) if isinstance(key, str) else key: self.hide(item, kept)
                for key, item in value.items()
            }
        if isinstance(value, (list, tuple)):
            return [self.hide(item, kept) for item in value]
        return value

    def hide_beginnings(self, value: Any, kept: Set[str] = frozenset()) -> Any:
        """Returns a copy of a value from `hide` in which no string can begin a mark, however it is changed.

        The first character of each mark that is neither a letter, a digit nor white space is hidden wherever
        it stands outside of the texts `kept`. So a template may no longer find what it looks for in a text.
        """
        if isinstance(value, str):
            if not kept:
                return value.translate(self._beginnings)
            pieces = re.split(f"({'|'.join(map(re.escape, sorted(kept)))})", value)
            return "".join(p if p in kept else p.translate(self._beginnings) for p in pieces)
        if isinstance(value, Mapping):
            return {self.hide_beginnings(k): self.hide_beginnings(v, kept) for k, v in value.items()}
        if isinstance(value, (list, tuple)):
            return [self.hide_beginnings(item, kept) for item in value]
        return value

    def unescaped(self, text: str) -> str:
        """Returns a rendered text in which the hidden characters that `repr` escaped are characters again."""
        return _ESCAPED.sub(lambda found: chr(int(found[1], 16)), text)

    def tokens(self, text: str) -> list[int]:
        """Returns the control tokens that are found in a text, from left to right."""
        return [mark.token for mark in self.encoder.marks(text)]

    def show(self, text: str) -> str:
        """Returns a text with the hidden characters put back."""
        return text.translate(self._shown)

    def holds_hidden(self, text: str) -> bool:
        """True if a text contains a hidden character."""
        return _SURROGATE.search(text) is not None

    def _hide_marks(self, value: str, kept: Set[str]) -> str:
        text = without_surrogates(str.__str__(value))
        # `unescaped` must not take this for a hidden character.
        text = _ESCAPED.sub(lambda escape: f"\\{self._hidden['u']}{escape[1]}", text)
        found = [mark for mark in self.encoder.marks(text) if self.encoder.texts[mark.token] not in kept]
        while found:
            text = self._replaced(text, [self._breaking_place(text, mark) for mark in found])
            # A text that overlaps a hidden one is found only now.
            found = [m for m in self.encoder.marks(text) if self.encoder.texts[m.token] not in kept]
        return text

    def _edges(self, text: str) -> Sequence[int]:
        """Returns the places in a text that break what might be completed to a mark at either end."""
        inner = text.strip()
        first = len(text) - len(text.lstrip())
        sizes = range(1, min(self._longest, len(inner) + 1))
        end = next((first + k - 1 for k in sizes if inner[:k] in self._ends), None)
        start = next((first + len(inner) - k for k in sizes if inner[-k:] in self._starts), None)
        return sorted({place for place in (end, start) if place is not None})

    def _replaced(self, text: str, places: Sequence[int]) -> str:
        parts, end = [], 0
        for place in places:
            parts += [text[end:place], self._hidden.get(text[place], text[place])]
            end = place + 1
        return "".join([*parts, text[end:]])

    def _breaking_place(self, text: str, mark: Mark) -> int:
        """Returns the place of the character that is hidden of a mark, which may begin with white space."""
        begin = text.index(self.encoder.texts[mark.token], mark.start)
        return begin + self._breaks[mark.token]


def _firm_character(mark: str) -> int:
    """Returns the index of a character that a template changes least likely."""
    firm = (k for k, c in enumerate(mark) if not (c.isalnum() or c.isspace() or c in _CHANGED_BY_FILTERS))
    return next(firm, 0)
