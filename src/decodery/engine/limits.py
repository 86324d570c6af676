"""Holds the sizes of an engine, and refuses requests that can never run in it."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace

import torch

from decodery.decoding.request.params import GenerationParams
from decodery.decoding.request.speculation_params import DRAFTERS
from decodery.decoding.request.strategy_params import BeamSearch
from decodery.decoding.strategies.beams.constrained_beams import check_force_words
from decodery.engine.pages import pages_for
from decodery.errors import ParameterError, RequestError
from decodery.kernels import PAGE_SIZE
from decodery.models.contract import CausalModel


@dataclass(frozen=True, slots=True)
class Limits:
    """Holds the sizes of an engine.

    The key/value cache has `pages` pages of `PAGE_SIZE` tokens. A page takes `page_bytes` bytes in the caches
    of all models together: the first model and each second model have the same number of pages. At most
    `context_length` tokens of a sequence are ever computed. A step runs about `token_budget` tokens of at
    most `max_sequences` sequences. Keys and values are stored in `kv_dtype` (None: the kernels' choice). A
    step runs on `threads` threads (None: the process's number). While requests decode, no step runs more of
    prompts than keeps it within `max_step_ms` milliseconds (None: no bound). With `remember_texts`, requests
    are drafted from earlier texts of the same salt.
    """

    pages: int
    page_bytes: int
    context_length: int
    token_budget: int = 512
    max_sequences: int = 256
    prefix_cache: bool = True
    kv_dtype: torch.dtype | None = None
    threads: int | None = None
    max_step_ms: float | None = None
    remember_texts: bool = True

    def __post_init__(self) -> None:
        if self.max_step_ms is not None and not 0 < self.max_step_ms < math.inf:
            raise ParameterError(f"max_step_ms must be a number above 0, not {self.max_step_ms}")
        for name in ("pages", "context_length", "token_budget", "max_sequences"):
            if getattr(self, name) < 1:
                raise ParameterError(f"{name} must be 1 or more, not {getattr(self, name)}")

    def shared_with(self, page_bytes: Iterable[int]) -> Limits:
        """Returns the limits with second models beside the first, whose pages take so many bytes each.

        The bytes of all pages are divided such that all models have the same number of pages. Raises
        `RequestError` if that is none.
        """
        together = self.page_bytes + sum(page_bytes)
        pages = self.pages * self.page_bytes // together
        if pages < 1:
            raise RequestError(
                f"the key/value memory of {self.pages * self.page_bytes} bytes is too small for a second"
                f" model: give kv_memory of {megabytes(together)}"
            )
        return replace(self, pages=pages, page_bytes=together)

    def token_limit(self, prompt: int, params: GenerationParams) -> int:
        """Returns the number of known tokens at which a sequence of the request ends with reason "length".

        The last token drawn need not be computed, so a prompt as long as the context still gets one token,
        unless the strategy runs its last token too. Without `max_tokens` the number of pages is a bound too.
        """
        longest = self.context_length + (0 if params.strategy.runs_last else 1)
        if params.guided:
            longest = min(longest, prompt + longest - _negative(params))
        if params.max_length is not None:
            longest = min(longest, params.max_length)
        if params.max_tokens is not None:
            return min(prompt + params.max_tokens, longest)
        shared = prompt // PAGE_SIZE
        sides = 2 if params.guided else 1
        forks = params.width if params.strategy.runs_last else 0
        width = 1 if forks else params.width
        own = (self.pages - shared - pages_for(_negative(params)) - forks * sides) // (width * sides)
        return min(longest, max((shared + own) * PAGE_SIZE, prompt) + (0 if _runs_last(params) else 1))

    def pages_needed(self, prompt: int, params: GenerationParams) -> int:
        """Returns the largest number of pages that the request holds when it runs alone."""
        limit = self.token_limit(prompt, params)
        generated = min(limit if _runs_last(params) else limit - 1, self.context_length) - prompt
        needed = self._pages(prompt, generated, params)
        if params.guided:
            needed += self._pages(_negative(params), generated, params)
        return needed

    def _pages(self, prompt: int, generated: int, params: GenerationParams) -> int:
        total = pages_for(prompt + generated)
        if params.strategy.runs_last:
            # Its forks live for one step and differ in their last page.
            return total + params.width
        # After a preemption, only the prefix cache lets sequences share the prompt's pages again.
        alone = params.width == 1 or self.prefix_cache
        shared = min(prompt // PAGE_SIZE, total) if alone else 0
        return shared + params.width * (total - shared)


def computed_at_most(prompt: int, params: GenerationParams, context_length: int) -> int:
    """Returns how many tokens of a text are computed at most, however much memory there is.

    The last token drawn need not be computed. `context_length` is the model's.
    """
    bounds = [context_length]
    if params.max_length is not None:
        bounds.append(max(params.max_length - 1, prompt))
    if params.max_tokens is not None:
        bounds.append(prompt + params.max_tokens - 1)
    return min(bounds)


def _runs_last(params: GenerationParams) -> bool:
    """True if even the last token may be computed."""
    return params.strategy.runs_last or isinstance(params.speculate, DRAFTERS)


def _negative(params: GenerationParams) -> int:
    """Returns the number of tokens of the companion's prompt; 0 without a companion."""
    if not params.guided:
        return 0
    return 1 if params.negative_prompt is None else len(params.negative_prompt)


def check_request(
    tokens: Sequence[int], params: GenerationParams, vocab_size: int, limits: Limits, generated: int = 0
) -> None:
    """Raises `RequestError` or `ParameterError`, with the remedy, when the request can never run.

    The last `generated` of the `tokens` follow the prompt.
    """
    prompt = len(tokens) - generated
    if prompt < 1:
        raise RequestError("the prompt is empty: give at least one token")
    params.check_vocabulary(vocab_size)
    for token in tokens:
        if not 0 <= token < vocab_size:
            raise RequestError(
                f"the prompt holds token {token}; this vocabulary has ids 0 to {vocab_size - 1}"
            )
    if generated and params.mirostat_mode:
        raise ParameterError(
            "mirostat_mode and generated tokens do not go together: its state follows from the draws of these"
        )
    if params.prompt_logprobs_start > len(tokens):
        raise ParameterError(
            f"prompt_logprobs_start is {params.prompt_logprobs_start}; the prompt has {len(tokens)} tokens"
        )
    if prompt > limits.context_length:
        raise RequestError(
            f"the prompt has {prompt} tokens and the context holds {limits.context_length}: shorten it,"
            " or open the model with a longer context_length if it allows one"
        )
    most = limits.token_limit(prompt, params) - prompt
    if most <= 0:
        raise RequestError(
            f"the prompt has {prompt} tokens, so no token can follow: shorten it, or raise"
            " max_length or the context_length"
        )
    if isinstance(params.strategy, BeamSearch):
        check_force_words(params.strategy, most)
    if params.width > limits.max_sequences:
        raise RequestError(
            f"the request runs {params.width} sequences at once; this engine runs at most"
            f" {limits.max_sequences}"
        )
    needed = limits.pages_needed(prompt, params)
    if needed > limits.pages:
        raise RequestError(
            f"the request can need key/value memory for {needed * PAGE_SIZE} tokens and there is memory for"
            f" {limits.pages * PAGE_SIZE}: shorten the prompt, lower max_tokens or the number of sequences,"
            f" or give kv_memory of {megabytes(needed * limits.page_bytes)}"
        )


def check_contrast_model(context_length: int, tokens: int) -> None:
    """Raises `ParameterError` if a text of so many tokens is longer than the contrast model's context."""
    if tokens > context_length:
        raise ParameterError(
            f"amateur has a context of {context_length} tokens and the text can have {tokens}:"
            " lower max_tokens or shorten the prompt"
        )


def page_bytes(model: CausalModel, kv_dtype: torch.dtype | None) -> int:
    """Returns the bytes of a page of this model's cache in `kv_dtype` (None: the kernels' choice)."""
    stored = kv_dtype or model.kernels.cache_dtype(model.dtype)
    return model.kv_shape.bytes_per_token(stored) * PAGE_SIZE


def megabytes(nbytes: int) -> str:
    """Returns a least memory size as text."""
    return f"at least {-(-nbytes // 1_000_000)} MB"
