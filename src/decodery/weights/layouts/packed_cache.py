"""Packed weights kept in a file, which is mapped as it is when the same checkpoint is opened again.

The file is eight bytes that name the format, the header's length in eight more (little-endian), its SHA-256,
the header in JSON, and each weight's bytes on a cache line's border.
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
from decodery.kernels.packed_weights import Format, PackedWeight, Stacked, packed_bytes
from decodery.version import __version__
from decodery.weights.sources.model_cache import packed_folder

Weights = Mapping[str, Tensor | PackedWeight | Stacked]
Piece = Tensor | PackedWeight

MAGIC = b"DECODPK2"
BORDER = 64
# Kernels may read a little beyond a weight's end.
SLACK = 128
DIGEST = 32
# So much of each file's beginning is hashed: hashing all of a large model takes longer than packing it.
HASHED = 1 << 20


@dataclass(frozen=True)
class PackedCache:
    """The place in our cache for one checkpoint's weights, packed in one way.

    `source` is a .gguf file or a folder; `quantization` says in a word how its weights are packed ("": as
    they are stored). A file in that place is used only if its header names the same source (its path, and of
    each of its files the size, the time of the last change and a hash of the first megabyte), the same way of
    packing, and the same versions of this package and its kernels.
    """

    source: Path
    quantization: str = ""

    @property
    def path(self) -> Path:
        """Where the file is, or would be; another content of the same source takes its place."""
        words = f"{self.source.resolve()}\n{self.quantization}".encode()
        return packed_folder() / f"{self.source.stem}-{hashlib.sha256(words).hexdigest()[:12]}.packed"

    def read(self) -> Weights | None:
        """The weights by name, as views of the mapped file; None when no file there is whole and fits."""
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
        """Keep these weights in place of older ones; when that cannot be done, warn and do nothing else.

        `identity` is what `identity()` was before they were read: what changes meanwhile is packed again.
        """
        try:
            self.path.parent.mkdir(parents=True, exist_ok=True)
            with tempfile.NamedTemporaryFile(dir=self.path.parent, prefix=".packing-", delete=False) as file:
                try:
                    _write(file, identity, weights)
                    # Nothing incomplete ever has the final name, not even when the machine stops now.
                    file.flush()
                    os.fsync(file.fileno())
                    os.replace(file.name, self.path)
                except BaseException:
                    # An interrupt may come after the file has its name.
                    Path(file.name).unlink(missing_ok=True)
                    raise
        except OSError as error:
            why = error.strerror or error
            warnings.warn(
                f"packed weights cannot be kept in {self.path}: {why}", RuntimeWarning, stacklevel=2
            )

    def identity(self) -> dict[str, Any]:
        """What the weights are made of and how. Raises OSError where the source cannot be read."""
        found = [self.source] if self.source.is_file() else sorted(self.source.iterdir())
        files = [
            file
            for file in found
            if file.is_file() and (file.name == "config.json" or file.suffix in (".gguf", ".safetensors"))
        ]
        return {
            "source": str(self.source.resolve()),
            "files": [[f.name, f.stat().st_size, f.stat().st_mtime_ns, _beginning(f)] for f in files],
            "quantization": self.quantization,
            "versions": [__version__, VERSION],
        }


def weights_of(module: nn.Module) -> Weights:
    """All parameters and packed weights of a module, by name."""
    packed = {
        f"{name}.{attribute}": value
        for name, owner in module.named_modules()
        for attribute, value in vars(owner).items()
        if isinstance(value, (PackedWeight, Stacked))
    }
    return {**packed, **{name: parameter.detach() for name, parameter in module.named_parameters()}}


def give_weights(module: nn.Module, weights: Weights) -> bool:
    """Put weights in place of the parameters of the same names; False, and nothing done, where they differ in
    names, shapes or dtypes. A packed weight fits a parameter of its shape."""
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
        end += -(-weight.nbytes // BORDER) * BORDER + SLACK
    header = json.dumps({"identity": identity, "size": end, "weights": entries}).encode()
    digest = hashlib.sha256(header).digest()
    start = _border(file.write(MAGIC + len(header).to_bytes(8, "little") + digest + header))
    for name, weight in pieces.items():
        file.seek(start + entries[name]["offset"])
        data = weight.data if isinstance(weight, PackedWeight) else weight.contiguous().flatten()
        file.write(data.view(torch.uint8).numpy().data)
    file.truncate(start + end)


def _pieces(weights: Weights) -> dict[str, Piece]:
    """The weights with the parts of stacked ones for themselves, numbered behind a #."""
    pieces: dict[str, Piece] = {}
    for name, weight in weights.items():
        if isinstance(weight, Stacked):
            pieces |= {f"{name}#{i}": part for i, part in enumerate(weight.parts)}
        else:
            pieces[name] = weight
    return pieces


def _joined(pieces: Mapping[str, Piece]) -> Weights:
    """What `_pieces` took apart."""
    weights: dict[str, Tensor | PackedWeight | Stacked] = {}
    for name, piece in pieces.items():
        whole, _, number = name.partition("#")
        if not number:
            weights[name] = piece
            continue
        before = weights.get(whole)
        if not isinstance(piece, PackedWeight):
            raise ValueError("a part that is no packed weight")
        weights[whole] = Stacked((*(before.parts if isinstance(before, Stacked) else ()), piece))
    return weights


def _read_header(data: mmap.mmap) -> tuple[dict[str, Any], int]:
    """The header, and where the weights begin. Raises ValueError where there is none."""
    first = len(MAGIC) + 8 + DIGEST
    end = first + int.from_bytes(data[len(MAGIC) : len(MAGIC) + 8], "little")
    header = data[first:end]
    if data[: len(MAGIC)] != MAGIC or data[first - DIGEST : first] != hashlib.sha256(header).digest():
        raise ValueError("no packed weights")
    return json.loads(header), _border(end)


def _border(position: int) -> int:
    return -(-position // BORDER) * BORDER


def _described(weight: Piece) -> dict[str, Any]:
    if isinstance(weight, PackedWeight):
        return {
            "format": weight.format.name,
            "rows": weight.rows,
            "columns": weight.columns,
            "gated": weight.gated,
        }
    return {"dtype": str(weight.dtype).removeprefix("torch."), "shape": list(weight.shape)}


def _weight(data: mmap.mmap, start: int, entry: Mapping[str, Any]) -> Piece:
    """One weight; ValueError or KeyError when what is told of it cannot be."""
    offset = start + entry["offset"]
    if offset % BORDER:
        raise ValueError("a weight does not begin on a border")
    if "format" not in entry:
        dtype, shape = getattr(torch, entry["dtype"]), entry["shape"]
        return torch.frombuffer(data, dtype=dtype, count=math.prod(shape), offset=offset).view(shape)
    form, rows, columns = Format[entry["format"]], entry["rows"], entry["columns"]
    size = packed_bytes(form, rows, columns, gated=entry["gated"])
    # With the slack, so that no file ends where kernels still read.
    room = torch.frombuffer(data, dtype=torch.uint8, count=size + SLACK, offset=offset)
    return PackedWeight(room[:size], rows, columns, form, entry["gated"])
