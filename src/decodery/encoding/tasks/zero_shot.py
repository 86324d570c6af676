"""Classifies texts into labels that no head was trained for."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from decodery.encoding.encoder_parts import EncoderParts
from decodery.encoding.input_errors import numbered
from decodery.encoding.results import Classification, Embeddings
from decodery.encoding.tasks.classify import classification
from decodery.encoding.tasks.head_scores import Floats, ordered_scores, softmax
from decodery.encoding.tasks.inputs import checked_text, listed, several
from decodery.encoding.tasks.labels import find_label, label_names
from decodery.encoding.texts import Long, pair
from decodery.encoding.vectors.sentence_folder import default_prompt
from decodery.encoding.vectors.unit_length import of_unit_length
from decodery.errors import ParameterError

HYPOTHESIS = "This example is {}."
"""The sentence whose truth an NLI model judges; {} is the place of the label."""
Embed = Callable[[list[str]], Embeddings]
"""Returns the vectors of texts."""


def checked_labels(labels: Any) -> list[str]:
    """Returns the labels of a call; raises `ParameterError` if there are none or two are alike."""
    wrong = labels is None or isinstance(labels, str)
    found = [] if wrong else several(labels, "labels")
    if wrong or not all(isinstance(label, str) for label in found):
        raise ParameterError('labels must be a list of texts, such as labels=["sport", "politics"]')
    if not found or len(set(found)) < len(found):
        raise ParameterError("labels must be one text or more, and no two alike")
    return found


def by_similarity(
    embed: Embed, inputs: Any, labels: Any, *, hypothesis: str | None = None, top_k: int | None = None
) -> list[Classification]:
    """Returns the labels of each text by the cosine of its vector and theirs, which is the score.

    With a `hypothesis`, the label stands in it.
    """
    names = checked_labels(labels)
    texts = [checked_text(text, "each text") for text in listed(inputs)]
    if not texts:
        return []
    sentences = names if hypothesis is None else filled(hypothesis, names)
    found = embed(texts)
    cosines = row_products(of_unit_length(found.vectors), of_unit_length(embed(sentences).vectors))
    return [
        classification(names, row, row, top_k, lost)
        for row, lost in zip(cosines, found.lost.tolist(), strict=True)
    ]


def row_products(vectors: Floats, matrix: Floats) -> Floats:
    """Returns vectors [n, width] times the rows of a matrix [m, width]: [n, m].

    Each vector's products are computed alone, so that the other vectors cannot change their bits.
    """
    return np.stack([(matrix * vector).sum(1) for vector in vectors])


def filled(hypothesis: str, labels: Sequence[str]) -> list[str]:
    """Returns the hypothesis with each label; raises `ParameterError` if it has no place for one."""
    if not isinstance(hypothesis, str) or "{}" not in hypothesis:
        raise ParameterError("hypothesis must be a text with {} where the label belongs")
    return [hypothesis.replace("{}", label) for label in labels]


def by_entailment(
    parts: EncoderParts,
    inputs: Any,
    labels: Any,
    *,
    hypothesis: str | None = None,
    entailment: str | int | None = None,
    contradiction: str | int | None = None,
    multi_label: bool | None = None,
    top_k: int | None = None,
    long: Long = "error",
) -> list[Classification]:
    """Returns the labels of each text by how far it entails a sentence about each.

    A text that is too long is cut, never the sentence. Yin et al., Benchmarking Zero-shot Text Classification
    (2019). Raises `ModelError` if the model has no classes, and `ParameterError` if it does not name one as
    entailment and the caller does not either.
    """
    names = checked_labels(labels)
    classes = label_names(parts, parts.head("classes").labels)
    alone = len(names) == 1 if multi_label is None else multi_label
    wanted = entailment_class(parts, classes, entailment)
    against = contradiction_class(classes, wanted, contradiction) if alone else None
    premises = [checked_text(text, "each text") for text in listed(inputs)]
    sentences = filled(HYPOTHESIS if hypothesis is None else hypothesis, names)
    prompt = default_prompt(parts.folder)
    texts = []
    for index, premise in enumerate(premises):
        with numbered(index, len(premises)):
            first = prompt + premise
            texts += [pair(parts, first, sentence, long=long, cut="first") for sentence in sentences]
    if not texts:
        return []
    logits = np.concatenate(ordered_scores(parts, "classes", texts))
    found = []
    for index in range(len(premises)):
        rows = logits[index * len(names) : (index + 1) * len(names)]
        scores = entailed(rows, wanted, against)
        lost = max(text.lost for text in texts[index * len(names) : (index + 1) * len(names)])
        found.append(classification(names, _shown_logits(rows, wanted, against), scores, top_k, lost))
    return found


def entailed(logits: Floats, wanted: int, against: int | None) -> Floats:
    """Returns the probability of each sentence from the logits [sentences, classes].

    Without `against` the sentences exclude each other: the softmax of their logits of entailment. With it
    each stands alone: the softmax over the classes `against` and `wanted`.
    """
    if against is None:
        return softmax(logits[:, wanted])
    return softmax(logits[:, [against, wanted]])[:, 1]


def _shown_logits(logits: Floats, wanted: int, against: int | None) -> Floats:
    return logits[:, wanted] if against is None else logits[:, wanted] - logits[:, against]


def entailment_class(parts: EncoderParts, names: Sequence[str], given: str | int | None) -> int:
    """Returns the index of the class of entailment: the one the caller names, else the one so called."""
    if given is not None:
        return class_index("entailment", names, given)
    found = find_label(names, "entail")
    if found is None:
        raise ParameterError(
            f"{parts.folder} names its classes {', '.join(names)}: say which one is entailment, with"
            f' entailment="{names[-1]}" or its index'
        )
    return found


def contradiction_class(names: Sequence[str], wanted: int, given: str | int | None) -> int:
    """Returns the index of the class that denies: the one given, the one so called, or the only other one."""
    if given is not None:
        found: int | None = class_index("contradiction", names, given)
    else:
        found = find_label(names, "contra", "not_entail", "not entail", "non_entail", "refut")
    if found is None and len(names) == 2:
        found = 1 - wanted
    if found is None or found == wanted:
        raise ParameterError(
            f"the classes are {', '.join(names)}: say which one is contradiction, with contradiction= and a"
            " name or an index other than that of entailment"
        )
    return found


def class_index(field: str, names: Sequence[str], given: str | int) -> int:
    """Returns the index of a class that a parameter gives by name or by index."""
    if isinstance(given, str) and given in names:
        return list(names).index(given)
    if type(given) is int and 0 <= given < len(names):
        return given
    raise ParameterError(f"{field} must be one of {', '.join(names)} or an index below {len(names)}")
