"""Groups texts by their vectors, names the groups by their words, and places the texts on a map."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from decodery.errors import ParameterError
from decodery.search.extras import extra
from decodery.search.keywords import words
from decodery.search.ranking import Vectors

# The numbers of groups that are tried if none is asked for, and the texts by which they are compared.
MOST_TRIED, COMPARED = 12, 2000
STARTS = 10
WORDS_OF_NAME = 4
# Neighbours are placed near each other for so many texts at most: the time grows fast with their number.
MOST_PLACED = 3000
PERPLEXITY = 30.0


@dataclass(frozen=True)
class TextGroup:
    """Holds a group of texts: the words that tell it from the others, and the texts' places.

    `members` are in the order of their distance from the group's centre, the nearest first.
    """

    name: tuple[str, ...]
    members: tuple[int, ...]


def text_groups(
    texts: Sequence[str], vectors: Vectors, *, count: int | None = None, seed: int = 0
) -> list[TextGroup]:
    """Returns groups of texts with close vectors [texts, width], the largest first (k-means).

    Without a `count`, it is that of 2 to 12 with the best silhouette (Rousseeuw, 1987). The same `seed` gives
    the same groups. Raises `ParameterError` for a count that is out of range, and `DecoderyError` without the
    library.
    """
    library: Any = extra("sklearn.cluster", "grouping texts")
    distinct = len(np.unique(vectors, axis=0))
    if count is not None and not 1 <= count <= distinct:
        raise ParameterError(
            f"groups must be from 1 to {distinct}, the number of different texts, not {count}"
        )
    if not texts:
        return []
    tried = [count] if count is not None else range(2, min(MOST_TRIED, distinct - 1) + 1)
    models = [library.KMeans(one, n_init=STARTS, random_state=seed).fit(vectors) for one in tried]
    if not models:
        models = [library.KMeans(1, n_init=1, random_state=seed).fit(vectors)]
    if len(models) > 1:
        models.sort(key=lambda one: -_silhouette(vectors, one.labels_, seed))
    model = models[0]
    distances = np.linalg.norm(vectors - model.cluster_centers_[model.labels_], axis=1)
    members = [
        sorted(np.flatnonzero(model.labels_ == label).tolist(), key=lambda place: (distances[place], place))
        for label in range(len(model.cluster_centers_))
    ]
    members.sort(key=lambda group: (-len(group), min(group)))
    names = group_names([[texts[place] for place in group] for group in members])
    return [TextGroup(name, tuple(group)) for name, group in zip(names, members, strict=True)]


def _silhouette(vectors: Vectors, labels: NDArray[np.int32], seed: int) -> float:
    library: Any = extra("sklearn.metrics", "grouping texts")
    sample = min(COMPARED, len(vectors))
    return float(library.silhouette_score(vectors, labels, sample_size=sample, random_state=seed))


def group_names(groups: Sequence[Sequence[str]]) -> list[tuple[str, ...]]:
    """Returns the words of each group of texts with the highest weights, the highest first.

    A word's weight is its share of the group's words, times log(1 + words of a mean group / count of the word
    in all groups): c-TF-IDF (Grootendorst, BERTopic, 2022). English words without a meaning of their own and
    numbers are left out.
    """
    library: Any = extra("sklearn.feature_extraction.text", "grouping texts")
    counts = [
        Counter(word for text in group for word in words(text) if _means(word, library.ENGLISH_STOP_WORDS))
        for group in groups
    ]
    total = sum(counts, Counter[str]())
    mean = total.total() / max(len(groups), 1)
    found = []
    for count in counts:
        weights = {word: n / count.total() * np.log1p(mean / total[word]) for word, n in count.items()}
        found.append(tuple(sorted(weights, key=lambda word: (-weights[word], word))[:WORDS_OF_NAME]))
    return found


def _means(word: str, empty: frozenset[str]) -> bool:
    return word not in empty and not word.isdigit() and (len(word) > 1 or not word.isascii())


def map_places(vectors: Vectors, *, seed: int = 0) -> NDArray[np.float64]:
    """Returns places [texts, 2] on a map from 0 to 1 in which texts with close vectors are near each other.

    It is t-SNE (van der Maaten and Hinton, 2008) up to 3,000 texts, and the two directions in which the
    vectors differ most above. The same `seed` gives the same map.
    """
    count = len(vectors)
    distinct, which = np.unique(vectors, axis=0, return_inverse=True)
    if len(distinct) < 3:
        return np.column_stack([which.reshape(-1) / max(len(distinct) - 1, 1), np.full(count, 0.5)])
    if count <= MOST_PLACED:
        manifold: Any = extra("sklearn.manifold", "a map of texts")
        perplexity = min(PERPLEXITY, (count - 1) / 3)
        placer = manifold.TSNE(2, perplexity=perplexity, init="pca", random_state=seed)
    else:
        placer = extra("sklearn.decomposition", "a map of texts").PCA(2, random_state=seed)
    places: NDArray[np.float64] = np.asarray(placer.fit_transform(vectors), np.float64)
    low, high = places.min(axis=0), places.max(axis=0)
    framed: NDArray[np.float64] = (places - low) / np.where(high > low, high - low, 1)
    return framed
