"""Calls the compiled kernels over the vocabulary; `decodery.kernels.vocabulary.dispatch` documents them.

A row's result has the same bits for any number of rows and threads and on every instruction set.
"""

from __future__ import annotations

import struct
from array import array
from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from decodery.kernels.native.library import Kernel, call_layout, library
from decodery.kernels.vocabulary.choices import ChoiceArgs, ChoiceDescription, FusedSamplingArgs
from decodery.kernels.vocabulary.written_description import WrittenDescription

# Layouts of calls, by the number of words after the kernel's number.
_THREE, _FOUR, _FIVE, _SIX, _SEVEN, _EIGHT = (call_layout("q" * count) for count in range(3, 9))
# The struct FusedSamplingArgs of native/abi.hpp.
_FUSED_SAMPLING_ARGS = struct.Struct("=qqqqddddddqqii")
_TokenIds = NDArray[np.int64]


def _read(logits: Tensor) -> Tensor:
    """Returns the logits in float32 with contiguous rows, copied if need be."""
    fits = logits.dtype == torch.float32 and logits.stride(-1) == 1
    return logits if fits else logits.float().contiguous()


def _rows(logits: Tensor) -> tuple[int, int, int, int]:
    """Returns the words that pass contiguous rows to a kernel: address, stride, rows, columns."""
    assert logits.dtype == torch.float32
    assert logits.stride(-1) == 1
    return logits.data_ptr(), logits.stride(0), *logits.shape


def _floats(values: Sequence[float]) -> tuple[array[float], int]:
    held = array("f", values)
    return held, held.buffer_info()[0]


def gumbel_noise(keys: Tensor, tokens: Tensor) -> Tensor:
    keys, tokens = keys.contiguous(), tokens.contiguous()
    out = torch.empty(len(tokens))
    words = keys.data_ptr(), tokens.data_ptr(), len(tokens), out.data_ptr()
    library().decodery_run(_FOUR.pack(Kernel.NOISE, *words), 1)
    return out


def choose(
    logits: Tensor, args: Sequence[FusedSamplingArgs], borders: array[float] | None = None
) -> list[int]:
    places = array("q", bytes(8 * len(args)))
    each = array("q", b"".join([_packed(*fields) for fields in args]))
    words = each.buffer_info()[0], places.buffer_info()[0], 0 if borders is None else borders.buffer_info()[0]
    library().decodery_run(_SEVEN.pack(Kernel.CHOOSE, *_rows(logits), *words), 1)
    return places.tolist()


def _packed(tokens: array[int], seen: int, generated: int, *numbers: Any) -> bytes:
    """Packs the fields of one row's `FusedSamplingArgs`; the tokens must live until the call is over."""
    address, count = tokens.buffer_info()
    *plain, key = numbers
    return _FUSED_SAMPLING_ARGS.pack(
        address + 8 * seen, count - seen, address + 8 * generated, count - generated, *plain, *key
    )


def described(
    logits: Tensor, choices: Sequence[ChoiceArgs], stages: Sequence[Tensor] = ()
) -> list[ChoiceDescription]:
    logits = _read(logits)
    address, stride, _, vocab = _rows(logits)
    assert all(stage.shape[1] == vocab for stage in stages)
    after = [_rows(stage)[:2] for stage in stages]
    found = []
    for choice in choices:
        assert 0 <= choice.place < len(logits)
        assert 0 <= choice.token < vocab
        assert 1 <= choice.shown <= vocab
        assert choice.words is None or (choice.words.dtype == np.int32 and 32 * len(choice.words) >= vocab)
        starts = [after[k][0] + 4 * after[k][1] * row for k, row in choice.stages]
        args = b"" if choice.sampling is None else _packed(*choice.sampling)
        found.append(WrittenDescription(choice, address + 4 * stride * choice.place, starts, args))
    each = array("q", b"".join([one.call for one in found]))
    library().decodery_run(_THREE.pack(Kernel.DESCRIBE, each.buffer_info()[0], len(found), vocab), 1)
    return [one.read() for one in found]


def draw(logits: Tensor, keys: Sequence[tuple[int, int]]) -> list[int]:
    logits = _read(logits)
    held = array("i", [word for key in keys for word in key])
    places = array("q", bytes(8 * len(keys)))
    words = held.buffer_info()[0], places.buffer_info()[0]
    library().decodery_run(_SIX.pack(Kernel.DRAW, *_rows(logits), *words), 1)
    return places.tolist()


def largest(logits: Tensor, words: NDArray[np.int32] | None = None) -> list[int]:
    logits = _read(logits)
    places = array("q", bytes(8 * len(logits)))
    marks = (0, 0) if words is None else _marks(logits, words)
    library().decodery_run(_SEVEN.pack(Kernel.LARGEST, *_rows(logits), places.buffer_info()[0], *marks), 1)
    return places.tolist()


def leaders(logits: Tensor, count: int) -> tuple[Tensor, Tensor]:
    logits = _read(logits)
    values = torch.empty(len(logits), count)
    places = torch.empty(len(logits), count, dtype=torch.int64)
    words = count, values.data_ptr(), places.data_ptr(), 0
    library().decodery_run(_EIGHT.pack(Kernel.LEADERS, *_rows(logits), *words), 1)
    return values, places


def leading_logprobs(logits: Tensor, count: int) -> tuple[list[list[float]], list[list[int]]]:
    logits = _read(logits)
    found = len(logits) * count
    values, places = array("f", bytes(4 * found)), array("q", bytes(8 * found))
    words = count, values.buffer_info()[0], places.buffer_info()[0], 1
    library().decodery_run(_EIGHT.pack(Kernel.LEADERS, *_rows(logits), *words), 1)
    starts = range(0, found, count)
    return [values[i : i + count].tolist() for i in starts], [places[i : i + count].tolist() for i in starts]


