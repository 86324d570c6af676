"""Loads the compiled kernels and selects their instruction set and threads.

A call of a kernel is `WORDS` 64-bit words: the kernel's number, then its arguments as native/abi.hpp lists
them. A program is a sequence of calls. Addresses are those of tensors, which must live until the program has
run.
"""

from __future__ import annotations

import ctypes
import os
import struct
from enum import IntEnum
from functools import cache
from pathlib import Path

from decodery.errors import ParameterError

VERSION = 21
WORDS = 24
PATH = Path(__file__).with_name("_native.so")
SETS = ("portable", "avx2", "avx512", "neon", "neon_dot")
MOST_THREADS = 256


class Kernel(IntEnum):
    """Numbers the kernels in the order of native/abi.hpp."""

    LINEAR = 0
    PACK = 1
    EMBEDDING = 2
    NORM = 3
    ROTARY = 4
    ACTIVATE = 5
    WRITE_KV = 6
    ATTENTION = 7
    ANGLES = 8
    LARGEST = 9
    LEADERS = 10
    LOG_SOFTMAX = 11
    COUNT_ABOVE = 12
    CUT_BELOW = 13
    NUCLEUS = 14
    DRAW = 15
    NOISE = 16
    MASK = 17
    DIVIDE = 18
    COPY = 19
    SPREAD = 20
    ENTROPY = 21
    REPETITION = 22
    FREQUENCY = 23
    LAYER_NORM = 24
    CHOOSE = 25
    ROUTE = 26
    EXPERTS = 27
    JOIN = 28
    MULTIPLY = 29
    DESCRIBE = 30


def call_layout(words: str) -> struct.Struct:
    """Returns the layout of a call: a character per word, q for integers and addresses, d for doubles."""
    return struct.Struct(f"=q{words}{8 * (WORDS - 1 - len(words))}x")


@cache
def missing() -> str | None:
    """Returns the reason in one line why there are no kernels, with the remedy; None where they are
    available.
    """
    if not PATH.exists():
        return "the native kernels are not built: install the package from source with a C++20 compiler"
    try:
        version = _load().decodery_version()
    except (OSError, AttributeError) as error:  # AttributeError: a function is missing.
        return f"the native kernels cannot be loaded: install the package again from source ({error})"
    if version != VERSION:
        return "the native kernels are those of another version: install the package again from source"
    return None


def available() -> bool:
    """True if the kernels were built when this package was installed, and have its version."""
    return missing() is None


@cache
def library() -> ctypes.CDLL:
    """Returns the loaded library, set to `first_instruction_set()` and one thread per core.

    Raises `ParameterError` where there are no kernels, and as `first_instruction_set` does.
    """
    problem = missing()
    if problem is not None:
        raise ParameterError(problem)
    found = _load()
    found.decodery_use(SETS.index(first_instruction_set()))
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    found.decodery_threads(min(cores, MOST_THREADS))
    return found


@cache
def instruction_sets() -> tuple[str, ...]:
    """Returns the instruction sets that this processor can run, the slowest first; there must be kernels."""
    # `decodery_use` also selects a set, so this must run before `library` selects one.
    return tuple(name for index, name in enumerate(SETS) if _load().decodery_use(index))


def first_instruction_set() -> str:
    """Returns the instruction set that the kernels use unless another one is set.

    This is the one that the environment variable DECODERY_INSTRUCTION_SET names, else the processor's best.
    Raises `ParameterError` for a name that this processor cannot run.
    """
    name = os.environ.get("DECODERY_INSTRUCTION_SET") or instruction_sets()[-1]
    _check_instruction_set("DECODERY_INSTRUCTION_SET", name)
    return name


def use_instruction_set(name: str) -> None:
    """Sets one of `instruction_sets()` for all kernels from now on; their results have the same bits.

    Raises `ParameterError` for a name that this processor cannot run.
    """
    _check_instruction_set("the instruction set", name)
    library().decodery_use(SETS.index(name))


def _check_instruction_set(setting: str, name: str) -> None:
    if name not in instruction_sets():
        raise ParameterError(f"{setting} must be {' or '.join(instruction_sets())} here, not {name!r}")


def set_threads(count: int) -> None:
    """Sets the number of threads, from 1 to `MOST_THREADS`, of the kernels that run without a number of their
    own.
    """
    assert 1 <= count <= MOST_THREADS
    library().decodery_threads(count)


def own_threads() -> int:
    """Returns the number of threads of the kernels that the calling thread runs, 0 for that of
    `set_threads`.
    """
    count: int = library().decodery_own_threads()
    return count


def set_own_threads(count: int) -> None:
    """Sets `own_threads`, from 0 to `MOST_THREADS`."""
    assert 0 <= count <= MOST_THREADS
    library().decodery_set_own_threads(count)


@cache
def _load() -> ctypes.CDLL:
    loaded = ctypes.CDLL(str(PATH))
    address, number = ctypes.c_void_p, ctypes.c_int64
    loaded.decodery_run.argtypes = [ctypes.c_char_p, number]
    loaded.decodery_run.restype = None
    loaded.decodery_packed_bytes.argtypes = [number, number, number]
    loaded.decodery_packed_bytes.restype = number
    loaded.decodery_plan_attention.argtypes = [
        *(address,) * 4, *(number,) * 4, address, number, address,
    ]  # fmt: skip
    loaded.decodery_plan_attention.restype = number
    loaded.decodery_new_drafter.argtypes = [number]
    loaded.decodery_new_drafter.restype = address
    loaded.decodery_free_drafter.argtypes = [address]
    loaded.decodery_free_drafter.restype = None
    loaded.decodery_draft.argtypes = [address, ctypes.c_char_p]
    loaded.decodery_draft.restype = None
    loaded.decodery_end_stream.argtypes = [address, number, address, number]
    loaded.decodery_end_stream.restype = None
    loaded.decodery_forget_salt.argtypes = [address, number]
    loaded.decodery_forget_salt.restype = None
    loaded.decodery_streams.argtypes = [address]
    loaded.decodery_streams.restype = number
    loaded.decodery_threads.argtypes = [ctypes.c_int]
    loaded.decodery_threads.restype = None
    loaded.decodery_set_own_threads.argtypes = [ctypes.c_int]
    loaded.decodery_set_own_threads.restype = None
    return loaded
