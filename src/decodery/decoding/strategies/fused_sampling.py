"""Chooses tokens with one kernel that holds the stages which most requests use, up to the choice itself."""

from __future__ import annotations

import math
from array import array
from collections.abc import Mapping, Sequence

from torch import Tensor

from decodery.decoding import draw
from decodery.decoding.draw import draw_key_of
from decodery.decoding.grammar.state import apply_grammar, marks, permits
from decodery.decoding.processors.penalties import generated_from, seen_from
from decodery.decoding.processors.pipeline import stages_of
from decodery.decoding.processors.shortlist import width_of
from decodery.decoding.processors.shown_logits import with_logits
from decodery.decoding.processors.truncation import at_least, reached
from decodery.decoding.recorder import Choice, considered_from
from decodery.decoding.rows import Row
from decodery.decoding.trace import Considered
from decodery.kernels.vocabulary.choices import BORDERS, ChoiceArgs, FusedSamplingArgs
from decodery.kernels.vocabulary.dispatch import choose, compiled, copied, described, largest

# The stages of the kernel, in its order (native/fused_sampling.hpp); a test compares it with `DEFAULT_ORDER`.
FUSED_STAGES = (
    "grammar",
    "repetition_penalty",
    "presence_and_frequency_penalty",
    "temperature",
    "top_k",
    "top_p",
    "min_p",
)
_NO_KEY = (0, 0)


def can_fuse(logits: Tensor, rows: Sequence[Row], plans: Sequence[list[str]]) -> bool:
    """True if `sample_fused` can give the rows' tokens.

    Either no row uses any stage, or all use the kernel's stages only and there is a kernel for logits like
    these. `plans` are `plans_of(rows)`.
    """
    if not any(plans):
        return True
    return compiled(logits) and all(map(_fits, rows, plans))


def sample_fused(
    raw: Tensor, rows: Sequence[Row], plans: Sequence[list[str]]
) -> tuple[list[int], list[Considered | None]]:
    """Returns the next token of each row, -1 where none is possible, and what each choice considered.

    The rows are such that `can_fuse`. `raw` is float32 `[rows, vocab]`, the logits before any stage, and is
    not changed. `plans` are `plans_of(rows)`. The tokens are those that `process` and `draw.choose` give. A
    row that does not explain, or has no token, has no record.
    """
    borders = no_borders(len(rows))
    tokens = choose_from_all(raw, rows, plans, borders)
    # The mask of a grammar is expensive: first each row chooses from all tokens, and mostly that is allowed.
    banned = [
        i
        for i, plan in enumerate(plans)
        if "grammar" in plan and not unmasked_choice_is_valid(rows[i], tokens[i])
    ]
    if banned:
        masked = [rows[i] for i in banned]
        again = choose_allowed(raw, banned, masked, [plans[i] for i in banned], borders)
        for i, token in zip(banned, again, strict=True):
            tokens[i] = token
    considered: list[Considered | None] = [None] * len(rows)
    chosen = {i: tokens[i] for i, row in enumerate(rows) if row.explain and tokens[i] >= 0}
    for i, record in zip(chosen, considered_choices(raw, rows, plans, chosen, borders), strict=True):
        considered[i] = record
    return tokens, considered


def no_borders(rows: int) -> array[float]:
    """Returns memory for the borders that `choose` finds, for so many rows."""
    return array("f", [-math.inf] * (BORDERS * rows))


def considered_choices(
    raw: Tensor,
    rows: Sequence[Row],
    plans: Sequence[list[str]],
    chosen: Mapping[int, int],
    borders: array[float],
) -> list[Considered]:
    """Returns what choices considered, as a `Recorder` of their stages does, with one call of a kernel.

    `chosen` maps places among the rows, which explain, to their tokens. `borders` are those of all rows, as
    `choose_from_all` and `choose_allowed` wrote them.
    """
    if not chosen:
        return []
    vocab = raw.shape[1]
    masked = [i for i in chosen if "grammar" in plans[i]]
    words = dict(zip(masked, marks([rows[i] for i in masked], vocab), strict=True)) if masked else {}
    choices = []
    args = []
    for i, token in chosen.items():
        key = None if rows[i].params.greedy else draw_key_of(rows[i])
        sampling = _fused_args(rows[i], vocab) if plans[i] else None
        own = borders[BORDERS * i : BORDERS * (i + 1)]
        choices.append(Choice(i, token, key))
        args.append(ChoiceArgs(i, token, min(rows[i].explain, vocab), key, (), sampling, own, words.get(i)))
    return [
        with_logits(considered_from(description, FUSED_STAGES, choice), raw[choice.place], rows[choice.place])
        for description, choice in zip(described(raw, args), choices, strict=True)
    ]


