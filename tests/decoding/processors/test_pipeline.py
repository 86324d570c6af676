from __future__ import annotations

from array import array
from dataclasses import replace
from typing import Any

import pytest
import torch
from scipy import stats

from decodery.decoding.processors.pipeline import PROCESSORS, process
from decodery.decoding.request.processor_order import DEFAULT_ORDER
from decodery.decoding.request.watermark_params import Watermark
from decodery.decoding.strategies.sampling import SamplingMethod
from tests.decoding.processors import test_dry, test_penalties, test_truncation
from tests.decoding.rows import make_row, make_scores


def test_ties_are_cut_the_same_alone_and_beside_other_rows() -> None:
    generator = torch.Generator().manual_seed(0)
    # Values with few bits, as from a bfloat16 model: many tie.
    logits = (torch.randn(6, 3000, generator=generator) * 2).bfloat16().float()
    rows = [
        make_row(top_p=p, logprobs=n)
        for p, n in ((0.3, 2), (0.5, 5), (0.9, 20), (0.95, 0), (0.99, 3), (0.7, 50))
    ]
    together = process(logits, rows)
    verdict = SamplingMethod().judge(rows, make_scores(logits))
    for i, row in enumerate(rows):
        assert torch.equal(process(logits[i : i + 1], [row])[0], together[i])
        alone = SamplingMethod().judge([row], make_scores(logits[i : i + 1]))
        assert alone.survivors[0].logprobs == verdict.survivors[i].logprobs


def test_every_processor_is_in_a_table_worked_by_hand() -> None:
    tables = [*test_penalties.TABLE, *test_truncation.TABLE, *test_dry.TABLE]
    rows = [make_row(c.prompt, c.generated, end_ids=c.ends, **c.params) for c in tables]
    unused = {name for name, stage in PROCESSORS.items() if not any(stage.wants(row) for row in rows)}
    # These two have their own tests.
    assert unused <= {"grammar", "watermark"}


def test_every_processor_has_a_place_in_the_order() -> None:
    assert set(PROCESSORS) <= set(DEFAULT_ORDER)


def _add(tokens: list[int], logits: torch.Tensor) -> torch.Tensor:
    return logits + len(tokens)


MIXED: list[dict[str, Any]] = [
    {},
    {"temperature": 0.0, "repetition_penalty": 1.3, "top_k": 5},
    {"temperature": 0.7, "top_k": 40},
    {"temperature": 0.7, "top_k": 40, "top_p": 0.9, "repetition_penalty": 1.3},
    {"top_k": 40, "min_p": 0.01, "typical_p": 0.9, "renormalize_logits": True},
    {"top_k": 100, "tfs_z": 0.9, "xtc_probability": 0.9, "xtc_threshold": 0.02},
    {"top_k": 600, "top_p": 0.9},
    {"top_k": 40, "mirostat_mode": 1, "renormalize_logits": True},
    {"top_k": 40, "watermark": Watermark(), "renormalize_logits": True},
    {"top_p": 0.999, "min_p": 0.0001},
    {"top_p": 0.5, "tfs_z": 0.99},
    {"typical_p": 0.9},
    {"typical_p": 0.3, "eta_cutoff": 1e-4, "dynatemp_range": 0.4},
    {"epsilon_cutoff": 1e-4, "top_a": 0.1},
    {"top_n_sigma": 2.0, "temperature": 1.5, "xtc_probability": 0.5, "xtc_threshold": 0.01},
    {"mirostat_mode": 2, "mirostat_tau": 3.0},
    {"mirostat_mode": 1, "mirostat_tau": 3.0},
    {"dry_multiplier": 0.8, "dry_sequence_breakers": (), "temperature": 0.9},
    {"presence_penalty": 0.3, "frequency_penalty": 0.2, "logit_bias": {5: 3.0}},
    {"min_tokens": 9, "top_k": 3, "top_p": 0.5, "no_repeat_ngram_size": 2},
    {"encoder_no_repeat_ngram_size": 2, "encoder_repetition_penalty": 1.2, "bad_words": [[4], [5, 6]]},
    {"sequence_bias": {(4, 5): 2.0}, "suppress_tokens": [8], "begin_suppress_tokens": [9]},
    {"forced_bos_token_id": 3, "forced_eos_token_id": 3},
    {"exponential_decay_length_penalty": (0, 1.1), "allowed_token_ids": list(range(500))},
    {"logits_processors": [_add], "watermark": Watermark(seeding_scheme="selfhash"), "top_k": 8},
    {"processor_order": DEFAULT_ORDER[::-1], "top_k": 30, "top_p": 0.9, "temperature": 0.6},
    {"processor_order": DEFAULT_ORDER[::-1], "top_k": 30, "repetition_penalty": 1.2, "typical_p": 0.9},
]


