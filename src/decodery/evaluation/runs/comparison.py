"""Compares two runs over the same documents, sample by sample."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

from decodery.errors import ParameterError
from decodery.evaluation.runs.stored_run import StoredRun
from decodery.metrics.differences import Difference, bootstrap, mcnemar
from decodery.metrics.score import Score
from decodery.metrics.translation import corpus_difference

# Settings without which two runs have not asked about the same.
SAME = ("task", "version", "data")
LEVEL = 0.05
CORPUS_METRICS: tuple[Literal["bleu", "chrf"], ...] = ("bleu", "chrf")


@dataclass(frozen=True, slots=True)
class MetricComparison:
    """Holds one metric of two runs, and the difference of their samples, the second minus the first.

    `sampled` is by the paired bootstrap, over clusters where there are some; for BLEU and chrF each round
    scores a corpus. `exact` is McNemar's test, where all values are 0 or 1 and there are no clusters. Both
    are None for another metric that is no mean of samples.
    """

    one: Score
    other: Score
    sampled: Difference | None = None
    exact: Difference | None = None

    @property
    def p_value(self) -> float | None:
        """Returns the probability of such a difference if there is none; McNemar's where it applies."""
        found = self.exact or self.sampled
        return None if found is None else found.p_value

    @property
    def verdict(self) -> str:
        """Returns "real" for a p-value below 5%, "not told apart" above, "unknown" without one."""
        if self.p_value is None:
            return "unknown"
        return "real" if self.p_value < LEVEL else "not told apart"


@dataclass(frozen=True, slots=True)
class DifferingSample:
    """Holds a document whose value of the main metric is another in each run."""

    id: str
    group: str
    gold: Any
    values: tuple[float | None, float | None]
    predicted: tuple[Any, Any]


@dataclass(frozen=True, slots=True)
class Comparison:
    """Holds two runs side by side. `settings` are those in which they differ, with both values."""

    one: StoredRun
    other: StoredRun
    settings: Mapping[str, tuple[Any, Any]]
    metrics: Mapping[str, MetricComparison]
    groups: Mapping[str, MetricComparison]
    differing: Sequence[DifferingSample]
    documents: int


def compare(one: StoredRun, other: StoredRun, *, seed: int = 0) -> Comparison:
    """Returns the comparison of two runs, whose samples are paired by the documents' ids.

    Raises `ParameterError` for runs of different tasks, versions or data, which it names, and for runs
    without a common metric.
    """
    for name in SAME:
        values = [_short(run.settings.get(name)) for run in (one, other)]
        if one.settings.get(name) != other.settings.get(name):
            limits = ""
            if name == "data" and one.settings.get("limit") != other.settings.get("limit"):
                limits = f" (limit {one.settings.get('limit')} and {other.settings.get('limit')})"
            raise ParameterError(
                f"the {name} of {one.path} and {other.path} is different: {values[0]} and {values[1]}{limits}"
            )
    pairs = _paired(one, other)
    clusters = [first.get("cluster") or first["id"] for first, _ in pairs]
    clustered = any(first.get("cluster") for first, _ in pairs)
    metrics = {
        name: _metric(name, one.results[name], other.results[name], pairs, clusters, clustered, seed)
        for name in one.results
        if name in other.results
    }
    metrics |= _corpora(one, other, pairs, seed)
    if not metrics:
        raise ParameterError(f"{one.path} and {other.path} have no metric in common")
    main = next(iter(metrics))
    return Comparison(
        one,
        other,
        _changed(one.settings, other.settings),
        metrics,
        _groups(main, one, other, pairs, clusters, clustered, seed),
        [
            _differing(main, pair)
            for pair in pairs
            if pair[0]["values"].get(main) != pair[1]["values"].get(main)
        ],
        len(pairs),
    )


Pair = tuple[dict[str, Any], dict[str, Any]]


def _paired(one: StoredRun, other: StoredRun) -> list[Pair]:
    firsts, seconds = ({str(sample["id"]): _kept(sample) for sample in run.samples()} for run in (one, other))
    alone = sorted(firsts.keys() ^ seconds.keys())
    if alone:
        raise ParameterError(
            f"{one.path} and {other.path} have different samples: {len(alone)} are in one of them only,"
            f" such as {alone[0]}"
        )
    return [(sample, seconds[name]) for name, sample in firsts.items()]


