"""Computes rotary positions: the frequency of each pair of a head's elements, and its angles at positions."""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import partial

import torch
from torch import Tensor

from decodery.errors import ModelError
from decodery.kernels.contract import Kernels, PositionGrowth
from decodery.kernels.reference import torch_kernels
from decodery.models.layers.attention import Angles


@dataclass(frozen=True)
class Rope:
    """Rotates pair i by `theta ** (-2i / head_dim)` per position.

    Su et al., RoFormer (2021), section 3.4.2.
    """

    theta: float = 10000.0

    def frequencies(self, head_dim: int, length: int) -> Tensor:
        """Returns the angle per position of each pair [head_dim / 2], in a context of `length` tokens, in
        float32.
        """
        return 1.0 / self.theta ** _exponents(head_dim)

    def magnitude(self, length: int = 0) -> float:
        """Returns the factor of the cosines and sines in a context of `length` tokens."""
        return 1.0

    def rope_set(self, length: int) -> int:
        """Returns which set of frequencies a text of at most `length` tokens has: 0, or 1 for a long one."""
        return 0


@dataclass(frozen=True)
class LinearRope(Rope):
    """Divides every frequency by `factor` (Chen et al., Position Interpolation, 2023)."""

    factor: float = 1.0

    def frequencies(self, head_dim: int, length: int) -> Tensor:
        return super().frequencies(head_dim, length) / self.factor


@dataclass(frozen=True)
class DynamicRope(Rope):
    """Increases theta with the context beyond the original one: "dynamic NTK" scaling.

    The length that counts is that of the whole context, never the current length of a sequence: cached keys
    were rotated with one theta and must be read with the same. So a model that is opened for at most its
    original context has the frequencies of `Rope`. One that is opened for more has at all positions those of
    its opened length. Peng et al., YaRN (2023), sections 3.1 and 3.3.
    """

    factor: float = 1.0
    original_length: int = 2048

    def frequencies(self, head_dim: int, length: int) -> Tensor:
        stretch: float = self.factor * max(length / self.original_length, 1.0) - (self.factor - 1)
        theta: float = self.theta * stretch ** (head_dim / (head_dim - 2))
        return 1.0 / theta ** _exponents(head_dim)


