from __future__ import annotations

import pytest
import torch
from torch import Tensor

from decodery.kernels.vocabulary import (
    cut_below,
    cut_where_below,
    entropy,
    kth_largest,
    leaders,
    nucleus_border,
    possible_tokens,
)

# With and without a rest beside whole blocks, and smaller than any.
VOCABULARIES = [1, 50, 8192, 20011]


def _logits(rows: int, vocab: int, *, coarse: bool = False) -> Tensor:
    logits = torch.randn(rows, vocab, generator=torch.Generator().manual_seed(vocab)) * 3
    return logits.bfloat16().float() if coarse else logits


@pytest.mark.parametrize("vocab", VOCABULARIES)
@pytest.mark.parametrize("count", [1, 7, 64, 500])
@pytest.mark.parametrize("coarse", [False, True])
def test_leaders_are_the_largest_in_order(vocab: int, count: int, coarse: bool) -> None:
    logits = _logits(5, vocab, coarse=coarse)
    # The largest may be in the last columns.
    logits[1, -1] = 99.0
    logits[2] = -torch.inf
    count = min(count, vocab)
    values, places = leaders(logits, count)
    assert torch.equal(values, logits.sort(-1, descending=True).values[:, :count])
    assert torch.equal(logits.gather(-1, places), values)
    assert all(len(set(row)) == count for row in places.tolist())


def test_leaders_of_a_row_do_not_depend_on_the_others() -> None:
    logits = _logits(6, 20011, coarse=True)
    values, places = leaders(logits, 40)
    for i in range(6):
        alone = leaders(logits[i : i + 1], 40)
        assert torch.equal(alone[0][0], values[i])
        assert torch.equal(alone[1][0], places[i])


def test_the_kth_largest_is_each_rows_own() -> None:
    logits = _logits(4, 8192)
    counts = torch.tensor([1, 3, 200, 8192])
    expected = logits.sort(-1, descending=True).values.gather(-1, counts[:, None] - 1)
    assert torch.equal(kth_largest(logits, counts), expected)


@pytest.mark.parametrize("vocab", VOCABULARIES)
@pytest.mark.parametrize("share", [0.0, 0.001, 0.3, 1.0])
def test_possible_tokens_are_those_above_minus_infinity_in_order(vocab: int, share: float) -> None:
    logits = _logits(4, vocab)
    kept = torch.rand(4, vocab, generator=torch.Generator().manual_seed(1)) < share
    kept[2] = False
    kept[1, -1] = True
    logits[~kept] = -torch.inf
    row, token = possible_tokens(logits)
    expected = torch.nonzero(kept)
    assert torch.equal(torch.stack([row, token], -1), expected)


def test_the_border_is_the_last_token_that_the_mass_needs() -> None:
    logits = _logits(1, 20011).repeat(4, 1) * torch.tensor([[0.1], [0.5], [1.0], [3.0]])
    logprobs = logits.log_softmax(-1)
    for mass in (0.01, 0.5, 0.97, 0.999):
        border = nucleus_border(logits, logprobs, torch.full((4,), mass))
        p = logits.double().softmax(-1)
        with_border = torch.where(logits >= border, p, 0.0).sum(-1)
        without = torch.where(logits > border, p, 0.0).sum(-1)
        assert (with_border >= mass - 1e-6).all()
        assert (without < mass + 1e-6).all()
        for i in range(4):
            alone = nucleus_border(logits[i : i + 1], logprobs[i : i + 1], torch.tensor([mass]))
            assert torch.equal(alone, border[i : i + 1])


def test_cutting_keeps_what_equals_the_least() -> None:
    logits = torch.tensor([[1.0, 2.0, torch.inf, -torch.inf], [0.1, 0.2, 0.3, 0.2], [0.0, 1.0, 2.0, 3.0]])
    least = torch.tensor([[2.0], [0.2], [-torch.inf]])
    expected = torch.where(logits < least, -torch.inf, logits)
    by_scores = logits.clone()
    cut_below(logits, least)
    assert torch.equal(logits, expected)
    scores = by_scores.flip(-1).contiguous()
    cut_where_below(by_scores, scores, least)
    kept = scores >= least
    assert (by_scores[~kept & (scores < torch.inf)] == -torch.inf).all()
    assert torch.equal(by_scores[kept], scores.flip(-1)[kept])


def test_entropy_counts_impossible_tokens_as_nothing() -> None:
    logits = torch.tensor([[0.0, 0.0, -torch.inf, -torch.inf], [5.0, -torch.inf, -torch.inf, -torch.inf]])
    torch.testing.assert_close(entropy(logits.log_softmax(-1)), torch.tensor([[0.6931472], [0.0]]))
    one = _logits(3, 50000).log_softmax(-1)
    torch.testing.assert_close(
        entropy(one)[:, 0].double(), torch.special.entr(one.double().exp()).sum(-1), rtol=1e-5, atol=1e-5
    )


def test_the_entropy_of_a_row_does_not_depend_on_the_others_with_more_threads_either() -> None:
    logprobs = _logits(7, 50021).log_softmax(-1)
    threads = torch.get_num_threads()
    torch.set_num_threads(2)
    try:
        together = entropy(logprobs)
        alone = torch.cat([entropy(logprobs[i : i + 1]) for i in range(7)])
    finally:
        torch.set_num_threads(threads)
    assert torch.equal(together, alone)
