"""Implements `decodery embed`: makes a vector of each line."""

from __future__ import annotations

import dataclasses
import hashlib
import json
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from decodery.cli.commands.encoders.result_lines import write_json_lines
from decodery.cli.flags.line_options import EmbedOptions, EncoderOptions, LineOptions
from decodery.cli.line_work import begun_file, identity_of, output_path, work_through
from decodery.cli.load_encoder import encoder_settings, load_encoder
from decodery.cli.terminal import note
from decodery.cli.text_lines import Line, text_of
from decodery.encoding.results import Embeddings, Vector
from decodery.encoding.vectors.precision import dtype_of
from decodery.errors import DecoderyError, ParameterError, RequestError
from decodery.llm import LLM

HEADS = {".jsonl": 0, ".npy": 128, ".safetensors": 1024}
"""The suffixes of files, and the bytes of each before the vectors."""
ELEMENTS = {"float32": "F32", "int8": "I8", "uint8": "U8"}


def embed(files: Sequence[Path], how: EmbedOptions, lines: LineOptions, model: EncoderOptions) -> None:
    """Writes the vector of each line to stdout or to a file; says on stderr how many texts were cut."""
    if how.sparse:
        _embed_sparse(files, how, lines, model)
        return
    if how.max_active_dims is not None:
        raise ParameterError("--max-active-dims has no meaning without --sparse")
    arguments = _arguments(how)
    path = output_path(lines, suffixes=tuple(HEADS))
    suffix = ".jsonl" if path is None else path.suffix
    llm = load_encoder(model)
    # Wrong arguments are an error here, before the first line.
    width = llm.embed([], **arguments).vectors.shape[1]
    out = None
    if path is not None:
        settings = {"command": "embed", **_settings(how, arguments), **encoder_settings(model, llm)}
        out = begun_file(path, lines, settings, head=HEADS[suffix])
    cut = 0

    def work(chunk: Sequence[Line]) -> bytes:
        nonlocal cut
        found = llm.embed(_texts(chunk, lines.field), progress=False, **arguments)
        cut += int((found.lost > 0).sum())
        return _json_lines(chunk, found) if suffix == ".jsonl" else found.vectors.tobytes()

    work_through(files, lines, out, work, "embedding")
    if out is not None:
        out.finish(_head(suffix, (out.done, width), how.precision))
    if cut == 1:
        note("decodery: a text was too long, and its end was cut off")
    elif cut:
        note(f"decodery: {cut} texts were too long, and their ends were cut off")


def _arguments(how: EmbedOptions) -> dict[str, Any]:
    """Returns the arguments of `LLM.embed`; raises `ParameterError` and `DecoderyError` for wrong options."""
    if how.normalize not in (None, "yes", "no"):
        raise ParameterError(f"normalize must be yes or no, not {how.normalize!r}")
    normalize = None if how.normalize is None else how.normalize == "yes"
    ranges = None
    if how.ranges is not None:
        try:
            ranges = np.load(how.ranges, allow_pickle=False)
        except (OSError, ValueError, EOFError) as error:
            raise DecoderyError(f"{how.ranges} cannot be read as a .npy file: {error}") from None
    given = {**dataclasses.asdict(how), "normalize": normalize, "ranges": ranges}
    del given["sparse"], given["max_active_dims"]
    return given


def _embed_sparse(
    files: Sequence[Path], how: EmbedOptions, lines: LineOptions, model: EncoderOptions
) -> None:
    """Writes the weights of tokens for each line."""
    taken = ("query", "document", "long", "max_active_dims")
    for field in dataclasses.fields(how):
        if field.name not in ("sparse", *taken) and getattr(how, field.name) != field.default:
            flag = field.name.replace("_", "-")
            raise ParameterError(f"--{flag} has no meaning with --sparse")
    arguments: dict[str, Any] = {name: getattr(how, name) for name in taken}

    def work(llm: LLM) -> Callable[[Sequence[Line]], Iterator[dict[str, Any]]]:
        # Wrong arguments are an error here, before the first line.
        llm.embed_sparse([], **arguments)
        return lambda chunk: _sparse_values(llm, chunk, lines.field, arguments)

    settings = {"command": "embed", "sparse": True, **arguments}
    write_json_lines(files, lines, model, settings, work, "embedding")


def _sparse_values(
    llm: LLM, chunk: Sequence[Line], field: str, arguments: dict[str, Any]
) -> Iterator[dict[str, Any]]:
    for line, one in zip(chunk, llm.embed_sparse(_texts(chunk, field), **arguments), strict=True):
        yield {
            **identity_of(line),
            "tokens": one.tokens,
            "lost": one.lost,
            "indices": one.ids.tolist(),
            "values": [float(str(weight)) for weight in one.weights],
        }


def _settings(how: EmbedOptions, arguments: dict[str, Any]) -> dict[str, Any]:
    """Returns what the vectors depend on: the options, with a hash of the ranges in place of their file."""
    ranges = arguments["ranges"]
    digest = None if ranges is None else hashlib.sha256(ranges.tobytes()).hexdigest()
    return {**dataclasses.asdict(how), "ranges": digest}


def _texts(chunk: Sequence[Line], field: str) -> list[str | list[int]]:
    found = []
    for index, line in enumerate(chunk):
        try:
            found.append(text_of(line, field))
        except RequestError as error:
            raise RequestError(str(error), param=f"texts[{index}]") from None
    return found


def _json_lines(chunk: Sequence[Line], found: Embeddings) -> bytes:
    parts = []
    for line, vector, tokens, lost in zip(chunk, found, found.tokens, found.lost, strict=True):
        fields = {**identity_of(line), "tokens": int(tokens), "lost": int(lost)}
        parts.append(f'{json.dumps(fields, ensure_ascii=False)[:-1]}, "embedding": [{_numbers(vector)}]}}\n')
    return "".join(parts).encode("utf-8", "replace")


def _numbers(vector: Vector) -> str:
    """Returns the shortest texts that give the same numbers again."""
    return ", ".join(vector.astype(str).tolist())


def _head(suffix: str, shape: tuple[int, int], precision: str) -> bytes:
    """Returns the bytes before the vectors, as many as `HEADS` says."""
    dtype = dtype_of(precision)
    if suffix == ".npy":
        fields = f"{{'descr': '{dtype.str}', 'fortran_order': False, 'shape': {shape}, }}"
        size = HEADS[suffix] - 10
        return b"\x93NUMPY\x01\x00" + size.to_bytes(2, "little") + f"{fields:<{size - 1}}\n".encode()
    if suffix == ".safetensors":
        tensor = {
            "dtype": ELEMENTS[dtype.name],
            "shape": shape,
            "data_offsets": [0, shape[0] * shape[1] * dtype.itemsize],
        }
        size = HEADS[suffix] - 8
        content = json.dumps({"embeddings": tensor})
        return size.to_bytes(8, "little") + f"{content:<{size}}".encode()
    return b""
