"""Measures rankings of documents: average precision, reciprocal rank, nDCG and recall@k.

A ranking is a list of documents, the best first, or a mapping from documents to scores. Documents of equal
score have no order: every metric is then its expected value over all their orders. McSherry and Najork,
Computing Information Retrieval Performance Measures Efficiently in the Presence of Tied Scores (2008).
"""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Callable, Collection, Hashable, Iterator, Mapping, Sequence, Set
from typing import Literal

from decodery.metrics.arguments import chosen, count, listed, number, numbers, refuse, same_length
from decodery.metrics.score import Score, mean

# The relevant documents of a query, or the grade of each judged one; those with a grade above 0 are relevant.
Relevant = Collection[Hashable] | Mapping[Hashable, float]
Ranking = Sequence[Hashable] | Mapping[Hashable, float]
Gain = Literal["linear", "exponential"]

LARGEST_GAIN = 1000
TIES = "expected value over ties"


def average_precision(relevant: Relevant, ranked: Ranking) -> Score:
    """Returns the mean over the relevant documents of the precision at their places; 0 for one not ranked.

    It is undefined without relevant documents.
    Raises `ParameterError` for a document that is ranked twice, and for a score or grade that is NaN.
    """
    grades = _grades(relevant)
    total, before, hits = 0.0, 0, 0
    for size, good in _ties(grades, ranked):
        for place in range(1, size + 1):
            # Given that this place is relevant, the other relevant ones are spread over the other places.
            others = (place - 1) * (good - 1) / (size - 1) if size > 1 else 0
            total += good / size * (hits + 1 + others) / (before + place)
        before, hits = before + size, hits + good
    return _query_score(total, _relevant_count(grades))


def reciprocal_rank(relevant: Relevant, ranked: Ranking) -> Score:
    """Returns 1 over the place of the first relevant document, 0 if none is ranked.

    It is undefined without relevant documents. Raises `ParameterError` as `average_precision` does.
    """
    grades = _grades(relevant)
    before = 0
    for size, good in _ties(grades, ranked):
        if good:
            orders = math.comb(size, good)
            value = math.fsum(
                math.comb(size - place, good - 1) / orders / (before + place)
                for place in range(1, size - good + 2)
            )
            return _query_score(value, _relevant_count(grades), of=1)
        before += size
    return _query_score(0.0, _relevant_count(grades), of=1)


def recall_at_k(relevant: Relevant, ranked: Ranking, k: int) -> Score:
    """Returns the share of the relevant documents that are among the first k.

    It is undefined without relevant documents. Raises `ParameterError` as `average_precision` does, and for k
    below 1.
    """
    k, grades = count("k", k, 1), _grades(relevant)
    before, hits = 0, 0.0
    for size, good in _ties(grades, ranked):
        hits += good * min(max(k - before, 0), size) / size
        before += size
    return _query_score(hits, _relevant_count(grades), settings=f"k={k}, ")


def ndcg(
    gains: Sequence[float], scores: Sequence[float | None], k: int | None = None, gain: Gain = "linear"
) -> Score:
    """Returns the discounted cumulative gain of documents in the order of their scores, over the largest one.

    `gains` has each document's grade, at least 0, and `scores` its score, the highest first; None is a
    document that was not ranked: it counts in the largest gain alone. The discount is 1 / log2(1 + place),
    and 0 behind place k. A gain is the grade, or with "exponential" 2**grade - 1. It is undefined if no grade
    is above 0.
    Raises `ParameterError` for no documents, other lengths, NaN, and grades that are negative or above 1,000.
    Järvelin and Kekäläinen, Cumulated Gain-Based Evaluation of IR Techniques (2002).
    """
    grades, given = numbers("gains", gains), listed("scores", scores)
    same_length(gains=grades, scores=given)
    chosen("gain", gain, ("linear", "exponential"))
    if not 0 <= min(grades) <= max(grades) <= LARGEST_GAIN:
        refuse("gains", f"must be from 0 to {LARGEST_GAIN}")
    limit = len(grades) if k is None else count("k", k, 1)
    worth = grades if gain == "linear" else [2.0**grade - 1 for grade in grades]
    settings = f"{gain} gain, {'all places' if k is None else f'k={limit}'}, {TIES}"
    best = math.fsum(
        value * _discount(place, limit) for place, value in enumerate(sorted(worth, reverse=True), 1)
    )
    if not best:
        return Score(None, None, "fraction", 0, 1, settings)
    tied: defaultdict[float, list[float]] = defaultdict(list)
    for index, (value, score) in enumerate(zip(worth, given, strict=True)):
        if score is not None:
            tied[number(f"scores[{index}]", score)].append(value)
    found, before = [], 0
    for score in sorted(tied, reverse=True):
        places = range(before + 1, before + 1 + len(tied[score]))
        average = math.fsum(tied[score]) / len(places)
        found.append(average * math.fsum(_discount(place, limit) for place in places))
        before += len(places)
    return Score(math.fsum(found) / best, None, "fraction", 1, settings=settings)