def _kept(sample: Mapping[str, Any]) -> dict[str, Any]:
    names = ("id", "group", "cluster", "values", "weights", "gold", "predicted")
    return {name: sample.get(name) for name in names}


def _metric(
    name: str,
    one: Score,
    other: Score,
    pairs: Sequence[Pair],
    clusters: Sequence[str],
    clustered: bool,
    seed: int,
) -> MetricComparison:
    if not any(name in sample["values"] for pair in pairs for sample in pair):
        return MetricComparison(one, other)
    firsts, seconds = (_weighted(name, [pair[run] for pair in pairs]) for run in (0, 1))
    if not (_is_mean(firsts, one) and _is_mean(seconds, other)):
        return MetricComparison(one, other)
    sampled = bootstrap(firsts, seconds, seed, groups=clusters if clustered else None)
    known = [pair for pair in zip(firsts, seconds, strict=True) if None not in pair]
    exact = None
    if known and not clustered and all(value in (0, 1) for pair in known for value in pair):
        exact = mcnemar([first == 1 for first, _ in known], [second == 1 for _, second in known])
    return MetricComparison(one, other, sampled, exact)


def _corpora(
    one: StoredRun, other: StoredRun, pairs: Sequence[Pair], seed: int
) -> dict[str, MetricComparison]:
    """Returns the comparison of BLEU and chrF, for runs that wrote one text for each document."""
    tokenize = (one.settings.get("form") or {}).get("tokenize")
    names = [name for name in CORPUS_METRICS if name in one.results and name in other.results]
    if tokenize is None or any(run.settings.get("repeats") != 1 for run in (one, other)):
        return {}
    firsts, seconds = ([pair[run]["predicted"] for pair in pairs] for run in (0, 1))
    golds = [first["gold"] for first, _ in pairs]
    return {
        name: MetricComparison(
            one.results[name],
            other.results[name],
            corpus_difference(name, firsts, seconds, golds, tokenize=tokenize, seed=seed),
        )
        for name in names
    }


def _weighted(name: str, samples: Sequence[Mapping[str, Any]]) -> list[float | None]:
    """Returns values times their weights, scaled so that their plain mean is the weighted one."""
    values = [sample["values"].get(name) for sample in samples]
    weights = [(sample.get("weights") or {}).get(name, 1.0) for sample in samples]
    known = [weight for value, weight in zip(values, weights, strict=True) if value is not None]
    scale = len(known) / math.fsum(known) if known else 1.0
    pairs = zip(values, weights, strict=True)
    return [None if value is None else value * weight * scale for value, weight in pairs]


def _is_mean(values: Sequence[float | None], score: Score) -> bool:
    """True if a score is the mean of these values; else their differences say nothing about it."""
    known = [value for value in values if value is not None]
    if not known or score.value is None:
        return False
    return math.isclose(math.fsum(known) / len(known), score.value, rel_tol=1e-9, abs_tol=1e-12)


def _groups(
    main: str,
    one: StoredRun,
    other: StoredRun,
    pairs: Sequence[Pair],
    clusters: Sequence[str],
    clustered: bool,
    seed: int,
) -> dict[str, MetricComparison]:
    found = {}
    for name in one.groups:
        scores = [run.groups.get(name, {}).get(main) for run in (one, other)]
        places = [place for place, (first, _) in enumerate(pairs) if first["group"] == name]
        if places and scores[0] is not None and scores[1] is not None:
            inside = [pairs[place] for place in places]
            keys = [clusters[place] for place in places]
            found[name] = _metric(main, scores[0], scores[1], inside, keys, clustered, seed)
    return found


def _differing(main: str, pair: Pair) -> DifferingSample:
    first, second = pair
    return DifferingSample(
        first["id"],
        first["group"] or "",
        first["gold"],
        (first["values"].get(main), second["values"].get(main)),
        (first["predicted"], second["predicted"]),
    )


def _changed(one: Mapping[str, Any], other: Mapping[str, Any]) -> dict[str, tuple[Any, Any]]:
    names = sorted({*one, *other})
    return {name: (one.get(name), other.get(name)) for name in names if one.get(name) != other.get(name)}


def _short(value: Any) -> str:
    text = value if isinstance(value, str) else json.dumps(value)
    return text if len(text) <= 16 else f"{text[:12]}…"
