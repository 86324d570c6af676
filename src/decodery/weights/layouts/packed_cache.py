"""Keeps packed weights in a file, which is mapped into memory when the same checkpoint is opened again.

The file is: eight bytes that name the format; the header's length in eight bytes (little-endian); the
header's SHA-256; the header in JSON; each weight's bytes, aligned to a cache line.
"""

from __future__ import annotations

import hashlib
import json
import math
import mmap
import os
import tempfile
import warnings
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

import torch
from torch import Tensor, nn

from decodery.kernels.native.library import VERSION
from decodery.kernels.packed_weights import (
    Format,
    PackedExperts,
    PackedWeight,
    Stacked,
    expert_bytes,
    packed_bytes,
)
from decodery.version import __version__
from decodery.weights.formats.split_names import paths_of_parts
from decodery.weights.sources.model_cache import packed_folder

Weights = Mapping[str, Tensor | PackedWeight | PackedExperts | Stacked]
Piece = Tensor | PackedWeight | PackedExperts

MAGIC = b"DECODPK2"
ALIGNMENT = 64
# Kernels may read so many bytes beyond a weight's end.
SLACK = 128
DIGEST = 32
# The bytes hashed at each file's beginning: hashing all of a large model takes longer than packing it.
HASHED = 1 << 20


@dataclass(frozen=True)
class PackedCache:
    """Reads and writes the packed weights of one checkpoint in our cache.

    `source` is a .gguf file (of a split model the first one) or a folder; `quantization` is the name of the
    packing ("": as stored). A file is used only if its header matches: the same source (its path, and for
    each of its files the size, the time of the last change and a hash of the first megabyte), the same
    packing, and the same versions of this package and its kernels.
    """

    source: Path
    quantization: str = ""

    @property
    def path(self) -> Path:
        """Returns the path of the file, which need not exist.

        It depends on the source's path and the packing only, so changed content of a source replaces its
        file.
        """
        words = f"{self.source.resolve()}\n{self.quantization}".encode()
        return packed_folder() / f"{self.source.stem}-{hashlib.sha256(words).hexdigest()[:12]}.packed"

    def read(self) -> Weights | None:
        """Returns the weights by name, as views of the mapped file; None if there is no complete and matching
        file.
        """
        try:
            with self.path.open("rb") as file:
                # A private map is writable memory, as torch wants it, and never writes to the file.
                data = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_COPY)
            header, start = _read_header(data)
            if header["identity"] != self.identity() or start + header["size"] != len(data):
                return None
            if hasattr(mmap, "MADV_WILLNEED"):
                data.madvise(mmap.MADV_WILLNEED)
            return _joined({name: _weight(data, start, entry) for name, entry in header["weights"].items()})
        except (OSError, ValueError, LookupError, TypeError, AttributeError, ArithmeticError, RuntimeError):
            return None

    def write(self, weights: Weights, identity: Mapping[str, Any]) -> None:
        """Writes these weights and replaces older ones; on failure it warns and does nothing else.

        `identity` is the result of `identity()` from before the weights were read. So if the source changes
        meanwhile, the file does not match and the weights are packed again.
        """
        try:
            self.path.parent.mkdir(parents=True, exist_ok=True)
            with tempfile.NamedTemporaryFile(dir=self.path.parent, prefix=".packing-", delete=False) as file:
                try:
                    _write(file, identity, weights)
                    # The data is on disk before the rename, so that even after a power failure no incomplete
                    # file has the final name.
                    file.flush()
                    os.fsync(file.fileno())
                    os.replace(file.name, self.path)
                except BaseException:
                    # After the rename there is nothing to remove: an interrupt may come that late.
                    Path(file.name).unlink(missing_ok=True)
                    raise
        except OSError as error:
            why = error.strerror or error
            warnings.warn(
                f"packed weights cannot be kept in {self.path}: {why}", RuntimeWarning, stacklevel=2
            )

    def identity(self) -> dict[str, Any]:
        """Returns the sources and the packing of the weights. Raises OSError if the source cannot be read."""
        files = paths_of_parts(self.source) if self.source.is_file() else self._files_of_folder()
        return {
            "source": str(self.source.resolve()),
            "files": [[f.name, f.stat().st_size, f.stat().st_mtime_ns, _beginning(f)] for f in files],
            "quantization": self.quantization,
            "versions": [__version__, VERSION],
        }

    def _files_of_folder(self) -> list[Path]:
        return [
            file
            for file in sorted(self.source.iterdir())
            if file.is_file() and (file.name == "config.json" or file.suffix in (".gguf", ".safetensors"))
        ]


def weight_forms(model: object) -> str:
    """Returns the precisions of a model's weights, such as "float32" or "float32+int8"."""
    weights = weights_of(model).values() if isinstance(model, nn.Module) else ()
    packed = {weight.format.name.lower() for weight in weights if isinstance(weight, PackedWeight)}
    dtype = getattr(model, "dtype", "")
    return "+".join(sorted({str(dtype).removeprefix("torch."), *packed}))


