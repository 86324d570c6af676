from __future__ import annotations

import math
from collections.abc import Callable
from fractions import Fraction
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from scipy import stats

from decodery.decoding.draw import choose, draw_key, stream_seed
from decodery.decoding.processors.pipeline import plans_of, process
from decodery.decoding.processors.xtc import coin
from decodery.decoding.strategies.fused_sampling import can_fuse, sample_fused
from decodery.kernels.vocabulary.dispatch import draw
from tests.decoding.processors.tables import CUT, Case, check, logs
from tests.decoding.rows import make_row

L4 = logs(4, 2, 1, 1)  # probabilities 0.5, 0.25, 0.125, 0.125; entropy 1.75 bits

TABLE = [
    Case(
        {"temperature": 0.0, "top_k": 1, "top_p": 0.1, "min_p": 0.9, "xtc_probability": 1.0},
        [1, 2, 3],
        [1, 2, 3],
    ),
    Case(
        {"temperature": 0.0, "typical_p": 0.1, "mirostat_mode": 2, "top_n_sigma": 0.1}, [1, 2, 3], [1, 2, 3]
    ),
    Case({"top_k": 2}, [1, 4, 3, 2], [CUT, 4, 3, CUT]),
    Case({"top_k": 2}, [3, 4, 3, 2], [3, 4, 3, CUT]),
    # Two reach 0.7, and three, with a tie, reach 0.76.
    Case({"top_p": 0.7}, L4, [*L4[:2], CUT, CUT]),
    Case({"top_p": 0.76}, L4, L4),
    Case({"top_p": 1e-9}, [1, 2, 3], [CUT, CUT, 3]),
    Case({"min_p": 0.3}, logs(8, 4, 2, 1), [*logs(8, 4), CUT, CUT]),
    Case({"min_p": 1.0}, [3, 1, 3], [3, CUT, 3]),
    # Top-p sees what temperature and top-k leave: 4 of 4 + 2 is under 0.7, both stay.
    Case({"temperature": 0.5, "top_k": 2, "top_p": 0.7}, [x / 2 for x in L4], [*L4[:2], CUT, CUT]),
    # 0.6 * 0.5^2 is between 0.125 and 0.25.
    Case({"top_a": 0.6}, L4, [*L4[:2], CUT, CUT]),
    Case({"top_a": 0.4}, L4, L4),
    # Surprises of 1, 2, 3 and 3 bits: the second is nearest to 1.75, then the first.
    Case({"typical_p": 0.2}, L4, [CUT, L4[1], CUT, CUT]),
    Case({"typical_p": 0.7}, L4, [*L4[:2], CUT, CUT]),
    Case({"typical_p": 0.8}, L4, L4),
    Case({"epsilon_cutoff": 0.2}, L4, [*L4[:2], CUT, CUT]),
    Case({"epsilon_cutoff": 0.9}, L4, [L4[0], CUT, CUT, CUT]),
    # exp(-1.75 ln 2) is 0.297; its product with sqrt(0.49) is 0.208, with sqrt(0.16) it is 0.119.
    Case({"eta_cutoff": 0.49}, L4, [*L4[:2], CUT, CUT]),
    Case({"eta_cutoff": 0.16}, L4, L4),
    # Mean 2 and deviation sqrt(2): 1.42 deviations below 4 is 1.99.
    Case({"top_n_sigma": 1.42}, [0, 1, 2, 3, 4], [CUT, CUT, 2, 3, 4]),
    Case({"top_n_sigma": 1.41}, [0, 1, 2, 3, 4], [CUT, CUT, CUT, 3, 4]),
    Case({"top_n_sigma": 1.42}, [CUT, 0, 1, 2, 3, 4], [CUT, CUT, CUT, 2, 3, 4]),
    # Probabilities .5 .3 .1 .06 .04, second differences 0, .16, .02: all but none, .89, the rest.
    Case({"tfs_z": 0.5}, logs(50, 30, 10, 6, 4), [math.log(50), *[CUT] * 4]),
    Case({"tfs_z": 0.95}, logs(50, 30, 10, 6, 4), [*logs(50, 30), *[CUT] * 3]),
    Case({"tfs_z": 0.5}, [1, 2], [1, 2]),
    Case({"tfs_z": 0.5}, [1, 1, 1, 1], [1, 1, 1, 1]),
    # Two reach 0.2; the less likely of them stays, and what is below.
    Case({"xtc_probability": 1.0, "xtc_threshold": 0.2}, L4, [CUT, *L4[1:]]),
    Case({"xtc_probability": 1.0, "xtc_threshold": 0.1}, L4, [CUT, CUT, *L4[2:]]),
    Case({"xtc_probability": 1.0, "xtc_threshold": 0.4}, L4, L4),
    Case({"xtc_probability": 1.0, "xtc_threshold": 0.6}, L4, L4),
    # The first step aims at twice tau: 2 bits allow probabilities from 0.25.
    Case({"mirostat_mode": 2, "mirostat_tau": 1.01}, L4, [*L4[:2], CUT, CUT]),
    Case({"mirostat_mode": 2, "mirostat_tau": 0.1}, L4, [L4[0], CUT, CUT, CUT]),
    Case({"mirostat_mode": 1, "mirostat_tau": 0.01}, L4, [L4[0], CUT, CUT, CUT]),
    Case({"mirostat_mode": 1, "mirostat_tau": 50.0}, L4, L4),
]


