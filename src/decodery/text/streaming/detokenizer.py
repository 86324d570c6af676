"""Decodes a stream of tokens: computes the text that each new token releases."""

from __future__ import annotations

import codecs
from collections.abc import Iterable
from dataclasses import dataclass, replace
from typing import Any

from decodery.text.streaming.regions import Region, Regions, ReplyMarks, begin
from decodery.text.streaming.stops import (
    Hidden,
    Match,
    StopMatcher,
    compile_regex,
    first_match,
    with_hidden,
)
from decodery.text.streaming.token_texts import TokenTexts


@dataclass(frozen=True, slots=True)
class _Rules:
    tokenizer: TokenTexts
    matcher: StopMatcher
    # Finds the stop strings that contain special tokens which are skipped.
    hidden: StopMatcher | None
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

    The text of a special token that is left out counts for the stop strings that contain it. All other stop
    strings, and the regex, are looked for in the displayed text. `include_stop` leaves the whole stop string
    in the text, with its special tokens.

    In the reply of a chat model, stops are looked for in the visible content alone: neither in reasoning, nor
    in calls of tools, nor in the marks around them. The pieces contain all of these.
    """

    piece: str
    stopped: str | None
    _rules: _Rules
    _bytes: bytes
    _held: str
    _matching: int
    _matching_hidden: int
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
            return self._skip(_text_of(self._rules.tokenizer, token))
        data = self._bytes + data
        text, used = codecs.utf_8_decode(data, "replace", False)
        text, cut = text[self._cut :], max(self._cut - len(text), 0)
        if self._waiting > 0:
            return self._unread(text, data[used:], cut)
        read = self._read(text, data[used:])
        return replace(read, _cut=cut) if cut else read

    def without_stops(self) -> TextState:
        """Returns this state of a text without stops, which holds partial characters alone."""
        rules = replace(self._rules, matcher=StopMatcher(()), hidden=None, pattern=None)
        return replace(self, _rules=rules, _waiting=0, _regions=None)

    def flush(self) -> str:
        """Returns the text that is held back, for a sequence that ends here; "" after a stop."""
        if self.stopped is not None:
            return ""
        return self._last().piece

    def _last(self) -> TextState:
        """Returns the state whose `piece` is all the text held back, for a sequence that ends here."""
        end = self._read(self._bytes.decode("utf-8", "replace")[self._cut :], b"")
        if end._regions is not None and end.stopped is None:
            last = end._read_regions(end._regions.flush())
            end = replace(last, piece=end.piece + last.piece)
        return replace(end, piece=end.piece + end._held, _held="")

    def _skip(self, text: str) -> TextState:
        """Returns the state after a special token with this text, which is left out."""
        hidden, regions = self._rules.hidden, self._regions
        outside = regions is not None and (regions.in_reasoning or regions.in_calls)
        if hidden is None or self._waiting > 0 or outside:
            return replace(self, piece="", _waiting=max(self._waiting - 1, 0))
        # Unread text comes before the token, so what was read before cannot belong to the same stop string.
        unread = self._bytes or (regions is not None and regions.held)
        state, match = hidden.read(0 if unread else self._matching_hidden, (Hidden(text),))
        if match is not None:
            end = self._last()
            return end if end.stopped is not None else self._ended(self._met(end.piece, match), match)
        cut = len(self._held) - self._depth(self._matching, state)
        return replace(self, piece=self._held[:cut], _held=self._held[cut:], _matching_hidden=state)

    def _depth(self, matching: int, matching_hidden: int) -> int:
        """Returns how many characters at the end of the text may still become a stop string."""
        depth, hidden = self._rules.matcher.depth(matching), self._rules.hidden
        return depth if hidden is None else max(depth, hidden.depth(matching_hidden))

    def _met(self, text: str, match: Match) -> str:
        """Returns a text at whose end a stop string was met, without the stop string or with all of it."""
        before = text[: len(text) - match.shown]
        return before + match.text if self._rules.include_stop else before

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
                state = replace(state, _held="", _matching=0, _matching_hidden=0)
        return replace(state, piece=shown)

    def _read_visible(self, text: str, left: bytes, regions: Regions | None) -> TextState:
        matching, match = self._rules.matcher.read(self._matching, text)
        matching_hidden = 0
        if self._rules.hidden is not None:
            matching_hidden, other = self._rules.hidden.read(self._matching_hidden, text)
            match = _first(match, other)
        found = self._search(text if match is None else text[: match.end - 1])
        if found is not None:
            return self._ended(self._held + text[: found.end], found)
        if match is not None:
            return self._ended(self._met(self._held + text[: match.end], match), match)
        shown = self._held + text
        cut = len(shown) - self._depth(matching, matching_hidden)
        read = self._read_so_far + text if self._rules.pattern is not None else ""
        return TextState(
            shown[:cut],
            None,
            self._rules,
            left,
            shown[cut:],
            matching,
            matching_hidden,
            0,
            read,
            _regions=regions,
        )

    def _search(self, text: str) -> Match | None:
        pattern = self._rules.pattern
        return None if pattern is None else first_match(pattern, self._read_so_far, text)

    def _ended(self, piece: str, match: Match) -> TextState:
        return TextState(piece, match.text, self._rules, b"", "", 0, 0, 0)


def _first(match: Match | None, other: Match | None) -> Match | None:
    """Returns the match that ends first, and of those that end there the one that begins first."""
    found = [m for m in (match, other) if m is not None]
    return min(found, key=lambda m: (m.end, -m.shown), default=None)


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
    matcher = StopMatcher(stop)
    hidden = with_hidden(stop, {_text_of(tokenizer, token) for token in skipped}) if stop else []
    rules = _Rules(
        tokenizer, matcher, StopMatcher(hidden) if hidden else None, pattern, skipped, include_stop
    )
    regions = None if marks is None else begin(marks)
    return TextState("", None, rules, b"", "", 0, 0, max(min_tokens - 1, 0), _cut=cut, _regions=regions)


def _text_of(tokenizer: TokenTexts, token: int) -> str:
    return tokenizer.token_bytes(token).decode("utf-8", "replace")
