"""The model that the flags ask for, ready to generate."""

from __future__ import annotations

import dataclasses
import gc

from decodery.cli.flags.model_options import ModelOptions
from decodery.cli.terminal import fetching
from decodery.errors import ParameterError
from decodery.kernels.backends import check_kv_dtype, chosen_backend
from decodery.llm import LLM
from decodery.loading.options import check_dtype, memory_size


def load(options: ModelOptions) -> LLM:
    """The model of these options. Raises `ParameterError` for absurd ones before anything is fetched."""
    check_options(options)
    with fetching() as progress:
        llm = LLM(**dataclasses.asdict(options), progress=progress)
    # None of this will ever be garbage; see __main__.
    gc.freeze()
    gc.enable()
    return llm


def check_options(options: ModelOptions) -> None:
    """Raise `ParameterError` for what is wrong whatever the model is."""
    check_dtype(options.dtype)
    check_kv_dtype(options.kv_dtype)
    chosen_backend(options.backend, options.dtype, options.quantization)
    if options.kv_memory is not None:
        memory_size(options.kv_memory)
    for name in ("context_length", "threads"):
        value = getattr(options, name)
        if value is not None and value < 1:
            raise ParameterError(f"{name} must be 1 or more, not {value}")
