from __future__ import annotations

import math
from typing import Any

import pytest
import torch
from scipy import stats

from decodery.decoding.pipeline import PROCESSORS, process
from decodery.decoding.sampling import SamplingMethod
from tests.decoding.rows import make_row, make_scores

CUT = -math.inf

# (parameters, prompt, generated, end ids, logits, what must come out), worked by hand.
TABLE: list[tuple[dict[str, Any], list[int], list[int], list[int], list[float], list[float]]] = [
    ({}, [0], [], [], [1, 2, 3], [1, 2, 3]),
    ({"temperature": 2.0}, [0], [], [], [1, -2, 3], [0.5, -1, 1.5]),
    ({"temperature": 0.0, "top_k": 1, "top_p": 0.1, "min_p": 0.9}, [0], [], [], [1, 2, 3], [1, 2, 3]),
    ({"top_k": 2}, [0], [], [], [1, 4, 3, 2], [CUT, 4, 3, CUT]),
    ({"top_k": 2}, [0], [], [], [3, 4, 3, 2], [3, 4, 3, CUT]),
    # Probabilities 0.5, 0.25, 0.125, 0.125: two reach 0.7, and three, with a tie, reach 0.76.
    ({"top_p": 0.7}, [0], [], [], [math.log(x) for x in (4, 2, 1, 1)], [math.log(4), math.log(2), CUT, CUT]),
    ({"top_p": 0.76}, [0], [], [], [math.log(x) for x in (4, 2, 1, 1)], [math.log(x) for x in (4, 2, 1, 1)]),
    ({"top_p": 1e-9}, [0], [], [], [1, 2, 3], [CUT, CUT, 3]),
    ({"min_p": 0.3}, [0], [], [], [math.log(x) for x in (8, 4, 2, 1)], [math.log(8), math.log(4), CUT, CUT]),
    # Top-p sees what temperature and top-k leave: 4 of 4 + 2 is under 0.7, both stay.
    (
        {"temperature": 0.5, "top_k": 2, "top_p": 0.7},
        [0],
        [],
        [],
        [math.log(x) / 2 for x in (4, 2, 1, 1)],
        [math.log(4), math.log(2), CUT, CUT],
    ),
    ({"repetition_penalty": 2.0}, [0, 0], [2], [], [4, 1, -3, 1], [2, 1, -6, 1]),
    ({"presence_penalty": 0.5}, [0], [1, 1], [], [1, 1, 1], [1, 0.5, 1]),
    ({"frequency_penalty": 0.5}, [0], [1, 1, 2], [], [1, 1, 1], [1, 0, 0.5]),
    ({"presence_penalty": 1.0, "frequency_penalty": -0.5}, [0], [1, 1, 1], [], [0, 0, 0], [0, 0.5, 0]),
    ({"presence_penalty": 1.0}, [0, 1, 2], [], [], [1, 1, 1], [1, 1, 1]),
    ({"logit_bias": {1: 2.5, 2: CUT}}, [0], [], [], [1, 1, 1], [1, 3.5, CUT]),
    # The bias comes after the penalty.
    ({"logit_bias": {1: -3.0}, "repetition_penalty": 2.0}, [1], [], [], [1, 1, 1], [1, -2.5, 1]),
    ({"min_tokens": 2}, [0], [1], [2], [1, 1, 1], [1, 1, CUT]),
    ({"min_tokens": 2}, [0], [1, 1], [2], [1, 1, 1], [1, 1, 1]),
    ({"min_tokens": 2}, [0, 1, 1], [], [0, 1], [1, 1, 1], [CUT, CUT, 1]),
]


@pytest.mark.parametrize("case", TABLE, ids=lambda case: str(case[0]))
def test_processed_logits_are_as_worked_by_hand(case: tuple[Any, ...]) -> None:
    params, prompt, generated, end_ids, logits, expected = case
    row = make_row(prompt, generated, end_ids=end_ids, **params)
    given = torch.tensor([logits], dtype=torch.float32)
    kept = given.clone()
    result = process(given, [row])
    torch.testing.assert_close(result, torch.tensor([expected], dtype=torch.float32), rtol=0, atol=1e-6)
    assert torch.equal(given, kept), "the model's logits were changed"


def test_ties_are_cut_as_alone_whatever_the_others_ask() -> None:
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


def test_every_processor_is_in_the_table() -> None:
    rows = [make_row(p, g, end_ids=e, **params) for params, p, g, e, _, _ in TABLE]
    unused = [name for name, stage in PROCESSORS.items() if not any(stage.wants(row.params) for row in rows)]
    assert not unused


def test_rows_with_different_parameters_process_as_each_alone() -> None:
    generator = torch.Generator().manual_seed(0)
    rows = [
        make_row([1, 2, 3], [4, 5], end_ids=[6]),
        make_row([1, 2, 3], [4, 5], temperature=0.7, top_k=40),
        make_row([9], [4], temperature=0.7, top_p=0.9, repetition_penalty=1.3),
        make_row([9], [], top_p=0.999, min_p=0.01),
        make_row([2], [3, 3, 3], presence_penalty=0.3, frequency_penalty=0.2, logit_bias={5: 3.0}),
        make_row([2], [3], min_tokens=4, end_ids=[7, 8], top_k=3, top_p=0.5),
    ]
    logits = torch.randn(len(rows), 5000, generator=generator) * 4
    together = process(logits, rows)
    for i, row in enumerate(rows):
        assert torch.equal(process(logits[i : i + 1], [row])[0], together[i])


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
