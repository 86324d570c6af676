"""Loads the model that the flags name."""

from __future__ import annotations

import dataclasses
import gc

from decodery.cli.flags.model_options import ModelOptions, RunOptions
from decodery.cli.terminal import fetch_progress
from decodery.errors import ParameterError
from decodery.kernels.backends import check_kv_dtype, chosen_backend
from decodery.llm import LLM
from decodery.loading.options import check_dtype, memory_size


def load(options: ModelOptions) -> LLM:
    """Loads the model; raises `ParameterError` for wrong options before anything is fetched."""
    check_options(options)
    with fetch_progress() as progress:
        llm = LLM(**dataclasses.asdict(options), progress=progress)
    # The model lives as long as the process, so the collector need not look at it; __main__ turned it off.
    gc.freeze()
    gc.enable()
    return llm


def check_options(options: RunOptions) -> None:
    """Raises `ParameterError` for options that are wrong for any model."""
    check_dtype(options.dtype)
    check_kv_dtype(options.kv_dtype)
    chosen_backend(options.backend, options.dtype, options.quantization)
    if options.kv_memory is not None:
        memory_size(options.kv_memory)
    for name in ("context_length", "threads"):
        value = getattr(options, name)
        if value is not None and value < 1:
            raise ParameterError(f"{name} must be 1 or more, not {value}")
