"""Gives texts vectors without a model: counts of words, TF-IDF, and vectors of words learned from counts.

They show what the vectors of an encoder add, in which a word's vector depends on its context.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, Literal, get_args

import numpy as np

from decodery.encoding.tasks.examples import MOST_FOLDS, LearnedLabels, fitted, labelled
from decodery.encoding.vectors.unit_length import of_unit_length
from decodery.errors import ParameterError, RequestError
from decodery.search.chunks import MARKDOWN_ENDS, By, Chunking
from decodery.search.extras import extra
from decodery.search.index import SearchHit
from decodery.search.keywords import words
from decodery.search.ranking import Vectors, highest, prepared, similarities
from decodery.search.store import StoredChunk
from decodery.search.text_files import read_text_file, text_paths

Baseline = Literal["bow", "tfidf", "ppmi"]
"""How texts get vectors: by the counts of their words, by TF-IDF, or as the mean of their words' vectors,
which are directions of the words' PPMI with their neighbours."""

MOST_WORDS = 4096
"""The number of words that are counted, the most frequent ones."""
WINDOW, WORD_WIDTH = 5, 100
CHUNK_WORDS = 256
"""The number of words that a chunk of a file has at most."""
PURPOSE = "vectors of words"


class BaselineVectors:
    """Gives texts vectors of length 1, or of zeros without a known word; words are those of `texts`.

    Bag of words and TF-IDF are scikit-learn's. "ppmi" makes vectors of words by a truncated singular value
    decomposition of their positive pointwise mutual information with the words at a distance of up to 5,
    which is close to what word2vec learns (Levy and Goldberg, Neural Word Embedding as Implicit Matrix
    Factorization, 2014). Raises `ParameterError` for another kind, and `RequestError` for texts without
    words.
    """

    def __init__(self, kind: Baseline, texts: Sequence[str]) -> None:
        checked_baseline(kind)
        library: Any = extra("sklearn.feature_extraction.text", PURPOSE)
        made = library.TfidfVectorizer if kind == "tfidf" else library.CountVectorizer
        self._counts = made(analyzer=words, max_features=MOST_WORDS)
        try:
            self._counts.fit(texts)
        except ValueError:
            raise RequestError("there is no word in the texts") from None
        self._word_vectors = None
        if kind == "ppmi":
            self._word_vectors = _word_vectors(texts, self._counts.vocabulary_)

    def vectors(self, texts: Sequence[str]) -> Vectors:
        """Returns the vectors [texts, width] of texts."""
        counts = self._counts.transform(texts)
        found = counts.toarray() if self._word_vectors is None else counts @ self._word_vectors
        return prepared(np.asarray(found, np.float32), "cosine")


def checked_baseline(kind: Any) -> Baseline:
    """Returns the name of a baseline; raises `ParameterError` for anything else."""
    if kind not in get_args(Baseline):
        raise ParameterError(f"with must be one of {', '.join(get_args(Baseline))}, not {kind!r}")
    found: Baseline = kind
    return found


def _word_vectors(texts: Sequence[str], numbers: dict[str, int]) -> Any:
    """Returns the vectors [words, width] of the numbered words."""
    sparse: Any = extra("scipy.sparse", PURPOSE)
    decomposition: Any = extra("sklearn.decomposition", PURPOSE)
    rows: list[int] = []
    columns: list[int] = []
    for text in texts:
        ids = [numbers[word] for word in words(text) if word in numbers]
        for distance in range(1, WINDOW + 1):
            rows += ids[distance:] + ids[:-distance]
            columns += ids[:-distance] + ids[distance:]
    size = len(numbers)
    pairs = sparse.coo_matrix((np.ones(len(rows)), (rows, columns)), shape=(size, size)).tocsr()
    total, each = pairs.sum(), np.asarray(pairs.sum(axis=1)).ravel()
    pairs = pairs.tocoo()
    information = np.log(pairs.data * total / (each[pairs.row] * each[pairs.col]))
    positive = sparse.csr_matrix((np.maximum(information, 0), (pairs.row, pairs.col)), shape=(size, size))
    width = min(WORD_WIDTH, size - 1)
    if width < 1 or not positive.nnz:
        # Words without neighbours have no direction in common.
        return np.eye(size)
    return decomposition.TruncatedSVD(width, random_state=0).fit_transform(positive)


