"""Declares the flags of the commands that read many lines with an encoder."""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial

from decodery.cli.flags.flag_field import option
from decodery.cli.flags.model_options import BACKENDS, DTYPES, QUANTIZATIONS

_option = partial(option, panel="Model")


@dataclass(frozen=True)
class EncoderOptions:
    """Holds the arguments of `LLM` for an encoder, as they are written on the command line."""

    model: str | None = _option(
        None, "The encoder: a folder, a hub id or minilm.", short="-m", metavar="MODEL"
    )
    dtype: str = _option(
        "auto", "The precision to compute in; bfloat16 on the torch backend alone.", metavar=DTYPES
    )
    backend: str = _option("auto", "The backend: native, torch, or auto.", metavar=BACKENDS)
    quantization: str | None = _option(
        None,
        "Pack the weights in this form for the native backend; without it, as they are stored.",
        metavar=QUANTIZATIONS,
    )
    packed_cache: bool = _option(False, "Keep the packed weights in the cache folder, for faster starts.")
    threads: int | None = _option(None, "The number of threads; without it, one for each core.")
    revision: str | None = _option(None, "The branch, tag or commit of a hub model.")


@dataclass(frozen=True)
class LineOptions:
    """Holds how lines are read and where results are written; each field is a flag."""

    out: str | None = _option(
        None,
        "Write into this file, not to stdout. A command that was stopped goes on where it was if it is given"
        " again.",
        metavar="FILE",
        panel="Output",
    )
    overwrite: bool = _option(False, "Replace a file that exists.", panel="Output")
    jsonl: bool = _option(
        False, "Each line is JSON: a text, or an object. Files named .jsonl are so anyway.", panel="Options"
    )
    field: str = _option("text", "The field of an object with the text.", metavar="NAME", panel="Options")


@dataclass(frozen=True)
class EmbedOptions:
    """Holds the arguments of `LLM.embed`, as they are written on the command line; each field is a flag."""

    prompt_name: str | None = _option(
        None, "Put this prompt of the model's folder before each text.", metavar="NAME", panel="Options"
    )
    prompt: str | None = _option(None, "Put this text before each text.", metavar="TEXT", panel="Options")
    query: bool = _option(False, "Use the folder's prompt for queries, if it has one.", panel="Options")
    document: bool = _option(False, "Use the folder's prompt for documents, if it has one.", panel="Options")
    pooling: str | None = _option(
        None, "How states become a vector: cls, mean, max, lasttoken ...", metavar="NAME", panel="Options"
    )
    normalize: str | None = _option(
        None,
        "Make vectors of length 1; without it, as the folder says.",
        metavar="yes|no",
        panel="Options",
    )
    truncate_dim: int | None = _option(None, "Keep the first dimensions alone.", panel="Options")
    precision: str = _option(
        "float32", "How numbers are stored.", metavar="float32|int8|uint8|binary|ubinary", panel="Output"
    )
    ranges: str | None = _option(
        None,
        "For int8 and uint8: a .npy file of two rows, the least and the largest number of each dimension.",
        metavar="FILE",
        panel="Output",
    )
    sparse: bool = _option(
        False,
        "Write sparse vectors (SPLADE), the weights of tokens, as lines of JSON.",
        panel="Output",
    )
    max_active_dims: int | None = _option(
        None,
        "With --sparse: keep this number of weights, the largest; without it, as the folder says.",
        panel="Options",
    )
    long: str = _option(
        "error",
        "A text that is too long is an error, cut at its end, or the average of its windows' vectors.",
        metavar="error|cut|windows",
        panel="Options",
    )
