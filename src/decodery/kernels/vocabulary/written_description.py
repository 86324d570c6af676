"""Lays out the memory in which the compiled kernel describes a choice, and reads it."""

from __future__ import annotations

import struct
from array import array
from collections.abc import Sequence
from functools import cache

from decodery.kernels.vocabulary.choices import ChoiceArgs, ChoiceDescription

# The struct DescribedChoice of native/abi.hpp.
_DESCRIBED_CHOICE = struct.Struct("=qqqqiiqqqqqqq")
# The number of stages for which FusedSamplingArgs stands, the enum FusedStage there.
_FUSED_STAGES = 7
# The numbers before the stages' in `whole`, and before the tokens' in `numbers`.
_WHOLE, _NUMBERS = 4, 2


class WrittenDescription:
    """Holds the memory for the description of one choice.

    `call` is the struct by which the kernel finds it, valid while this object lives. `row` is the address of
    the logits, `stages` are those of the logits after each stage, and `args` the packed `choice.sampling`.
    """

    def __init__(self, choice: ChoiceArgs, row: int, stages: Sequence[int], args: bytes) -> None:
        self._choice = choice
        self._width = choice.shown + 1
        self._stages = _FUSED_STAGES if args else len(stages)
        self._whole = array("q", bytes(8 * (_WHOLE + self._stages + self._width + choice.shown)))
        self._numbers = array("d", bytes(8 * (_NUMBERS + self._width * (3 + self._stages))))
        self._held = array("q", stages), array("q", args), array("f", choice.borders)
        starts, packed, borders = (held.buffer_info()[0] for held in self._held)
        self.call = _DESCRIBED_CHOICE.pack(
            row,
            choice.token,
            choice.shown,
            choice.key is not None,
            *(choice.key or (0, 0)),
            starts,
            len(stages),
            packed if args else 0,
            borders,
            0 if choice.words is None else choice.words.ctypes.data,
            self._whole.buffer_info()[0],
            self._numbers.buffer_info()[0],
        )

    def read(self) -> ChoiceDescription:
        """Returns the description, once the kernel has run."""
        shown, rank, kept, allowed = self._whole[:_WHOLE]
        at = _WHOLE + self._stages
        stages = [
            (stage, left, self._column(3 + stage, shown))
            for stage, left in enumerate(self._whole[_WHOLE:at])
            if left >= 0
        ]
        own = at + self._width
        return ChoiceDescription(
            tokens=tuple(self._whole[at : at + shown]),
            logits=self._column(0, shown),
            before=self._column(2, shown),
            noise=None if self._choice.key is None else self._column(1, shown),
            rank=rank,
            entropy=self._numbers[0],
            tail=self._numbers[1],
            kept=kept,
            stages=tuple(stages),
            allowed=None if self._choice.words is None else allowed,
            allowed_tokens=tuple(
                self._whole[own : own + max(allowed, 0)] if allowed <= self._choice.shown else ()
            ),
        )

    def _column(self, number: int, shown: int) -> tuple[float, ...]:
        start = 8 * (_NUMBERS + number * self._width)
        found: tuple[float, ...] = _doubles(shown).unpack_from(self._numbers, start)
        return found


@cache
def _doubles(count: int) -> struct.Struct:
    return struct.Struct(f"={count}d")
