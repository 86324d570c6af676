"""Defines the records of what a step considered, to show why a token was chosen. Needs no torch."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal


@dataclass(frozen=True, slots=True)
class Candidate:
    """Holds a token's probability before and after the processors; `after` is 0 where it was cut away.

    `logit` is the model's, unprocessed. `noise` is what a draw adds to the logarithm of `after`; None where
    nothing is drawn.
    """

    token: int
    before: float
    after: float
    logit: float | None = None
    noise: float | None = None


@dataclass(frozen=True, slots=True)
class Stage:
    """Holds what one processor did to a choice.

    `kept` counts the tokens that it left possible. `probabilities` are those of the choice's candidates after
    it, in their order.
    """

    name: str
    kept: int
    probabilities: tuple[float, ...]


@dataclass(frozen=True, slots=True)
class BeamCandidate:
    """Holds one candidate of a step of beam search, under its parent.

    `parent` and `beam` are indices into the request's beams before and after the step; `beam` is None unless
    the candidate was "kept". `score` is the value that it was ranked by: the sum of log-probabilities, in
    stochastic beam search with its noise. `logprob` is its own, after the processors and the diversity
    penalty.
    """

    parent: int
    token: int
    logprob: float
    score: float
    fate: Literal["kept", "finished", "pruned"]
    beam: int | None = None


@dataclass(frozen=True, slots=True)
class Weighed:
    """Holds a token that a strategy compared with others.

    `similarity` is the largest cosine of its hidden state with those before it. `score` is the value that
    decided.
    """

    token: int
    probability: float
    similarity: float
    score: float


@dataclass(frozen=True, slots=True)
class Combined:
    """Holds the log-probabilities of a choice's candidates, in their order, in two distributions that were
    combined into the one that the processors got.

    DoLa combines those of the last layer (`own`) and of an earlier one (`other`), contrastive decoding those
    of the model and of its amateur, guidance those after the prompt and after the negative one. `layer` is
    DoLa's earlier layer, and `divergences` are those of all layers that it could take, each with its number.
    """

    name: Literal["DoLa", "contrastive decoding", "guidance"]
    own: tuple[float, ...]
    other: tuple[float, ...]
    layer: int | None = None
    divergences: tuple[tuple[int, float], ...] = ()


@dataclass(frozen=True, slots=True)
class Considered:
    """Holds one choice of one row.

    `token` was chosen, with probability `before` under the model and `after` under the processed
    distribution. `rank` counts from 1 under the model, `entropy` is the model's in bits, `kept` counts the
    tokens that the processors left possible. `candidates` are the model's likeliest tokens, in order; the
    chosen one is appended if it is not among them. `stages` are the processors that changed something, in
    order. `allowed` counts the tokens that the grammar allowed, if there is one; `forced` says that it
    allowed one only. `allowed_tokens` are these tokens if they are no more than the candidates that were
    asked for. `weighed` are the tokens that contrastive search compared, the likeliest first. `tail` is the
    model's probability of all tokens that are not candidates. `draw_key` is the key of the noise with which
    the token was drawn: of the tokens that are left, it has the largest sum of log-probability and noise.
    None: nothing was drawn, or a draft was judged by rejection sampling. `combined` are the distributions
    that the strategy and then guidance combined, where they do. `logits` and `adjusted_logits` are filled
    when a request asked for them: little-endian float32 `[vocab]`, the model's own, and those before the
    first stage that shapes what is sampled; the latter are empty if they are the same.
    """

    token: int
    before: float
    after: float
    rank: int
    entropy: float
    kept: int
    candidates: tuple[Candidate, ...]
    stages: tuple[Stage, ...] = ()
    allowed: int | None = None
    forced: bool = False
    weighed: tuple[Weighed, ...] = ()
    allowed_tokens: tuple[int, ...] = ()
    tail: float | None = None
    draw_key: tuple[int, int] | None = None
    combined: tuple[Combined, ...] = ()
    logits: bytes = b""
    adjusted_logits: bytes = b""
