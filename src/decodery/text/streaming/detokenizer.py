"""Decodes a stream of tokens: computes the text that each new token releases."""

from __future__ import annotations

import codecs
from collections.abc import Iterable
from dataclasses import dataclass, replace
from typing import Any

from decodery.text.streaming.regions import Region, Regions, ReplyMarks, begin
from decodery.text.streaming.stops import Match, StopMatcher, compile_regex, first_match
from decodery.text.streaming.token_texts import TokenTexts


@dataclass(frozen=True, slots=True)
class _Rules:
    tokenizer: TokenTexts
    matcher: StopMatcher
    pattern: Any
    skipped: frozenset[int]
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

    In the reply of a chat model, stops are looked for in the visible content alone: neither in reasoning, nor
    in calls of tools, nor in the marks around them. The pieces contain all of these.
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
    _regions: Regions | None = None

    def after(self, token: int) -> TextState:
        """Returns the state after one more token; after a stop, its `piece` is empty.

        Raises `ParameterError` when the id is outside the vocabulary.
        """
        data = self._rules.tokenizer.token_bytes(token)
        if self.stopped is not None:
            return replace(self, piece="")
        if token in self._rules.skipped:
            return replace(self, piece="", _waiting=max(self._waiting - 1, 0))
        data = self._bytes + data
        text, used = codecs.utf_8_decode(data, "replace", False)
        text, cut = text[self._cut :], max(self._cut - len(text), 0)
        if self._waiting > 0:
            return self._unread(text, data[used:], cut)
        read = self._read(text, data[used:])
        return replace(read, _cut=cut) if cut else read

    def without_stops(self) -> TextState:
        """Returns this state of a text without stops, which holds partial characters alone."""
        rules = replace(self._rules, matcher=StopMatcher(()), pattern=None)
        return replace(self, _rules=rules, _waiting=0, _regions=None)

    def flush(self) -> str:
        """Returns the text that is held back, for a sequence that ends here; "" after a stop."""
        if self.stopped is not None:
            return ""
        end = self._read(self._bytes.decode("utf-8", "replace")[self._cut :], b"")
        if end._regions is None or end.stopped is not None:
            return end.piece + end._held
        last = end._read_regions(end._regions.flush())
        return end.piece + last.piece + last._held

    def _unread(self, text: str, left: bytes, cut: int) -> TextState:
        """Returns the state after text in which no stop is looked for yet."""
        regions = self._regions
        if regions is not None:
            regions = regions.read(text)
            text = "".join(piece.text for piece in regions.pieces)
        return replace(self, piece=text, _bytes=left, _waiting=self._waiting - 1, _cut=cut, _regions=regions)

    def _read(self, text: str, left: bytes) -> TextState:
        if self._regions is None:
            return self._read_visible(text, left, None)
        regions = self._regions.read(text)
        pieces = regions.pieces
        if len(pieces) == 1 and pieces[0].kind == "content":
            return self._read_visible(pieces[0].text, left, regions.emptied())
        state = replace(self, _bytes=left, _regions=regions.emptied())
        return state._read_regions(pieces)

    def _read_regions(self, pieces: Iterable[Region]) -> TextState:
        state, shown = self, ""
        for kind, text in pieces:
            if kind == "content":
                state = state._read_visible(text, state._bytes, state._regions)
                shown += state.piece
                if state.stopped is not None:
                    break
            else:
                # What is held ends with the content, so it cannot become a stop string.
                shown += state._held + text
                state = replace(state, _held="", _matching=0)
        return replace(state, piece=shown)

    def _read_visible(self, text: str, left: bytes, regions: Regions | None) -> TextState:
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
        return TextState(shown[:cut], None, self._rules, left, shown[cut:], state, 0, read, _regions=regions)

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
    marks: ReplyMarks | None = None,
    shown: frozenset[int] = frozenset(),
) -> TextState:
    """Returns the state before the first generated token. Raises `ParameterError` for an empty stop string.

    Stop strings and `stop_regex` are looked for from the `min_tokens`-th token on, in its text and the text
    after it. If both match first at the same character, the stop string is reported.
    The first `cut` characters are not part of the text: they are left out and cannot match.
    `marks` divide the reply of a chat model. `shown` are special tokens whose text is kept all the same.
    """
    pattern = None if stop_regex is None else compile_regex("stop_regex", stop_regex)
    skipped = frozenset(tokenizer.special_ids) - shown if skip_special_tokens else frozenset()
    rules = _Rules(tokenizer, StopMatcher(stop), pattern, skipped, include_stop)
    regions = None if marks is None else begin(marks)
    return TextState("", None, rules, b"", "", 0, max(min_tokens - 1, 0), _cut=cut, _regions=regions)
