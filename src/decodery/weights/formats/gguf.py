"""Reads GGUF checkpoints: validates the header over a memory map, and dequantises tensors.

The format is specified in ggml's docs/gguf.md (https://github.com/ggml-org/ggml/blob/master/docs/gguf.md).
"""

from __future__ import annotations

import math
import mmap
import struct
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal

import torch

from decodery.errors import CheckpointError
from decodery.weights.formats.checkpoint import Checkpoint, TensorInfo
from decodery.weights.formats.dequantise import UnknownTypeError, dequantise
from decodery.weights.formats.element_types import ELEMENT_TYPES

VERSIONS = (2, 3)
DEFAULT_ALIGNMENT = 32
MOST_DIMENSIONS = 4
DEEPEST_ARRAY = 4

# Metadata value types: those of fixed size by their struct code, and the three others.
FIXED = {0: "B", 1: "b", 2: "H", 3: "h", 4: "I", 5: "i", 6: "f", 10: "Q", 11: "q", 12: "d"}
BOOL, STRING, ARRAY = 7, 8, 9

# Torch's names of the plain element types; the other types are stored in blocks.
PLAIN = {
    "F64": "float64",
    "F32": "float32",
    "F16": "float16",
    "BF16": "bfloat16",
    "I64": "int64",
    "I32": "int32",
    "I16": "int16",
    "I8": "int8",
}