def log_softmax(logits: Tensor) -> Tensor:
    logits = _read(logits)
    out = torch.empty(logits.shape)
    library().decodery_run(_SIX.pack(Kernel.LOG_SOFTMAX, *_rows(logits), out.data_ptr(), 0), 1)
    return out


def log_normalizers(logits: Tensor) -> list[float]:
    logits = _read(logits)
    norms = array("d", bytes(8 * len(logits)))
    words = 0, norms.buffer_info()[0]
    library().decodery_run(_SIX.pack(Kernel.LOG_SOFTMAX, *_rows(logits), *words), 1)
    return norms.tolist()


def entropy(logprobs: Tensor) -> Tensor:
    logprobs = _read(logprobs)
    out = torch.empty(len(logprobs), 1)
    library().decodery_run(_FIVE.pack(Kernel.ENTROPY, *_rows(logprobs), out.data_ptr()), 1)
    return out


def count_above(logits: Tensor, least: Sequence[float]) -> list[int]:
    logits = _read(logits)
    held, bounds = _floats(least)
    counts = array("q", bytes(8 * len(held)))
    words = bounds, counts.buffer_info()[0]
    library().decodery_run(_SIX.pack(Kernel.COUNT_ABOVE, *_rows(logits), *words), 1)
    return counts.tolist()


def nucleus_border(scores: Tensor, logprobs: Tensor, mass: Tensor) -> Tensor:
    scores, logprobs, mass = _read(scores), _read(logprobs), mass.contiguous()
    border = torch.empty(len(scores), 1)
    words = logprobs.data_ptr(), logprobs.stride(0), mass.data_ptr(), border.data_ptr()
    library().decodery_run(_EIGHT.pack(Kernel.NUCLEUS, *_rows(scores), *words), 1)
    return border


def cut_below(logits: Tensor, least: Tensor) -> None:
    cut_where_below(logits, logits, least)


def cut_where_below(logits: Tensor, scores: Tensor, least: Tensor) -> None:
    scores, least = _read(scores), least.contiguous()
    words = scores.data_ptr(), scores.stride(0), least.data_ptr()
    library().decodery_run(_SEVEN.pack(Kernel.CUT_BELOW, *_rows(logits), *words), 1)


def keep_marked(logits: Tensor, words: NDArray[np.int32]) -> None:
    library().decodery_run(_SIX.pack(Kernel.MASK, *_rows(logits), *_marks(logits, words)), 1)


def _marks(logits: Tensor, words: NDArray[np.int32]) -> tuple[int, int]:
    """Returns the words that pass a bit for each logit to a kernel: address and stride."""
    assert words.dtype == np.int32
    assert words.flags.c_contiguous
    assert words.shape[0] == len(logits)
    assert 32 * words.shape[1] >= logits.shape[1]
    return words.ctypes.data, words.shape[1]


def keep_only(logits: Tensor, values: Tensor, tokens: Tensor) -> None:
    values, tokens = values.contiguous(), tokens.contiguous()
    words = values.data_ptr(), tokens.data_ptr(), values.shape[1]
    library().decodery_run(_SEVEN.pack(Kernel.SPREAD, *_rows(logits), *words), 1)


def divide(logits: Tensor, divisors: Sequence[float]) -> None:
    _held, address = _floats(divisors)
    library().decodery_run(_FIVE.pack(Kernel.DIVIDE, *_rows(logits), address), 1)


def copy_rows(source: Tensor, rows: Sequence[int], target: Tensor, places: Sequence[int]) -> None:
    source = _read(source)
    assert len(rows) == len(places)
    assert source.shape[1] == target.shape[1]
    assert all(0 <= row < len(source) for row in rows)
    assert all(0 <= place < len(target) for place in places)
    read, written = array("q", rows), array("q", places)
    address, stride, _, vocab = _rows(source)
    where, step, _, _ = _rows(target)
    words = address, stride, len(rows), vocab, read.buffer_info()[0], where, step, written.buffer_info()[0]
    library().decodery_run(_EIGHT.pack(Kernel.COPY, *words), 1)


def penalise_repetition(logits: Tensor, seen: Sequence[_TokenIds], penalties: Sequence[float]) -> None:
    held, addresses, counts = _lists(seen)
    each = array("d", penalties)
    words = addresses.buffer_info()[0], counts.buffer_info()[0], each.buffer_info()[0]
    library().decodery_run(_SEVEN.pack(Kernel.REPETITION, *_rows(logits), *words), 1)
    del held


def penalise_frequency(
    logits: Tensor, seen: Sequence[_TokenIds], presence: Sequence[float], frequency: Sequence[float]
) -> None:
    held, addresses, counts = _lists(seen)
    once, often = array("d", presence), array("d", frequency)
    words = [part.buffer_info()[0] for part in (addresses, counts, once, often)]
    library().decodery_run(_EIGHT.pack(Kernel.FREQUENCY, *_rows(logits), *words), 1)
    del held


def _lists(tokens: Sequence[_TokenIds]) -> tuple[list[_TokenIds], array[int], array[int]]:
    """Returns the rows' tokens as contiguous arrays, their addresses and their lengths.

    The arrays must live until the call is over.
    """
    held = [np.ascontiguousarray(each) for each in tokens]
    return held, array("q", [each.ctypes.data for each in held]), array("q", [len(each) for each in held])
