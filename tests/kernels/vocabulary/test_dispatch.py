from __future__ import annotations

from collections.abc import Callable
from types import ModuleType
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from decodery.decoding.draw import draw_key
from decodery.kernels.vocabulary import dispatch, native, reference
from decodery.kernels.vocabulary.reference import contenders, possible_tokens
from tests.kernels.native.fixtures import SETTINGS, built, running


@pytest.fixture(params=["reference", pytest.param("native", marks=built)])
def kernels(request: pytest.FixtureRequest) -> ModuleType:
    return reference if request.param == "reference" else native


# With and without a rest after complete blocks, and smaller than a block.
VOCABULARIES = [1, 50, 8192, 20011]


def _logits(rows: int, vocab: int, *, coarse: bool = False) -> Tensor:
    logits = torch.randn(rows, vocab, generator=torch.Generator().manual_seed(vocab)) * 3
    return logits.bfloat16().float() if coarse else logits


@pytest.mark.parametrize("vocab", VOCABULARIES)
@pytest.mark.parametrize("count", [1, 7, 64, 500])
@pytest.mark.parametrize("coarse", [False, True])
def test_leaders_are_the_largest_in_order(kernels: ModuleType, vocab: int, count: int, coarse: bool) -> None:
    logits = _logits(5, vocab, coarse=coarse)
    # The largest may be in the last columns.
    logits[1, -1] = 99.0
    logits[2] = -torch.inf
    count = min(count, vocab)
    values, places = kernels.leaders(logits, count)
    assert torch.equal(values, logits.sort(-1, descending=True).values[:, :count])
    assert torch.equal(logits.gather(-1, places), values)
    assert all(len(set(row)) == count for row in places.tolist())


def test_leaders_of_a_row_do_not_depend_on_the_others(kernels: ModuleType) -> None:
    logits = _logits(6, 20011, coarse=True)
    values, places = kernels.leaders(logits, 40)
    for i in range(6):
        alone = kernels.leaders(logits[i : i + 1], 40)
        assert torch.equal(alone[0][0], values[i])
        assert torch.equal(alone[1][0], places[i])


def test_the_kth_largest_is_each_rows_own() -> None:
    logits = _logits(4, 8192)
    counts = [1, 3, 200, 8192]
    expected = logits.sort(-1, descending=True).values.gather(-1, torch.tensor(counts)[:, None] - 1)
    assert torch.equal(dispatch.kth_largest(logits, counts), expected)


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


def test_the_border_is_the_last_token_that_the_mass_needs(kernels: ModuleType) -> None:
    logits = _logits(1, 20011).repeat(4, 1) * torch.tensor([[0.1], [0.5], [1.0], [3.0]])
    logprobs = logits.log_softmax(-1)
    for mass in (0.01, 0.5, 0.97, 0.999):
        border = kernels.nucleus_border(logits, logprobs, torch.full((4,), mass))
        p = logits.double().softmax(-1)
        with_border = torch.where(logits >= border, p, 0.0).sum(-1)
        without = torch.where(logits > border, p, 0.0).sum(-1)
        assert (with_border >= mass - 1e-6).all()
        assert (without < mass + 1e-6).all()
        for i in range(4):
            alone = kernels.nucleus_border(logits[i : i + 1], logprobs[i : i + 1], torch.tensor([mass]))
            assert torch.equal(alone, border[i : i + 1])


def test_cutting_keeps_what_equals_the_least(kernels: ModuleType) -> None:
    logits = torch.tensor([[1.0, 2.0, torch.inf, -torch.inf], [0.1, 0.2, 0.3, 0.2], [0.0, 1.0, 2.0, 3.0]])
    least = torch.tensor([[2.0], [0.2], [-torch.inf]])
    expected = torch.where(logits < least, -torch.inf, logits)
    by_scores = logits.clone()
    kernels.cut_below(logits, least)
    assert torch.equal(logits, expected)
    scores = by_scores.flip(-1).contiguous()
    kernels.cut_where_below(by_scores, scores, least)
    kept = scores >= least
    assert (by_scores[~kept & (scores < torch.inf)] == -torch.inf).all()
    assert torch.equal(by_scores[kept], scores.flip(-1)[kept])


def test_entropy_counts_impossible_tokens_as_nothing(kernels: ModuleType) -> None:
    logits = torch.tensor([[0.0, 0.0, -torch.inf, -torch.inf], [5.0, -torch.inf, -torch.inf, -torch.inf]])
    torch.testing.assert_close(kernels.entropy(logits.log_softmax(-1)), torch.tensor([[0.6931472], [0.0]]))
    one = _logits(3, 50000).log_softmax(-1)
    torch.testing.assert_close(
        kernels.entropy(one)[:, 0].double(),
        torch.special.entr(one.double().exp()).sum(-1),
        rtol=1e-5,
        atol=1e-5,
    )


