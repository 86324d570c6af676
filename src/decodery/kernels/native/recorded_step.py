"""Records the kernel calls of one step of a model, and replays them without Python code between them."""

from __future__ import annotations

import sys
from collections.abc import Mapping, Sequence
from contextlib import nullcontext
from pathlib import Path
from types import FrameType
from typing import Any

import torch
from torch import Tensor
from torch._ops import OpOverload
from torch.utils._python_dispatch import TorchDispatchMode

from decodery.errors import CaptureError
from decodery.kernels.buffer_pool import BufferPool
from decodery.kernels.native.library import WORDS, library

_COMPOSITE = torch._C.DispatchKey.CompositeImplicitAutograd
_ALLOCATIONS = {"aten::empty", "aten::empty_like", "aten::empty_strided", "aten::new_empty"}
# Views by their schema that carry numbers between Python and a tensor: torch.tensor and from_numpy call the
# first, tolist and numpy the others.
_CROSSINGS = {"aten::lift_fresh", "aten::resolve_conj", "aten::resolve_neg"}


class RecordedStep:
    """Records the kernel calls of a step; their outputs are in `buffers`.

    `guard` is the context to run the step in. If `guarded`, only kernels and views pass it.
    """

    def __init__(self, buffers: BufferPool, *, guarded: bool) -> None:
        self.buffers = buffers
        self.guard = KernelsOnly() if guarded else nullcontext()
        self._calls = bytearray()
        self._program = b""

    def add(self, call: bytes) -> None:
        self._calls += call

    def replay(self) -> None:
        """Runs all recorded calls again."""
        if not self._program:
            self._program = bytes(self._calls)
        library().decodery_run(self._program, len(self._program) // (WORDS * 8))


class KernelsOnly(TorchDispatchMode):  # type: ignore[no-untyped-call]
    """Raises `CaptureError` inside its context for a torch operation that a replay would skip.

    Views pass, since they neither read nor write numbers, and tensors without elements. Other allocations do
    not: nothing would keep the memory that recorded calls read. Not seen: memory that Python shares with a
    tensor without an operation, by `torch.frombuffer` or DLPack.
    """

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self._views: set[OpOverload] = set()
        self._composite: OpOverload | None = None

    @classmethod
    def _should_skip_dynamo(cls) -> bool:
        # True makes torch import its compiler, which takes seconds.
        return False

    def __torch_dispatch__(
        self,
        func: OpOverload,
        types: Sequence[type],
        args: tuple[Any, ...] = (),
        kwargs: Mapping[str, Any] | None = None,
    ) -> Any:
        if func in self._views:
            return func(*args, **kwargs) if kwargs else func(*args)
        name = func._schema.name
        if name in _ALLOCATIONS:
            made: Tensor = func(*args, **(kwargs or {}))
            if not made.numel():
                return made
        elif name not in _CROSSINGS:
            if func.has_kernel_for_dispatch_key(_COMPOSITE):
                return self._decomposed(func, args, kwargs or {})
            if func.is_view:
                self._views.add(func)
                return func(*args, **(kwargs or {}))
        shown = self._composite or func
        raise lost(
            f"the torch operation {shown}",
            "use a kernel or an argument of one, or compute it before the step",
        )

    def _decomposed(self, func: OpOverload, args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> Any:
        """Runs an operation that consists of others, such as `reshape`: it may be a view or a copy."""
        before, self._composite = self._composite, self._composite or func
        try:
            with self:
                return func.decompose(*args, **kwargs)
        finally:
            self._composite = before


def lost(operation: str, remedy: str) -> CaptureError:
    """Returns the error for an operation of a captured step that is no kernel call."""
    return CaptureError(
        f"{operation}{_place()} is no kernel call, so a replay of the captured step would skip it:"
        f' {remedy}, or choose backend="torch"'
    )


def _place() -> str:
    """Returns the innermost caller outside torch and the kernels, as function, file and line."""
    frame: FrameType | None = sys._getframe(1)
    while frame is not None:
        package = frame.f_globals.get("__name__", "")
        if not package.startswith(("torch.", "decodery.kernels.")):
            file = Path(frame.f_code.co_filename)
            return f" in {frame.f_code.co_qualname} ({file.parent.name}/{file.name}:{frame.f_lineno})"
        frame = frame.f_back
    return ""
