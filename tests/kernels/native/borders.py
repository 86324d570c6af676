"""Allocates tensors that end at the end of readable memory: the next page is protected, so reading on is a
crash.

This finds reads beyond torch's allocations, which a sanitizer does not see, without any special build.
"""

from __future__ import annotations

import ctypes
import mmap
import os
import signal
import traceback
import warnings
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from typing import Any

import torch
from torch import Tensor

from decodery.kernels.attention_layer import AttentionLayer
from decodery.kernels.native.native_kernels import NativeKernels
from decodery.kernels.packed_weights import Codes, PackedExperts, PackedWeight
from decodery.kernels.relative_bias import RelativeBias
from decodery.kernels.vocabulary import native

# The bytes behind a packed weight that kernels may read.
BEYOND_A_WEIGHT = 64


def at_the_end(tensor: Tensor, beyond: int = 0) -> Tensor:
    """Returns a copy with the same strides whose last element is the last readable one, or `beyond` bytes
    earlier.
    """
    if tensor.numel() == 0:
        return tensor
    extent = 1 + sum((n - 1) * step for n, step in zip(tensor.shape, tensor.stride(), strict=True))
    size = extent * tensor.element_size()
    readable = -(-(size + beyond) // mmap.PAGESIZE) * mmap.PAGESIZE
    memory = mmap.mmap(-1, readable + mmap.PAGESIZE)
    _protect(memory, readable)
    start = readable - beyond - size
    # The bytes before a tensor must not be zeros: a wrong read would not change a result.
    memory[:start] = b"\xff" * start
    flat = torch.frombuffer(memory, dtype=tensor.dtype, count=extent, offset=start)
    copy = flat.as_strided(tensor.shape, tensor.stride())
    return copy.copy_(tensor)


def _protect(memory: mmap.mmap, start: int) -> None:
    libc = ctypes.CDLL(None, use_errno=True)
    address = ctypes.addressof(ctypes.c_char.from_buffer(memory)) + start
    nothing = 0
    if libc.mprotect(ctypes.c_void_p(address), ctypes.c_size_t(mmap.PAGESIZE), nothing):
        raise OSError(ctypes.get_errno(), "mprotect")


class AllNative(NativeKernels):
    """Offers the native kernels of a model and those over the vocabulary as methods of one object."""

    def __getattr__(self, name: str) -> Any:
        return getattr(native, name)


class Bordered(AllNative):
    """Runs the native kernels with tensors, results too, that lie at the end of readable memory.

    This holds for every kernel, present or future: every tensor among the arguments is moved, and what the
    kernel changed in it is copied back.
    """

    def __getattribute__(self, name: str) -> Any:
        found = super().__getattribute__(name)
        if name.startswith("_") or name == "capture" or not callable(found):
            return found
        return partial(_on_borders, found)

    def __getattr__(self, name: str) -> Any:
        return partial(_on_borders, super().__getattr__(name))

    def _empty(self, *shape: int) -> Tensor:
        return at_the_end(torch.full(shape, torch.nan))


def _on_borders(function: Callable[..., Any], *arguments: Any, **named: Any) -> Any:
    moved = [_moved(argument) for argument in arguments]
    result = function(*moved, **{name: _moved(argument) for name, argument in named.items()})
    for argument, copy in zip(arguments, moved, strict=True):
        if isinstance(argument, Tensor) and argument.numel() and not torch.equal(argument, copy):
            argument.copy_(copy)
    return result


def _moved(argument: Any) -> Any:
    if type(argument) in (list, tuple):
        return type(argument)(map(_moved, argument))
    if isinstance(argument, Codes):
        parts = {"codes": argument.codes, "scales": argument.scales, "minima": argument.minima}
        return replace(argument, **{name: _moved(part) for name, part in parts.items()})
    if isinstance(argument, (PackedWeight, PackedExperts)):
        return replace(argument, data=at_the_end(argument.data, BEYOND_A_WEIGHT))
    if isinstance(argument, RelativeBias):
        return RelativeBias(at_the_end(argument.table), argument.zero)
    if isinstance(argument, AttentionLayer):
        return replace(argument, bias=_moved(argument.bias), sinks=_moved(argument.sinks))
    return at_the_end(argument) if isinstance(argument, Tensor) else argument


def killed_by(run: Callable[[], object], seconds: int = 120) -> signal.Signals | None:
    """Runs in a forked child; returns the signal that ended it, or None; SIGALRM if it took longer than that.

    An exception of `run` fails an assertion here.
    """
    with warnings.catch_warnings():
        warnings.simplefilter(
            "ignore", DeprecationWarning
        )  # Newer Pythons warn of threads that a fork loses.
        child = os.fork()
    if child == 0:
        status = 1
        try:
            signal.signal(signal.SIGALRM, signal.SIG_DFL)
            signal.alarm(seconds)
            run()
            status = 0
        except BaseException:
            traceback.print_exc()
        finally:
            os._exit(status)
    _, state = os.waitpid(child, 0)
    if os.WIFSIGNALED(state):
        return signal.Signals(os.WTERMSIG(state))
    assert os.WEXITSTATUS(state) == 0
    return None