def weights_of(module: nn.Module) -> Weights:
    """Returns all parameters and packed weights of a module, by name."""
    packed = {
        f"{name}.{attribute}": value
        for name, owner in module.named_modules()
        for attribute, value in vars(owner).items()
        if isinstance(value, (PackedWeight, PackedExperts, Stacked))
    }
    return {**packed, **{name: parameter.detach() for name, parameter in module.named_parameters()}}


def give_weights(module: nn.Module, weights: Weights) -> bool:
    """Replaces the parameters of a module by the weights of the same names.

    Returns False and changes nothing if names, shapes or dtypes differ. A packed weight fits a parameter of
    its shape.
    """
    parameters = dict(module.named_parameters())
    if parameters.keys() != weights.keys() or any(
        weights[name].shape != value.shape or weights[name].dtype != value.dtype
        for name, value in parameters.items()
    ):
        return False
    for name, weight in weights.items():
        path, _, attribute = name.rpartition(".")
        owner = module.get_submodule(path)
        delattr(owner, attribute)
        setattr(owner, attribute, nn.Parameter(weight, False) if isinstance(weight, Tensor) else weight)
    return True


def _beginning(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.sha256(file.read(HASHED)).hexdigest()


def _write(file: IO[bytes], identity: Mapping[str, Any], weights: Weights) -> None:
    entries: dict[str, Any] = {}
    end = 0
    pieces = _pieces(weights)
    for name, weight in pieces.items():
        entries[name] = {"offset": end, **_described(weight)}
        end += -(-weight.nbytes // ALIGNMENT) * ALIGNMENT + SLACK
    header = json.dumps({"identity": identity, "size": end, "weights": entries}).encode()
    digest = hashlib.sha256(header).digest()
    start = _aligned(file.write(MAGIC + len(header).to_bytes(8, "little") + digest + header))
    for name, weight in pieces.items():
        file.seek(start + entries[name]["offset"])
        data = weight.contiguous().flatten() if isinstance(weight, Tensor) else weight.data
        file.write(data.view(torch.uint8).numpy().data)
    file.truncate(start + end)


def _pieces(weights: Weights) -> dict[str, Piece]:
    """Returns the weights with each part of a stacked weight separate, numbered after a #."""
    pieces: dict[str, Piece] = {}
    for name, weight in weights.items():
        if isinstance(weight, Stacked):
            pieces |= {f"{name}#{i}": part for i, part in enumerate(weight.parts)}
        else:
            pieces[name] = weight
    return pieces


def _joined(pieces: Mapping[str, Piece]) -> Weights:
    """Joins the parts that `_pieces` separated."""
    weights: dict[str, Piece | Stacked] = {}
    for name, piece in pieces.items():
        stacked, _, number = name.partition("#")
        if not number:
            weights[name] = piece
            continue
        before = weights.get(stacked)
        if not isinstance(piece, PackedWeight):
            raise ValueError("a part that is no packed weight")
        weights[stacked] = Stacked((*(before.parts if isinstance(before, Stacked) else ()), piece))
    return weights


def _read_header(data: mmap.mmap) -> tuple[dict[str, Any], int]:
    """Returns the header and the offset of the first weight; raises ValueError if the header is invalid."""
    first = len(MAGIC) + 8 + DIGEST
    end = first + int.from_bytes(data[len(MAGIC) : len(MAGIC) + 8], "little")
    header = data[first:end]
    if data[: len(MAGIC)] != MAGIC or data[first - DIGEST : first] != hashlib.sha256(header).digest():
        raise ValueError("no packed weights")
    return json.loads(header), _aligned(end)


def _aligned(position: int) -> int:
    return -(-position // ALIGNMENT) * ALIGNMENT


def _described(weight: Piece) -> dict[str, Any]:
    if isinstance(weight, (PackedWeight, PackedExperts)):
        experts = {"experts": weight.experts} if isinstance(weight, PackedExperts) else {}
        return {
            "format": weight.format.name,
            "rows": weight.rows,
            "columns": weight.columns,
            "gated": weight.gated,
            **experts,
        }
    return {"dtype": str(weight.dtype).removeprefix("torch."), "shape": list(weight.shape)}


def _weight(data: mmap.mmap, start: int, entry: Mapping[str, Any]) -> Piece:
    """Returns one weight; raises ValueError or KeyError if its entry is invalid."""
    offset = start + entry["offset"]
    if offset % ALIGNMENT:
        raise ValueError("a weight is not aligned")
    if "format" not in entry:
        dtype, shape = getattr(torch, entry["dtype"]), entry["shape"]
        return torch.frombuffer(data, dtype=dtype, count=math.prod(shape), offset=offset).view(shape)
    form, rows, columns = Format[entry["format"]], entry["rows"], entry["columns"]
    gated, experts = entry["gated"], entry.get("experts")
    size = packed_bytes(form, rows, columns, gated=gated)
    if experts is not None:
        size = experts * expert_bytes(form, rows, columns, gated=gated)
    # With the slack, so that a file that ends within the kernels' reach is an error.
    memory = torch.frombuffer(data, dtype=torch.uint8, count=size + SLACK, offset=offset)
    if experts is not None:
        return PackedExperts(memory[:size], experts, rows, columns, form, gated)
    return PackedWeight(memory[:size], rows, columns, form, gated)
