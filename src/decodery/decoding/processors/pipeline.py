"""Applies the processors that a row's parameters ask for to its logits.

A new processor is a line in the table `PROCESSORS` and a place in the default order.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from decodery.decoding.grammar.state import apply_grammar
from decodery.decoding.processors import bans as banning
from decodery.decoding.processors import penalties, truncation
from decodery.decoding.processors.dry import dry
from decodery.decoding.processors.mirostat import mirostat
from decodery.decoding.processors.shortlist import Shortlist, shortlists
from decodery.decoding.processors.watermark import watermark
from decodery.decoding.processors.xtc import xtc
from decodery.decoding.request.processor_order import DEFAULT_ORDER
from decodery.decoding.rows import Row
from decodery.kernels.vocabulary.dispatch import copied, copy_rows


@dataclass(frozen=True, slots=True)
class Processor:
    """Describes one stage: `apply` changes, in place, the logits of the rows for which `wants` is true now.

    With `by_value` the stage reads the values of the logits only, so that it may be given a row's possible
    tokens alone. With `bans` it may rule out a token whatever its logit. If a row may want the stage at some
    steps only, `may` says whether the row ever does. With `shapes` the stage only shapes what is sampled.
    """

    wants: Callable[[Row], bool]
    apply: Callable[[Tensor, Sequence[Row]], None]
    by_value: bool = False
    bans: bool = False
    may: Callable[[Row], bool] | None = None
    shapes: bool = False


def _truncation(
    wants: Callable[[Row], bool], apply: Callable[[Tensor, Sequence[Row]], None], *, by_value: bool = True
) -> Processor:
    """Returns a stage that greedy rows skip, because it never cuts the likeliest token."""
    return Processor(lambda r: not r.params.greedy and wants(r), apply, by_value, shapes=True)


def _custom(logits: Tensor, rows: Sequence[Row]) -> None:
    """Applies the rows' own functions; what a grammar bans stays banned."""
    penalties.custom(logits, rows)
    held = [i for i, row in enumerate(rows) if PROCESSORS["grammar"].wants(row)]
    if held:
        own = copied(logits, held)
        apply_grammar(own, [rows[i] for i in held])
        copy_rows(own, range(len(held)), logits, held)


