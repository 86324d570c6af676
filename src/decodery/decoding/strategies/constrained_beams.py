"""Constrained beam search: phrases that a text must hold.

Beams that have met as much of the phrases stand in one bank, and the banks share the places of the beam, so
that a text with its phrases competes with texts that have as many of them (dynamic beam allocation, Post and
Vilar 2018, section 3). One phrase is followed at a time, and a token counts for one phrase.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

from decodery.decoding.request.strategy_params import BeamSearch
from decodery.decoding.rows import Row
from decodery.errors import ParameterError

Alternatives = tuple[tuple[int, ...], ...]


@dataclass(frozen=True, slots=True)
class Progress:
    """How far a text is with its phrases, each given by its alternatives.

    `pending` are not begun, `current` is, with the tokens `matched`; `met` counts those that are complete.
    `longest` is the length of the longest alternative of all.
    """

    longest: int
    pending: tuple[Alternatives, ...]
    current: Alternatives = ()
    matched: tuple[int, ...] = ()
    met: int = 0

    @property
    def complete(self) -> bool:
        """Whether the text holds all phrases."""
        return not self.pending and not self.current

    @property
    def bank(self) -> int:
        """How much is met: `longest` for each complete phrase, and what is not missing of the current one."""
        missing = max(map(len, self.current), default=self.longest) - len(self.matched)
        return self.met * self.longest + self.longest - missing

    @property
    def needed(self) -> int:
        """The fewest tokens that complete all phrases."""
        rest = min((len(a) for a in self._open(self.matched)), default=0) - len(self.matched)
        return rest + sum(min(map(len, phrase)) for phrase in self.pending)

    def next_tokens(self) -> list[int]:
        """The tokens that lead on: of the current phrase, or else the first ones of the pending ones."""
        if self.current:
            found = [a[len(self.matched)] for a in self._open(self.matched)]
        else:
            found = [a[0] for phrase in self.pending for a in phrase]
        return list(dict.fromkeys(found))

    def after(self, token: int) -> Progress:
        """The progress after one more token. A phrase that it breaks off begins anew, behind the others."""
        if self.current:
            matched = (*self.matched, token)
            if self._open(matched):
                return self._followed(matched)
            return replace(self, pending=(*self.pending, self.current), current=(), matched=())
        for i, phrase in enumerate(self.pending):
            if any(a[0] == token for a in phrase):
                rest = self.pending[:i] + self.pending[i + 1 :]
                return replace(self, pending=rest, current=phrase)._followed((token,))
        return self

    def _followed(self, matched: tuple[int, ...]) -> Progress:
        if matched in self.current:
            return replace(self, current=(), matched=(), met=self.met + 1)
        return replace(self, matched=matched)

    def _open(self, matched: tuple[int, ...]) -> list[tuple[int, ...]]:
        """The current phrase's alternatives that begin with these tokens."""
        return [a for a in self.current if a[: len(matched)] == matched]


def beginning(strategy: BeamSearch) -> Progress:
    """The progress of a text without tokens; `force_words` must be token ids by now."""
    phrases: list[Alternatives] = []
    for word in strategy.force_words:
        alternatives = word if any(isinstance(part, tuple) for part in word) else (word,)
        phrases.append(alternatives)  # type: ignore[arg-type]
    return Progress(max((len(a) for phrase in phrases for a in phrase), default=0), tuple(phrases))


def holds_all(row: Row) -> bool:
    """Whether the row's text holds all forced phrases somewhere, even where they overlap."""
    strategy = row.params.strategy
    assert isinstance(strategy, BeamSearch)
    text = tuple(row.tokens[row.prompt_length :])
    return all(any(_holds(text, a) for a in phrase) for phrase in beginning(strategy).pending)


def _holds(text: tuple[int, ...], phrase: tuple[int, ...]) -> bool:
    return any(text[i : i + len(phrase)] == phrase for i in range(len(text) - len(phrase) + 1))


def check_force_words(strategy: BeamSearch, room: int) -> None:
    """Raise `ParameterError` if `room` generated tokens cannot hold all of `force_words` (token ids)."""
    needed = beginning(strategy).needed
    if needed > room:
        raise ParameterError(
            f"force_words need {needed} tokens and the text has room for {room}: raise max_tokens"
        )


def in_banks(
    progress: Sequence[Progress], totals: Sequence[float], rooms: Sequence[int], size: int
) -> list[int]:
    """Which `size` candidates to keep, best first: the best of each bank, then each bank's second, and so on.

    Banks that have met more come first. `rooms` are the tokens that candidates may still get; one that can be
    completed in its room is among those kept, if there is any.
    """
    ordered = sorted(range(len(totals)), key=lambda i: (-progress[i].bank, -totals[i]))
    seen: dict[int, int] = {}
    ranks: dict[int, int] = {}
    for i in ordered:
        bank = progress[i].bank
        ranks[i] = seen[bank] = seen.get(bank, -1) + 1
    kept = sorted(ordered, key=lambda i: ranks[i])[:size]
    able = [i for i in ordered if progress[i].needed <= rooms[i]]
    if able and not set(able) & set(kept):
        kept[-1] = able[0]
    return kept
