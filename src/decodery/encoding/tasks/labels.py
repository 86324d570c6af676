"""Reads what config.json says of a head's classes: their names, and which function makes scores of logits."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Literal

from decodery.encoding.encoder_parts import EncoderParts
from decodery.encoding.vectors.gguf_settings import ARCHITECTURE
from decodery.encoding.vectors.sentence_folder import activation_of_scores
from decodery.errors import ModelError

Scoring = Literal["softmax", "sigmoid", "identity"]
"""How logits become scores: of one class among several, of each class apart, or not at all."""


def label_names(parts: EncoderParts, count: int) -> tuple[str, ...]:
    """Returns the names of a head's classes in the order of its scores; LABEL_0 and so on without names.

    Raises `ModelError` if config.json, or a GGUF file, names others than `count` classes from 0 on.
    """
    if ARCHITECTURE in parts.config:
        return _names_of_gguf(parts, count)
    stored = parts.config.get("id2label")
    if stored is None:
        return tuple(f"LABEL_{label}" for label in range(count))
    if not isinstance(stored, Mapping) or {str(key) for key in stored} != {str(n) for n in range(count)}:
        raise ModelError(
            f"{parts.folder}: id2label in config.json must name the classes 0 to {count - 1} of the head"
        )
    return tuple(str(stored.get(str(label), stored.get(label))) for label in range(count))


def _names_of_gguf(parts: EncoderParts, count: int) -> tuple[str, ...]:
    key = f"{parts.config[ARCHITECTURE]}.classifier.output_labels"
    stored = parts.config.get(key)
    if stored is None:
        return tuple(f"LABEL_{label}" for label in range(count))
    if not isinstance(stored, Sequence) or len(stored) != count:
        raise ModelError(f"{parts.folder}: {key} must name the {count} classes of the head")
    return tuple(map(str, stored))


def distinct_names(parts: EncoderParts, count: int) -> tuple[str, ...]:
    """Returns `label_names`; raises `ModelError` if two are alike, since scores are told by name."""
    names = label_names(parts, count)
    for place, name in enumerate(names):
        if name in names[:place]:
            raise ModelError(f"{parts.folder}: id2label in config.json names two classes {name!r}")
    return names


def pair_scoring(parts: EncoderParts) -> Scoring:
    """Returns how the logit of a pair becomes its score: as the folder of a cross-encoder says.

    A score that is made of the vectors of tokens stays as it is. Raises `ModelError` if the folder names
    another function than Sigmoid and Identity.
    """
    if parts.multi_vectors is not None:
        return "identity"
    name = activation_of_scores(parts.folder)
    return scoring(parts.config, 1) if name is None else _activation(name)


def scoring(config: Mapping[str, Any], count: int) -> Scoring:
    """Returns how the logits of a head with `count` classes become scores.

    A head of one class has the function that sentence-transformers stored for its cross-encoders, if any.
    """
    problem = config.get("problem_type")
    if count == 1:
        stored = _stored_activation(config)
        if stored is not None:
            return stored
        return "identity" if problem == "regression" else "sigmoid"
    if problem == "regression":
        return "identity"
    return "sigmoid" if problem == "multi_label_classification" else "softmax"


def _stored_activation(config: Mapping[str, Any]) -> Scoring | None:
    """Returns the activation that a cross-encoder's config.json names; raises `ModelError` for others."""
    table = config.get("sentence_transformers")
    name = table.get("activation_fn") if isinstance(table, Mapping) else None
    name = name or config.get("sbert_ce_default_activation_function")
    return None if name is None else _activation(name)


def _activation(name: object) -> Scoring:
    kind = str(name).rpartition(".")[2].lower()
    if kind == "identity":
        return "identity"
    if kind == "sigmoid":
        return "sigmoid"
    raise ModelError(f"the folder names the activation {name!r}; cross-encoders have Identity or Sigmoid")


def find_label(names: Sequence[str], *starts: str) -> int | None:
    """Returns the index of the only label that begins with one of these words, whatever its case."""
    found = [place for place, name in enumerate(names) if name.lower().startswith(starts)]
    return found[0] if len(found) == 1 else None
