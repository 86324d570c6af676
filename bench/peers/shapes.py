"""Provides the models that are measured as GGUF files: the default model, and random weights of other
shapes.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import gguf
import numpy
import torch
from numpy.typing import NDArray

from bench.peers.conversions import CACHE
from decodery.kernels.reference import torch_kernels
from decodery.models.architectures import HUB
from decodery.models.families import Architecture
from decodery.models.load import build_empty
from decodery.weights.parameters import export_parameters
from decodery.weights.sources.locate import resolve

TOKENS = "tokenizer.ggml.tokens"
# The architecture of each shape and the settings of its config.json. The vocabulary is the default
# model's, and has further tokens where a shape needs more.
SHAPES: Mapping[str, tuple[str, Mapping[str, Any]]] = {
    "1b": (
        "LlamaForCausalLM",
        {
            "num_hidden_layers": 16,
            "hidden_size": 2048,
            "intermediate_size": 8192,
            "num_attention_heads": 32,
            "num_key_value_heads": 8,
            "max_position_embeddings": 8192,
            "rope_theta": 500_000.0,
            "rms_norm_eps": 1e-5,
            "tie_word_embeddings": True,
        },
    ),
    "gpt2": ("GPT2LMHeadModel", {"n_layer": 12, "n_embd": 768, "n_head": 12, "n_positions": 8192}),
    "qwen3-0.6b": (
        "Qwen3ForCausalLM",
        {
            "num_hidden_layers": 28,
            "hidden_size": 1024,
            "intermediate_size": 3072,
            "num_attention_heads": 16,
            "num_key_value_heads": 8,
            "head_dim": 128,
            "max_position_embeddings": 8192,
            "rope_theta": 1_000_000.0,
            "tie_word_embeddings": True,
        },
    ),
    "gemma3-270m": (
        "Gemma3ForCausalLM",
        {
            "vocab_size": 262_144,
            "num_hidden_layers": 18,
            "hidden_size": 640,
            "intermediate_size": 2048,
            "num_attention_heads": 4,
            "num_key_value_heads": 1,
            "head_dim": 256,
            "query_pre_attn_scalar": 256,
            "sliding_window": 512,
            "max_position_embeddings": 8192,
        },
    ),
    "moe": (
        "MixtralForCausalLM",
        {
            "num_hidden_layers": 12,
            "hidden_size": 1024,
            "intermediate_size": 2816,
            "num_attention_heads": 16,
            "num_key_value_heads": 4,
            "num_local_experts": 8,
            "num_experts_per_tok": 2,
            "sliding_window": None,
            "max_position_embeddings": 8192,
            "tie_word_embeddings": True,
        },
    ),
    # A dense model of the size that is active in "moe".
    "moe-active": (
        "LlamaForCausalLM",
        {
            "num_hidden_layers": 12,
            "hidden_size": 1024,
            "intermediate_size": 5632,
            "num_attention_heads": 16,
            "num_key_value_heads": 4,
            "max_position_embeddings": 8192,
            "tie_word_embeddings": True,
        },
    ),
}


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
        write(staged, *SHAPES[shape], default)
        staged.rename(path)
    return path


def write(path: Path, architecture: str, settings: Mapping[str, Any], like: Path) -> None:
    """Writes a GGUF of random weights in Q4_0, with an embedding in Q8_0 and the vocabulary of `like`."""
    reader = gguf.GGUFReader(like)
    tokens = reader.fields[TOKENS].contents()
    family, head = HUB[architecture]
    size = settings.get("vocab_size", len(tokens))
    config = family.config.from_hub({**settings, "vocab_size": size})
    assert family.gguf is not None
    assert family.gguf_names is not None
    writer = gguf.GGUFWriter(path, family.gguf)
    _copy_vocabulary(writer, reader, size)
    metadata, tensors = family.config.to_gguf(config, family.gguf)
    for key, value in metadata.items():
        if key != "general.architecture":
            kind, inner = _kind_of(value)
            writer.add_key_value(key, value, kind, inner)
    for name, tensor in tensors.items():
        writer.add_tensor(name, tensor.numpy())
    model = build_empty(Architecture(architecture, family, head), config, torch_kernels)
    rng = numpy.random.default_rng(0)
    for name, parameter in export_parameters(model, family.gguf_names(config).rules, config.layers):
        _add_random(writer, rng, name, parameter.shape)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()


def _add_random(writer: gguf.GGUFWriter, rng: numpy.random.Generator, name: str, shape: torch.Size) -> None:
    four, eight = gguf.GGMLQuantizationType.Q4_0, gguf.GGMLQuantizationType.Q8_0
    if len(shape) == 1:
        weight = name.endswith("weight")
        writer.add_tensor(name, numpy.full(shape, float(weight), dtype=numpy.float32))
    elif name in ("position_embd.weight",) or "ffn_gate_inp" in name:
        writer.add_tensor(name, (0.02 * rng.standard_normal(shape)).astype(numpy.float32))
    elif name == "token_embd.weight":
        writer.add_tensor(name, _blocks(rng, shape, 32, 0.0003), raw_dtype=eight)
    else:
        # Codes of 4 bits are uniform from -8 to 7, so the weights' standard deviation is about 0.02.
        writer.add_tensor(name, _blocks(rng, shape, 16, 0.0043), raw_dtype=four)


def _kind_of(value: Any) -> tuple[gguf.GGUFValueType, gguf.GGUFValueType | None]:
    if isinstance(value, list | tuple):
        return gguf.GGUFValueType.ARRAY, _kind_of(value[0])[0]
    if isinstance(value, int) and not isinstance(value, bool):
        return gguf.GGUFValueType.UINT32, None
    return gguf.GGUFValueType.get_type(value), None


def _copy_vocabulary(writer: gguf.GGUFWriter, reader: gguf.GGUFReader, size: int) -> None:
    """Copies all metadata of the tokenizer, with further tokens up to a vocabulary of `size`."""
    for name, field in reader.fields.items():
        if not name.startswith("tokenizer."):
            continue
        kind, *inner = field.types
        content = field.contents()
        if name == TOKENS:
            content = [*content, *(f"<further {i}>" for i in range(size - len(content)))]
        elif name == "tokenizer.ggml.token_type":
            content = [*content, *[int(gguf.TokenType.USER_DEFINED)] * (size - len(content))]
        writer.add_key_value(name, content, kind, inner[0] if inner else None)


def _blocks(
    rng: numpy.random.Generator, shape: torch.Size, code_bytes: int, scale: float
) -> NDArray[numpy.uint8]:
    """Returns random codes in blocks of 32 weights, each after its scale: uint8 [..., bytes of a row]."""
    *rows, columns = shape
    count = int(numpy.prod(shape)) // 32
    blocks = rng.integers(0, 256, (count, 2 + code_bytes), dtype=numpy.uint8)
    blocks[:, :2] = numpy.frombuffer(numpy.float16(scale).tobytes(), dtype=numpy.uint8)
    return blocks.reshape(*rows, columns // 32 * (2 + code_bytes))
