"""Speculation: how many tokens to draft, which tokens, and accepting drafts by rejection sampling."""

from __future__ import annotations

from array import array
from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
import torch
from torch import Tensor

from decodery.decoding.draw import choose, draw_key_of
from decodery.decoding.processors.pipeline import process
from decodery.decoding.request.speculation_params import PromptLookup
from decodery.decoding.rows import Row
from decodery.decoding.strategies.forced_tokens import forced_by_grammar

# Salts: acceptance, the replacement of a rejected draft, and drafts have noise of their own, independent of
# that of plain draws.
_ACCEPTANCE = 0xA24BAED4963EE407
_REPLACEMENT = 0x9FB21C651E98DF25
_DRAFT = 0xC13FA9A902A6328F

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

    A row drafts from its second token on, because until then it may stand for several streams.
    """
    speculation = row.params.speculate
    if speculation is None or row.generated == 0:
        return 0
    return max(min(_pace(row).length if speculation.adaptive else speculation.num_tokens, most), 0)


def paced(before: Row, after: Row, drafted: int, accepted: int) -> Row:
    """Returns the row `after`, which continues `before`, with its pace updated by how its drafts did.

    `drafted` tokens were tried; the first `accepted` of them were right.
    """
    speculation = before.params.speculate
    if speculation is None or not speculation.adaptive:
        return after
    pace = _pace(before)
    if drafted:
        pace = pace.after(drafted, accepted, speculation.num_tokens)
    elif pace.length == 0 and isinstance(speculation, PromptLookup):
        # A lookup costs far less than a run, so it is tried at every token of the rest.
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
    """Returns up to `count` tokens that followed an earlier occurrence of the n-gram that ends `tokens`.

    `tokens` are int64. n is the largest, up to `max_ngram`, for which there is an earlier occurrence. The
    latest occurrence with `count` tokens after it is used, or else the first (Saxena, Prompt Lookup Decoding,
    2023).
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
    """True if the row's drafts are accepted by rejection sampling.

    A greedy row's never are, because only its likeliest token is right.
    """
    speculation = row.params.speculate
    return speculation is not None and speculation.acceptance == "rejection" and not row.params.greedy


def draw_drafts(rows: Sequence[Row], logits: Tensor) -> tuple[Sequence[int], Tensor]:
    """Returns each row's next draft by its draft model's `logits` `[rows, vocab]`, and the processed logits.

    A token that the row's grammar forces is its draft.
    """
    processed = process(logits, rows)
    chosen = draft_tokens(processed, rows)
    drafts = [next(iter(forced_by_grammar(row)), token) for row, token in zip(rows, chosen, strict=True)]
    return drafts, processed


def draft_tokens(processed: Tensor, rows: Sequence[Row]) -> list[int]:
    """Returns each row's draft by its draft model's processed logits `[rows, vocab]`.

    Drafts that must match the row's own choice are drawn with the noise of that choice, so that similar
    distributions mostly give the same token.
    """
    return choose(processed, rows, [_DRAFT if rejecting(row) else 0 for row in rows])


def accept_or_replace(row: Row, processed: Tensor, draft: int, drafted: Tensor | None) -> int:
    """Returns the row's draft x with probability min(1, p(x) / q(x)), else a draw from max(p - q, 0).

    p are the probabilities by the `processed` logits `[vocab]`. q are those by `drafted`, the logits
    `[vocab]` from which x was drawn; None for a draft that was not drawn, where q(x) is 1. The token returned
    is distributed as p (Leviathan et al. 2023, section 2.3; Chen et al. 2023, theorem 1).
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
    # Nothing is left where p and q differ by rounding only.
    return choose((left if left.any() else p).log().float()[None], [row], [_REPLACEMENT])[0]


def _uniform(row: Row) -> float:
    """Returns a number from [0, 1), of 53 random bits, that decides on the draft of the row's next token."""
    low, high = draw_key_of(row, _ACCEPTANCE)
    return float((((high & 0xFFFFFFFF) << 32) | (low & 0xFFFFFFFF)) >> 11) * 2.0**-53
