"""Checks the laws of every native kernel: its formula, equal bits everywhere, independent rows, memory
bounds.
"""

from __future__ import annotations

import math
from collections.abc import Iterator

import pytest
import torch
from torch import Tensor

from decodery.kernels import packed_weights
from decodery.kernels.native import library
from decodery.kernels.quantise import quantise
from tests.kernels.cases import ROWS, Case, all_cases
from tests.kernels.experts_cases import experts_cases
from tests.kernels.native.borders import AllNative, Bordered, at_the_end, killed_by
from tests.kernels.native.fixtures import SETTINGS, built, running
from tests.kernels.rows import rows
from tests.kernels.vocabulary.cases import vocabulary_cases

pytestmark = built

CASES = [*all_cases(), *experts_cases(), *vocabulary_cases()] if library.available() else []
KINDS = sorted({case.name.split()[0] for case in CASES})


def of_kind(kind: str) -> list[Case]:
    return [case for case in CASES if case.name.split()[0] == kind]


def worst(found: Tensor, exact: Tensor) -> float:
    """Returns the largest error; infinite numbers must be infinite in both."""
    wide = found.double()
    return torch.where(wide == exact, 0.0, wide - exact).abs().max().item()


def choices(count: int) -> Iterator[Tensor]:
    """Yields one row, the last ones, and all in another order."""
    everything = torch.arange(count)
    yield from (everything[:1], everything[-1:], everything[1:3], everything[-3:], everything.flip(0))


@pytest.mark.parametrize("kind", KINDS)
def test_the_error_is_at_most_twice_that_of_the_formula_in_the_same_precision(kind: str) -> None:
    for case in of_kind(kind):
        exact = case.exact()
        plain = worst(case.formula(*case.arguments), exact)
        found = worst(case.run(AllNative(), *case.arguments), exact)
        # If the formula happens to be exact, the bound is the last bit of a result of this size.
        size = exact[exact.isfinite()].abs().max().item()
        assert found <= 2 * plain + 2**-23 * size, case.name


@pytest.mark.parametrize("kind", KINDS)
def test_a_row_has_the_same_bits_in_every_batch_on_every_instruction_set_and_number_of_threads(
    kind: str,
) -> None:
    kernels = AllNative()
    for case in of_kind(kind):
        expected = case.run(kernels, *case.arguments)
        for setting in SETTINGS:
            with running(setting):
                for chosen in choices(len(expected)):
                    found = case.run(kernels, *case.of(chosen))
                    assert torch.equal(found, expected[chosen]), (case.name, setting, chosen)


@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf, 3e38])
@pytest.mark.parametrize("kind", KINDS)
def test_what_is_not_finite_stays_in_its_row(kind: str, value: float) -> None:
    kernels = AllNative()
    for case in of_kind(kind):
        expected = case.run(kernels, *case.arguments)
        spoilt = tuple(argument.clone() for argument in case.arguments)
        for argument in spoilt[: case.rowwise]:
            if argument.is_floating_point():
                argument[1].view(-1)[:: max(1, argument[1].numel() // 3)] = value
        others = torch.tensor([i for i in range(len(expected)) if i != 1])
        for name, _ in SETTINGS[::3]:
            with running((name, 2)):
                found = case.run(kernels, *spoilt)
            assert torch.equal(found[others], expected[others]), (case.name, name)


@pytest.mark.parametrize("kind", KINDS)
def test_nothing_is_read_or_written_beyond_a_tensor(kind: str, monkeypatch: pytest.MonkeyPatch) -> None:
    taken = lambda arena, size: at_the_end(torch.zeros(size, dtype=torch.uint8))  # noqa: E731
    monkeypatch.setattr(packed_weights.Arena, "take", taken)
    expected = {case.name: case.run(AllNative(), *case.arguments) for case in of_kind(kind)}

    def on_borders() -> None:
        for case in of_kind(kind):
            print(case.name, flush=True)  # The last name printed is that of the case that crashed.
            whole = expected[case.name]
            for name, _ in SETTINGS[::3]:
                with running((name, 1)):
                    for count in (1, 2, 5, len(whole)):
                        found = case.run(Bordered(), *case.of(torch.arange(min(count, len(whole)))))
                        assert torch.equal(found, whole[:count])

    assert killed_by(on_borders) is None


def test_every_kernel_is_among_the_cases(monkeypatch: pytest.MonkeyPatch) -> None:
    seen = set()
    run = library.library().decodery_run

    def noted(program: bytes, count: int) -> None:
        words = memoryview(program).cast("q")
        seen.update(words[i * library.WORDS] for i in range(count))
        run(program, count)

    monkeypatch.setattr(library.library(), "decodery_run", noted)
    for kind in KINDS:
        case = of_kind(kind)[0]
        case.run(AllNative(), *case.arguments)
    assert {library.Kernel(number) for number in seen} == set(library.Kernel)


def test_angles_may_be_broadcast_or_columns_of_a_wider_matrix() -> None:
    kernels = AllNative()
    x, wide = rows(12, torch.float32, 5).view(5, 2, 6), rows(20, torch.float32, 5, seed=1)
    cos, sin = wide[:, 3:9], wide[:, 9:15]
    expected = kernels.rotary(x, cos.contiguous(), sin.contiguous())
    assert torch.equal(kernels.rotary(x, cos, sin), expected)
    for i in range(5):
        broadcast = kernels.rotary(x[:1].expand(3, -1, -1), cos[i], sin[i : i + 1].expand(3, -1))
        alone = kernels.rotary(x[:1], cos[i : i + 1].contiguous(), sin[i : i + 1].contiguous())
        assert torch.equal(broadcast, alone.expand(3, -1, -1))


@pytest.mark.parametrize("count", [0, 1, ROWS])
def test_nothing_of_nothing_is_nothing(count: int) -> None:
    kernels = AllNative()
    for ins, outs in ((0, 3), (3, 0)):
        weight = packed_weights.pack(quantise(torch.ones(outs, ins), "float32"))
        found = kernels.linear(torch.ones(count, ins), weight)
        assert torch.equal(found, torch.zeros(count, outs))