PROCESSORS: dict[str, Processor] = {
    "grammar": Processor(
        lambda r: r.grammar is not None and not r.grammar.unrestricted,
        apply_grammar,
        may=lambda r: r.grammar is not None,
    ),
    "sequence_bias": Processor(lambda r: bool(r.params.sequence_bias), penalties.sequence_bias, bans=True),
    "encoder_repetition_penalty": Processor(
        lambda r: r.params.encoder_repetition_penalty != 1, penalties.encoder_repetition_penalty
    ),
    "repetition_penalty": Processor(lambda r: r.params.repetition_penalty != 1, penalties.repetition_penalty),
    "presence_and_frequency_penalty": Processor(
        lambda r: bool(r.params.presence_penalty or r.params.frequency_penalty) and r.generated > 0,
        penalties.presence_and_frequency_penalty,
        may=lambda r: bool(r.params.presence_penalty or r.params.frequency_penalty),
    ),
    "dry": Processor(lambda r: r.params.dry_multiplier > 0, dry),
    "no_repeat_ngram": Processor(
        lambda r: r.params.no_repeat_ngram_size > 0, banning.no_repeat_ngram, bans=True
    ),
    "encoder_no_repeat_ngram": Processor(
        lambda r: r.params.encoder_no_repeat_ngram_size > 0, banning.encoder_no_repeat_ngram, bans=True
    ),
    "bad_words": Processor(lambda r: bool(r.params.bad_words), banning.bad_words, bans=True),
    "min_tokens": Processor(
        lambda r: r.generated < r.params.min_tokens or len(r.tokens) < r.params.min_length,
        banning.end_tokens,
        bans=True,
        may=lambda r: r.params.min_tokens > 0 or r.params.min_length > 0,
    ),
    "forced_bos": Processor(
        lambda r: r.params.forced_bos_token_id is not None and r.generated == 0,
        banning.forced_bos,
        bans=True,
        may=lambda r: r.params.forced_bos_token_id is not None,
    ),
    "forced_eos": Processor(
        lambda r: r.params.forced_eos_token_id is not None and len(r.tokens) == r.limit - 1,
        banning.forced_eos,
        bans=True,
        may=lambda r: r.params.forced_eos_token_id is not None,
    ),
    "exponential_decay": Processor(
        lambda r: (
            r.params.exponential_decay_length_penalty is not None
            and r.generated > r.params.exponential_decay_length_penalty[0]
        ),
        penalties.exponential_decay,
        may=lambda r: r.params.exponential_decay_length_penalty is not None,
    ),
    "suppress_tokens": Processor(
        lambda r: bool(r.params.suppress_tokens), banning.suppress_tokens, bans=True
    ),
    # The text begins after a forced first token.
    "begin_suppress_tokens": Processor(
        lambda r: (
            bool(r.params.begin_suppress_tokens) and r.generated == (r.params.forced_bos_token_id is not None)
        ),
        banning.begin_suppress_tokens,
        bans=True,
        may=lambda r: bool(r.params.begin_suppress_tokens),
    ),
    "allowed_token_ids": Processor(
        lambda r: bool(r.params.allowed_token_ids), banning.allowed_token_ids, bans=True
    ),
    "logit_bias": Processor(lambda r: bool(r.params.logit_bias), penalties.logit_bias, bans=True),
    "custom": Processor(lambda r: bool(r.params.logits_processors), _custom, bans=True),
    "temperature": _truncation(
        lambda r: r.params.temperature != 1 or r.params.dynatemp_range > 0, penalties.temperature
    ),
    "top_n_sigma": _truncation(lambda r: r.params.top_n_sigma > 0, truncation.top_n_sigma),
    "top_k": _truncation(lambda r: r.params.top_k > 0, truncation.top_k),
    "tfs": _truncation(lambda r: r.params.tfs_z < 1, truncation.tfs),
    "top_p": _truncation(lambda r: r.params.top_p < 1, truncation.top_p),
    "min_p": _truncation(lambda r: r.params.min_p > 0, truncation.min_p),
    "top_a": _truncation(lambda r: r.params.top_a > 0, truncation.top_a),
    "typical_p": _truncation(lambda r: r.params.typical_p < 1, truncation.typical_p),
    "epsilon_cutoff": _truncation(lambda r: r.params.epsilon_cutoff > 0, truncation.epsilon_cutoff),
    "eta_cutoff": _truncation(lambda r: r.params.eta_cutoff > 0, truncation.eta_cutoff),
    "xtc": _truncation(lambda r: r.params.xtc_probability > 0, xtc),
    # Version 1 needs the size of the vocabulary.
    "mirostat": _truncation(lambda r: r.params.mirostat_mode > 0, mirostat, by_value=False),
    "watermark": Processor(lambda r: r.params.watermark is not None, watermark),
    "renormalize": Processor(lambda r: r.params.renormalize_logits, penalties.renormalize, by_value=True),
}

Record = Callable[[str, Sequence[int], Tensor], None]


def may_ban(row: Row) -> bool:
    """True if the row has a stage that may rule out tokens, now or at a later step."""
    return any(PROCESSORS[name].bans for name in stages_of(row))


def why_impossible(raw: Tensor, row: Row) -> str:
    """Returns the error message for a row for which no token is possible.

    `raw` are its unprocessed logits `[vocab]`.
    """
    if bool(raw.isnan().any()):
        return "the model's scores are not numbers (NaN): its weights are damaged or overflow in this dtype"
    bans = [name for name in DEFAULT_ORDER if PROCESSORS[name].bans or name == "grammar"]
    names = [name for name in bans if PROCESSORS[name].wants(row)]
    return f"no token is possible: every one is banned by {' and '.join(names) or 'the processors'}"


