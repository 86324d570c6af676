"""Measures the BERTScore of texts that have nothing in common, by which scores are rescaled.

Zhang et al., BERTScore: Evaluating Text Generation with BERT (2020), section 3; bert-score's files
"rescale_baseline" have such numbers for its own encoders, from a million pairs of sentences.
"""

from __future__ import annotations

import math
import random
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from decodery.metrics.arguments import refuse, texts
from decodery.metrics.score import Score
from decodery.metrics.summaries import Overlap
from decodery.metrics.token_matching import Baseline, Embed, EmbeddedTokens, bert_scores

# Gives for each layer the tokens' vectors of texts.
EmbedLayers = Callable[[list[str]], Sequence[Sequence[EmbeddedTokens]]]
Pair = tuple[str, str]
Triple = tuple[float, float, float]
# The pairs whose vectors are in memory together.
BLOCK = 256


@dataclass(frozen=True, slots=True)
class PairTotals:
    """Holds the sums of precision, recall and F1 over pairs of texts, and those of their squares.

    `undefined` pairs have no such numbers.
    """

    counted: int = 0
    undefined: int = 0
    sums: Triple = (0.0, 0.0, 0.0)
    squares: Triple = (0.0, 0.0, 0.0)

    def plus(self, found: Sequence[Overlap | None]) -> PairTotals:
        """Returns the totals with further pairs."""
        rows = [
            (one.precision, one.recall, one.f1)
            for one in found
            if one is not None and one.precision is not None
        ]
        columns = list(zip(*rows, strict=True)) or [(), (), ()]
        sums = [math.fsum((total, *column)) for total, column in zip(self.sums, columns, strict=True)]
        squares = [
            math.fsum((total, *(value * value for value in column)))
            for total, column in zip(self.squares, columns, strict=True)
        ]
        undefined = self.undefined + len(found) - len(rows)
        return PairTotals(self.counted + len(rows), undefined, _triple(sums), _triple(squares))

    def scores(self) -> tuple[Score, Score, Score]:
        """Returns precision, recall and F1, with the errors of their means."""
        first, second, third = (
            _mean(total, square, self) for total, square in zip(self.sums, self.squares, strict=True)
        )
        return first, second, third


def random_pairs(sentences: Sequence[str], seed: int = 0) -> list[Pair]:
    """Returns pairs of different sentences, drawn with `seed`; each is in one pair, equal ones count once.

    So the pairs are independent, which the errors of their means need. Of an odd number one is left out.

    Raises `ParameterError` for fewer than two different sentences.
    """
    distinct = list(dict.fromkeys(texts("sentences", sentences)))
    if len(distinct) < 2:
        refuse("sentences", f"must have two different ones or more, not {len(distinct)}")
    order = random.Random(seed).sample(distinct, len(distinct))
    return list(zip(order[::2], order[1::2], strict=False))


def with_pairs(
    totals: Sequence[PairTotals], pairs: Sequence[Pair], embed: EmbedLayers
) -> tuple[PairTotals, ...]:
    """Returns the totals of each layer with further pairs, whose texts are embedded once for all layers."""
    firsts, seconds = (list(side) for side in zip(*pairs, strict=True))
    distinct = list(dict.fromkeys([*firsts, *seconds]))
    found = []
    for total, vectors in zip(totals, embed(distinct), strict=True):
        embedded = _looked_up(dict(zip(distinct, vectors, strict=True)))
        found.append(total.plus(bert_scores(firsts, seconds, embedded)))
    return tuple(found)


def _looked_up(vectors: Mapping[str, EmbeddedTokens]) -> Embed:
    return lambda asked: [vectors[one] for one in asked]


def random_baseline(sentences: Sequence[str], embed: Embed, *, seed: int = 0) -> Baseline:
    """Returns the mean precision, recall and F1 of BERTScore between sentences that have nothing in common.

    Raises `ParameterError` for fewer than two different sentences, and where no pair has a score.
    """
    totals: tuple[PairTotals, ...] = (PairTotals(),)
    pairs = random_pairs(sentences, seed)
    for start in range(0, len(pairs), BLOCK):
        totals = with_pairs(totals, pairs[start : start + BLOCK], lambda asked: [embed(asked)])
    return baseline_of(totals[0])


def baseline_of(totals: PairTotals) -> Baseline:
    """Returns the means. Raises `ParameterError` where no pair has a score."""
    if not totals.counted:
        refuse("sentences", "have no pair with a score")
    return _triple([total / totals.counted for total in totals.sums])


def _mean(total: float, square: float, of: PairTotals) -> Score:
    count = of.counted
    if not count:
        return Score(None, None, "similarity", 0, of.undefined)
    spread = max(square - total * total / count, 0.0)
    error = math.sqrt(spread / (count - 1) / count) if count > 1 else None
    return Score(total / count, error, "similarity", count, of.undefined)


def _triple(values: Sequence[float]) -> Triple:
    first, second, third = values
    return first, second, third
