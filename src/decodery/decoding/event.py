"""Defines what a step of the engine reports of a request. Needs no torch."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

from decodery.decoding.chosen import FinishReason, TokenLogprobs
from decodery.decoding.trace import BeamCandidate, Considered


@dataclass(frozen=True, slots=True)
class Times:
    """Holds when a request was queued, first ran, had its prompt computed, and when its stream ended.

    In seconds on the engine's clock; None for what has not happened.
    """

    queued: float = 0.0
    started: float | None = None
    prefilled: float | None = None
    ended: float | None = None


@dataclass(frozen=True, slots=True)
class PromptProgress:
    """Holds how much of a request's prompt is computed.

    Of its `prompt` tokens, `computed` are in the key/value cache now, among them the `cached` ones, which the
    prefix cache had when the request first ran. `running` is False while the request waits.
    """

    prompt: int
    cached: int
    computed: int
    running: bool


@dataclass(frozen=True, slots=True)
class Event:
    """Holds the tokens that a step added to one stream of a request, and the reason if the stream ended.

    `error` is the cause when `finish` is "error". `score` is the number by which the strategy ranked a
    completion. Of the `drafts` that were tried, the first `accepted` are among the tokens; `draft_sources`
    says where each of those comes from that the engine drafted by itself. `considered` and
    `beams` are filled when the request was added with `explain`. An event with `beams` has no stream, since
    it describes all streams of the request. `cached_tokens` is the number of prompt tokens that the prefix
    cache had when the request first ran. An event that ends a stream has the `times` of the request.
    """

    request: int
    stream: int | None
    tokens: tuple[int, ...] = ()
    finish: FinishReason | None = None
    logprobs: tuple[TokenLogprobs, ...] = ()
    error: str | None = None
    score: float | None = None
    drafts: tuple[int, ...] = ()
    accepted: int = 0
    draft_sources: tuple[str, ...] = ()
    considered: tuple[Considered, ...] = ()
    beams: tuple[BeamCandidate, ...] = ()
    prompt_logprobs: Sequence[TokenLogprobs | None] | None = None
    cached_tokens: int = 0
    times: Times | None = field(default=None, compare=False)
