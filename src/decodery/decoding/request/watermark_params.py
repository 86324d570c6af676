"""Defines the parameters of a watermark. Needs no torch."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, Literal

from decodery.decoding.request.checks import normalise, real, whole
from decodery.errors import ParameterError


def _field(default: Any, help: str) -> Any:
    return field(default=default, metadata={"help": help})


@dataclass(frozen=True)
class Watermark:
    """Makes a pseudo-random part of the vocabulary, the green list, likelier (Kirchenbauer et al. 2023).

    The list holds the share `greenlist_ratio` of the vocabulary. It is a function of `hashing_key` and the
    last `context_width` tokens; with `seeding_scheme` "selfhash" also of the candidate token. `bias` is added
    to the logits of green tokens. `decodery.decoding.processors.watermark.detect` detects the mark in a text.
    """

    greenlist_ratio: float = _field(0.25, "The green list's share of the vocabulary.")
    bias: float = _field(2.0, "Added to the logits of the tokens in the green list.")
    hashing_key: int = _field(15485863, "The key from which the green list is computed.")
    context_width: int = _field(1, "The number of last tokens from which it is computed.")
    seeding_scheme: Literal["lefthash", "selfhash"] = _field(
        "lefthash", "selfhash computes it from the candidate token too; lefthash does not."
    )

    def __post_init__(self) -> None:
        normalise(self)
        real("greenlist_ratio", self.greenlist_ratio, "above 0 and below 1", lambda x: 0 < x < 1)
        real("bias", self.bias, "a finite number", lambda x: True)
        whole("hashing_key", self.hashing_key, 1, 2**63 - 1)
        whole("context_width", self.context_width, 1)
        if self.seeding_scheme not in ("lefthash", "selfhash"):
            raise ParameterError(
                f"seeding_scheme must be 'lefthash' or 'selfhash', not {self.seeding_scheme!r}"
            )
