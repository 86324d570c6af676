"""Constrained beam search: phrases that a text must contain.

Candidates that have completed equally much of the phrases form a bank, and the banks share the places of the
beam. So a text competes only with texts that have completed as much (dynamic beam allocation, Post and Vilar
2018, section 3). Only one phrase is matched at a time, and a token counts for one phrase.
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
    """Holds how much of its phrases a text has completed. A phrase is given by its alternatives.

    `pending` are the phrases not begun. `current` is the phrase begun, of which the tokens `matched` are in
    the text. `met` counts the complete phrases. `longest` is the length of the longest alternative of all.
    """

    longest: int
    pending: tuple[Alternatives, ...]
    current: Alternatives = ()
    matched: tuple[int, ...] = ()
    met: int = 0

    @property
    def complete(self) -> bool:
        """True if the text contains all phrases."""
        return not self.pending and not self.current

    @property
    def bank(self) -> int:
        """Returns how much is completed, in tokens.

        A complete phrase counts `longest`, the current one less by what its longest alternative still lacks.
        """
        missing = max(map(len, self.current), default=self.longest) - len(self.matched)
        return self.met * self.longest + self.longest - missing

    @property
    def needed(self) -> int:
        """Returns the smallest number of tokens that completes all phrases."""
        rest = min((len(a) for a in self._matching(self.matched)), default=0) - len(self.matched)
        return rest + sum(min(map(len, phrase)) for phrase in self.pending)

    def next_tokens(self) -> list[int]:
        """Returns the tokens that continue the current phrase; without one, those that begin pending ones."""
        if self.current:
            found = [a[len(self.matched)] for a in self._matching(self.matched)]
        else:
            found = [a[0] for phrase in self.pending for a in phrase]
        return list(dict.fromkeys(found))

    def after(self, token: int) -> Progress:
        """Returns the progress after one more token.

        A current phrase that the token does not continue becomes pending again, behind the others.
        """
        if self.current:
            matched = (*self.matched, token)
            if self._matching(matched):
                return self._with_matched(matched)
            return replace(self, pending=(*self.pending, self.current), current=(), matched=())
        for i, phrase in enumerate(self.pending):
            if any(a[0] == token for a in phrase):
                rest = self.pending[:i] + self.pending[i + 1 :]
                return replace(self, pending=rest, current=phrase)._with_matched((token,))
        return self

    def _with_matched(self, matched: tuple[int, ...]) -> Progress:
        """Returns the progress with these tokens of the current phrase, which may complete it."""
        if matched in self.current:
            return replace(self, current=(), matched=(), met=self.met + 1)
        return replace(self, matched=matched)

    def _matching(self, matched: tuple[int, ...]) -> list[tuple[int, ...]]:
        """Returns the current phrase's alternatives that begin with these tokens."""
        return [a for a in self.current if a[: len(matched)] == matched]


def initial_progress(strategy: BeamSearch) -> Progress:
    """Returns the progress of a text without tokens; `force_words` must be token ids by now."""
    phrases: list[Alternatives] = []
    for word in strategy.force_words:
        alternatives = word if any(isinstance(part, tuple) for part in word) else (word,)
        phrases.append(alternatives)  # type: ignore[arg-type]
    return Progress(max((len(a) for phrase in phrases for a in phrase), default=0), tuple(phrases))


def holds_all(row: Row) -> bool:
    """True if the row's text contains all forced phrases, even if they overlap."""
    strategy = row.params.strategy
    assert isinstance(strategy, BeamSearch)
    text = tuple(row.tokens[row.prompt_length :])
    return all(any(_contains(text, a) for a in phrase) for phrase in initial_progress(strategy).pending)


def _contains(text: tuple[int, ...], phrase: tuple[int, ...]) -> bool:
    return any(text[i : i + len(phrase)] == phrase for i in range(len(text) - len(phrase) + 1))


def check_force_words(strategy: BeamSearch, most: int) -> None:
    """Raises `ParameterError` if `most` generated tokens cannot contain all of `force_words` (token ids)."""
    needed = initial_progress(strategy).needed
    if needed > most:
        raise ParameterError(
            f"force_words need {needed} tokens and the text has at most {most}: raise max_tokens"
        )


def select_from_banks(
    progress: Sequence[Progress], totals: Sequence[float], remaining: Sequence[int], size: int
) -> list[int]:
    """Returns the indices of `size` candidates to keep: the best of each bank, then each bank's second, ...

    Banks that have completed more come first. `remaining[i]` is how many tokens candidate i may still get. If
    any candidate can complete its phrases within them, one that can is kept.
    """
    ordered = sorted(range(len(totals)), key=lambda i: (-progress[i].bank, -totals[i]))
    seen: dict[int, int] = {}
    ranks: dict[int, int] = {}
    for i in ordered:
        bank = progress[i].bank
        ranks[i] = seen[bank] = seen.get(bank, -1) + 1
    kept = sorted(ordered, key=lambda i: ranks[i])[:size]
    completable = [i for i in ordered if progress[i].needed <= remaining[i]]
    if completable and not set(completable) & set(kept):
        kept[-1] = completable[0]
    return kept
