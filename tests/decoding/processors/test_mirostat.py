from __future__ import annotations

import math
from dataclasses import replace

import numpy as np
import pytest
import torch

from decodery.decoding.draw import draw_key
from decodery.decoding.processors.mirostat import updated_mu
from decodery.decoding.processors.pipeline import process
from decodery.kernels.vocabulary.dispatch import draw
from tests.decoding.rows import make_row

CUT = -math.inf


def _zipf(vocab: int, exponent: float) -> torch.Tensor:
    return -exponent * torch.arange(1, vocab + 1).double().log().float()[None]


@pytest.mark.parametrize("exponent", [0.7, 1.3, 2.0])
@pytest.mark.parametrize("mu", [1.0, 4.0, 9.0])
def test_version_1_keeps_as_many_tokens_as_zipfs_law_asks_for(exponent: float, mu: float) -> None:
    vocab = 4000
    row = replace(make_row(mirostat_mode=1), mu=mu)
    kept = int((process(_zipf(vocab, exponent), [row]) > CUT).sum())
    # The estimate of the exponent is exact for tokens that follow the law.
    epsilon = exponent - 1
    expected = (epsilon * 2**mu / (1 - vocab**-epsilon)) ** (1 / exponent)
    assert abs(kept - max(1, min(vocab, int(expected)))) <= 1


def test_version_1_estimates_the_exponent_from_the_hundred_likeliest() -> None:
    generator = torch.Generator().manual_seed(0)
    for spread in (0.5, 2.0, 5.0):
        logits = torch.randn(1, 3000, generator=generator) * spread
        p = np.sort(torch.softmax(logits[0].double(), -1).numpy())[::-1]
        ranks = np.log(np.arange(2, 101) / np.arange(1, 100))
        steps = np.log(p[:99] / p[1:100])
        s = (ranks * steps).sum() / (ranks**2).sum()
        k = ((s - 1) * 2**5.0 / (1 - 3000.0 ** (1 - s))) ** (1 / s)
        kept = int((process(logits, [replace(make_row(mirostat_mode=1), mu=5.0)]) > CUT).sum())
        assert kept == max(1, min(3000, int(k)))


def test_version_1_survives_an_exponent_of_one_and_a_flat_distribution() -> None:
    row = replace(make_row(mirostat_mode=1), mu=3.0)
    kept = int((process(_zipf(1000, 1.0), [row]) > CUT).sum())
    assert abs(kept - int(2**3.0 / math.log(1000))) <= 1
    assert (process(torch.zeros(1, 50), [row]) > CUT).all()
    assert int((process(torch.tensor([[1.0, CUT, CUT]]), [row]) > CUT).sum()) == 1


@pytest.mark.parametrize("mu", [0.5, 3.0, 8.0])
def test_version_2_keeps_what_surprises_by_at_most_mu_bits(mu: float) -> None:
    logits = torch.randn(1, 5000, generator=torch.Generator().manual_seed(3)) * 3
    p = torch.softmax(logits[0].double(), -1)
    expected = (p.log2() >= -mu) | (p == p.max())
    kept = process(logits, [replace(make_row(mirostat_mode=2), mu=mu)])[0] > CUT
    assert torch.equal(kept, expected)


def test_mu_moves_by_the_error_of_the_renormalised_surprise() -> None:
    row = make_row(mirostat_mode=2, mirostat_tau=3.0, mirostat_eta=0.2)
    processed = torch.tensor([2.0, 1.0, CUT, 0.0])
    surprise = -math.log2(math.exp(1) / (math.exp(2) + math.exp(1) + 1))
    assert updated_mu(row, processed, 1) == pytest.approx(6.0 - 0.2 * (surprise - 3.0))
    moved = replace(row, mu=1.5)
    assert updated_mu(moved, processed, 1) == pytest.approx(1.5 - 0.2 * (surprise - 3.0))


@pytest.mark.parametrize("mode", [1, 2])
def test_the_mean_surprise_comes_near_the_target(mode: int) -> None:
    row = make_row(mirostat_mode=mode, mirostat_tau=4.0, mirostat_eta=0.3)
    generator = torch.Generator().manual_seed(7)
    surprises = []
    for step in range(400):
        logits = torch.randn(1, 2000, generator=generator) * 1.5
        processed = process(logits, [row])
        token = int(draw(processed, [draw_key(0, step)])[0])
        row = replace(row.after(token), mu=updated_mu(row, processed[0], token))
        surprises.append(float(-processed[0].log_softmax(-1)[token]) / math.log(2))
    assert np.mean(surprises[100:]) == pytest.approx(4.0, abs=0.3)
