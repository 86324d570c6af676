"""Defines the ways to draft tokens ahead; immutable, validated when built. Needs no torch."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, Literal

from decodery.decoding.request.checks import flag, normalise, whole
from decodery.decoding.request.checks import model as checked_model
from decodery.errors import ParameterError

Acceptance = Literal["match", "rejection"]
_MOST = "Draft at most this many tokens at once."
_ACCEPTANCE = "match keeps the text that plain sampling gives; rejection keeps its distribution."
_ADAPTIVE = "Draft fewer tokens when drafts are rejected."


def _field(default: Any, help: str) -> Any:
    return field(default=default, metadata={"help": help})


@dataclass(frozen=True)
class PromptLookup:
    """Drafts the tokens that followed an earlier occurrence of the last tokens (Saxena 2023).

    The longest run of up to `max_ngram` last tokens that occurred before is looked up. Up to `num_tokens`
    that followed it are drafted, fewer where drafts fail (`adaptive`). With `acceptance` "match" the tokens
    are those of plain decoding. "rejection" accepts drafts at random such that their distribution is the
    same; which tokens come can then depend on how many drafts fit beside other requests.
    """

    max_ngram: int = _field(3, "Look up at most this many last tokens.")
    num_tokens: int = _field(10, _MOST)
    acceptance: Acceptance = field(default="match", metadata={"help": _ACCEPTANCE})
    adaptive: bool = _field(True, _ADAPTIVE)

    def __post_init__(self) -> None:
        normalise(self)
        whole("max_ngram", self.max_ngram, 1)
        _check(self)


@dataclass(frozen=True)
class DraftModel:
    """Drafts with a smaller model over the same vocabulary (Leviathan et al. 2023; Chen et al. 2023).

    `model` is what LLM takes as a model, or an LLM. Up to `num_tokens` are drafted, fewer where drafts fail
    (`adaptive`). With `acceptance` "match" the draft model draws with the noise of the request, and the
    tokens are those of plain decoding. "rejection" accepts drafts at random such that their distribution is
    the same; which tokens come can then depend on how many drafts fit beside other requests.
    """

    model: Any = field(metadata={"help": "Draft with this smaller model."})
    num_tokens: int = _field(4, _MOST)
    acceptance: Acceptance = field(default="match", metadata={"help": _ACCEPTANCE})
    adaptive: bool = _field(True, _ADAPTIVE)

    def __post_init__(self) -> None:
        if self.model is None:
            raise ParameterError("model is missing: DraftModel needs a second, smaller model")
        normalise(self)
        checked_model("DraftModel's model", self.model)
        _check(self)


@dataclass(frozen=True)
class Auto:
    """Lets the engine draft by itself: as many tokens as make its steps faster.

    It drafts from the text, from earlier texts with the same salt, and from the last successors of the
    last tokens. The tokens are those of plain decoding. Requests whose drafts it cannot judge exactly, among
    them all on the torch backend, decode plainly.
    """


DRAFTERS = (PromptLookup, DraftModel)
SPECULATIONS = (*DRAFTERS, Auto)
Speculation = PromptLookup | DraftModel | Auto


def _check(speculation: PromptLookup | DraftModel) -> None:
    whole("num_tokens", speculation.num_tokens, 1)
    flag("adaptive", speculation.adaptive)
    if speculation.acceptance not in ("match", "rejection"):
        raise ParameterError(f"acceptance must be 'match' or 'rejection', not {speculation.acceptance!r}")
