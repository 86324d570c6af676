"""Implements the kernels over the vocabulary in torch, for any device.

`decodery.kernels.vocabulary.dispatch` documents them.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from decodery.kernels.vocabulary.choices import ChoiceArgs, ChoiceDescription

# Odd constants of 32-bit hash finalizers, as signed int32 (torch multiplies int32 modulo 2^32).
_M1 = 0x7FEB352D
_M2 = 0x846CA68B - 2**32
_GOLDEN = 0x9E3779B1 - 2**32
# In rows with more possible tokens, finding those that can win is faster than noise for all of them.
_MANY = 2000


def gumbel_noise(keys: Tensor, tokens: Tensor) -> Tensor:
    x = _hashed(keys[:, 0], keys[:, 1], tokens)
    uniform = x.to(torch.float64).add_(2147483648.5).mul_(2.0**-32).to(torch.float32)
    # Through log1p, so that the upper tail stays exact.
    return torch.log1p_(uniform.neg_()).neg_().log_().neg_()


def draw(logits: Tensor, keys: Sequence[tuple[int, int]]) -> list[int]:
    each = torch.tensor(keys, dtype=torch.int32, device=logits.device)
    counts = torch.count_nonzero(logits > -torch.inf, dim=-1).tolist()
    narrow = [i for i, count in enumerate(counts) if count <= _MANY]
    chosen = logits.new_full((len(counts),), -1, dtype=torch.int64)
    if narrow:
        own = logits if len(narrow) == len(counts) else logits[narrow]
        chosen[narrow] = _draw_among_few(own, each[narrow], [counts[i] for i in narrow])
    for i, count in enumerate(counts):
        if count > _MANY:
            # Noise is expensive, so it is computed only for the tokens that can win.
            tokens = contenders(logits[i], each[i])
            noise = gumbel_noise(each[i].expand(len(tokens), 2), tokens.int())
            chosen[i] = tokens[(logits[i, tokens] + noise).argmax()]
    strange = logits.isnan().any(-1)
    return torch.where(strange, -1, chosen).tolist()


def _draw_among_few(logits: Tensor, keys: Tensor, counts: Sequence[int]) -> Tensor:
    """Returns the tokens drawn for rows of which `counts` tokens are above -inf."""
    alive, tokens = possible_tokens(logits)
    perturbed = logits[alive, tokens] + gumbel_noise(keys[alive], tokens.int())
    chosen = []
    start = 0
    for count in counts:
        end = start + count
        chosen.append(tokens[start + perturbed[start:end].argmax()] if count else tokens.new_full((), -1))
        start = end
    return torch.stack(chosen)


def contenders(logits: Tensor, key: Tensor) -> Tensor:
    """Returns the tokens that can have the largest sum of logit and Gumbel noise: all of them, and few
    others.

    `logits` is float32 `[vocab]`, `key` int32 `[2]`; the result is int64, ascending. The likeliest tokens
    with their noise give a sum s to beat. A token whose random number is u has the noise -log(-log(1 - u)),
    which is at most -log(u); so it cannot win unless u <= exp(logit - s). This test takes no logarithm for
    the other tokens.
    """
    best, places = leaders(logits[None], min(32, len(logits)))
    noise = gumbel_noise(key.expand(best.shape[-1], 2), places[0].int())
    # Relative to the largest, so that the sums are accurate for logits of any size.
    below = logits - best[0, 0]
    to_beat = (below[places[0]] + noise).max()
    tokens = torch.arange(len(logits), dtype=torch.int32, device=logits.device)
    uniform = _hashed(key[0], key[1], tokens).to(torch.float32).mul_(2.0**-32).add_(0.5)
    # The margin covers the rounding of both sides.
    able = uniform <= (below - to_beat).exp_().mul_(1.001).add_(1e-6)
    able[places[0]] = True
    return torch.nonzero(able).flatten()


def _hashed(first: Tensor, second: Tensor, tokens: Tensor) -> Tensor:
    """Returns 32 random bits, as int32, for each pair of keys and token; the shapes are broadcast."""
    x = (tokens * _GOLDEN) ^ first
    x = _mixed(x)
    x ^= second
    return _mixed(x)


def _mixed(x: Tensor) -> Tensor:
    x = x ^ (_shifted(x, 16))
    x *= _M1
    x ^= _shifted(x, 15)
    x *= _M2
    x ^= _shifted(x, 16)
    return x


def _shifted(x: Tensor, bits: int) -> Tensor:
    # torch shifts int32 arithmetically; the mask makes it logical.
    return (x >> bits).bitwise_and_((1 << (32 - bits)) - 1)


def described(
    logits: Tensor, choices: Sequence[ChoiceArgs], stages: Sequence[Tensor] = ()
) -> list[ChoiceDescription]:
    return [_described(logits[choice.place], choice, stages) for choice in choices]


def _described(logits: Tensor, choice: ChoiceArgs, stages: Sequence[Tensor]) -> ChoiceDescription:
    assert choice.sampling is None, "the stages must be given"
    probabilities = logits.double().softmax(-1)
    top = logits.topk(choice.shown).indices.tolist()
    shown = top if choice.token in top else [*top, choice.token]
    before = probabilities[shown]
    noise = None
    if choice.key is not None:
        keys = torch.tensor(choice.key, dtype=torch.int32, device=logits.device).expand(len(shown), 2)
        tokens = torch.tensor(shown, dtype=torch.int32, device=logits.device)
        noise = tuple(gumbel_noise(keys, tokens).tolist())
    others = probabilities.clone()
    others[shown] = 0
    changed = []
    last = logits
    for index, (stage, row) in enumerate(choice.stages):
        after = stages[stage][row]
        if not torch.equal(after, last):
            shares = after.double().softmax(-1)[shown].tolist()
            changed.append((index, _possible(after), tuple(shares)))
        last = after
    return ChoiceDescription(
        tokens=tuple(shown),
        logits=tuple(logits[shown].tolist()),
        before=tuple(before.tolist()),
        noise=noise,
        rank=int((logits > logits[choice.token]).sum()) + 1,
        entropy=float(torch.special.entr(probabilities).sum()) / math.log(2),
        tail=float(others.sum()),
        kept=_possible(last),
        stages=tuple(changed),
    )


def _possible(logits: Tensor) -> int:
    return int((logits > -torch.inf).sum())


# Tokens of a block in the search for the largest: only blocks with the largest maxima can hold them.
_BLOCK = 64


def leaders(logits: Tensor, count: int) -> tuple[Tensor, Tensor]:
    rows, vocab = logits.shape
    blocks = vocab // _BLOCK
    if count * _BLOCK * 2 > vocab:
        top = logits.topk(count, dim=-1)
        return top.values, top.indices
    # A block is a column of this view, because torch vectorises a maximum over rows.
    maxima = logits[:, : blocks * _BLOCK].view(rows, _BLOCK, blocks).amax(1)
    chosen = maxima.topk(count, dim=-1, sorted=False).indices
    offsets = torch.arange(_BLOCK, device=logits.device) * blocks
    places = (chosen[:, :, None] + offsets).view(rows, -1)
    if blocks * _BLOCK < vocab:
        rest = torch.arange(blocks * _BLOCK, vocab, device=logits.device)
        places = torch.cat([places, rest.expand(rows, -1)], -1)
    top = logits.gather(-1, places).topk(count, dim=-1)
    return top.values, places.gather(-1, top.indices)


def possible_tokens(logits: Tensor) -> tuple[Tensor, Tensor]:
    """Returns row and token, int64 `[n]` each, of all logits above -inf, ordered by row and then by token."""
    rows, vocab = logits.shape
    whole = vocab // _BLOCK * _BLOCK
    blocks = logits[:, :whole].view(rows, whole // _BLOCK, _BLOCK)
    row, block = torch.nonzero(blocks.amax(-1) > -torch.inf, as_tuple=True)
    if 2 * len(row) >= rows * (whole // _BLOCK):
        row, token = torch.nonzero(logits > -torch.inf, as_tuple=True)
        return row, token
    place, token = torch.nonzero(blocks[row, block] > -torch.inf, as_tuple=True)
    row, token = row[place], block[place] * _BLOCK + token
    if whole < vocab:
        row_of_rest, rest = torch.nonzero(logits[:, whole:] > -torch.inf, as_tuple=True)
        row, order = torch.cat([row, row_of_rest]).sort(stable=True)
        token = torch.cat([token, rest + whole])[order]
    return row, token


def nucleus_border(scores: Tensor, logprobs: Tensor, mass: Tensor, looked: int = 64) -> Tensor:
    """Returns the lowest score in each row's nucleus.

    The `looked` tokens of the highest scores are examined first, and more of them only in rows that need it.
    So a peaked distribution is never sorted completely.
    """
    count = min(looked, scores.shape[-1])
    top, places = leaders(scores, count)
    reached = logprobs.gather(-1, places).exp().double().cumsum(-1) >= mass[:, None]
    enough = reached[:, -1]
    border = top.gather(-1, torch.where(enough, reached.int().argmax(-1), count - 1)[:, None])
    if count < scores.shape[-1] and not bool(enough.all()):
        more = torch.nonzero(~enough)[:, 0]
        part = nucleus_border(
            scores.index_select(0, more), logprobs.index_select(0, more), mass[more], looked * 8
        )
        border.index_copy_(0, more, part)
    return border


def cut_below(logits: Tensor, least: Tensor) -> None:
    under = torch.nextafter(least, least.new_tensor(-torch.inf))
    # A boolean mask takes a slow path in torch; this runs at the speed of memory.
    for row, bound in zip(logits, under[:, 0].tolist(), strict=True):
        torch.threshold_(row, bound, -torch.inf)


def cut_where_below(logits: Tensor, scores: Tensor, least: Tensor) -> None:
    kept = torch.ge(scores, least, out=torch.empty_like(scores))
    # A kept logit (1) loses 0, any other (0) loses infinity.
    logits -= kept.reciprocal_().sub_(1)


def entropy(logprobs: Tensor) -> Tensor:
    # The logarithm is bounded to a finite number, so that a probability of 0 contributes 0.
    terms = logprobs.exp().mul_(logprobs.clamp(min=-1000.0))
    # Row by row, since one sum over several rows may add in another order.
    return -torch.stack([row.sum() for row in terms])[:, None]


def largest(logits: Tensor, words: NDArray[np.int32] | None = None) -> list[int]:
    if words is not None:
        logits = logits.clone()
        keep_marked(logits, words)
    best, places = logits.max(-1)
    return torch.where(best > -torch.inf, places, -1).tolist()


def log_softmax(logits: Tensor) -> Tensor:
    return logits.log_softmax(-1)


def leading_logprobs(logits: Tensor, count: int) -> tuple[list[list[float]], list[list[int]]]:
    values, places = leaders(log_softmax(logits), count)
    return values.tolist(), places.tolist()


def log_normalizers(logits: Tensor) -> list[float]:
    # Row by row, since one sum over several rows may add in another order.
    return [float(row.double().logsumexp(0)) for row in logits]


def count_above(logits: Tensor, least: Sequence[float]) -> list[int]:
    bound = torch.tensor(least, dtype=logits.dtype, device=logits.device)[:, None]
    counts: list[int] = (logits > bound).sum(-1).tolist()
    return counts


def keep_marked(logits: Tensor, words: NDArray[np.int32]) -> None:
    bits = np.unpackbits(words.view(np.uint8), axis=1, count=logits.shape[1], bitorder="little")
    banned = torch.from_numpy(bits).to(logits.device) == 0
    logits.masked_fill_(banned & ~logits.isnan(), -torch.inf)


def divide(logits: Tensor, divisors: Sequence[float]) -> None:
    logits /= torch.tensor(divisors, dtype=logits.dtype, device=logits.device)[:, None]


def copy_rows(source: Tensor, rows: Sequence[int], target: Tensor, places: Sequence[int]) -> None:
    target[list(places)] = source[list(rows)]


def keep_only(logits: Tensor, values: Tensor, tokens: Tensor) -> None:
    logits.fill_(-torch.inf).scatter_(-1, tokens, values)


def penalise_repetition(
    logits: Tensor, seen: Sequence[NDArray[np.int64]], penalties: Sequence[float]
) -> None:
    lengths = [len(tokens) for tokens in seen]
    places = np.concatenate(seen) + np.repeat(np.arange(len(seen)) * logits.shape[-1], lengths)
    index = torch.from_numpy(places).to(logits.device)
    penalty = torch.from_numpy(np.repeat(np.array(penalties, dtype=np.float32), lengths)).to(logits.device)
    values = logits.view(-1)[index]
    # A token seen twice is written twice, with the same value.
    logits.view(-1)[index] = torch.where(values < 0, values * penalty, values / penalty)


def penalise_frequency(
    logits: Tensor,
    seen: Sequence[NDArray[np.int64]],
    presence: Sequence[float],
    frequency: Sequence[float],
) -> None:
    for logit, tokens, once, often in zip(logits, seen, presence, frequency, strict=True):
        known, counts = np.unique(tokens, return_counts=True)
        logit[torch.from_numpy(known).to(logits.device)] -= torch.from_numpy(once + often * counts).to(logits)