@pytest.mark.parametrize("case", TABLE, ids=str)
def test_truncated_logits_are_as_worked_by_hand(case: Case) -> None:
    check(case)


def _kept_top_p(p: NDArray[np.float64], mass: float) -> NDArray[np.bool_]:
    order = np.argsort(-p)
    kept = np.zeros(len(p), dtype=bool)
    kept[order[: 1 + np.searchsorted(np.cumsum(p[order]), mass)]] = True
    return kept


def _kept_typical(p: NDArray[np.float64], mass: float) -> NDArray[np.bool_]:
    surprise = -np.log(p)
    order = np.argsort(np.abs(surprise - (p * surprise).sum()))
    kept = np.zeros(len(p), dtype=bool)
    kept[order[: 1 + np.searchsorted(np.cumsum(p[order]), mass)]] = True
    return kept


def _kept_tfs(p: NDArray[np.float64], z: float) -> NDArray[np.bool_]:
    order = np.argsort(-p)
    curvature = np.abs(np.diff(p[order], 2))
    beyond = np.flatnonzero(np.cumsum(curvature) > z * curvature.sum())
    kept = np.zeros(len(p), dtype=bool)
    kept[order[: max(1, beyond[0]) if len(beyond) else len(p)]] = True
    return kept


def _kept_xtc(p: NDArray[np.float64], threshold: float) -> NDArray[np.bool_]:
    above = np.flatnonzero(p >= threshold)
    kept = np.ones(len(p), dtype=bool)
    if len(above) > 1:
        kept[above] = False
        kept[above[p[above].argmin()]] = True
    return kept


def _kept_eta(p: NDArray[np.float64], epsilon: float) -> NDArray[np.bool_]:
    eta = min(epsilon, math.sqrt(epsilon) * math.exp((p * np.log(p)).sum()))
    return np.asarray((p >= eta) | (p == p.max()))


DEFINITIONS: list[tuple[Callable[[float], dict[str, Any]], Any, tuple[float, ...]]] = [
    (lambda x: {"top_p": x}, _kept_top_p, (0.1, 0.5, 0.9, 0.99, 0.9999)),
    (lambda x: {"typical_p": x}, _kept_typical, (0.05, 0.3, 0.9, 0.99)),
    (lambda x: {"tfs_z": x}, _kept_tfs, (0.1, 0.5, 0.9, 0.99, 0.9999)),
    (lambda x: {"xtc_threshold": x, "xtc_probability": 1.0}, _kept_xtc, (0.001, 0.05, 0.3)),
    (lambda x: {"eta_cutoff": x}, _kept_eta, (1e-5, 3e-4, 0.01)),
    (lambda x: {"top_a": x}, lambda p, a: p >= a * p.max() ** 2, (0.01, 0.2, 1.0)),
    (lambda x: {"epsilon_cutoff": x}, lambda p, e: (p >= e) | (p == p.max()), (1e-5, 1e-3, 0.1)),
    (lambda x: {"min_p": x}, lambda p, m: p >= m * p.max(), (1e-3, 0.05, 0.5)),
    (
        lambda x: {"top_n_sigma": x},
        lambda p, n: np.log(p) >= np.log(p).max() - n * np.log(p).std(),
        (0.5, 1.5, 4.0),
    ),
]


