"""Refuses parameters that have no meaning together; one table holds all such pairs. Needs no torch."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from decodery.decoding.request.speculation_params import DRAFTERS
from decodery.decoding.request.strategy_params import BeamSearch, ContrastiveSearch, StochasticBeamSearch
from decodery.errors import ParameterError


@dataclass(frozen=True)
class Conflict:
    """Names two features that exclude each other, when they do (`holds`), and why."""

    first: str
    second: str
    holds: Callable[[Any], bool]
    why: str


_BEAMS = (BeamSearch, StochasticBeamSearch)


def _several(p: Any) -> bool:
    return bool(p.n > 1 or p.best_of is not None)


def _scores_prompt(p: Any) -> bool:
    return p.prompt_logprobs is not None or (p.echo and p.logprobs is not None)


CONFLICTS = (
    Conflict(
        "n or best_of",
        "BeamSearch",
        lambda p: _several(p) and isinstance(p.strategy, BeamSearch),
        "num_return_sequences says how many of its beams are returned",
    ),
    Conflict(
        "n or best_of",
        "StochasticBeamSearch",
        lambda p: _several(p) and isinstance(p.strategy, StochasticBeamSearch),
        "it returns all num_beams sequences",
    ),
    Conflict(
        "n or best_of",
        "ContrastiveSearch",
        lambda p: _several(p) and isinstance(p.strategy, ContrastiveSearch),
        "it is deterministic, so all completions would be the same",
    ),
    Conflict(
        "speculate",
        "BeamSearch, StochasticBeamSearch",
        lambda p: isinstance(p.speculate, DRAFTERS) and isinstance(p.strategy, _BEAMS),
        "drafts run ahead of one text, and beams are several",
    ),
    Conflict(
        "speculate",
        "ContrastiveSearch",
        lambda p: isinstance(p.speculate, DRAFTERS) and isinstance(p.strategy, ContrastiveSearch),
        "it must see the hidden state of every candidate before it takes one",
    ),
    Conflict(
        "mirostat_mode",
        "BeamSearch, StochasticBeamSearch",
        lambda p: p.mirostat_mode > 0 and isinstance(p.strategy, _BEAMS),
        "it steers the surprise of one sampled text, and beams rank several",
    ),
    Conflict(
        "mirostat_mode",
        "ContrastiveSearch",
        lambda p: p.mirostat_mode > 0 and isinstance(p.strategy, ContrastiveSearch),
        "it steers a sampled text, and contrastive search draws nothing",
    ),
    Conflict(
        "forced_bos_token_id",
        "token_healing",
        lambda p: p.forced_bos_token_id is not None and p.token_healing,
        "both say what the first token is",
    ),
    Conflict(
        "prompt_logprobs_start",
        "prompt_logprobs=None",
        lambda p: p.prompt_logprobs_start > 0 and not _scores_prompt(p),
        "no token of the prompt is scored",
    ),
    Conflict(
        "temperature=0",
        "BeamSearch(sample=True)",
        lambda p: p.greedy and isinstance(p.strategy, BeamSearch) and p.strategy.sample,
        "there is nothing to draw without a temperature",
    ),
    Conflict(
        "temperature=0",
        "StochasticBeamSearch",
        lambda p: p.greedy and isinstance(p.strategy, StochasticBeamSearch),
        "there is nothing to draw without a temperature",
    ),
)


def check_combinations(params: Any) -> None:
    """Raises `ParameterError`, naming both sides, for parameters that have no meaning together."""
    for conflict in CONFLICTS:
        if conflict.holds(params):
            raise ParameterError(f"{conflict.first} has no meaning with {conflict.second}: {conflict.why}")
    if params.max_tokens is not None and params.min_tokens > params.max_tokens:
        raise ParameterError(f"min_tokens is {params.min_tokens}, more than max_tokens {params.max_tokens}")
    if params.max_length is not None and params.min_length > params.max_length:
        raise ParameterError(f"min_length is {params.min_length}, more than max_length {params.max_length}")
    if params.max_length is not None and params.min_tokens > params.max_length:
        raise ParameterError(f"min_tokens is {params.min_tokens}, more than max_length {params.max_length}")
    _check_forced(params)
    if params.best_of is not None and params.best_of < params.n:
        raise ParameterError(f"best_of is {params.best_of}, less than n {params.n}")
    if params.negative_prompt is not None and not params.guided:
        raise ParameterError("negative_prompt does nothing at guidance_scale 1: give guidance_scale above 1")


def _check_forced(params: Any) -> None:
    for forced in ("forced_bos_token_id", "forced_eos_token_id"):
        token = getattr(params, forced)
        if token is None:
            continue
        if token in params.suppress_tokens:
            raise ParameterError(f"{forced} {token} is among suppress_tokens")
        if params.allowed_token_ids and token not in params.allowed_token_ids:
            raise ParameterError(f"{forced} {token} is not among allowed_token_ids")
