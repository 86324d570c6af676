"""Classifies texts as labelled examples of them are, by a logistic regression on their vectors."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from decodery.encoding.results import Classification
from decodery.encoding.tasks.classify import classification
from decodery.encoding.tasks.head_scores import Floats, softmax
from decodery.encoding.tasks.inputs import checked_text, listed
from decodery.encoding.tasks.zero_shot import Embed, row_products
from decodery.encoding.vectors.unit_length import of_unit_length
from decodery.errors import DecoderyError, ParameterError

MOST_FOLDS = 5


@dataclass(frozen=True)
class LearnedLabels:
    """Holds a logistic regression over the vectors of labelled examples.

    `weights` are [labels, width] and `bias` [labels]. `accuracy` is the share of examples that were right
    when the regression had not seen them, over `folds` parts of the examples; both are None where a label has
    one example alone.
    """

    labels: tuple[str, ...]
    weights: Floats
    bias: Floats
    accuracy: float | None
    folds: int | None

    def classify(self, vectors: Any, *, top_k: int | None = None) -> list[Classification]:
        """Returns the labels of texts with these vectors [n, width]."""
        logits = row_products(of_unit_length(np.asarray(vectors)), self.weights) + self.bias
        found = [classification(self.labels, row, softmax(row), top_k) for row in logits]
        return [replace(one, accuracy=self.accuracy) for one in found]


def labelled(examples: Any) -> tuple[list[str], list[str]]:
    """Returns the texts and the labels of examples: pairs of a text and a label, or texts by their labels.

    Raises `ParameterError` for other things, and for fewer than two labels.
    """
    if isinstance(examples, Mapping):
        examples = [(text, label) for label, texts in examples.items() for text in texts]
    texts: list[str] = []
    labels: list[str] = []
    for number, example in enumerate(examples):
        if (
            not isinstance(example, (tuple, list))
            or len(example) != 2
            or not all(isinstance(part, str) for part in example)
        ):
            raise ParameterError(f"example {number} must be a text and its label")
        texts.append(example[0])
        labels.append(example[1])
    if len(set(labels)) < 2:
        raise ParameterError("examples must have two different labels or more")
    return texts, labels


def learn(embed: Embed, examples: Any) -> LearnedLabels:
    """Returns a regression that was fitted to labelled examples; the model that gives vectors stays as it is.

    The same examples give the same regression. Raises `DecoderyError` if scikit-learn is not installed.
    """
    texts, labels = labelled(examples)
    return fitted(of_unit_length(embed(texts).vectors), labels)


def by_examples(
    embed: Embed, inputs: Any, examples: Any, *, top_k: int | None = None
) -> list[Classification]:
    """Returns the labels of each text; `examples` are labelled texts, or what `learn` returned for them."""
    if examples is None:
        raise ParameterError('method="examples" needs examples=, a list of texts with their labels')
    learned = examples if isinstance(examples, LearnedLabels) else learn(embed, examples)
    texts = [checked_text(text, "each text") for text in listed(inputs)]
    if not texts:
        return []
    found = embed(texts)
    results = learned.classify(found.vectors, top_k=top_k)
    return [replace(one, lost=lost) for one, lost in zip(results, found.lost.tolist(), strict=True)]


def fitted(vectors: Floats, labels: Sequence[str]) -> LearnedLabels:
    """Returns a regression over vectors [n, width], and its accuracy on vectors that it had not seen."""
    regression = _regression()
    classes = sorted(set(labels))
    targets = np.array([classes.index(label) for label in labels])
    accuracy, folds = _accuracy(regression, vectors, targets)
    regression.fit(vectors, targets)
    weights, bias = regression.coef_, regression.intercept_
    if len(classes) == 2:
        # One row that says how far the second class is likelier than the first.
        weights, bias = np.concatenate([0 * weights, weights]), np.concatenate([0 * bias, bias])
    return LearnedLabels(tuple(classes), weights, bias, accuracy, folds)


def _accuracy(regression: Any, vectors: Floats, targets: Any) -> tuple[float | None, int | None]:
    """Returns the share of vectors that stratified cross-validation has right, and its number of parts."""
    from sklearn.model_selection import StratifiedKFold, cross_val_predict

    folds = min(MOST_FOLDS, min(Counter(targets.tolist()).values()))
    if folds < 2:
        return None, None
    parts = StratifiedKFold(folds, shuffle=True, random_state=0)
    found = cross_val_predict(regression, vectors, targets, cv=parts)
    return float((found == targets).mean()), folds


def _regression() -> Any:
    try:
        from sklearn.linear_model import LogisticRegression
    except ImportError:
        raise DecoderyError(
            'labelled examples need scikit-learn: install it with pip install "decodery[search]"'
        ) from None
    # Vectors of length 1 need larger weights than the default allows.
    return LogisticRegression(C=10.0, max_iter=1000, random_state=0)