def test_the_entropy_of_a_row_does_not_depend_on_the_others_or_threads(
    kernels: ModuleType,
) -> None:
    logprobs = _logits(7, 50021).log_softmax(-1)
    threads = torch.get_num_threads()
    torch.set_num_threads(2)
    try:
        together = kernels.entropy(logprobs)
        alone = torch.cat([kernels.entropy(logprobs[i : i + 1]) for i in range(7)])
    finally:
        torch.set_num_threads(threads)
    assert torch.equal(together, alone)


def test_the_place_of_the_largest_is_the_first_of_equals_and_none_beside_nan(kernels: ModuleType) -> None:
    for vocab in (1, 15, 16, 63, 64, 200, 20011):
        logits = _logits(4, vocab, coarse=True)
        logits[1] = -torch.inf
        logits[2, vocab // 2] = torch.nan
        logits[3, vocab // 3] = logits[3, vocab - 1] = 90.0
        assert kernels.largest(logits) == [
            int((logits[0] == logits[0].amax()).int().argmax()),
            -1,
            -1,
            vocab // 3,
        ]


@pytest.mark.parametrize("vocab", VOCABULARIES)
def test_the_largest_of_what_is_marked_is_that_of_what_is_kept(kernels: ModuleType, vocab: int) -> None:
    source = np.random.default_rng(0)
    logits = _logits(6, vocab, coarse=True)
    words = source.integers(-(2**31), 2**31, (6, vocab // 32 + 2), dtype=np.int32)
    words[2] = 0
    words[3] &= source.integers(-(2**31), 2**31, vocab // 32 + 2, dtype=np.int32)
    logits[4, source.integers(vocab)] = torch.nan
    logits[5] = -torch.inf
    before = logits.clone()
    found = kernels.largest(logits, words)
    assert torch.equal(logits.nan_to_num(99.0), before.nan_to_num(99.0))
    kernels.keep_marked(logits, words)
    assert found == kernels.largest(logits)
    assert found[2] == found[4] == found[5] == -1


def test_leaders_take_nan_first_and_what_is_impossible_last() -> None:
    for count in (1, 3, 40):
        logits = torch.full((2, 3000), -torch.inf)
        logits[:, 2990] = 1.0
        logits[:, 77] = 2.0
        logits[1, 500] = torch.nan
        values, places = dispatch.leaders(logits, count)
        assert places[0, :2].tolist() == [77, 2990][:count]
        assert places[1, :3].tolist() == [500, 77, 2990][:count]
        assert (values[:, 3:] == -torch.inf).all()


def test_log_softmax_is_as_exact_as_torchs(kernels: ModuleType) -> None:
    for vocab in (1, 17, 5000, 50021):
        logits = _logits(3, vocab)
        logits[1, ::3] = -torch.inf
        logits[1, -1] = 30.0
        exact = logits.double().log_softmax(-1)
        error = (logits.log_softmax(-1) - exact).nan_to_num(0).abs().max()
        assert (kernels.log_softmax(logits) - exact).nan_to_num(0).abs().max() <= 2 * error + 2e-6
        norms = torch.tensor(kernels.log_normalizers(logits), dtype=torch.float64)
        torch.testing.assert_close(norms, logits.double().logsumexp(-1), rtol=1e-7, atol=1e-7)


@pytest.mark.parametrize("vocab", [1, 15, 16, 50, 20011])
def test_leading_logprobs_are_the_leaders_of_the_log_softmax_bit_for_bit(
    kernels: ModuleType, vocab: int
) -> None:
    for count in (1, 8, 700):
        logits = _logits(5, vocab, coarse=True)
        # These logits differ, but their log-probabilities are equal.
        logits[1] *= 1e-7
        logits[1, -1] = 40.0
        logits[2, 1:] = -torch.inf
        logits[3, vocab // 2] = torch.nan
        logits[4] = -torch.inf
        count = min(count, vocab)
        values, places = kernels.leaders(kernels.log_softmax(logits), count)
        found = kernels.leading_logprobs(logits, count)
        bits, expected = (v.nan_to_num(99.0).view(torch.int32) for v in (torch.tensor(found[0]), values))
        assert torch.equal(bits, expected)
        assert found[1] == places.tolist()


def test_what_is_above_a_bound_is_counted_by_row(kernels: ModuleType) -> None:
    logits = _logits(3, 20011)
    least = logits[:, 7].tolist()
    logits[2, 100] = torch.nan
    assert kernels.count_above(logits, least) == (logits > logits[:, 7:8]).sum(-1).tolist()


@pytest.mark.parametrize("vocab", VOCABULARIES)
def test_only_what_is_marked_is_kept(kernels: ModuleType, vocab: int) -> None:
    logits = _logits(3, vocab)
    words = np.random.default_rng(0).integers(-(2**31), 2**31, (3, vocab // 32 + 2), dtype=np.int32)
    bits = (words[:, np.arange(vocab) // 32] >> (np.arange(vocab) % 32)) & 1
    logits[1, 0] = torch.nan
    kept = (torch.from_numpy(bits) == 1) | logits.isnan()
    expected = torch.where(kept, logits, -torch.inf)
    kernels.keep_marked(logits, words)
    assert torch.equal(logits.nan_to_num(99.0), expected.nan_to_num(99.0))


def test_keeping_only_some_leaves_their_values(kernels: ModuleType) -> None:
    logits = _logits(2, 50)
    kernels.keep_only(logits, torch.tensor([[1.0, -torch.inf], [3.0, 4.0]]), torch.tensor([[49, 0], [7, 8]]))
    assert torch.nonzero(logits > -torch.inf).tolist() == [[0, 49], [1, 7], [1, 8]]
    assert logits[1, 8] == 4


def test_rows_are_divided_and_copied_each_by_itself(kernels: ModuleType) -> None:
    logits = _logits(4, 20011)
    expected = logits / torch.tensor([[0.5], [2.0], [3.0], [0.7]])
    target = torch.zeros(3, 20011)
    kernels.copy_rows(logits, [3, 1], target, [0, 2])
    assert torch.equal(target, torch.stack([logits[3], torch.zeros(20011), logits[1]]))
    kernels.divide(logits, [0.5, 2.0, 3.0, 0.7])
    assert torch.equal(logits, expected)


def test_penalties_follow_the_tokens_seen(kernels: ModuleType) -> None:
    logits = torch.tensor([[4.0, -4.0, 4.0, -torch.inf], [1.0, 2.0, 3.0, 4.0]])
    seen = [np.array([0, 1, 0, 3]), np.array([], dtype=np.int64)]
    divided = logits.clone()
    kernels.penalise_repetition(divided, seen, [2.0, 3.0])
    assert divided.tolist() == [[2.0, -8.0, 4.0, -torch.inf], [1.0, 2.0, 3.0, 4.0]]
    kernels.penalise_frequency(logits, seen, [1.0, 1.0], [0.25, 1.0])
    assert logits.tolist() == [[2.5, -5.25, 4.0, -torch.inf], [1.0, 2.0, 3.0, 4.0]]


def test_a_draw_is_the_largest_sum_of_logit_and_noise(kernels: ModuleType) -> None:
    generator = torch.Generator().manual_seed(0)
    keys = [draw_key(seed, 3) for seed in range(40)]
    each = torch.tensor(keys, dtype=torch.int32)
    for scale in (0.0, 0.5, 3.0, 20.0):
        logits = torch.randn(40, 5000, generator=generator) * scale
        logits[:, ::7] = -torch.inf
        tokens = torch.arange(5000, dtype=torch.int32)
        noise = kernels.gumbel_noise(each.repeat_interleave(5000, 0), tokens.repeat(40)).view(40, 5000)
        assert kernels.draw(logits, keys) == (logits + noise).argmax(-1).tolist()
        found = [contenders(row, key) for row, key in zip(logits, each, strict=True)]
        assert sum(len(tokens) for tokens in found) < 40 * 400


@built
def test_both_kinds_of_kernels_have_the_same_noise_but_for_rounding() -> None:
    keys = torch.tensor([draw_key(seed, 1) for seed in range(100_000)], dtype=torch.int32)
    tokens = torch.arange(100_000, dtype=torch.int32)
    ours, theirs = (k.gumbel_noise(keys, tokens) for k in (native, reference))
    torch.testing.assert_close(ours, theirs, rtol=1e-6, atol=1e-6)


NATIVE_CALLS: dict[str, Callable[[Tensor], Any]] = {
    "largest": native.largest,
    "leaders": lambda x: native.leaders(x, 40),
    "many leaders": lambda x: native.leaders(x, 3000),
    "log_softmax": native.log_softmax,
    "leading_logprobs": lambda x: native.leading_logprobs(x, 40),
    "log_normalizers": native.log_normalizers,
    "entropy": lambda x: native.entropy(native.log_softmax(x)),
    "nucleus": lambda x: native.nucleus_border(x, native.log_softmax(x), torch.full((len(x),), 0.99)),
    "draw": lambda x: native.draw(x, [(1, 2)] * len(x)),
    "count_above": lambda x: native.count_above(x, [0.5] * len(x)),
}


@built
@pytest.mark.parametrize("name", NATIVE_CALLS)
def test_a_row_has_the_same_bits_alone_on_every_instruction_set_and_thread_count(name: str) -> None:
    call = NATIVE_CALLS[name]
    logits = _logits(5, 20011)
    results = []
    for setting in SETTINGS:
        with running(setting):
            results.append(_bits(call(logits)))
            alone = [_bits(call(logits[i : i + 1])) for i in range(5)]
        parts = [torch.cat(each) for each in zip(*alone, strict=True)]
        assert all(torch.equal(a, b) for a, b in zip(parts, results[-1], strict=True))
    for other in results[1:]:
        assert all(torch.equal(a, b) for a, b in zip(results[0], other, strict=True))


def _bits(result: Any) -> list[Tensor]:
    parts = result if isinstance(result, tuple) else (result,)
    return [torch.as_tensor(part) for part in parts]
