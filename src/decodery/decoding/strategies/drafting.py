"""Speculation: how many tokens to draft, what to draft, and accepting drafts by chance."""

from __future__ import annotations

from array import array
from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
import torch
from torch import Tensor

from decodery.decoding.draw import choose, draw_key_of
from decodery.decoding.request.speculation_params import PromptLookup
from decodery.decoding.rows import Row

# What keeps the noise of acceptance, of what replaces a rejected draft, and of drafts apart from plain draws.
_ACCEPTANCE = 0xA24BAED4963EE407
_REPLACEMENT = 0x9FB21C651E98DF25
_DRAFT = 0xC13FA9A902A6328F

_FIRST_LENGTH = 4
_FIRST_PAUSE = 4
_LONGEST_PAUSE = 64


@dataclass(frozen=True, slots=True)
class Pace:
    """How many tokens a row drafts next, as its last drafts fared.

    At length 0 it rests: until so many more tokens are generated, or until a guess that nobody ran turns out
    right. `pause` is how long the next rest will be.
    """

    length: int
    rest: int = 0
    pause: int = _FIRST_PAUSE

    def after(self, drafted: int, accepted: int, most: int) -> Pace:
        """The pace after `accepted` of `drafted` tokens were right; it stays within `most`."""
        if accepted == drafted:
            return Pace(min(max(self.length, 4 * drafted), most))
        if accepted:
            return Pace(min(max(accepted + 1, self.length - 1), most))
        if self.length > 1:
            return replace(self, length=self.length // 2)
        return Pace(0, self.pause, min(2 * self.pause, _LONGEST_PAUSE))

    def rested(self, tokens: int) -> Pace:
        """The pace after `tokens` more were generated at rest."""
        if tokens < self.rest:
            return replace(self, rest=self.rest - tokens)
        return replace(self, length=1, rest=0)


def draft_length(row: Row, room: int) -> int:
    """How many tokens to draft for a row, at most `room`.

    A row drafts from its second token on: until then it may stand for several streams.
    """
    speculation = row.params.speculate
    if speculation is None or row.generated == 0:
        return 0
    return max(min(_pace(row).length if speculation.adaptive else speculation.num_tokens, room), 0)


def paced(before: Row, after: Row, drafted: int, accepted: int) -> Row:
    """The row `after`, which continues `before`, with the pace that follows from its drafts.

    `drafted` tokens were tried, of which the first `accepted` are among the new ones.
    """
    speculation = before.params.speculate
    if speculation is None or not speculation.adaptive:
        return after
    pace = _pace(before)
    if drafted:
        pace = pace.after(drafted, accepted, speculation.num_tokens)
    elif pace.length == 0 and isinstance(speculation, PromptLookup):
        # Looking up costs nothing beside running, so a rest ends as soon as drafts would be right again.
        guess = lookup(before.tokens, speculation.max_ngram, 1)
        if guess and guess[0] == after.tokens[len(before.tokens)]:
            pace = Pace(min(2, speculation.num_tokens))
    elif pace.length == 0:
        pace = pace.rested(len(after.tokens) - len(before.tokens))
    return after if pace == after.state else replace(after, state=pace)


def _pace(row: Row) -> Pace:
    assert row.params.speculate is not None
    if isinstance(row.state, Pace):
        return row.state
    return Pace(min(_FIRST_LENGTH, row.params.speculate.num_tokens))


def lookup(tokens: array[int], max_ngram: int, count: int) -> tuple[int, ...]:
    """Up to `count` tokens that followed an earlier place where the last tokens of `tokens` (int64) stood.

    The places are those where most of the last `max_ngram` tokens stood; of them the latest with `count`
    tokens after it is taken, or else the first (Saxena, Prompt Lookup Decoding, 2023).
    """
    known = np.frombuffer(tokens, dtype=np.int64)
    ends = np.flatnonzero(known[:-1] == known[-1])
    for back in range(1, min(max_ngram, len(known))):
        longer = ends[ends >= back]
        longer = longer[known[longer - back] == known[-1 - back]]
        if not len(longer):
            break
        ends = longer
    if not len(ends):
        return ()
    enough = ends[ends < len(known) - count]
    start = int(enough[-1] if len(enough) else ends[0]) + 1
    return tuple(known[start : start + count].tolist())


def rejecting(row: Row) -> bool:
    """Whether the row's drafts are accepted by chance. A greedy row's never are: it has one right token."""
    speculation = row.params.speculate
    return speculation is not None and speculation.acceptance == "rejection" and not row.params.greedy


def draft_tokens(processed: Tensor, rows: Sequence[Row]) -> list[int]:
    """What each row drafts by its assistant's processed logits `[rows, vocab]`.

    Where drafts must match, with the noise of the row's own draw, so that like distributions draw alike.
    """
    return choose(processed, rows, [_DRAFT if rejecting(row) else 0 for row in rows])


def accept_or_replace(row: Row, processed: Tensor, draft: int, drafted: Tensor | None) -> int:
    """The row's next token: its draft x with probability min(1, p(x) / q(x)), else a draw from max(p - q, 0).

    p are the probabilities by the processed logits `[vocab]`, q those by `drafted`, from which x was drawn;
    None for a draft that was certain. The token is distributed as p (Leviathan et al. 2023, section 2.3;
    Chen et al. 2023, theorem 1).
    """
    p = processed.double().softmax(-1)
    if drafted is None:
        q = torch.zeros_like(p)
        q[draft] = 1
    else:
        q = drafted.double().softmax(-1)
    if _uniform(row) * q[draft] < p[draft]:
        return draft
    left = (p - q).clamp_(min=0)
    # p and q that differ by rounding only leave nothing.
    return choose((left if left.any() else p).log().float()[None], [row], [_REPLACEMENT])[0]


def _uniform(row: Row) -> float:
    """A number from [0, 1) for the acceptance of the row's next token, with 53 random bits."""
    low, high = draw_key_of(row, _ACCEPTANCE)
    return float((((high & 0xFFFFFFFF) << 32) | (low & 0xFFFFFFFF)) >> 11) * 2.0**-53
