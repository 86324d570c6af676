"""What an engine can hold, and whether a request can ever run in it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from decodery.decoding.params import GenerationParams
from decodery.engine.pages import pages_for
from decodery.errors import ParameterError, RequestError
from decodery.kernels import PAGE_SIZE


@dataclass(frozen=True, slots=True)
class Limits:
    """The sizes of an engine.

    `pages` of the key/value cache, each of `PAGE_SIZE` tokens and `page_bytes` bytes; `context_length` is the
    most tokens of a sequence that are ever computed; a step runs about `token_budget` tokens of at most
    `max_sequences` sequences.
    """

    pages: int
    page_bytes: int
    context_length: int
    token_budget: int = 512
    max_sequences: int = 256
    prefix_cache: bool = True

    def __post_init__(self) -> None:
        for name in ("pages", "context_length", "token_budget", "max_sequences"):
            if getattr(self, name) < 1:
                raise ParameterError(f"{name} must be 1 or more, not {getattr(self, name)}")

    def token_limit(self, prompt: int, params: GenerationParams) -> int:
        """How many tokens a sequence of the request knows at its end, if nothing else ends it.

        The last token drawn need not be computed, so a prompt as long as the context still gets one token.
        Without `max_tokens` the memory bounds it too.
        """
        context = max(self.context_length, prompt + 1)
        if params.max_tokens is not None:
            return min(prompt + params.max_tokens, context)
        shared = prompt // PAGE_SIZE
        return min(
            context, max((self.pages - shared) // params.n * PAGE_SIZE + shared * PAGE_SIZE, prompt) + 1
        )

    def pages_needed(self, prompt: int, params: GenerationParams) -> int:
        """The most pages that the request holds when it runs alone."""
        total = pages_for(self.token_limit(prompt, params) - 1)
        # After a preemption, only the prefix cache lets streams share the prompt's pages again.
        shared = min(prompt // PAGE_SIZE, total) if self.prefix_cache or params.n == 1 else 0
        return shared + params.n * (total - shared)


def check_request(prompt: Sequence[int], params: GenerationParams, vocab_size: int, limits: Limits) -> None:
    """Raise `RequestError` or `ParameterError`, saying what would do, when the request can never run."""
    if not len(prompt):
        raise RequestError("the prompt is empty: give at least one token")
    params.check_vocabulary(vocab_size)
    for token in prompt:
        if not 0 <= token < vocab_size:
            raise RequestError(
                f"the prompt holds token {token}; this vocabulary has ids 0 to {vocab_size - 1}"
            )
    if len(prompt) > limits.context_length:
        raise RequestError(
            f"the prompt has {len(prompt)} tokens and the context holds {limits.context_length}: shorten it,"
            " or open the model with a longer context_length if it allows one"
        )
    if params.n > limits.max_sequences:
        raise RequestError(
            f"n is {params.n}; this engine runs at most {limits.max_sequences} sequences at once"
        )
    needed = limits.pages_needed(len(prompt), params)
    if needed > limits.pages:
        raise RequestError(
            f"the request can need key/value memory for {needed * PAGE_SIZE} tokens and there is room for"
            f" {limits.pages * PAGE_SIZE}: shorten the prompt, lower max_tokens or n, or give kv_memory of"
            f" {_megabytes(needed * limits.page_bytes)}"
        )


def _megabytes(nbytes: int) -> str:
    return f"at least {-(-nbytes // 1_000_000)} MB"
