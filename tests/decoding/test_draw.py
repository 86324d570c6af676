from __future__ import annotations

import math

import numpy as np
import torch
from scipy import stats

from decodery.decoding.draw import draw_key, stream_seed
from decodery.kernels.vocabulary.dispatch import draw, gumbel_noise


def test_noise_is_standard_gumbel() -> None:
    keys = torch.tensor([draw_key(3, position) for position in range(200)], dtype=torch.int32)
    tokens = torch.arange(500, dtype=torch.int32)
    noise = gumbel_noise(keys.repeat_interleave(500, 0), tokens.repeat(200)).numpy()
    assert stats.kstest(noise, stats.gumbel_r.cdf).pvalue > 0.01


def test_noise_of_neighbouring_positions_tokens_and_seeds_is_independent() -> None:
    keys = [[draw_key(seed, position) for position in range(64)] for seed in range(64)]
    grid = torch.tensor(keys, dtype=torch.int32).reshape(-1, 2)
    tokens = torch.arange(64, dtype=torch.int32)
    noise = gumbel_noise(grid.repeat_interleave(64, 0), tokens.repeat(64 * 64)).reshape(64, 64, 64).numpy()
    for axis in range(3):
        left, right = np.take(noise, range(63), axis), np.take(noise, range(1, 64), axis)
        correlation = np.corrcoef(left.ravel(), right.ravel())[0, 1]
        assert abs(correlation) < 4 / math.sqrt(left.size)


def test_noise_does_not_depend_on_its_neighbours() -> None:
    keys = torch.tensor([draw_key(1, 2)], dtype=torch.int32)
    tokens = torch.arange(1003, dtype=torch.int32)
    whole = gumbel_noise(keys.expand(1003, 2), tokens)
    for start, end in ((0, 1), (5, 12), (17, 1003), (990, 1003)):
        part = gumbel_noise(keys.expand(end - start, 2), tokens[start:end])
        assert torch.equal(part, whole[start:end])


def test_a_draw_depends_on_seed_and_position_only() -> None:
    logits = torch.randn(6, 300, generator=torch.Generator().manual_seed(0))
    keys = [draw_key(seed, 10) for seed in range(6)]
    together = draw(logits, keys)
    alone = [token for i in range(6) for token in draw(logits[i : i + 1], keys[i : i + 1])]
    assert together == alone
    assert draw(logits.flip(0), keys[::-1])[::-1] == together


def test_draws_follow_the_softmax() -> None:
    logits = torch.tensor([2.0, 1.0, 0.0, -1.0, -torch.inf, 0.5])
    keys = [draw_key(11, position) for position in range(6000)]
    drawn = draw(logits.expand(6000, 6), keys)
    counts = torch.bincount(torch.tensor(drawn), minlength=6).double()
    assert counts[4] == 0
    expected = torch.softmax(logits.double(), -1) * 6000
    possible = expected > 0
    assert stats.chisquare(counts[possible], expected[possible]).pvalue > 0.01


def test_logits_of_any_size_give_a_token_that_is_possible() -> None:
    for size in (1e4, 1e6, 1e7, 1e9):
        for seed in range(20):
            logits = torch.randn(1, 5000, generator=torch.Generator().manual_seed(seed))
            logits[0, 17] = size
            assert draw(logits, [draw_key(seed, 0)]) == [17]
            assert draw(logits * size, [draw_key(seed, 0)]) == [17]


def test_truncation_keeps_the_draw_if_its_token_survives() -> None:
    logits = torch.randn(200, 50, generator=torch.Generator().manual_seed(1))
    keys = [draw_key(5, position) for position in range(200)]
    free = torch.tensor(draw(logits, keys))
    cut = logits.masked_fill(logits < logits.topk(10).values[:, -1:], -torch.inf)
    survived = cut.gather(-1, free[:, None])[:, 0] > -torch.inf
    assert torch.equal(torch.tensor(draw(cut, keys))[survived], free[survived])


def test_the_first_stream_has_the_requests_seed_and_each_other_its_own() -> None:
    seeds = [stream_seed(7, stream) for stream in range(100)]
    assert seeds[0] == 7
    assert len(set(seeds)) == 100
    assert not set(seeds[1:]) & {stream_seed(8, stream) for stream in range(100)}


def test_a_row_without_a_possible_token_draws_none() -> None:
    assert draw(torch.full((1, 4), -torch.inf), [draw_key(0, 0)]) == [-1]
