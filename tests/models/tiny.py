"""Makes tiny random Llama models for tests: in memory, as a hub folder, as a GGUF file."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import gguf
import torch
from safetensors.torch import load_file
from torch import Tensor

from decodery.kernels.contract import Kernels
from decodery.kernels.native import library
from decodery.kernels.native.native_kernels import NativeKernels
from decodery.kernels.reference import torch_kernels
from decodery.models.decoders.llama import CONFIG, Llama
from decodery.models.layers.embedding import Embedding
from decodery.models.layers.linear import Linear
from decodery.models.layers.mlp import GatedLinear

HUB: dict[str, Any] = {
    "architectures": ["LlamaForCausalLM"],
    "model_type": "llama",
    "vocab_size": 97,
    "hidden_size": 48,
    "intermediate_size": 80,
    "num_hidden_layers": 3,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "head_dim": 12,
    "max_position_embeddings": 512,
    "rms_norm_eps": 1e-5,
    "rope_theta": 10000.0,
    "tie_word_embeddings": True,
}


def tiny_model(
    dtype: torch.dtype = torch.float32, seed: int = 0, kernels: Kernels = torch_kernels, **overrides: Any
) -> Llama:
    """Returns a Llama with random weights; overrides are keys of a hub config.json."""
    model = Llama(CONFIG.from_hub({**HUB, **overrides}), kernels)
    _randomise(model, seed)
    return model.to(dtype).eval().requires_grad_(False)


def default_model(seed: int = 0, **overrides: Any) -> Llama:
    """Returns `tiny_model` on the default backend: native where it is built, else torch.

    Only native results do not depend on the batch bit for bit, so tests of that law are marked `built`.
    """
    if not library.available():
        return tiny_model(seed=seed, **overrides)
    model = tiny_model(seed=seed, kernels=NativeKernels(), **overrides)
    for module in model.modules():
        if isinstance(module, (Linear, GatedLinear, Embedding)):
            module.pack()
    return model


def tiny_llama_folder(path: Path, seed: int = 0, **overrides: Any) -> Path:
    """Writes a hub folder with transformers, with random weights; overrides are keys of its config.json."""
    from transformers import LlamaConfig as HubConfig
    from transformers import LlamaForCausalLM

    model = LlamaForCausalLM(HubConfig(**{**HUB, **overrides}))
    _randomise(model, seed)
    model.save_pretrained(path)
    return path


def tiny_llama_gguf(
    path: Path,
    folder: Path,
    metadata: Mapping[str, Any] | None = None,
    tensors: Mapping[str, Tensor] | None = None,
    per_part: int = 0,
) -> Path:
    """Writes the F32 GGUF file of a folder of `tiny_llama_folder`, with further metadata and tensors.

    With `per_part` tensors in each, writes the parts of a split model: STEM-00001-of-00003.gguf and so on.
    """
    config = json.loads((folder / "config.json").read_text(encoding="utf-8"))
    writer = gguf.GGUFWriter(path, "llama", split_max_tensors=per_part)
    writer.add_block_count(config["num_hidden_layers"])
    writer.add_context_length(config["max_position_embeddings"])
    writer.add_embedding_length(config["hidden_size"])
    writer.add_feed_forward_length(config["intermediate_size"])
    writer.add_head_count(config["num_attention_heads"])
    writer.add_head_count_kv(config["num_key_value_heads"])
    writer.add_key_length(config["head_dim"])
    writer.add_value_length(config["head_dim"])
    writer.add_layer_norm_rms_eps(config["rms_norm_eps"])
    writer.add_rope_freq_base(config["rope_parameters"]["rope_theta"])
    writer.add_rope_dimension_count(config["head_dim"])
    for key, value in (metadata or {}).items():
        writer.add_key_value(key, value, gguf.GGUFValueType.get_type(value))
    for name, tensor in load_file(folder / "model.safetensors").items():
        heads = {"q_proj": config["num_attention_heads"], "k_proj": config["num_key_value_heads"]}
        part = name.split(".")[-2]
        stored = _permute(tensor, heads[part]) if part in heads else tensor
        writer.add_tensor(_gguf_name(name), stored.numpy())
    for name, tensor in (tensors or {}).items():
        writer.add_tensor(name, tensor.numpy())
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return path


def _randomise(model: torch.nn.Module, seed: int) -> None:
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            noise = torch.randn(parameter.shape, generator=generator)
            if name.endswith("norm.weight"):
                parameter.copy_(1 + 0.1 * noise)
            elif parameter.dim() == 1:
                parameter.copy_(0.1 * noise)
            else:
                parameter.copy_(noise * 1.5 * parameter.shape[-1] ** -0.5)


def _permute(tensor: Tensor, heads: int) -> Tensor:
    """Returns the rows in the order of GGUF files for queries and keys: the halves of a head interleaved."""
    halves = tensor.reshape(heads, 2, -1, *tensor.shape[1:])
    return halves.transpose(1, 2).reshape(tensor.shape).contiguous()


GGUF_NAMES = {
    "model.embed_tokens": "token_embd",
    "model.norm": "output_norm",
    "lm_head": "output",
    "input_layernorm": "attn_norm",
    "post_attention_layernorm": "ffn_norm",
    "self_attn.q_proj": "attn_q",
    "self_attn.k_proj": "attn_k",
    "self_attn.v_proj": "attn_v",
    "self_attn.o_proj": "attn_output",
    "mlp.gate_proj": "ffn_gate",
    "mlp.up_proj": "ffn_up",
    "mlp.down_proj": "ffn_down",
}


def _gguf_name(name: str) -> str:
    stem, kind = name.rsplit(".", 1)
    if not stem.startswith("model.layers."):
        return f"{GGUF_NAMES[stem]}.{kind}"
    _, _, layer, part = stem.split(".", 3)
    return f"blk.{layer}.{GGUF_NAMES[part]}.{kind}"
