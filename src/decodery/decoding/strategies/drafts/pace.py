"""Decides how many tokens a row drafts, by how many of its last drafts were right."""

from __future__ import annotations

from dataclasses import dataclass, replace

from decodery.decoding.request.speculation_params import DRAFTERS, PromptLookup
from decodery.decoding.rows import Row
from decodery.decoding.strategies.drafts.prompt_lookup import lookup_draft

_FIRST_LENGTH = 4
_FIRST_PAUSE = 4
_LONGEST_PAUSE = 64


@dataclass(frozen=True, slots=True)
class Pace:
    """Holds how many tokens a row drafts next, which follows from how many of its last drafts were right.

    At `length` 0 the row rests: it drafts nothing. With a draft model it rests for `rest` more tokens, with
    prompt lookup until a draft that was looked up but not run would have been right. `pause` is the length
    of the next rest in tokens.
    """

    length: int
    rest: int = 0
    pause: int = _FIRST_PAUSE

    def after(self, drafted: int, accepted: int, most: int) -> Pace:
        """Returns the pace after `accepted` of `drafted` tokens were right; its length is at most `most`."""
        if accepted == drafted:
            return Pace(min(max(self.length, 4 * drafted), most))
        if accepted:
            return Pace(min(max(accepted + 1, self.length - 1), most))
        if self.length > 1:
            return replace(self, length=self.length // 2)
        return Pace(0, self.pause, min(2 * self.pause, _LONGEST_PAUSE))

    def rested(self, tokens: int) -> Pace:
        """Returns the pace after `tokens` more tokens were generated without drafts."""
        if tokens < self.rest:
            return replace(self, rest=self.rest - tokens)
        return replace(self, length=1, rest=0)


def draft_length(row: Row, most: int) -> int:
    """Returns how many tokens to draft for a row, at most `most`.

    A row drafts from its second token on, and while it stands for one stream.
    """
    speculation = row.params.speculate
    if not isinstance(speculation, DRAFTERS) or row.generated == 0 or len(row.streams) > 1:
        return 0
    return max(min(_pace(row).length if speculation.adaptive else speculation.num_tokens, most), 0)


def paced(before: Row, after: Row, drafted: int, accepted: int) -> Row:
    """Returns the row `after`, which continues `before`, with its pace updated by how its drafts did.

    `drafted` tokens were tried; the first `accepted` of them were right.
    """
    speculation = before.params.speculate
    if not isinstance(speculation, DRAFTERS) or not speculation.adaptive:
        return after
    pace = _pace(before)
    if drafted:
        pace = pace.after(drafted, accepted, speculation.num_tokens)
    elif pace.length == 0 and isinstance(speculation, PromptLookup):
        # A lookup costs far less than a run, so it is tried at every token of the rest.
        guess = lookup_draft(before.tokens, speculation.max_ngram, 1)
        if guess and guess[0] == after.tokens[len(before.tokens)]:
            pace = Pace(min(2, speculation.num_tokens))
    elif pace.length == 0:
        pace = pace.rested(len(after.tokens) - len(before.tokens))
    return after if pace == after.state else replace(after, state=pace)


def _pace(row: Row) -> Pace:
    assert isinstance(row.params.speculate, DRAFTERS)
    if isinstance(row.state, Pace):
        return row.state
    return Pace(min(_FIRST_LENGTH, row.params.speculate.num_tokens))
