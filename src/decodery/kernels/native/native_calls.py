"""Runs and records calls of the compiled kernels, and brings their arguments into the form that they read."""

from __future__ import annotations

import struct
import threading
from collections.abc import Callable
from typing import TypeVar

import torch
from torch import Tensor

from decodery.kernels.buffer_pool import BufferPool
from decodery.kernels.contract import GatedActivation
from decodery.kernels.native.library import library
from decodery.kernels.native.recorded_step import RecordedStep, lost
from decodery.kernels.packed_weights import Arena

Result = TypeVar("Result")

ACTIVATIONS: dict[GatedActivation, int] = {
    "silu": 0,
    "gelu": 1,
    "gelu_tanh": 2,
    "relu": 3,
    "clamped_swiglu": 4,
}
CLIP = 5
"""The number of the activation that `clip` is for the kernel."""
PACK_FIRST = "pack the weight when the model is loaded, as load_for_inference does"


class _Recording(threading.local):
    """Holds the step that the calling thread records, if any."""

    step: RecordedStep | None = None


class NativeCalls:
    """Runs the kernels' calls for one model; `capture` makes them replayable."""

    def __init__(self) -> None:
        self._library = library()
        # Engines over one model may run in several threads.
        self._recording = _Recording()
        self._arena = Arena()
        self._buffers = BufferPool()

    def captures(self) -> bool:
        """Returns True: a replay runs a step's kernel calls without Python between them."""
        return True

    def capture(
        self, run: Callable[[], Result], buffers: BufferPool | None = None, *, guarded: bool = True
    ) -> tuple[Result, Callable[[], None]]:
        """Runs `run` and returns its result with a function that makes the same kernel calls on the same
        tensors again.

        A kernel that would fall back on torch, to copy an argument or to pack a weight, raises `CaptureError`
        also if not `guarded`.
        """
        recorded = self._recording.step = RecordedStep(buffers or BufferPool(), guarded=guarded)
        modes = torch._C._len_torch_dispatch_stack()
        try:
            # In this mode the guard sees tolist() and numpy(), too.
            with torch.inference_mode(), recorded.guard:
                return run(), recorded.replay
        finally:
            self._recording.step = None
            # An interrupt between the instructions of `with` leaves the guard on for this thread.
            while torch._C._len_torch_dispatch_stack() > modes:
                torch._C._pop_torch_dispatch_stack(None)

    def _run(self, layout: struct.Struct, *words: float) -> None:
        call = layout.pack(*words)
        recorded = self._recording.step
        if recorded is not None:
            recorded.add(call)
        self._library.decodery_run(call, 1)

    def _empty(self, *shape: int) -> Tensor:
        recorded = self._recording.step
        return (self._buffers if recorded is None else recorded.buffers).empty(shape)

    def _fall_back(self, operation: str, remedy: str) -> None:
        """Raises `CaptureError` while a step is captured; else torch may do the operation."""
        if self._recording.step is not None:
            raise lost(operation, remedy)

    def _copied(self, x: Tensor) -> Tensor:
        """Returns x as a contiguous float32 copy."""
        self._fall_back(
            f"a copy of {list(x.shape)} in {x.dtype} with the strides {x.stride()}",
            "give the kernel float32 whose rows are contiguous",
        )
        return x.float().contiguous()

    def _contiguous(self, x: Tensor) -> Tensor:
        """Returns x as a contiguous float32 tensor."""
        return x if x.dtype == torch.float32 and x.is_contiguous() else self._copied(x)

    def _rows(self, x: Tensor) -> Tensor:
        """Returns x [..., width] as a float32 matrix with contiguous rows."""
        if x.dtype == torch.float32 and x.stride(-1) == 1:
            if x.dim() == 2:
                return x
            if x.is_contiguous():
                return x.view(-1, x.shape[-1])
        copied = self._copied(x)
        return copied.view(-1, x.shape[-1])

    def _vector(self, x: Tensor) -> Tensor:
        """Returns x [width] as contiguous float32."""
        return x if x.dtype == torch.float32 and x.stride(0) == 1 else self._copied(x)

    def _heads(self, x: Tensor) -> Tensor:
        """Returns x [..., heads, dim] as float32 [rows, heads, dim] with contiguous rows."""
        heads, dim = x.shape[-2:]
        if x.dim() == 3 and x.dtype == torch.float32 and x.stride()[1:] == (dim, 1):
            return x
        if x.dtype != torch.float32 or not x.is_contiguous():
            x = self._copied(x)
        return x.view(-1, heads, dim)

    def _rows_of_heads(self, x: Tensor) -> tuple[Tensor, int, int, int, int]:
        """Returns x in float32 with its strides of rows and heads, then their numbers.

        Only x of three dimensions has several heads in a row.
        """
        if x.dim() != 3:
            flat = self._rows(x)
            return flat, flat.stride(0), 0, len(flat), 1
        if x.dtype != torch.float32 or x.stride(2) != 1:
            x = self._copied(x)
        return x, x.stride(0), x.stride(1), x.shape[0], x.shape[1]

    def _weights_of_heads(self, weight: Tensor, x: Tensor) -> tuple[Tensor, int]:
        """Returns the weight of a norm of x in float32 and the numbers between two heads': 0 if they share
        one.
        """
        if weight.dim() == 1:
            return self._vector(weight), 0
        assert weight.shape == x.shape[-2:]
        assert x.dim() == 3
        return self._contiguous(weight), x.shape[-1]
