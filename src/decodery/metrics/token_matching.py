"""Measures texts by the similarity of their tokens' vectors: BERTScore.

Zhang et al., BERTScore: Evaluating Text Generation with BERT (2020).
"""

from __future__ import annotations

import csv
import math
from collections import Counter
from collections.abc import Callable, Hashable, Sequence
from os import PathLike
from typing import Any, Protocol

from decodery.metrics.arguments import listed, number, refuse, same_length, texts
from decodery.metrics.score import Score, mean
from decodery.metrics.summaries import Overlap


class EmbeddedTokens(Protocol):
    """Declares what is read of a text's tokens; the results of `LLM.embed_tokens` have it.

    `ids` are the tokens, `spans` the characters that each stands for, (0, 0) for special tokens, and
    `vectors` an array [tokens, width].
    """

    @property
    def ids(self) -> Sequence[int]: ...
    @property
    def spans(self) -> Sequence[tuple[int, int]]: ...
    @property
    def vectors(self) -> Any: ...


Embed = Callable[[list[str]], Sequence[EmbeddedTokens]]
# What unrelated texts have in precision, recall and F1.
Baseline = tuple[float, float, float]


def bert_score(
    predictions: Sequence[str],
    references: Sequence[str | Sequence[str]],
    embed: Embed,
    *,
    idf: bool = False,
    baseline: Baseline | None = None,
    model: str = "unnamed",
    groups: Sequence[Hashable] | None = None,
) -> Score:
    """Returns the mean F1 of BERTScore; `bert_scores` has precision and recall of each text.

    `embed` gives the tokens' vectors of texts, such as `partial(llm.embed_tokens, layer=9)`. With `idf` a
    token weighs by its rarity among the references. `baseline` rescales each number x to (x - b) / (1 - b).
    `settings` says all of it, and `model`, the caller's words for the encoder and its layer. A text is
    undefined if it or each of its references has no tokens, or only tokens without weight, or if precision or
    recall is below 0, where there is no harmonic mean. Of several references the best F1 counts.
    Raises `ParameterError` for no texts, other lengths, an empty list of references, `idf` with one
    reference, where all weights would be 0, and a baseline of 1 or more.
    """
    found = bert_scores(predictions, references, embed, idf=idf, baseline=baseline)
    settings = f"F1, model {model}, {'idf' if idf else 'no idf'}, "
    settings += "not rescaled" if baseline is None else f"rescaled by {baseline[2]}"
    values = [None if one is None else one.f1 for one in found]
    return mean(values, unit="similarity", groups=groups, settings=settings)


def bert_scores(
    predictions: Sequence[str],
    references: Sequence[str | Sequence[str]],
    embed: Embed,
    *,
    idf: bool = False,
    baseline: Baseline | None = None,
) -> list[Overlap | None]:
    """Returns precision, recall and F1 of BERTScore for each prediction, None where it is undefined.

    Arguments and exceptions are those of `bert_score`.
    """
    given = texts("predictions", predictions)
    known = [
        [option] if isinstance(option, str) else texts(f"references[{index}]", option)
        for index, option in enumerate(listed("references", references))
    ]
    same_length(predictions=given, references=known)
    base = _checked(baseline)
    distinct = list(dict.fromkeys([*given, *(option for options in known for option in options)]))
    vectors = embed(distinct)
    if len(vectors) != len(distinct):
        refuse("embed", f"gave {len(vectors)} results for {len(distinct)} texts")
    read = dict(zip(distinct, vectors, strict=True))
    weight = _weights([read[option] for options in known for option in options]) if idf else _one
    sides = {text: _Side(tokens, weight) for text, tokens in read.items()}
    found = []
    for prediction, options in zip(given, known, strict=True):
        all_of = [_match(sides[prediction], sides[option]) for option in options]
        defined = [_rescaled(one, base) for one in all_of if one is not None]
        found.append(max(defined, key=lambda one: one.f1, default=None))
    return found


def read_baseline(path: str | PathLike[str], layer: int) -> Baseline:
    """Returns the baseline of a layer from a file of bert-score: columns LAYER, P, R, F, between commas.

    Raises `ParameterError` if there is no such file, or no such layer in it.
    """
    try:
        with open(path, encoding="utf-8", newline="") as file:
            rows = {row["LAYER"]: row for row in csv.DictReader(file)}
        row = rows[str(layer)]
        return float(row["P"]), float(row["R"]), float(row["F"])
    except (OSError, UnicodeDecodeError) as error:
        refuse("baseline", f"cannot be read: {path} ({error})")
    except (KeyError, TypeError, ValueError):
        refuse("baseline", f"has no row LAYER,P,R,F of layer {layer}: {path}")


class _Side:
    """Holds the unit vectors of a text's tokens and their weights; special tokens match, and weigh 0."""

    def __init__(self, tokens: EmbeddedTokens, weight: Callable[[int], float]) -> None:
        import numpy as np

        vectors = np.asarray(tokens.vectors, dtype=np.float64)
        if not np.isfinite(vectors).all():
            refuse("embed", "gave a vector with NaN or infinity")
        lengths = np.linalg.norm(vectors, axis=-1, keepdims=True)
        self.vectors = vectors / np.where(lengths > 0, lengths, 1)
        special = [tuple(span) == (0, 0) for span in tokens.spans]
        self.weights = np.array([0.0 if s else weight(i) for i, s in zip(tokens.ids, special, strict=True)])


def _one(token: int) -> float:
    return 1.0


def _weights(references: Sequence[EmbeddedTokens]) -> Callable[[int], float]:
    """Returns the weight of a token: log((N + 1) / (n + 1)) for n of N references with it."""
    if len(references) < 2:
        refuse("idf", "needs several references: with one, every token of it weighs 0")
    holding = Counter(token for tokens in references for token in set(tokens.ids))
    return lambda token: math.log((len(references) + 1) / (holding[token] + 1))


def _match(candidate: _Side, reference: _Side) -> Overlap | None:
    ours, theirs = candidate.weights.sum(), reference.weights.sum()
    if not ours > 0 or not theirs > 0:
        return None
    similarity = candidate.vectors @ reference.vectors.T
    precision = float((similarity.max(1) * candidate.weights).sum() / ours)
    recall = float((similarity.max(0) * reference.weights).sum() / theirs)
    if min(precision, recall) < 0:
        return None
    both = precision + recall
    return Overlap(precision, recall, 2 * precision * recall / both if both else 0.0)


def _checked(baseline: Baseline | None) -> Baseline:
    if baseline is None:
        return 0.0, 0.0, 0.0
    if isinstance(baseline, (str, PathLike)) or len(baseline) != 3:
        refuse(
            "baseline", "must be three numbers, of precision, recall and F1: read a file with read_baseline"
        )
    one, two, three = (number(f"baseline[{index}]", value) for index, value in enumerate(baseline))
    if max(one, two, three) >= 1:
        refuse("baseline", f"must be below 1, the largest similarity: {baseline}")
    return one, two, three


def _rescaled(found: Overlap, baseline: Baseline) -> Overlap:
    assert found.precision is not None
    parts = zip((found.precision, found.recall, found.f1), baseline, strict=True)
    return Overlap(*((value - base) / (1 - base) for value, base in parts))
