"""Declares the flags that choose a model and say how to run it."""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial

from decodery.cli.flags.flag_field import option

_option = partial(option, panel="Model")

# The values of some options, as the help shows them; completion offers them.
DTYPES = "auto|float32|bfloat16"
BACKENDS = "auto|native|torch"
QUANTIZATIONS = "int4|int8|bf16"
KV_DTYPES = "auto|float32|float16|bfloat16|int8"


@dataclass(frozen=True)
class _ModelName:
    model: str | None = _option(
        None,
        "The model: a folder, a .gguf file, a hub id or default; without it, the default model.",
        short="-m",
        metavar="MODEL",
    )


@dataclass(frozen=True)
class RunOptions:
    """Holds how a model is run, as it is written on the command line; each field is a flag."""

    dtype: str = _option(
        "auto", "The precision to compute in; bfloat16 on the torch backend alone.", metavar=DTYPES
    )
    backend: str = _option(
        "auto",
        "The backend: native (compiled kernels, on the CPU), torch, or auto: native if its"
        " kernels are built and the precision is not bfloat16.",
        metavar=BACKENDS,
    )
    quantization: str | None = _option(
        None,
        "Pack the weights in this form for the native backend; without it, as they are stored.",
        metavar=QUANTIZATIONS,
    )
    context_length: int | None = _option(
        None, "Most tokens of prompt and text together; without it, the model's limit."
    )
    kv_memory: str | None = _option(
        None, "Size of the key/value cache, such as 512MB; second models share it."
    )
    kv_dtype: str = _option("auto", "The precision of the key/value cache.", metavar=KV_DTYPES)
    packed_cache: bool = _option(
        False, "Keep the packed weights in the cache folder, for faster starts; decodery models lists them."
    )
    threads: int | None = _option(None, "The number of threads; without it, one for each core.")
    revision: str | None = _option(None, "The branch, tag or commit of a hub model.")


@dataclass(frozen=True)
class ModelOptions(RunOptions, _ModelName):
    """Holds the arguments of `LLM` as they are written on the command line; each field is a flag."""


@dataclass(frozen=True)
class TextModelOptions(ModelOptions):
    """Holds the options of a model that runs here, or of a server that runs one; each field is a flag."""

    server: str | None = _option(
        None,
        "Ask a running server, such as http://localhost:8000, in place of loading a model; --model is then"
        " one of its names. Without the flag, DECODERY_SERVER.",
    )
    api_key_file: str | None = _option(
        None, "A file whose first line is the server's key; without it, DECODERY_API_KEY.", metavar="FILE"
    )
