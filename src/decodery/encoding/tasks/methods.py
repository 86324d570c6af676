"""Chooses among the ways to classify texts."""

from __future__ import annotations

from typing import Any, Literal, get_args

from decodery.encoding.encoder_parts import EncoderParts
from decodery.encoding.results import Classification
from decodery.encoding.tasks.classify import by_head
from decodery.encoding.tasks.examples import by_examples
from decodery.encoding.tasks.inputs import checked_long
from decodery.encoding.tasks.prompted.label_prompts import by_prompt
from decodery.encoding.tasks.zero_shot import Embed, by_entailment, by_similarity
from decodery.errors import ModelError, ParameterError

Method = Literal["head", "similarity", "entailment", "prompt", "examples"]
"""How texts are classified: by the model's own classes, by the cosine between texts and labels, by how far a
text entails a sentence about a label, by how likely a label is behind a prompt, or as labelled examples
are."""
# The arguments that each method reads, besides those that all read.
_READS: dict[Method, frozenset[str]] = {
    "head": frozenset({"multi_label"}),
    "similarity": frozenset({"labels", "hypothesis"}),
    "entailment": frozenset({"labels", "hypothesis", "entailment", "contradiction", "multi_label"}),
    "prompt": frozenset({"labels", "prompt"}),
    "examples": frozenset({"examples"}),
}


def classify(
    parts: EncoderParts,
    embed: Embed,
    inputs: Any,
    *,
    method: Method | None = None,
    top_k: int | None = None,
    long: str = "error",
    **given: Any,
) -> list[Classification]:
    """Returns the classes of each text or pair; `LLM.classify` explains the arguments.

    `embed` returns the vectors of texts. Raises `ParameterError` for arguments that the method does not read.
    """
    named = {name: value for name, value in given.items() if value is not None}
    chosen = _chosen(parts, method, named)
    if unread := sorted(set(named) - _READS[chosen]):
        raise ParameterError(f'{unread[0]} has no meaning with method="{chosen}"')
    if chosen == "examples":
        return by_examples(embed, inputs, named.get("examples"), top_k=top_k)
    if chosen == "similarity":
        return by_similarity(embed, inputs, named.pop("labels", None), top_k=top_k, **named)
    cut = checked_long(long)
    if chosen == "prompt":
        return by_prompt(parts, inputs, named.pop("labels", None), top_k=top_k, long=cut, **named)
    if chosen == "entailment":
        return by_entailment(parts, inputs, named.pop("labels", None), top_k=top_k, long=cut, **named)
    return by_head(parts, inputs, top_k=top_k, long=cut, **named)


def _chosen(parts: EncoderParts, method: Method | None, given: dict[str, Any]) -> Method:
    """Returns the method that the caller names, else the one that the arguments need and the model has."""
    if method is not None:
        if method not in get_args(Method):
            raise ParameterError(f"method must be one of {', '.join(get_args(Method))}, not {method!r}")
        return method
    has_head = "classes" in parts.model.heads
    if "examples" in given:
        return "examples"
    if "labels" in given:
        if "next_token" in parts.model.heads:
            return "prompt"
        return "entailment" if has_head else "similarity"
    if not has_head:
        raise ModelError(
            f"{parts.folder} ({parts.architecture}) has no head of classes: give labels= or examples=, which"
            " need none, or open a model for sequence classification"
        )
    return "head"
