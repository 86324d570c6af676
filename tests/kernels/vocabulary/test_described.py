"""Checks what the kernels tell of choices, against formulas in float64."""

from __future__ import annotations

import math
from types import ModuleType

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from torch import Tensor

from decodery.kernels.vocabulary import native, reference
from decodery.kernels.vocabulary.choices import ChoiceArgs, ChoiceDescription
from tests.kernels.native.fixtures import SETTINGS, built, running

VOCABULARIES = (1, 15, 70, 2101)
Floats = NDArray[np.float64]


@pytest.fixture(params=["reference", pytest.param("native", marks=built)])
def kernels(request: pytest.FixtureRequest) -> ModuleType:
    return reference if request.param == "reference" else native


def random_rows(vocab: int, scale: float, count: int = 3) -> Tensor:
    return torch.randn(count, vocab, generator=torch.Generator().manual_seed(vocab)) * scale


def softmax(logits: Tensor) -> Floats:
    wide = logits.double().numpy()
    terms: Floats = np.exp(wide - wide.max())
    return terms / terms.sum()


def assert_describes(
    found: ChoiceDescription, choice: ChoiceArgs, logits: Tensor, after: list[Tensor]
) -> None:
    """Raises `AssertionError` unless every number is that of float64 within 1e-6 of it.

    Entropies and tails that are nothing beside 1 may differ by the last bit of a number of that size.
    """

    def near(values: Floats, least: float = 0) -> object:
        return pytest.approx(values, rel=1e-6, abs=least, nan_ok=True)

    row, shares = logits.numpy(), softmax(logits)
    shown = list(found.tokens)
    top = shown[: choice.shown]
    assert len(set(shown)) == len(shown)
    assert shown == (top if choice.token in top else [*top, choice.token])
    assert row[top].tolist() == sorted(row.tolist(), reverse=True)[: choice.shown]
    assert found.logits == tuple(row[shown].tolist())
    assert np.array(found.before) == near(shares[shown])
    assert found.rank == 1 + int((row > row[choice.token]).sum())
    others = np.delete(np.arange(len(row)), np.argmax(row))
    possible = shares[others][shares[others] > 0]
    # The likeliest token's own part by log1p, which keeps the digits where its probability is almost 1.
    largest = shares.max()
    entropy = -(possible * np.log(possible)).sum() - largest * np.log1p(-shares[others].sum())
    assert found.entropy == near(entropy / np.log(2), 1e-15)
    assert found.tail == near(np.delete(shares, shown).sum(), 1e-30)
    last, changed = logits, []
    for index, one in enumerate(after):
        if not torch.equal(one, last):
            changed.append((index, int((one > -math.inf).sum()), softmax(one)[shown]))
        last = one
    assert [stage[:2] for stage in found.stages] == [stage[:2] for stage in changed]
    for mine, theirs in zip(found.stages, changed, strict=True):
        assert np.array(mine[2]) == near(theirs[2])
    assert found.kept == int((last > -math.inf).sum())


@pytest.mark.parametrize("scale", [0.0, 0.5, 4.0, 30.0])
@pytest.mark.parametrize("vocab", VOCABULARIES)
def test_every_number_of_a_description_is_that_of_float64(
    kernels: ModuleType, vocab: int, scale: float
) -> None:
    logits = random_rows(vocab, scale)
    logits[1, ::3] = -math.inf
    logits[1, -1] = 1.0
    logits[2] = (logits[2] * 2).round() / 2  # Many are equal.
    cut = torch.where(logits >= logits.amax(-1, keepdim=True) - 1, logits, -math.inf)
    stages = [logits / 0.7, logits / 0.7, cut]
    for shown in sorted({1, min(10, vocab), vocab}):
        for row in range(3):
            for token in {0, vocab // 2, vocab - 1, int(logits[row].argmax())}:
                choice = ChoiceArgs(row, token, shown, None, [(k, row) for k in range(3)])
                [found] = kernels.described(logits, [choice], stages)
                assert_describes(found, choice, logits[row], [stage[row] for stage in stages])


def test_a_peaked_distribution_keeps_the_digits_of_its_entropy_and_tail(kernels: ModuleType) -> None:
    logits = random_rows(1003, 0.1, 1)
    for height in (5.0, 15.0, 25.0, 60.0):
        logits[0, 7] = height
        for shown in (1, 4):
            choice = ChoiceArgs(0, 7, shown)
            [found] = kernels.described(logits, [choice])
            tail = np.exp(logits[0].double().numpy() - height)
            tail = np.delete(tail, list(found.tokens)).sum() / tail.sum()
            assert found.tail == pytest.approx(tail, rel=1e-6, abs=1e-30)
            assert_describes(found, choice, logits[0], [])


def test_noise_is_told_of_drawn_tokens_only(kernels: ModuleType) -> None:
    logits = random_rows(70, 3.0)
    drawn, other = kernels.described(logits, [ChoiceArgs(1, 60, 20, (5, -6)), ChoiceArgs(0, 3, 20)])
    keys = torch.tensor([[5, -6]] * len(drawn.tokens), dtype=torch.int32)
    noise = kernels.gumbel_noise(keys, torch.tensor(drawn.tokens, dtype=torch.int32))
    assert list(drawn.noise) == noise.tolist()
    assert other.noise is None


def test_a_stage_that_leaves_nothing_gives_nan(kernels: ModuleType) -> None:
    logits = random_rows(70, 3.0)
    nothing = torch.full_like(logits, -math.inf)
    [found] = kernels.described(logits, [ChoiceArgs(0, 3, 5, None, [(0, 0)])], [nothing])
    assert found.kept == 0
    [(_, kept, shares)] = found.stages
    assert kept == 0
    assert all(map(math.isnan, shares))
    [found] = kernels.described(nothing, [ChoiceArgs(0, 3, 5)])
    assert math.isnan(found.entropy)
    assert found.rank == 1


@built
def test_a_choice_has_the_same_bits_alone_on_every_instruction_set_and_thread_count() -> None:
    logits = random_rows(20011, 4.0, 7)
    stages = [logits / 0.8, torch.where(logits > 3, logits / 0.8, -math.inf)]
    choices = [ChoiceArgs(i, 11 * i, 10, (i, 1), [(0, i), (1, i)]) for i in range(7)]
    expected = native.described(logits, choices, stages)
    for setting in SETTINGS:
        with running(setting):
            assert native.described(logits, choices, stages) == expected
            assert [native.described(logits, [c], stages)[0] for c in choices] == expected


@built
def test_of_no_choices_nothing_is_told() -> None:
    assert native.described(random_rows(70, 1.0), []) == []
