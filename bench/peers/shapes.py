"""Provides the models that are measured as GGUF files: the default model, and Llamas of random weights."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import gguf
import numpy
from numpy.typing import NDArray

from bench.peers.conversions import CACHE
from decodery.weights.sources.locate import resolve


@dataclass(frozen=True)
class Sizes:
    """Holds the sizes of a Llama whose head is its embedding."""

    layers: int
    width: int
    mlp_width: int
    heads: int
    kv_heads: int
    head_dim: int = 64


# The sizes of Llama 3.2 1B; the vocabulary is the default model's.
SHAPES = {"1b": Sizes(layers=16, width=2048, mlp_width=8192, heads=32, kv_heads=8)}


def gguf_of(shape: str) -> Path:
    """Returns the file of a shape, and writes it first if it is missing."""
    default = resolve(None)
    if shape == "default":
        return default
    path = CACHE / shape / f"{shape}.gguf"
    if not path.exists():
        path.parent.mkdir(parents=True, exist_ok=True)
        staged = path.with_suffix(".partial")
        print(f"writing {path} ...")
        write(staged, SHAPES[shape], default)
        staged.rename(path)
    return path


def write(path: Path, sizes: Sizes, like: Path) -> None:
    """Writes a GGUF of random weights in Q4_0, with an embedding in Q8_0 and the vocabulary of `like`."""
    writer = gguf.GGUFWriter(path, "llama")
    vocabulary = _copy_vocabulary(writer, gguf.GGUFReader(like))
    writer.add_vocab_size(vocabulary)
    writer.add_context_length(8192)
    writer.add_block_count(sizes.layers)
    writer.add_embedding_length(sizes.width)
    writer.add_feed_forward_length(sizes.mlp_width)
    writer.add_head_count(sizes.heads)
    writer.add_head_count_kv(sizes.kv_heads)
    writer.add_rope_dimension_count(sizes.head_dim)
    writer.add_rope_freq_base(500_000.0)
    writer.add_layer_norm_rms_eps(1e-5)
    rng = numpy.random.default_rng(0)
    four, eight = gguf.GGMLQuantizationType.Q4_0, gguf.GGMLQuantizationType.Q8_0
    ones = numpy.ones(sizes.width, dtype=numpy.float32)
    writer.add_tensor("token_embd.weight", _blocks(rng, vocabulary, sizes.width, 32, 0.0003), raw_dtype=eight)
    writer.add_tensor("output_norm.weight", ones)
    queries, keys = sizes.heads * sizes.head_dim, sizes.kv_heads * sizes.head_dim
    matrices = {
        "attn_q": (queries, sizes.width),
        "attn_k": (keys, sizes.width),
        "attn_v": (keys, sizes.width),
        "attn_output": (sizes.width, queries),
        "ffn_gate": (sizes.mlp_width, sizes.width),
        "ffn_up": (sizes.mlp_width, sizes.width),
        "ffn_down": (sizes.width, sizes.mlp_width),
    }
    for layer in range(sizes.layers):
        for name, (rows, columns) in matrices.items():
            # Codes of 4 bits are uniform from -8 to 7, so the weights' standard deviation is about 0.02.
            writer.add_tensor(
                f"blk.{layer}.{name}.weight", _blocks(rng, rows, columns, 16, 0.0043), raw_dtype=four
            )
        for name in ("attn_norm", "ffn_norm"):
            writer.add_tensor(f"blk.{layer}.{name}.weight", ones)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()


def _copy_vocabulary(writer: gguf.GGUFWriter, reader: gguf.GGUFReader) -> int:
    """Copies all metadata of the tokenizer, and returns the number of tokens."""
    for name, field in reader.fields.items():
        if name.startswith("tokenizer."):
            kind, *inner = field.types
            writer.add_key_value(name, field.contents(), kind, inner[0] if inner else None)
    return len(reader.fields["tokenizer.ggml.tokens"].contents())


def _blocks(
    rng: numpy.random.Generator, rows: int, columns: int, code_bytes: int, scale: float
) -> NDArray[numpy.uint8]:
    """Returns random codes in blocks of 32 weights, each after its scale: uint8 [rows, bytes of a row]."""
    blocks = rng.integers(0, 256, (rows * columns // 32, 2 + code_bytes), dtype=numpy.uint8)
    blocks[:, :2] = numpy.frombuffer(numpy.float16(scale).tobytes(), dtype=numpy.uint8)
    return blocks.reshape(rows, -1)
