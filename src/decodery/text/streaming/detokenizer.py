"""Decodes a stream of tokens: computes the text that each new token releases."""

from __future__ import annotations

import codecs
from dataclasses import dataclass, replace
from typing import Any

from decodery.text.streaming.stops import Match, StopMatcher, compile_regex, first_match
from decodery.text.streaming.token_texts import TokenTexts


@dataclass(frozen=True, slots=True)
class _Rules:
    tokenizer: TokenTexts
    matcher: StopMatcher
    pattern: Any
    skip_special_tokens: bool
    include_stop: bool


@dataclass(frozen=True, slots=True)
class TextState:
    """Holds the state of a sequence's text after one token; it is immutable, so a fork keeps the same state.

    `piece` is the text that the last token released. `stopped` is the stop string that was found, or the
    match of the stop regex. All pieces and the `flush()` of the last state, joined, are `tokenizer.decode` of
    the tokens, cut at the stop. With a stop string, the text is cut where the one that ends first begins (or
    ends, with `include_stop`). With a regex, it is cut after the first character up to which the text
    contains a match, if that comes earlier. Held back are only characters that may still become a stop
    string, and the bytes of an incomplete character. The time of a step grows with its token; with a regex it
    is a search of the whole text for each new character.
    """

    piece: str
    stopped: str | None
    _rules: _Rules
    _bytes: bytes
    _held: str
    _matching: int
    _waiting: int
    _read_so_far: str = ""
    _cut: int = 0

    def after(self, token: int) -> TextState:
        """Returns the state after one more token; after a stop, its `piece` is empty.

        Raises `ParameterError` when the id is outside the vocabulary.
        """
        data = self._rules.tokenizer.token_bytes(token)
        if self.stopped is not None:
            return replace(self, piece="")
        if self._rules.skip_special_tokens and token in self._rules.tokenizer.special_ids:
            return replace(self, piece="", _waiting=max(self._waiting - 1, 0))
        data = self._bytes + data
        text, used = codecs.utf_8_decode(data, "replace", False)
        text, cut = text[self._cut :], max(self._cut - len(text), 0)
        if self._waiting > 0:
            return replace(self, piece=text, _bytes=data[used:], _waiting=self._waiting - 1, _cut=cut)
        read = self._read(text, data[used:])
        return replace(read, _cut=cut) if cut else read

    def flush(self) -> str:
        """Returns the text that is held back, for a sequence that ends here; "" after a stop."""
        if self.stopped is not None:
            return ""
        end = self._read(self._bytes.decode("utf-8", "replace")[self._cut :], b"")
        return end.piece + end._held

    def _read(self, text: str, left: bytes) -> TextState:
        state, match = self._rules.matcher.read(self._matching, text)
        found = self._search(text if match is None else text[: match.end - 1])
        if found is not None:
            return self._ended(self._held + text[: found.end], found.stop)
        if match is not None:
            met = self._held + text[: match.end]
            return self._ended(
                met if self._rules.include_stop else met[: len(met) - len(match.stop)], match.stop
            )
        shown = self._held + text
        cut = len(shown) - self._rules.matcher.depth(state)
        read = self._read_so_far + text if self._rules.pattern is not None else ""
        return TextState(shown[:cut], None, self._rules, left, shown[cut:], state, 0, read)

    def _search(self, text: str) -> Match | None:
        pattern = self._rules.pattern
        return None if pattern is None else first_match(pattern, self._read_so_far, text)

    def _ended(self, piece: str, stopped: str) -> TextState:
        return TextState(piece, stopped, self._rules, b"", "", 0, 0)


def start(
    tokenizer: TokenTexts,
    stop: tuple[str, ...] = (),
    *,
    skip_special_tokens: bool = True,
    include_stop: bool = False,
    min_tokens: int = 0,
    stop_regex: str | None = None,
    cut: int = 0,
) -> TextState:
    """Returns the state before the first generated token. Raises `ParameterError` for an empty stop string.

    Stop strings and `stop_regex` are looked for from the `min_tokens`-th token on, in its text and the text
    after it. If both match first at the same character, the stop string is reported.
    The first `cut` characters are not part of the text: they are left out and cannot match.
    """
    pattern = None if stop_regex is None else compile_regex("stop_regex", stop_regex)
    rules = _Rules(tokenizer, StopMatcher(stop), pattern, skip_special_tokens, include_stop)
    return TextState("", None, rules, b"", "", 0, max(min_tokens - 1, 0), _cut=cut)