def choose_from_all(
    logits: Tensor, rows: Sequence[Row], plans: Sequence[list[str]], borders: array[float] | None = None
) -> list[int]:
    """Returns the tokens that rows choose by all their stages but the grammar; else as `sample_fused`.

    Writes the borders that the kernel finds.
    """
    if not any(plans):
        return draw.choose(logits, rows)
    if all(map(_takes_the_likeliest, rows, plans)):
        return largest(logits)
    return choose(logits, [_fused_args(row, logits.shape[-1]) for row in rows], borders)


def choose_allowed(
    raw: Tensor,
    places: Sequence[int],
    rows: Sequence[Row],
    plans: Sequence[list[str]],
    borders: array[float] | None = None,
) -> list[int]:
    """Returns the tokens that rows choose from those that their grammars allow; -1 where none is possible.

    `places[i]` is the index in `raw`, and in `borders`, of row i.
    """
    if all(map(_takes_the_likeliest, rows, plans)):
        allowed_bits = marks(rows, raw.shape[1])
        return [largest(raw[i : i + 1], allowed_bits[k : k + 1])[0] for k, i in enumerate(places)]
    allowed = copied(raw, places)
    apply_grammar(allowed, rows)
    own = no_borders(len(rows))
    tokens = choose_from_all(allowed, rows, plans, own)
    if borders is not None:
        for k, i in enumerate(places):
            borders[BORDERS * i : BORDERS * (i + 1)] = own[BORDERS * k : BORDERS * (k + 1)]
    return tokens


def _takes_the_likeliest(row: Row, plan: list[str]) -> bool:
    """True if the row takes the likeliest token that its grammar allows, with no other stage."""
    return plan == ["grammar"] and row.params.greedy


def unmasked_choice_is_valid(row: Row, token: int) -> bool:
    """True if a token chosen from all tokens is also the choice from those that the row's grammar allows.

    It is if the grammar allows the token and the row cuts no tokens away: which tokens top-k, top-p and min-p
    keep depends on the likelier ones, which the grammar may ban.
    """
    params = row.params
    cuts = not params.greedy and (params.top_k > 0 or params.top_p < 1 or params.min_p > 0)
    return not cuts and token >= 0 and permits(row, token)


def fits_fused_sampling(row: Row) -> bool:
    """True if the kernel does all stages that the row may want at some step."""
    return _fits(row, list(stages_of(row)))


def _fits(row: Row, plan: list[str]) -> bool:
    """True if the kernel, or the masked argmax, does all that the row's stages do."""
    if _takes_the_likeliest(row, plan):
        return True
    params = row.params
    return set(plan).issubset(FUSED_STAGES) and params.processor_order is None and params.dynatemp_range == 0


def _fused_args(row: Row, vocab: int) -> FusedSamplingArgs:
    params, known = row.params, len(row.tokens)
    greedy = params.greedy
    return FusedSamplingArgs(
        row.tokens,
        known if params.repetition_penalty == 1 else seen_from(row),
        known if params.presence_penalty == 0 == params.frequency_penalty else generated_from(row),
        params.repetition_penalty,
        params.presence_penalty,
        params.frequency_penalty,
        params.temperature,
        reached(params.top_p) if params.top_p < 1 else 1.0,
        math.log(at_least(params.min_p)) if params.min_p > 0 else -math.inf,
        params.top_k,
        0 if greedy else width_of(params.top_k, vocab),
        _NO_KEY if greedy else draw_key_of(row),
    )
