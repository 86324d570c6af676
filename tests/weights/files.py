"""Writes small checkpoints for tests: valid ones with the formats' own writers, and GGUF files that
contradict themselves.
"""

from __future__ import annotations

import json
import struct
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import gguf
import numpy as np
import torch
from numpy.typing import NDArray
from safetensors.torch import save_file

U32, F32_VALUE, BOOL, STRING, ARRAY = 4, 6, 7, 8, 9
TOKENS = ["<s>", "a", "é", "日本"]


def random_blocks(
    kind: gguf.GGMLQuantizationType, rows: int, columns: int, seed: int = 0
) -> NDArray[np.uint8]:
    """Returns rows of random blocks of this type, all of which decode to finite values."""
    block, size = gguf.GGML_QUANT_SIZES[kind]
    generator = np.random.default_rng(seed)
    blocks = np.zeros((rows * columns // block, size), np.uint8)
    bad = np.ones(len(blocks), bool)
    while bad.any():
        blocks[bad] = generator.integers(0, 256, (int(bad.sum()), size), np.uint8)
        with np.errstate(all="ignore"):
            bad = ~np.isfinite(gguf.dequantize(blocks, kind)).all(axis=1)
    return blocks.reshape(rows, -1)


def write_gguf(path: Path) -> Path:
    """Writes a complete file with every type of metadata and a few tensors, with the gguf package's own
    writer.
    """
    writer = gguf.GGUFWriter(path, "llama")
    writer.add_uint32("llama.block_count", 2)
    writer.add_float32("llama.rope.freq_base", 10000.0)
    writer.add_bool("tokenizer.ggml.add_bos_token", False)
    writer.add_uint64("test.wide", 1 << 40)
    writer.add_array("tokenizer.ggml.tokens", TOKENS)
    writer.add_array("tokenizer.ggml.token_type", [3, 1, 1, 1])
    writer.add_array("test.scores", [0.5, -1.0])
    writer.add_array("test.flags", [True, False])
    generator = np.random.default_rng(0)
    writer.add_tensor("norm", generator.standard_normal(32).astype(np.float32))
    writer.add_tensor("half", generator.standard_normal((3, 5)).astype(np.float16))
    writer.add_tensor("ids", np.arange(6, dtype=np.int32))
    for kind in (gguf.GGMLQuantizationType.Q8_0, gguf.GGMLQuantizationType.Q4_K):
        writer.add_tensor(kind.name.lower(), random_blocks(kind, 4, 256), raw_dtype=kind)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return path


def text(value: str | bytes) -> bytes:
    raw = value.encode() if isinstance(value, str) else value
    return struct.pack("<Q", len(raw)) + raw


def entry(key: str | bytes, kind: int, payload: bytes) -> bytes:
    return text(key) + struct.pack("<I", kind) + payload


def array(kind: int, count: int, payload: bytes = b"") -> bytes:
    return struct.pack("<IQ", kind, count) + payload


def tensor(name: str | bytes, shape: tuple[int, ...] = (8,), kind: int = 0, offset: int = 0) -> bytes:
    """Returns the entry of a tensor; `shape` is in torch order."""
    dimensions = struct.pack(f"<I{len(shape)}Q", len(shape), *reversed(shape))
    return text(name) + dimensions + struct.pack("<IQ", kind, offset)


def gguf_bytes(
    entries: tuple[bytes, ...] = (),
    tensors: tuple[bytes, ...] = (),
    data: bytes = bytes(64),
    *,
    version: int = 3,
    entry_count: int | None = None,
    tensor_count: int | None = None,
    alignment: int = 32,
) -> bytes:
    """Returns the bytes of a file whose counts and entries may be false."""
    counts = (
        len(tensors) if tensor_count is None else tensor_count,
        len(entries) if entry_count is None else entry_count,
    )
    head = b"GGUF" + struct.pack("<IQQ", version, *counts) + b"".join((*entries, *tensors))
    return head + bytes(-len(head) % alignment) + data


def write_folder(
    folder: Path,
    shards: Mapping[str, Mapping[str, torch.Tensor]],
    config: Mapping[str, Any] | None = None,
) -> Path:
    """Writes a hub folder; with several shards it gets an index."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "config.json").write_text(json.dumps(config or {"model_type": "llama"}))
    for file, tensors in shards.items():
        save_file(dict(tensors), folder / file)
    if len(shards) > 1:
        write_index(folder, {name: file for file, tensors in shards.items() for name in tensors})
    return folder


def write_index(folder: Path, weight_map: Mapping[str, str]) -> None:
    (folder / "model.safetensors.index.json").write_text(json.dumps({"weight_map": dict(weight_map)}))