@dataclass(frozen=True)
class YarnRope(Rope):
    """Divides low frequencies by `factor`, keeps high ones, and sharpens the scores.

    A pair has a high frequency if it turns more than `beta_fast` times over the original context, and a low
    one if it turns less than `beta_slow` times. Between these its frequency is interpolated.
    `attention_factor` None is the paper's `0.1 ln(factor) + 1`. Peng et al., YaRN (2023).
    """

    factor: float = 1.0
    original_length: int = 2048
    beta_fast: float = 32.0
    beta_slow: float = 1.0
    attention_factor: float | None = None
    truncate: bool = True

    def frequencies(self, head_dim: int, length: int) -> Tensor:
        first, last = self._pair(self.beta_fast, head_dim), self._pair(self.beta_slow, head_dim)
        if self.truncate:
            first, last = math.floor(first), math.ceil(last)
        first, last = max(first, 0), min(last, head_dim - 1)
        pair = torch.arange(head_dim // 2, dtype=torch.float32, device="cpu")
        slow = ((pair - first) / (last - first if last != first else 0.001)).clamp(0, 1)
        fast = super().frequencies(head_dim, length)
        return fast / self.factor * slow + fast * (1 - slow)

    def magnitude(self, length: int = 0) -> float:
        return yarn_magnitude(self.factor) if self.attention_factor is None else self.attention_factor

    def _pair(self, turns: float, head_dim: int) -> float:
        """Returns the pair, as a real number, that turns `turns` times over the original context."""
        wavelength = self.original_length / (turns * 2 * math.pi)
        return head_dim * math.log(wavelength) / (2 * math.log(self.theta))


def yarn_magnitude(factor: float, slope: float = 1.0) -> float:
    """Returns `0.1 slope ln(factor) + 1`, 1 if `factor` is at most 1.

    Peng et al., YaRN (2023), equation 22.
    """
    return 0.1 * slope * math.log(factor) + 1.0 if factor > 1 else 1.0


@dataclass(frozen=True)
class Llama3Rope(Rope):
    """Divides the frequencies of long wavelengths by `factor`, and interpolates those between two bounds.

    The bounds may be equal, as in Llama 4.

    Llama Team, The Llama 3 Herd of Models (2024), section 3.4.2, as its reference code has it.
    """

    factor: float = 8.0
    low_frequency_factor: float = 1.0
    high_frequency_factor: float = 4.0
    original_length: int = 8192

    def frequencies(self, head_dim: int, length: int) -> Tensor:
        fast = super().frequencies(head_dim, length)
        turns = self.original_length * fast / (2 * math.pi)
        low, high = self.low_frequency_factor, self.high_frequency_factor
        kept = ((turns - low) / (high - low)).clamp(0, 1) if high > low else (turns > low).float()
        return (1 - kept) * fast / self.factor + kept * fast


@dataclass(frozen=True)
class DividedRope(Rope):
    """Divides the frequency of each pair by its own divisor, as GGUF files store a scaling."""

    divisors: tuple[float, ...] = ()

    def frequencies(self, head_dim: int, length: int) -> Tensor:
        return super().frequencies(head_dim, length) / torch.tensor(self.divisors, device="cpu")


@dataclass(frozen=True)
class ProportionalRope(Rope):
    """Rotates the first pairs only, a `share` of all, with the frequencies that they have among all.

    Pair i are elements i and i + head_dim / 2. Frequencies are divided by `factor`. Gemma Team, Gemma 4
    (2026).
    """

    share: float = 1.0
    factor: float = 1.0

    def frequencies(self, head_dim: int, length: int) -> Tensor:
        every = super().frequencies(head_dim, length) / self.factor
        rotated = self.rotated_pairs(head_dim)
        return torch.cat((every[:rotated], torch.zeros_like(every[rotated:])))

    def rotated_pairs(self, head_dim: int) -> int:
        """Returns the number of pairs that rotate."""
        return int(self.share * head_dim // 2)


@dataclass(frozen=True)
class LongRope(Rope):
    """Divides the frequency of each pair by its own divisor, of one set for short and one for long texts.

    A text of more than `original_length` tokens is long. `magnitudes` are those of short and of long texts.
    Ding et al., LongRoPE (2024).
    """

    short: tuple[float, ...] = ()
    long: tuple[float, ...] = ()
    original_length: int = 4096
    magnitudes: tuple[float, float] = (1.0, 1.0)

    def frequencies(self, head_dim: int, length: int) -> Tensor:
        divisors = (self.short, self.long)[self.rope_set(length)]
        return super().frequencies(head_dim, length) / torch.tensor(divisors, device="cpu")

    def magnitude(self, length: int = 0) -> float:
        return self.magnitudes[self.rope_set(length)]

    def rope_set(self, length: int) -> int:
        return int(length > self.original_length)


class Rotary:
    """Computes the angles of positions, for a model that is opened for `length` tokens.

    `both` are the frequencies of short and of long texts [2, pairs], None if all texts have the same.
    `growth` is that of queries. Raises ModelError when the values of `rope` lead to angles that are not
    finite.
    """

    def __init__(
        self,
        rope: Rope,
        head_dim: int,
        length: int,
        kernels: Kernels = torch_kernels,
        growth: PositionGrowth | None = None,
    ) -> None:
        self.kernels = kernels
        self.growth = growth
        self.rope = rope
        self.head_dim = head_dim
        self.length = length
        self.frequencies = _finite_frequencies(rope, head_dim, length)
        self.both = (
            torch.stack((_finite_frequencies(rope, head_dim, 0), self.frequencies))
            if rope.rope_set(length)
            else None
        )

    def __call__(self, positions: Tensor, length: int | None = None, sets: Tensor | None = None) -> Angles:
        """Returns the angles of positions [...].

        `length` overrides the length of the context. `sets` [...] in int64 are the results of `rope_set` for
        the text of each position.
        """
        if sets is not None and self.both is not None:
            magnitudes = self.rope.magnitude(0), self.rope.magnitude(self.length)
            return self._angles(positions, self.both, magnitudes, sets)
        frequencies = self.frequencies if length is None else self.rope.frequencies(self.head_dim, length)
        magnitude = self.rope.magnitude(self.length if length is None else length)
        return self._angles(positions, frequencies, magnitude, None)

    def _angles(
        self,
        positions: Tensor,
        frequencies: Tensor,
        magnitude: float | tuple[float, float],
        sets: Tensor | None,
    ) -> Angles:
        angles = partial(
            self.kernels.angles, positions, frequencies.to(positions.device), magnitude, sets=sets
        )
        return Angles(*angles(), None if self.growth is None else angles(growth=self.growth))


def _finite_frequencies(rope: Rope, head_dim: int, length: int) -> Tensor:
    try:
        frequencies = rope.frequencies(head_dim, length)
        if rope.magnitude(length) <= torch.finfo(torch.float32).max and bool(frequencies.isfinite().all()):
            return frequencies
    except (ArithmeticError, ValueError):
        pass  # A logarithm, quotient or power of a number that is far too large or small.
    raise ModelError(f"the rotary positions {rope} cannot be computed for heads of {head_dim}")


def _exponents(head_dim: int) -> Tensor:
    return torch.arange(0, head_dim, 2, dtype=torch.float32, device="cpu") / head_dim