def rules_out(logits: Tensor, row: Row, token: int) -> bool:
    """True if the row's grammar or a stage that bans rules out the token, by raw logits `[vocab]`."""
    own = logits[None].clone()
    for name in row.params.processor_order or DEFAULT_ORDER:
        processor = PROCESSORS[name]
        if (processor.bans or name == "grammar") and processor.wants(row):
            processor.apply(own, [row])
    return bool(own[0, token] == -torch.inf)


def plans_of(rows: Sequence[Row]) -> list[list[str]]:
    """Returns the stages of each row at this step, in its order; a row without any keeps its logits."""
    return [_plan(row) for row in rows]


def _plan(row: Row) -> list[str]:
    return [n for n in stages_of(row) if PROCESSORS[n].may is None or PROCESSORS[n].wants(row)]


def stages_of(row: Row) -> tuple[str, ...]:
    """Returns `possible_stages` of a row, by its cache if it has one."""
    return possible_stages(row) if row.stages is None else row.stages


def possible_stages(row: Row) -> tuple[str, ...]:
    """Returns the stages that a row may want at some step, in its order; `Row.stages` caches them."""
    names = []
    for name in row.params.processor_order or DEFAULT_ORDER:
        stage = PROCESSORS.get(name)
        if stage is not None and (stage.may or stage.wants)(row):
            names.append(name)
    return tuple(names)


def process(
    logits: Tensor,
    rows: Sequence[Row],
    record: Record | None = None,
    *,
    in_place: bool = False,
    plans: Sequence[list[str]] | None = None,
) -> Tensor:
    """Returns the rows' logits after all stages that their parameters ask for.

    `logits` is float32 `[rows, vocab]`. It is not changed, unless `in_place`; without any stage it is
    returned itself. `plans` are `plans_of(rows)`, if the caller has them. A row's result does not depend on
    the other rows. After each stage `record` is called with its name, the indices of the rows that it was
    applied to, and the logits of all rows.
    """
    plans = plans_of(rows) if plans is None else plans
    if not any(plans):
        return logits
    result = logits if in_place else copied(logits, range(len(logits)))
    members: dict[tuple[str, ...] | None, list[int]] = {}
    for i, row in enumerate(rows):
        members.setdefault(row.params.processor_order, []).append(i)
    for order, places in members.items():
        _in_order(order or DEFAULT_ORDER, result, {i: plans[i] for i in places}, rows, record)
    return result


def _in_order(
    order: Sequence[str],
    logits: Tensor,
    plans: dict[int, list[str]],
    rows: Sequence[Row],
    record: Record | None,
) -> None:
    """Applies the plans of some rows, all in this order, and changes the rows' logits."""
    listed: list[Shortlist] = []
    wanted = {name for plan in plans.values() for name in plan}
    for name in order:
        if name not in wanted:
            continue
        using = [i for i, plan in plans.items() if name in plan]
        for shortlist in listed:
            _apply(name, shortlist.logits, shortlist.places, using, rows)
        if name == "top_k":
            short = [i for i in using if _only_values_follow(plans[i])]
            listed = shortlists(logits, rows, short)
        done = {i for shortlist in listed for i in shortlist.places}
        _apply(name, logits, range(len(rows)), [i for i in using if i not in done], rows)
        if record is not None:
            for shortlist in listed:
                shortlist.write(logits)
            record(name, using, logits)
    if record is None:
        for shortlist in listed:
            shortlist.write(logits)


def _only_values_follow(plan: list[str]) -> bool:
    return all(PROCESSORS[name].by_value for name in plan[plan.index("top_k") :])


def _apply(
    name: str, logits: Tensor, places: Sequence[int], using: Sequence[int], rows: Sequence[Row]
) -> None:
    """Applies one stage to the rows in `using`; `logits[j]` belongs to the row `rows[places[j]]`."""
    apply = PROCESSORS[name].apply
    chosen = set(using)
    here = [j for j, i in enumerate(places) if i in chosen]
    if len(here) == len(places):
        apply(logits, [rows[i] for i in places])
    elif here:
        part = copied(logits, here)
        apply(part, [rows[places[j]] for j in here])
        copy_rows(part, range(len(here)), logits, here)