def ndcg_of_ranking(
    relevant: Relevant, ranked: Ranking, k: int | None = None, gain: Gain = "linear"
) -> Score:
    """Returns `ndcg` of a ranking; documents without a grade, or with one below 0, have gain 0.

    The largest gain is that of all judged documents, also of those that are not ranked.
    Raises `ParameterError` as `ndcg` and `average_precision` do.
    """
    grades, scores = _grades(relevant), _scores(ranked)
    documents = list(dict.fromkeys((*grades, *scores)))
    gains = [max(0.0, grades.get(document, 0.0)) for document in documents]
    # A query without documents is undefined, as one without relevant documents.
    return ndcg(gains or [0.0], [scores.get(document) for document in documents] or [None], k, gain)


def over_queries(
    metric: Callable[[Relevant, Ranking], Score],
    relevant: Mapping[Hashable, Relevant],
    run: Mapping[Hashable, Ranking],
    *,
    without_relevant: Literal["left out", "zero"] = "left out",
) -> Score:
    """Returns the mean of a metric over the judged queries, with the error of `mean`.

    `relevant` has the judged documents of each query and `run` its ranking. `metric` is one of the functions
    here, such as `partial(recall_at_k, k=10)`. A judged query that is missing from the run counts with an
    empty ranking. One without relevant documents is undefined, or 0 by trec_eval's rule ("zero"). A query of
    the run that is not judged is left out. `settings` counts them all.
    Raises `ParameterError` for no judged queries, and where no query of the run is judged.
    """
    chosen("without_relevant", without_relevant, ("left out", "zero"))
    if not isinstance(relevant, Mapping) or not isinstance(run, Mapping):
        refuse("relevant" if isinstance(run, Mapping) else "run", "must be a mapping by query")
    queries = listed("relevant", list(relevant))
    missing = [query for query in queries if query not in run]
    if run and len(missing) == len(queries):
        refuse("run", f"has none of the judged queries, such as {queries[0]!r}: are the ids of one type?")
    scores = [metric(relevant[query], run.get(query, ())) for query in queries]
    values = [score.value for score in scores]
    empty = values.count(None)
    if without_relevant == "zero":
        values = [value or 0.0 for value in values]
    counts = (
        f"{len(queries)} judged queries",
        f"{len(missing)} of them missing from the run",
        f"{empty} without relevant documents ({without_relevant})",
        f"{len(set(run) - set(queries))} of the run not judged",
    )
    return mean(values, unit=scores[0].unit, settings="; ".join((*counts, scores[0].settings)))


def _query_score(total: float, relevant: int, of: int | None = None, settings: str = "") -> Score:
    """Returns the total over the relevant documents or over `of`, undefined without relevant documents."""
    if not relevant:
        return Score(None, None, "fraction", 0, 1, settings + TIES)
    return Score(total / (of or relevant), None, "fraction", 1, settings=settings + TIES)


def _relevant_count(grades: Mapping[Hashable, float]) -> int:
    return sum(grade > 0 for grade in grades.values())


def _discount(place: int, limit: int) -> float:
    return 1 / math.log2(1 + place) if place <= limit else 0.0


def _grades(relevant: Relevant) -> dict[Hashable, float]:
    """Returns the grade of each judged document; one that is merely named as relevant has 1."""
    if isinstance(relevant, Mapping):
        return {
            document: number(f"relevant[{document!r}]", grade, truth=True)
            for document, grade in relevant.items()
        }
    return dict.fromkeys(_documents("relevant", relevant), 1.0)


def _scores(ranked: Ranking) -> dict[Hashable, float]:
    """Returns a score of each ranked document; that of a list falls from place to place."""
    if isinstance(ranked, Mapping):
        return {document: number(f"ranked[{document!r}]", score) for document, score in ranked.items()}
    if isinstance(ranked, Set):
        refuse("ranked", "is a set, which has no order: give a list, or a mapping to scores")
    documents = _documents("ranked", ranked)
    if len(set(documents)) < len(documents):
        refuse("ranked", "has a document twice")
    return {document: -float(place) for place, document in enumerate(documents)}


def _documents(name: str, documents: Collection[Hashable]) -> list[Hashable]:
    if isinstance(documents, (str, bytes)):
        refuse(name, "must be a collection of documents, not a text")
    return list(documents)


def _ties(grades: Mapping[Hashable, float], ranked: Ranking) -> Iterator[tuple[int, int]]:
    """Yields for each score, the highest first, the number of documents and that of relevant ones."""
    tied: defaultdict[float, list[bool]] = defaultdict(list)
    for document, score in _scores(ranked).items():
        tied[score].append(grades.get(document, 0.0) > 0)
    for score in sorted(tied, reverse=True):
        yield len(tied[score]), sum(tied[score])