@pytest.mark.parametrize(("params", "kept", "values"), DEFINITIONS, ids=lambda x: None)
@pytest.mark.parametrize("vocab", [200, 9001])
def test_truncations_keep_what_their_definition_in_float64_keeps(
    params: Callable[[float], dict[str, Any]], kept: Any, values: tuple[float, ...], vocab: int
) -> None:
    generator = torch.Generator().manual_seed(5)
    for spread in (0.2, 2.0, 6.0):
        for value in values:
            logits = torch.randn(1, vocab, generator=generator) * spread
            result = process(logits, [make_row(**params(value))])[0]
            expected = kept(torch.softmax(logits[0].double(), -1).numpy(), value)
            found = (result > CUT).numpy()
            # Rounding in float32 may move one token across the border.
            assert np.count_nonzero(found != expected) <= (1 if expected.sum() > 500 else 0)
            assert torch.equal(result[torch.from_numpy(found)], logits[0][torch.from_numpy(found)])


# Whole numbers, of which each is the probability of a token times their sum, in any order.
COUNTS = st.lists(st.integers(1, 20), min_size=1, max_size=25)


def logits_of(counts: list[int], shift: float) -> torch.Tensor:
    """Returns logits `[1, vocab]` whose probabilities are proportional to the counts, but for rounding."""
    return torch.tensor([[math.log(count) + shift for count in counts]])


def nucleus(counts: list[int], mass: Fraction) -> list[bool]:
    """Returns which tokens the smallest set that reaches the mass has, and those that tie with its last."""
    last, reached = max(counts), Fraction(0)
    for count in sorted(counts, reverse=True):
        if reached >= mass:
            break
        last, reached = count, reached + Fraction(count, sum(counts))
    return [count >= last for count in counts]


@pytest.mark.parametrize(
    ("counts", "mass", "kept"),
    [
        ([5, 3, 1, 1], 0.8, 2),
        ([4, 3, 2, 1], 0.7, 2),
        ([4, 3, 2, 1], 0.9, 3),
        ([3, 3, 3, 1], 0.3, 3),
        ([1] * 10, 0.3, 10),
    ],
)
def test_top_p_at_an_exact_sum_keeps_the_tokens_of_the_sum_and_those_that_tie(
    counts: list[int], mass: float, kept: int
) -> None:
    assert (process(logits_of(counts, 0), [make_row(top_p=mass)]) > CUT).sum() == kept


@settings(max_examples=300, deadline=None)
@given(COUNTS, st.data(), st.sampled_from((0.0, -3.3, 8.1)), st.sampled_from((0, 5, 600)))
def test_top_p_keeps_the_smallest_set_that_reaches_it_in_exact_fractions(
    counts: list[int], data: st.DataObject, shift: float, top_k: int
) -> None:
    """The stage, the walk of the few tokens of top-k, and the kernel that draws at once keep the same."""
    counts = [*counts, *[0] * (40 if top_k else 0)]
    sums = [Fraction(n, 100) for n in range(1, 100)]
    sums += [Fraction(n, sum(counts)) for n in range(1, sum(counts))]
    mass = data.draw(st.sampled_from(sums))
    logits = torch.tensor([[math.log(c) + shift if c else CUT for c in counts]])
    left = [c if not top_k or c >= sorted(counts)[-min(top_k, len(counts))] else 0 for c in counts]
    expected = nucleus(left, mass)
    row = make_row(top_p=float(mass), top_k=top_k)
    assert (process(logits, [row])[0] > CUT).tolist() == expected
    several = [make_row(top_p=float(mass), top_k=top_k, seed=seed) for seed in range(20)]
    raw = logits.repeat(20, 1)
    if can_fuse(raw, several, plans_of(several)):
        drawn, _ = sample_fused(raw, several, plans_of(several))
        assert drawn == choose(process(raw, several), several)
        assert all(expected[token] for token in drawn)


