"""Streaming text: which characters each new token releases."""

from __future__ import annotations

import codecs
import re
from dataclasses import dataclass, replace

from decodery.text.streaming.stops import Match, StopMatcher, first_match
from decodery.text.tokenizer.tokenizer import Tokenizer


@dataclass(frozen=True, slots=True)
class _Rules:
    tokenizer: Tokenizer
    matcher: StopMatcher
    pattern: re.Pattern[str] | None
    skip_special_tokens: bool
    include_stop: bool


@dataclass(frozen=True, slots=True)
class TextState:
    """The text of a sequence up to one token; immutable, so a fork just keeps the state.

    `piece` is the text that the last token released and `stopped` the stop string that was met, or what the
    stop regex matched. The pieces and the last state's `flush()`, joined, are `tokenizer.decode` of all the
    tokens, cut where the earliest stop string to end begins (or ends, with `include_stop`), or before that
    after the first character up to which the text holds a match of the regex. Only what may still become a
    stop string, and the bytes of a character that is not complete, are held back. A step costs as much as its
    token; with a regex, as much as searching the text so far for each of its characters.
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
        """The state after one more token; after a stop string nothing is released any more.

        ParameterError when the id is outside the vocabulary.
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
        """What is held back, for a sequence that ends without a stop string; "" after one."""
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
    tokenizer: Tokenizer,
    stop: tuple[str, ...] = (),
    *,
    skip_special_tokens: bool = True,
    include_stop: bool = False,
    min_tokens: int = 0,
    stop_regex: str | None = None,
    cut: int = 0,
) -> TextState:
    """The state before the first generated token. ParameterError for an empty stop string.

    Stop strings and `stop_regex` are looked for from the `min_tokens`-th token on, in its text and what
    follows. The regex must be valid. Where both match first at one place, the stop string counts. The first
    `cut` characters are no part of the text: they are left out, and nothing stops at them.
    """
    pattern = None if stop_regex is None else re.compile(stop_regex)
    rules = _Rules(tokenizer, StopMatcher(stop), pattern, skip_special_tokens, include_stop)
    return TextState("", None, rules, b"", "", 0, max(min_tokens - 1, 0), _cut=cut)
