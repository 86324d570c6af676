"""Measures labels: accuracy, precision, recall, F1, Matthews' coefficient, and agreement of raters."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Callable, Hashable, Sequence, Set
from functools import partial
from numbers import Number
from typing import Any, Literal

from decodery.metrics.arguments import chosen, hashable, is_truth, refuse, same_length
from decodery.metrics.resampling import jackknife_error, members
from decodery.metrics.score import Score, mean

Cell = tuple[Hashable, Hashable]
Cells = Counter[Cell]
Average = Literal["macro", "micro", "weighted", "binary"]
Labels = Sequence[Hashable]
# The counts of a label: its correct predictions, its gold samples, its predictions.
Ratio = Callable[[int, int, int], tuple[int, int]]

MOST_NAMED = 10


def accuracy(gold: Labels, predicted: Labels, *, groups: Sequence[Hashable] | None = None) -> Score:
    """Returns the fraction of samples whose predicted label is the gold one, and the error of `mean`.

    A prediction of None has no answer; it is wrong, and `settings` says how many there are.
    Raises `ParameterError` for no samples, other lengths, None in `gold`, and labels of different kinds.
    """
    pairs = _label_pairs(gold, predicted)
    return mean([one == other for one, other in pairs], groups=groups, settings=_unanswered(pairs))


def precision(
    gold: Labels,
    predicted: Labels,
    labels: Labels | None = None,
    average: Average = "macro",
    *,
    positive: Hashable | None = None,
    groups: Sequence[Hashable] | None = None,
) -> Score:
    """Returns the share of the predictions of a label that are right, averaged over labels as `f1` does.

    A label that is never predicted has no precision.
    """
    return _averaged(
        lambda hits, gold, said: (hits, said), gold, predicted, labels, average, positive, groups
    )


def recall(
    gold: Labels,
    predicted: Labels,
    labels: Labels | None = None,
    average: Average = "macro",
    *,
    positive: Hashable | None = None,
    groups: Sequence[Hashable] | None = None,
) -> Score:
    """Returns the share of a label's samples that are found, averaged over labels as `f1` does.

    A label without gold samples has no recall.
    """
    return _averaged(
        lambda hits, gold, said: (hits, gold), gold, predicted, labels, average, positive, groups
    )


def f1(
    gold: Labels,
    predicted: Labels,
    labels: Labels | None = None,
    average: Average = "macro",
    *,
    positive: Hashable | None = None,
    groups: Sequence[Hashable] | None = None,
) -> Score:
    """Returns F1, twice the correct predictions over gold samples and predictions, averaged over labels.

    `average` is "macro" (the mean over `labels`), "weighted" (by their gold samples), "micro" (counts are
    summed over `labels` first) or "binary" (of the label `positive` alone). `labels` are those of both lists
    without it; `settings` names them. A prediction of None has no answer: it is a missed sample of its gold
    label, and no label. A label that neither occurs nor is predicted has no F1: it is left out of the mean,
    and `undefined` counts such labels (not samples). The value is None if all are. The error is the
    jackknife's.
    Raises `ParameterError` as `accuracy` does, for a label given twice, and for `positive` without "binary".
    """
    return _averaged(
        lambda hits, gold, said: (2 * hits, gold + said), gold, predicted, labels, average, positive, groups
    )


def matthews(gold: Labels, predicted: Labels, *, groups: Sequence[Hashable] | None = None) -> Score:
    """Returns Matthews' correlation coefficient, for any number of labels, with the jackknife's error.

    It is undefined where either list has one label only. A prediction of None counts as a label of its own.
    Raises `ParameterError` as `accuracy` does. Gorodkin, Comparing Two K-Category Assignments (2004).
    """
    pairs = _label_pairs(gold, predicted)
    value = _matthews(Counter(pairs))
    settings = _unanswered(pairs)
    if value is None:
        return Score(None, None, "correlation", 0, len(pairs), settings)
    return Score(value, _jackknife(pairs, groups, _matthews), "correlation", len(pairs), settings=settings)


def cohen_kappa(
    one: Sequence[Hashable], other: Sequence[Hashable], *, groups: Sequence[Hashable] | None = None
) -> Score:
    """Returns Cohen's kappa of two raters' labels, with the jackknife's error.

    It is undefined where both give every sample the same one label: then chance alone agrees.
    Raises `ParameterError` for no samples, other lengths, None, and labels of different kinds.
    Cohen, A Coefficient of Agreement for Nominal Scales (1960).
    """
    pairs = _label_pairs(one, other, ("one", "other"))
    if any(label is None for _, label in pairs):
        refuse("other", "holds None: leave samples out that a rater did not judge")
    value = _kappa(Counter(pairs))
    if value is None:
        return Score(None, None, "kappa", 0, len(pairs))
    return Score(value, _jackknife(pairs, groups, _kappa), "kappa", len(pairs))


def _matthews(cells: Cells) -> float | None:
    hits, support, said = _tally(cells)
    samples = cells.total()
    spread_gold = samples**2 - sum(count**2 for count in support.values())
    spread_said = samples**2 - sum(count**2 for count in said.values())
    if not spread_gold or not spread_said:
        return None
    shared = sum(hits.values()) * samples - sum(support[label] * said[label] for label in support)
    return shared / math.sqrt(spread_gold * spread_said)


def _averaged(
    ratio: Ratio,
    gold: Labels,
    predicted: Labels,
    labels: Labels | None,
    average: Average,
    positive: Hashable | None,
    groups: Sequence[Hashable] | None,
) -> Score:
    pairs = _label_pairs(gold, predicted)
    over, settings = _label_set(pairs, labels, average, positive)
    statistic = partial(_average, ratio=ratio, labels=over, average=average)
    value, undefined = statistic(Counter(pairs))
    error = _jackknife(pairs, groups, lambda cells: statistic(cells)[0])
    settings = "; ".join(filter(None, (settings, _unanswered(pairs))))
    return Score(value, None if value is None else error, "fraction", len(pairs), undefined, settings)


def _average(cells: Cells, *, ratio: Ratio, labels: Labels, average: Average) -> tuple[float | None, int]:
    """Returns the average over labels, None where there is none, and the number of labels without a value."""
    hits, support, said = _tally(cells)
    parts = [(*ratio(hits[label], support[label], said[label]), support[label]) for label in labels]
    if average == "micro":
        above, below = sum(part[0] for part in parts), sum(part[1] for part in parts)
        return (above / below, 0) if below else (None, len(parts))
    known = [
        (above / below, weight if average == "weighted" else 1) for above, below, weight in parts if below
    ]
    total = sum(weight for _, weight in known)
    value = math.fsum(part * weight for part, weight in known) / total if total else None
    return value, len(parts) - len(known)


def _tally(cells: Cells) -> tuple[Counter[Hashable], Counter[Hashable], Counter[Hashable]]:
    """Returns by label the correct predictions, the gold samples and the predictions."""
    hits: Counter[Hashable] = Counter()
    support: Counter[Hashable] = Counter()
    said: Counter[Hashable] = Counter()
    for (one, other), times in cells.items():
        support[one] += times
        said[other] += times
        if one == other:
            hits[one] += times
    return hits, support, said


def _label_set(
    pairs: Sequence[Cell], labels: Labels | None, average: Average, positive: Hashable | None
) -> tuple[list[Hashable], str]:
    chosen("average", average, ("macro", "micro", "weighted", "binary"))
    if (average == "binary") != (positive is not None):
        refuse("positive", 'names the label that average="binary" measures, and is for it alone')
    found = {label for pair in pairs for label in pair if label is not None}
    over = _sorted(found) if labels is None else hashable("labels", labels)
    if len(set(over)) < len(over):
        refuse("labels", "names a label twice")
    if None in over:
        refuse("labels", "holds None, which stands for no answer")
    _same_kind(gold=[one for one, _ in pairs], labels=over, positive=[positive])
    if average == "binary":
        if labels is not None and positive not in over:
            refuse("positive", f"is not among the labels: {positive!r}")
        return [positive], f"positive label {positive}"
    named = ", ".join(map(str, over[:MOST_NAMED])) + (", ..." if len(over) > MOST_NAMED else "")
    source = "of the data" if labels is None else "given"
    return over, f"{average} average over {len(over)} labels {source}: {named}"


def _sorted(labels: Set[Any]) -> list[Hashable]:
    try:
        return sorted(labels)
    except TypeError:
        return sorted(labels, key=str)


def _unanswered(pairs: Sequence[Cell]) -> str:
    missing = sum(other is None for _, other in pairs)
    return f"{missing} without an answer, counted as wrong" if missing else ""


def _kappa(cells: Cells) -> float | None:
    firsts: Counter[Hashable] = Counter()
    seconds: Counter[Hashable] = Counter()
    for (one, other), times in cells.items():
        firsts[one] += times
        seconds[other] += times
    samples = cells.total()
    chance = sum(firsts[label] * seconds[label] for label in firsts)
    if chance == samples**2:
        return None
    same = sum(times for (one, other), times in cells.items() if one == other)
    return (same * samples - chance) / (samples**2 - chance)


def _label_pairs(
    gold: Sequence[Hashable],
    predicted: Sequence[Hashable | None],
    names: tuple[str, str] = ("gold", "predicted"),
) -> list[Cell]:
    """Returns the pairs of both lists; None is a prediction without an answer, and equals no label.

    Raises `ParameterError` for no samples, other lengths, NaN, None among the gold labels, and where labels
    are of different kinds, such as 1 and "1": they are never equal, so that the metric would be 0 without a
    reason.
    """
    one, other = hashable(names[0], gold), hashable(names[1], predicted)
    same_length(**{names[0]: one, names[1]: other})
    if None in one:
        refuse(f"{names[0]}[{one.index(None)}]", "is None: every sample needs a label")
    _same_kind(**{names[0]: one, names[1]: other})
    return list(zip(one, other, strict=True))


def _same_kind(**lists: Sequence[Hashable | None]) -> None:
    """Raises `ParameterError` unless all labels are texts, or all numbers, or all of one other type."""
    first: tuple[str, str] | None = None
    for name, labels in lists.items():
        for label in labels:
            if label is None:
                continue
            kind = _kind(label)
            first = first or (name, kind)
            if kind != first[1]:
                refuse(name, f"holds a {kind}, {label!r}, and {first[0]} a {first[1]}: they are never equal")


def _kind(label: Hashable) -> str:
    if isinstance(label, str):
        return "text"
    return "number" if isinstance(label, Number) or is_truth(label) else type(label).__name__


def _jackknife(
    pairs: Sequence[Cell], groups: Sequence[Hashable] | None, statistic: Callable[[Cells], float | None]
) -> float | None:
    """Returns the standard error of a metric of counted pairs, by the jackknife over samples or groups."""
    cells = Counter(pairs)
    parts = Counter(
        frozenset(Counter(pairs[index] for index in group).items()) for group in members(groups, len(pairs))
    )
    return jackknife_error((statistic(cells - Counter(dict(part))), times) for part, times in parts.items())