@settings(max_examples=200, deadline=None)
@given(COUNTS, st.data(), st.sampled_from((0.0, -3.3, 8.1)))
def test_a_probability_that_equals_a_bound_is_at_least_the_bound(
    counts: list[int], data: st.DataObject, shift: float
) -> None:
    logits, total, largest = logits_of(counts, shift), sum(counts), max(counts)
    chosen = data.draw(st.sampled_from(counts))
    kept = [count >= chosen for count in counts]
    bounds = {
        "min_p": Fraction(chosen, largest),
        "top_a": Fraction(chosen * total, largest**2),
        "epsilon_cutoff": Fraction(chosen, total),
    }
    for name, bound in bounds.items():
        if bound < 1 or (bound == 1 and name != "epsilon_cutoff"):
            found = process(logits, [make_row(**{name: float(bound)})])[0] > CUT
            assert found.tolist() == kept
    above = [count for count in counts if count >= chosen]
    found = (
        process(logits, [make_row(xtc_threshold=float(Fraction(chosen, total)), xtc_probability=1.0)])[0]
        > CUT
    )
    assert found.tolist() == [count <= min(above) for count in counts]


ALONE: list[dict[str, Any]] = [
    {"top_k": 1},
    {"top_p": 1e-6},
    {"min_p": 1.0},
    {"top_a": 1.0},
    {"typical_p": 1e-6},
    {"epsilon_cutoff": 0.999},
    {"eta_cutoff": 0.999},
    {"top_n_sigma": 1e-6},
    {"tfs_z": 1e-6},
    {"xtc_probability": 1.0, "xtc_threshold": 1e-6},
    {"mirostat_mode": 1, "mirostat_tau": 1e-3},
    {"mirostat_mode": 2, "mirostat_tau": 1e-3},
]


@pytest.mark.parametrize("params", ALONE, ids=str)
def test_every_truncation_keeps_a_token_however_strict(params: dict[str, Any]) -> None:
    generator = torch.Generator().manual_seed(1)
    logits = torch.randn(4, 700, generator=generator) * torch.tensor([[0.0], [0.1], [3.0], [30.0]])
    logits[:, 100:200] = CUT
    kept = (process(logits, [make_row(**params)] * 4) > CUT).sum(-1)
    assert (kept > 0).all()


@pytest.mark.parametrize("params", ALONE, ids=str)
def test_rows_without_a_possible_token_stay_so(params: dict[str, Any]) -> None:
    result = process(torch.full((1, 300), CUT), [make_row(**params)])
    assert not (result > CUT).any()


@pytest.mark.parametrize("params", ALONE, ids=str)
def test_scores_that_are_not_numbers_raise_nothing(params: dict[str, Any]) -> None:
    process(torch.full((1, 300), torch.nan), [make_row(**params)])


def test_xtc_is_applied_as_often_as_asked_and_by_stream() -> None:
    rows = [make_row([0] * (i % 50 + 1), seed=i // 50) for i in range(5000)]
    coins = np.array([coin(row) for row in rows])
    assert stats.kstest(coins, "uniform").pvalue > 0.01
    logits = torch.tensor(L4).repeat(2000, 1)
    params: dict[str, Any] = {"xtc_probability": 0.3, "xtc_threshold": 0.2}
    excluded = process(logits, [make_row(seed=i, **params) for i in range(2000)])[:, 0] == CUT
    assert stats.binomtest(int(excluded.sum()), 2000, 0.3).pvalue > 0.01
    several = make_row(n=2).after(1)
    assert coin(several) == coin(make_row([0], [1]))


def test_the_coin_of_xtc_is_independent_of_the_draw() -> None:
    rows = [make_row([0], seed=i) for i in range(4000)]
    keys = [draw_key(stream_seed(row.seed, 0), len(row.tokens)) for row in rows]
    drawn = np.array(draw(torch.zeros(4000, 4), keys))
    heads = np.array([coin(row) < 0.5 for row in rows])
    counts = [np.bincount(drawn[heads == side], minlength=4) for side in (False, True)]
    assert stats.chi2_contingency(counts).pvalue > 0.01