def in_words(by: By | None) -> Chunking:
    """Returns the division of files into chunks of at most 256 words."""
    return Chunking(by or "auto", CHUNK_WORDS, lambda text: len(words(text)))


def file_chunks(files: Iterable[str | Path], chunking: Chunking) -> list[StoredChunk]:
    """Returns the chunks of files and folders in the order of their paths."""
    found = []
    for path, given in text_paths(files).items():
        file = read_text_file(path, given=given)
        if file is not None:
            markdown = path.suffix.lower() in MARKDOWN_ENDS
            chunks = chunking.chunks(file.text, markdown=markdown)
            found += [StoredChunk(str(path), c.line, c.end_line, c.heading, c.text, c.above) for c in chunks]
    return found


def baseline_hits(
    query: str, files: Iterable[str | Path], kind: Baseline, *, by: By | None = None, top: int = 10
) -> list[SearchHit]:
    """Returns the chunks of files whose vectors are nearest to that of a query, the best first.

    Chunks that have nothing in common with the query are left out. Nothing is kept between two calls. Raises
    `ParameterError` for another kind, and `RequestError` for a query without a word that is counted.
    """
    checked_baseline(kind)
    chunks = file_chunks(files, in_words(by))
    passages = [chunk.above + chunk.text for chunk in chunks]
    if not any(map(words, passages)):
        return []
    made = BaselineVectors(kind, passages)
    wanted = made.vectors([query])[0]
    if not wanted.any():
        raise RequestError(
            f"no word of the query is in the files, or among their {MOST_WORDS} most frequent words: give"
            " other words"
        )
    scores = similarities(made.vectors(passages), wanted, "cosine")
    return chunk_hits(chunks, scores, top)


def chunk_hits(chunks: Sequence[StoredChunk], scores: Vectors, top: int) -> list[SearchHit]:
    """Returns the chunks with the highest scores [chunks], at most `top`, and none with a score of 0."""
    found = []
    for place in highest(scores, top):
        chunk, score = chunks[place], float(scores[place])
        if score != 0:
            found.append(
                SearchHit(
                    Path(chunk.path),
                    chunk.line,
                    chunk.end_line,
                    chunk.heading,
                    chunk.text,
                    score,
                    similarity=score,
                )
            )
    return found


def learn_baseline(kind: Baseline, examples: Any) -> tuple[BaselineVectors, LearnedLabels]:
    """Returns vectors and a logistic regression over them that is fitted to labelled examples.

    In the cross-validation that gives the accuracy, the words too are those of the other examples alone.
    """
    texts, labels = labelled(examples)
    made = BaselineVectors(kind, texts)
    learned = fitted(of_unit_length(made.vectors(texts)), labels)
    if learned.folds is None:
        return made, learned
    selection: Any = extra("sklearn.model_selection", PURPOSE)
    parts = selection.StratifiedKFold(min(MOST_FOLDS, learned.folds), shuffle=True, random_state=0)
    right = 0
    for seen, unseen in parts.split(texts, labels):
        part = BaselineVectors(kind, [texts[place] for place in seen])
        of_part = fitted(
            of_unit_length(part.vectors([texts[place] for place in seen])), [labels[place] for place in seen]
        )
        found = of_part.classify(part.vectors([texts[place] for place in unseen]))
        right += sum(one.label == labels[place] for one, place in zip(found, unseen, strict=True))
    return made, replace(learned, accuracy=right / len(texts))
