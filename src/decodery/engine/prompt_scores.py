"""Collects what requests want to know of their prompts: log-probabilities of the tokens, hidden states."""

from __future__ import annotations

from torch import Tensor

from decodery.decoding.logprobs import token_logprobs
from decodery.engine.batch import Batch, Chunk
from decodery.engine.captured_steps import States
from decodery.engine.runner import SCORED_AT_ONCE, Runner


def collect_prompts(runner: Runner, batch: Batch, states: States) -> None:
    """Collects prompt log-probabilities and prompt states for the requests of a batch that want them."""
    base = 0
    for chunk in batch.chunks:
        request = chunk.request
        if chunk.sequence in request.sequences:
            _score_prompt(runner, chunk, states.final, base)
            if request.context is not None:
                seen = sum(len(part) for part in request.context)
                # States that were collected before a preemption are not collected again.
                skip = max(seen - chunk.start, 0)
                request.context.append(states.final[base + skip : base + chunk.count].clone())
        base += chunk.length


def scored_positions(chunk: Chunk) -> range:
    """Returns the positions of the prompt at which a chunk of a request's sequence scores the next token."""
    collected = chunk.request.prompt_logprobs
    if collected is None:
        return range(0)
    # Positions that were scored before a preemption are not scored again. The logits at a position score the
    # token after it.
    begin = max(chunk.start, len(collected) - 1)
    return range(begin, max(begin, min(chunk.start + chunk.count, len(chunk.request.prompt) - 1)))


def _score_prompt(runner: Runner, chunk: Chunk, hidden: Tensor, base: int) -> None:
    """Collects the log-probabilities of the prompt tokens that the chunk scores, if they are wanted."""
    request = chunk.request
    if request.prompt_logprobs is None:
        return
    count = request.params.prompt_logprobs or 0
    scored = scored_positions(chunk)
    for start in range(0, len(scored), SCORED_AT_ONCE):
        positions = scored[start : start + SCORED_AT_ONCE]
        logits = runner.logits(hidden, [base + p - chunk.start for p in positions])
        targets = [request.prompt[p + 1] for p in positions]
        request.prompt_logprobs += token_logprobs(logits, targets, [count] * len(targets))