class GgufCheckpoint(Checkpoint):
    """Reads a GGUF file of version 2 or 3, little-endian; see `Checkpoint`.

    `config` is the metadata. Its strings are decoded as UTF-8 with Python's "surrogateescape", so that a
    token which is not valid UTF-8 is preserved: `text.encode("utf-8", "surrogateescape")` gives its bytes
    back. Raises CheckpointError for a header that is damaged or contradicts the file, before memory of a
    claimed size is allocated. A file may be a part of a split model (`open_gguf` opens all parts).
    """

    format: Literal["safetensors", "gguf"] = "gguf"

    def __init__(self, path: Path) -> None:
        self.path = path
        self.generation_config: Mapping[str, Any] = {}
        self._map: mmap.mmap | None = _map_file(path)
        try:
            self.config, self.tensors, self._offsets = _read_header(self._map)
        except _DamagedError as error:
            self.close()
            raise CheckpointError(f"{path}: {error}") from None

    def close(self) -> None:
        # Not mmap.close(), which raises while a tensor still uses the map: the last tensor frees it.
        self._map = None

    def _read(self, info: TensorInfo, dtype: torch.dtype) -> torch.Tensor:
        return self._read_at(info, self._offsets[info.name], dtype)

    def read_part(self, name: str, index: int, dtype: torch.dtype) -> torch.Tensor:
        part = _part(self.tensors[name])
        return self._read_at(part, self._offsets[name] + index * part.nbytes, dtype)

    def _read_at(self, info: TensorInfo, offset: int, dtype: torch.dtype) -> torch.Tensor:
        if self._map is None:
            raise CheckpointError(f"{self.path}: the checkpoint is closed")
        plain = getattr(torch, info.dtype, None)
        if isinstance(plain, torch.dtype):
            count = math.prod(info.shape)
            stored = torch.frombuffer(self._map, dtype=plain, count=count, offset=offset)
            return stored.view(info.shape).to(dtype)
        raw = torch.frombuffer(self._map, dtype=torch.uint8, count=info.nbytes, offset=offset)
        return self._dequantise(info, raw, dtype)

    def blocks(self, name: str, index: int | None = None) -> torch.Tensor:
        if self._map is None:
            raise CheckpointError(f"{self.path}: the checkpoint is closed")
        info = self.tensors[name] if index is None else _part(self.tensors[name])
        offset = self._offsets[name] + (index or 0) * info.nbytes
        raw = torch.frombuffer(self._map, dtype=torch.uint8, count=info.nbytes, offset=offset)
        return raw.view(math.prod(info.shape[:-1]), -1)

    def forget(self, name: str) -> None:
        if self._map is None or not hasattr(mmap, "MADV_DONTNEED"):
            return
        # Only pages that hold nothing else: on the others, neighbouring tensors may be in use.
        page = mmap.PAGESIZE
        start = -(-self._offsets[name] // page) * page
        end = (self._offsets[name] + self.tensors[name].nbytes) // page * page
        if end > start:
            self._map.madvise(mmap.MADV_DONTNEED, start, end - start)

    def _dequantise(self, info: TensorInfo, raw: torch.Tensor, dtype: torch.dtype) -> torch.Tensor:
        block, size = next(
            (kind.block, kind.size) for kind in ELEMENT_TYPES.values() if kind.name == info.dtype
        )
        out = torch.empty(info.shape, dtype=dtype)
        try:
            finite = dequantise(raw.view(-1, size), info.dtype, out.view(-1, block))
        except UnknownTypeError:
            raise CheckpointError(
                f"{self.path}: {info.name} is stored as {info.dtype}, which cannot be read"
            ) from None
        if not finite:
            raise CheckpointError(f"{self.path}: {info.name} is damaged: it holds values that are not finite")
        return out


def _part(info: TensorInfo) -> TensorInfo:
    """Returns the description of one matrix of a stack."""
    return TensorInfo(info.name, info.shape[1:], info.dtype, info.nbytes // info.shape[0])


class _DamagedError(Exception):
    """Reports an error in a header; the message lacks only the file's name."""


def _map_file(path: Path) -> mmap.mmap:
    try:
        with path.open("rb") as file:
            # A private map is writable memory, as torch wants it, and never writes to the file.
            return mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_COPY)
    except ValueError as error:
        raise CheckpointError(f"{path} is empty") from error
    except OSError as error:
        raise CheckpointError(f"{path} cannot be read: {error.strerror or error}") from error


Header = tuple[dict[str, Any], dict[str, TensorInfo], dict[str, int]]


def _read_header(data: mmap.mmap) -> Header:
    """Returns the metadata, the tensors, and the offset of each tensor in the file."""
    cursor = _Cursor(data)
    if data[:4] != b"GGUF":
        raise _DamagedError(
            "not a GGUF file; give a .gguf file, or a folder with config.json and safetensors files"
        )
    cursor.skip(4)
    version = cursor.number("I")
    if version not in VERSIONS:
        order = " or written for big-endian machines" if version & 0xFFFF == 0 else ""
        raise _DamagedError(f"GGUF version {version} is not supported{order}; it must be 2 or 3")
    tensor_count = cursor.number("Q")
    entry_count = cursor.number("Q")
    config = _read_metadata(cursor, entry_count)
    entries = _read_tensor_entries(cursor, tensor_count)
    alignment = config.get("general.alignment", DEFAULT_ALIGNMENT)
    if type(alignment) is not int or alignment < 8 or alignment & (alignment - 1):
        raise _DamagedError(f"general.alignment is {alignment!r}; it must be a power of two, at least 8")
    start = -(-cursor.position // alignment) * alignment
    offsets = {info.name: start + offset for info, offset in entries}
    _check_places([(start + offset, info) for info, offset in entries], alignment, len(data))
    return config, {info.name: info for info, _ in entries}, offsets


def _read_metadata(cursor: _Cursor, count: int) -> dict[str, Any]:
    cursor.expect(count, 13, "metadata entries")
    config: dict[str, Any] = {}
    for _ in range(count):
        key = cursor.name("a metadata key")
        if key in config:
            raise _DamagedError(f"metadata key {key!r} appears twice")
        config[key] = cursor.value(cursor.number("I"))
    return config


def _read_tensor_entries(cursor: _Cursor, count: int) -> list[tuple[TensorInfo, int]]:
    cursor.expect(count, 32, "tensors")
    entries: list[tuple[TensorInfo, int]] = []
    seen: set[str] = set()
    for _ in range(count):
        name = cursor.name("a tensor's name")
        if name in seen:
            raise _DamagedError(f"tensor {name!r} appears twice")
        seen.add(name)
        entries.append((_read_tensor_info(cursor, name), cursor.number("Q")))
    return entries


def _read_tensor_info(cursor: _Cursor, name: str) -> TensorInfo:
    dimensions = cursor.number("I")
    if not 1 <= dimensions <= MOST_DIMENSIONS:
        raise _DamagedError(
            f"tensor {name!r} has {dimensions} dimensions; 1 to {MOST_DIMENSIONS} are possible"
        )
    shape = tuple(cursor.number("Q") for _ in range(dimensions))[::-1]
    code = cursor.number("I")
    if code not in ELEMENT_TYPES:
        raise _DamagedError(f"tensor {name!r} has the unknown type {code}")
    kind, block, size = ELEMENT_TYPES[code]
    if 0 in shape:
        raise _DamagedError(f"tensor {name!r} has a dimension of 0: {shape}")
    if shape[-1] % block:
        raise _DamagedError(
            f"tensor {name!r}: rows of {shape[-1]} cannot be cut into {kind} blocks of {block}"
        )
    nbytes = math.prod(shape) // block * size
    return TensorInfo(name, shape, PLAIN.get(kind, kind), nbytes)


def _check_places(places: list[tuple[int, TensorInfo]], alignment: int, end: int) -> None:
    free = 0
    for offset, info in sorted(places, key=lambda place: place[0]):
        if offset % alignment:
            raise _DamagedError(f"tensor {info.name!r} does not begin at a multiple of {alignment} bytes")
        if offset < free:
            raise _DamagedError(f"tensor {info.name!r} overlaps another one")
        free = offset + info.nbytes
        if free > end:
            raise _DamagedError(f"tensor {info.name!r} ends {free - end} bytes after the file's end")


class _Cursor:
    """Reads little-endian values one after another; raises _DamagedError instead of reading past the end."""

    def __init__(self, data: mmap.mmap) -> None:
        self.data = data
        self.end = len(data)
        self.position = 0

    def skip(self, count: int) -> int:
        """Advances by `count` bytes and returns the offset of the first of them."""
        start = self.position
        if count > self.end - start:
            raise _DamagedError(
                f"truncated or damaged: {count} bytes are claimed at byte {start} of {self.end}"
            )
        self.position = start + count
        return start

    def expect(self, count: int, least: int, what: str) -> None:
        """Raises _DamagedError if the rest of the file cannot hold `count` items of at least `least` bytes
        each.
        """
        if count * least > self.end - self.position:
            raise _DamagedError(f"truncated or damaged: {count} {what} are claimed at byte {self.position}")

    def number(self, code: str) -> Any:
        return struct.unpack_from("<" + code, self.data, self.skip(struct.calcsize("<" + code)))[0]

    def name(self, what: str) -> str:
        start = self.skip(self.number("Q"))
        try:
            return self.data[start : self.position].decode("utf-8")
        except UnicodeDecodeError:
            raise _DamagedError(f"{what} at byte {start} is not UTF-8") from None

    def value(self, kind: int, depth: int = 0) -> Any:
        if kind in FIXED:
            return self.number(FIXED[kind])
        if kind == ARRAY:
            return self.array(depth + 1)
        if kind == STRING:
            return self.strings(1)[0]
        if kind == BOOL:
            return self.truths(1)[0]
        raise self.unknown(kind)

    def array(self, depth: int) -> list[Any]:
        if depth > DEEPEST_ARRAY:
            raise _DamagedError(f"arrays are nested more than {DEEPEST_ARRAY} deep at byte {self.position}")
        kind = self.number("I")
        count = self.number("Q")
        if kind in FIXED:
            code = FIXED[kind]
            self.expect(count, struct.calcsize("<" + code), "array elements")
            start = self.skip(count * struct.calcsize("<" + code))
            return list(struct.unpack_from(f"<{count}{code}", self.data, start))
        if kind == STRING:
            return self.strings(count)
        if kind == ARRAY:
            self.expect(count, 12, "arrays")
            return [self.array(depth + 1) for _ in range(count)]
        if kind == BOOL:
            return self.truths(count)
        raise self.unknown(kind)

    def unknown(self, kind: int) -> _DamagedError:
        return _DamagedError(f"unknown metadata type {kind} before byte {self.position}")

    def truths(self, count: int) -> list[bool]:
        start = self.skip(count)
        values = self.data[start : self.position]
        if values.strip(b"\0\1"):
            raise _DamagedError(f"a truth value at byte {start} is neither 0 nor 1")
        return [value == 1 for value in values]

    def strings(self, count: int) -> list[str]:
        # A vocabulary has a hundred thousand strings, so this uses local names and no call for each of them.
        self.expect(count, 8, "strings")
        data, end, position = self.data, self.end, self.position
        length_at = struct.Struct("<Q").unpack_from
        texts: list[str] = []
        for _ in range(count):
            if end - position < 8:
                raise _DamagedError(f"truncated or damaged: strings pass the file's end at byte {position}")
            (length,) = length_at(data, position)
            position += 8
            if length > end - position:
                raise _DamagedError(f"truncated or damaged: a string of {length} bytes at byte {position}")
            texts.append(data[position : position + length].decode("utf-8", "surrogateescape"))
            position += length
        self.position = position
        return texts