@pytest.mark.parametrize("coarse", [False, True])
@pytest.mark.parametrize("vocab", [3000, 40001])
def test_rows_with_different_parameters_are_processed_as_each_alone(vocab: int, coarse: bool) -> None:
    generator = torch.Generator().manual_seed(0)
    texts: list[tuple[list[int], list[int]]] = [([1, 2, 3], [4, 5, 4, 5]), ([9, 4, 9], []), ([7], [4])]
    rows = [
        replace(make_row(*texts[i % 3], end_ids=[6, 7], seed=i, **params), mu=4.0 if i % 2 else None)
        for i, params in enumerate(MIXED)
    ]
    logits = torch.randn(len(rows), vocab, generator=generator) * 3
    # Values with few bits, as from a bfloat16 model: many tie.
    logits = logits.bfloat16().float() if coarse else logits
    together = process(logits, rows)
    for i, row in enumerate(rows):
        assert torch.equal(process(logits[i : i + 1], [row])[0], together[i]), row.params
    back = process(logits.flip(0), rows[::-1]).flip(0)
    assert torch.equal(back, together)
    assert (together > -torch.inf).any(-1).all()


def test_top_k_ties_with_more_tokens_than_a_shortlist_holds() -> None:
    logits = torch.zeros(3, 2000)
    logits[0, :100] = 1.0
    logits[1, :40] = torch.arange(1.0, 41.0)
    logits[2, :3] = 1.0
    logits[2, 3:] = -torch.inf
    rows = [make_row(top_k=40, top_p=0.9999), make_row(top_k=40), make_row(top_k=40, min_p=0.5)]
    assert (process(logits, rows) > -torch.inf).sum(-1).tolist() == [100, 40, 3]


@pytest.mark.parametrize(
    "later",
    [{"watermark": Watermark()}, {"mirostat_mode": 1, "mirostat_tau": 1.5}, {"typical_p": 0.6}],
    ids=str,
)
def test_a_stage_after_top_k_gives_what_it_gives_in_a_call_of_its_own(later: dict[str, Any]) -> None:
    logits = torch.randn(2, 3000, generator=torch.Generator().manual_seed(0)) * 3
    both = process(logits, [make_row(top_k=20, **later)] * 2)
    cut = process(logits, [make_row(top_k=20)] * 2)
    assert torch.equal(both, process(cut, [make_row(**later)] * 2))
    assert not torch.equal(both, cut)


@pytest.mark.parametrize("spread", [0.0, 0.3, 8.0])
@pytest.mark.parametrize("mass", [0.1, 0.9, 0.999])
def test_top_p_keeps_exactly_the_nucleus_of_a_full_sort(spread: float, mass: float) -> None:
    logits = torch.randn(3, 4000, generator=torch.Generator().manual_seed(2)) * spread
    logits += torch.arange(4000) * 1e-4
    kept = process(logits, [make_row(top_p=mass)] * 3) > -torch.inf
    order = logits.double().softmax(-1).sort(descending=True)
    before = order.values.cumsum(-1) - order.values
    expected = torch.zeros_like(kept).scatter(-1, order.indices, before < mass)
    # Sums in float32 may place the border one token away.
    assert (kept.sum(-1) - expected.sum(-1)).abs().max() <= 1
    assert (kept & ~expected).sum() + (~kept & expected).sum() <= 3


@pytest.mark.parametrize(
    "params",
    [
        {},
        {"temperature": 0.6},
        {"top_k": 4},
        {"top_p": 0.8},
        {"min_p": 0.2},
        {"top_k": 6, "top_p": 0.9, "min_p": 0.05},
    ],
    ids=str,
)
def test_sampling_draws_from_the_processed_distribution(params: dict[str, Any]) -> None:
    logits = torch.tensor([1.5, 0.3, -0.4, 2.0, 0.9, -1.2, 0.0, 1.1])
    rows = [make_row([0] * (i % 7 + 1), seed=i, **params) for i in range(4000)]
    verdict = SamplingMethod().judge(rows, make_scores(logits.repeat(4000, 1)))
    counts = torch.bincount(torch.tensor([s.row.tokens[-1] for s in verdict.survivors]), minlength=8).double()
    expected = process(logits[None], rows[:1])[0].double().softmax(-1) * 4000
    assert counts[expected == 0].sum() == 0
    assert stats.chisquare(counts[expected > 0], expected[expected > 0]).pvalue > 0.01


def test_rows_that_share_parameters_are_processed_by_their_own_tokens() -> None:
    first = make_row([0, 1], [2], end_ids=[3], max_tokens=4, min_tokens=2, presence_penalty=1.0, top_k=3)
    shared = replace(
        first.params,
        forced_bos_token_id=1,
        forced_eos_token_id=3,
        begin_suppress_tokens=(5,),
        exponential_decay_length_penalty=(1, 1.5),
    )
    rows = [
        replace(first, params=shared, tokens=array("q", [0, 1, *generated]))
        for generated in ((), (2,), (2, 4), (2, 4, 1))
    ]
    logits = torch.randn(4, 8, generator=torch.Generator().manual_seed(0))
    together = process(logits, rows)
    for i, row in enumerate(rows):
        assert torch.equal(process(logits[i : i + 1], [row])[0], together[i])
    assert len({tuple((row > -torch.inf).tolist()) for row in together}) > 1
