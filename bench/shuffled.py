"""Writes a model that computes the same function as another, with its channels in another order.

The 4-bit weights of a file have few values in each group of 32, so packing them in 4 bits again finds the
same values and loses nothing. With the channels in another order, each group has weights of many old groups,
as in a model that never was quantised. The function is the same except for the order of its sums.
"""

from __future__ import annotations

from pathlib import Path

import gguf
import torch
from torch import Tensor

from decodery.weights.formats.opening import open_checkpoint

# The channels of each dimension of a tensor: the residual stream's, the MLP's, or those of the heads' values.
ALONG = {
    "token_embd": {1: "stream"},
    "output_norm": {0: "stream"},
    "output": {1: "stream"},
    "attn_norm": {0: "stream"},
    "ffn_norm": {0: "stream"},
    "attn_q": {1: "stream"},
    "attn_k": {1: "stream"},
    "attn_v": {0: "values", 1: "stream"},
    "attn_output": {0: "stream", 1: "attended"},
    "ffn_gate": {0: "inner", 1: "stream"},
    "ffn_up": {0: "inner", 1: "stream"},
    "ffn_down": {0: "stream", 1: "inner"},
}


def shuffle_channels(model: Path, to: Path) -> None:
    """Writes a GGUF Llama as a float32 GGUF file with all its channels shuffled."""
    writer = gguf.GGUFWriter(to, "llama")
    # The package's own reader does not give the types of metadata, which the writer needs.
    for field in gguf.GGUFReader(model).fields.values():
        if field.name != "general.architecture" and not field.name.startswith("GGUF."):
            kind, inner = field.types[0], field.types[-1] if len(field.types) > 1 else None
            writer.add_key_value(field.name, field.contents(), kind, inner)
    with open_checkpoint(model) as checkpoint:
        orders = _orders(
            checkpoint.config["llama.embedding_length"],
            checkpoint.config["llama.feed_forward_length"],
            checkpoint.config["llama.attention.head_count"],
            checkpoint.config["llama.attention.head_count_kv"],
        )
        for name in checkpoint.tensors:
            tensor = checkpoint.read(name, torch.float32)
            for dimension, channels in ALONG[name.split(".")[-2]].items():
                tensor = tensor.index_select(dimension, orders[channels])
            writer.add_tensor(name, tensor.numpy())
        writer.write_header_to_file()
        writer.write_kv_data_to_file()
        writer.write_tensors_to_file()
    writer.close()


def _orders(width: int, inner: int, heads: int, kv_heads: int) -> dict[str, Tensor]:
    generator = torch.Generator().manual_seed(0)

    def shuffled(count: int) -> Tensor:
        return torch.randperm(count, generator=generator)

    dim = width // heads
    # The values of a head stay in it, and all query heads that share a head of values have the same order.
    within = torch.stack([shuffled(dim) for _ in range(kv_heads)])
    shared = within.repeat_interleave(heads // kv_heads, 0)
    return {
        "stream": shuffled(width),
        "inner": shuffled(inner),
        "values": (within + dim * torch.arange(kv_heads)[:, None]).flatten(),
        "attended": (shared + dim * torch.arange(heads)[:, None]).flatten(),
    }
