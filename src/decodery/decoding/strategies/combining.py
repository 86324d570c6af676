"""Reports the distributions that a strategy or guidance combined, at the candidates of traced choices."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace

from torch import Tensor

from decodery.decoding.rows import Row, Scores, Survivor, Verdict
from decodery.decoding.trace import Combined, Considered
from decodery.kernels.vocabulary.dispatch import copied, log_softmax

# What was combined at a position of the scores, for the row there; told at these tokens.
CombinedAt = Callable[[Scores, int, Row, Sequence[int]], tuple[Combined, ...]]


def with_combined(verdict: Verdict, rows: Sequence[Row], scores: Scores, combined_at: CombinedAt) -> Verdict:
    """Returns the verdict with `combined` in the choices that its survivors report.

    The scores must be those before processing, at the positions of rows for which something was combined.
    """
    if not any(survivor.considered for survivor in verdict.survivors):
        return verdict
    survivors = [
        _reported(survivor, rows[survivor.parent], scores, combined_at) if survivor.considered else survivor
        for survivor in verdict.survivors
    ]
    return replace(verdict, survivors=survivors)


def _reported(survivor: Survivor, before: Row, scores: Scores, combined_at: CombinedAt) -> Survivor:
    run = scores.runs[survivor.parent][survivor.branch]
    known = len(before.tokens)
    return replace(
        survivor,
        considered=tuple(
            choice_with(
                choice,
                scores,
                run.at(j),
                before if j == 0 else before.with_tokens(survivor.row.tokens[: known + j]),
                combined_at,
            )
            for j, choice in enumerate(survivor.considered)
        ),
    )


def choice_with(
    choice: Considered, scores: Scores, position: int, row: Row, combined_at: CombinedAt
) -> Considered:
    """Returns a choice of the row at this position of the scores, with what was combined for it."""
    found = combined_at(scores, position, row, [candidate.token for candidate in choice.candidates])
    return replace(choice, combined=found) if found else choice


def guidance_at(
    scores: Scores, position: int, row: Row, tokens: Sequence[int], logits: Tensor | None = None
) -> tuple[Combined, ...]:
    """Returns the log-probabilities that guidance combined: after the prompt and after the negative one.

    `logits` `[vocab]`, if given, replace the scores' own after the prompt.
    """
    if not row.params.guided or scores.companion is None or scores.companion_at is None:
        return ()
    own = scores.logits[position] if logits is None else logits
    companion = copied(scores.companion, [scores.companion_at[position]])[0]
    return (Combined("guidance", logprobs_of(own, tokens), logprobs_of(companion, tokens)),)


def logprobs_of(logits: Tensor, tokens: Sequence[int]) -> tuple[float, ...]:
    """Returns the log-probabilities of these tokens under logits `[vocab]`."""
    return tuple(log_softmax(logits[None])[0, list(tokens)].tolist())


def unguided(row: Row) -> Row:
    """Returns the row without guidance."""
    return replace(row, params=row.params.replace(guidance_scale=1.0, negative_prompt=None))
