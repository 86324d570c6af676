"""Defines Llama: a pre-norm decoder with rotary positions, grouped-query attention and a gated MLP.

Touvron et al., LLaMA (2023); Llama Team, The Llama 3 Herd of Models (2024).
"""

from __future__ import annotations

import math
from collections.abc import Mapping, MutableMapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from decodery.errors import ModelError
from decodery.kernels.cache import KVShape
from decodery.kernels.contract import Kernels
from decodery.models.checkpoint_keys import CheckpointKeys
from decodery.models.layers.attention import Angles, Attend, Attention, DenseAttend
from decodery.models.layers.embedding import Embedding
from decodery.models.layers.linear import Linear
from decodery.models.layers.mlp import GatedMLP
from decodery.models.layers.norm import RMSNorm
from decodery.models.layers.rope import Rope, Rotary
from decodery.models.rope_config import rope_from_gguf, rope_from_hub
from decodery.weights.formats.checkpoint import Checkpoint
from decodery.weights.names import Rule, merge, rename, unpermute

_EVEN = "such that a head has an even size"


@dataclass(frozen=True)
class LlamaConfig:
    """Holds the sizes and values of one Llama.

    `from_hub` and `from_gguf` raise ModelError for absurd ones.
    """

    vocab_size: int
    width: int
    layers: int
    heads: int
    kv_heads: int
    head_dim: int
    mlp_width: int
    norm_eps: float
    context_length: int
    rope: Rope
    attention_bias: bool = False
    mlp_bias: bool = False
    tied_head: bool = False

    @classmethod
    def from_hub(cls, config: Mapping[str, Any]) -> LlamaConfig:
        """Reads the content of a config.json."""
        read = CheckpointKeys(config, "config.json")
        width, heads = read.count("hidden_size"), read.count("num_attention_heads")
        if not read.has("head_dim") and width % heads:
            raise read.error("num_attention_heads", f"a divisor of hidden_size ({width})")
        head_dim = read.count("head_dim", width // heads)
        if head_dim % 2:
            raise read.error("head_dim" if read.has("head_dim") else "num_attention_heads", _EVEN)
        kv_heads = read.count("num_key_value_heads", heads)
        if heads % kv_heads:
            raise read.error("num_key_value_heads", f"a divisor of num_attention_heads ({heads})")
        if read.text("hidden_act", "silu") not in ("silu", "swish"):
            raise read.error("hidden_act", "'silu'")
        context_length = read.count("max_position_embeddings", 2048)
        return cls(
            vocab_size=read.count("vocab_size"),
            width=width,
            layers=read.count("num_hidden_layers"),
            heads=heads,
            kv_heads=kv_heads,
            head_dim=head_dim,
            mlp_width=read.count("intermediate_size"),
            norm_eps=read.positive("rms_norm_eps", 1e-6),
            context_length=context_length,
            rope=rope_from_hub(read, head_dim, context_length),
            attention_bias=read.flag("attention_bias", False),
            mlp_bias=read.flag("mlp_bias", False),
            tied_head=read.flag("tie_word_embeddings", False),
        )

    @classmethod
    def from_gguf(cls, checkpoint: Checkpoint) -> LlamaConfig:
        """Reads the keys `llama.*` of a GGUF file; values without a key are derived from its tensors."""
        read, tensors = CheckpointKeys(checkpoint.config, str(checkpoint.path)), checkpoint.tensors
        if checkpoint.config.get("llama.expert_count"):
            raise read.error("llama.expert_count", "0: models with experts are not supported yet")
        width, heads = read.count("llama.embedding_length"), read.count("llama.attention.head_count")
        if not read.has("llama.attention.key_length") and width % heads:
            raise read.error("llama.attention.head_count", f"a divisor of llama.embedding_length ({width})")
        head_dim = read.count("llama.attention.key_length", width // heads)
        if head_dim % 2:
            raise read.error("llama.attention.head_count", _EVEN)
        if read.count("llama.attention.value_length", head_dim) != head_dim:
            raise read.error("llama.attention.value_length", f"the size of a key ({head_dim})")
        kv_heads = read.count("llama.attention.head_count_kv", heads)
        if heads % kv_heads:
            raise read.error("llama.attention.head_count_kv", f"a divisor of the head count ({heads})")
        context_length = read.count("llama.context_length")
        embedding = tensors.get("token_embd.weight")
        return cls(
            vocab_size=read.count("llama.vocab_size", embedding.shape[0] if embedding else None),
            width=width,
            layers=read.count("llama.block_count"),
            heads=heads,
            kv_heads=kv_heads,
            head_dim=head_dim,
            mlp_width=read.count("llama.feed_forward_length"),
            norm_eps=read.positive("llama.attention.layer_norm_rms_epsilon"),
            context_length=context_length,
            rope=rope_from_gguf(
                read, "llama", head_dim, context_length, _gguf_divisors(checkpoint, head_dim)
            ),
            attention_bias="blk.0.attn_q.bias" in tensors,
            mlp_bias="blk.0.ffn_gate.bias" in tensors,
            tied_head="output.weight" not in tensors,
        )


def _gguf_divisors(checkpoint: Checkpoint, head_dim: int) -> tuple[float, ...]:
    info = checkpoint.tensors.get("rope_freqs.weight")
    if info is None:
        return ()
    if info.shape != (head_dim // 2,):
        raise ModelError(
            f"{checkpoint.path}: the tensor rope_freqs must hold {head_dim // 2} numbers, not {info.shape}"
        )
    return tuple(checkpoint.read(info.name, torch.float32).tolist())


class Block(nn.Module):
    """Computes one layer: attention, then the MLP, each on the normalised residual stream."""

    def __init__(self, config: LlamaConfig, layer: int, kernels: Kernels) -> None:
        super().__init__()
        width, heads = config.width, (config.heads, config.kv_heads, config.head_dim)
        self.attn_norm = RMSNorm(width, config.norm_eps, kernels)
        self.attn = Attention(layer, width, *heads, kernels, bias=config.attention_bias)
        self.mlp_norm = RMSNorm(width, config.norm_eps, kernels)
        self.mlp = GatedMLP(width, config.mlp_width, kernels, bias=config.mlp_bias)

    def forward(self, x: Tensor, angles: Angles, attend: Attend) -> Tensor:
        x = self.attn(self.attn_norm(x), angles, attend, residual=x)
        out: Tensor = self.mlp(self.mlp_norm(x), residual=x)
        return out


class Llama(nn.Module):
    """Defines a Llama over the given kernels; its parameters are not initialised."""

    def __init__(self, config: LlamaConfig, kernels: Kernels) -> None:
        super().__init__()
        self.config = config
        self.kernels = kernels
        self.rotary = Rotary(config.rope, config.head_dim, config.context_length, kernels)
        self.embedding = Embedding(config.vocab_size, config.width, kernels, multiplied=config.tied_head)
        self.layers = nn.ModuleList(Block(config, layer, kernels) for layer in range(config.layers))
        self.norm = RMSNorm(config.width, config.norm_eps, kernels)
        self.head = None if config.tied_head else Linear(config.width, config.vocab_size, kernels)

    @property
    def kv_shape(self) -> KVShape:
        return KVShape(self.config.layers, self.config.kv_heads, self.config.head_dim)

    @property
    def heads(self) -> int:
        return self.config.heads

    @property
    def vocab_size(self) -> int:
        return self.config.vocab_size

    @property
    def width(self) -> int:
        return self.config.width

    @property
    def context_length(self) -> int:
        return self.config.context_length

    @property
    def dtype(self) -> torch.dtype:
        return self.norm.weight.dtype

    @property
    def device(self) -> torch.device:
        return self.norm.weight.device

    @property
    def depth(self) -> int:
        return len(self.layers)

    @property
    def tied_head(self) -> bool:
        return self.head is None

    def hidden(
        self,
        tokens: Tensor,
        positions: Tensor,
        attend: Attend,
        length: int | None = None,
        taps: MutableMapping[int, Tensor | None] | None = None,
        embedded: tuple[Tensor, Tensor] | None = None,
    ) -> Tensor:
        """Returns the last layer's normalised states [..., width] of tokens [...] at positions [...].

        `attend` decides which keys a token sees, and so whether tokens are [batch, length] or a ragged
        [tokens]. `length` is that of the whole context where the rotary positions depend on it; None: the
        model's own. Each key of `taps` gets the states after that number of layers, before any last norm.
        `embedded` are indices [n] of tokens and the vectors [n, width] that replace their embeddings.
        """
        angles = self.rotary(positions, length)
        x = self.embedding(tokens)
        if embedded is not None:
            x[embedded[0]] = embedded[1]
        for index, block in enumerate(self.layers):
            if taps and index in taps:
                taps[index] = x
            x = block(x, angles, attend)
        out: Tensor = self.norm(x)
        return out

    def logits(self, hidden: Tensor) -> Tensor:
        """Returns scores [..., vocab_size] in float32 of hidden states [..., width]."""
        weight = self.embedding.weight if self.head is None else self.head.weight
        return self.kernels.linear(hidden, weight).float()

    def forward(self, tokens: Tensor, keep: Tensor | None = None) -> Tensor:
        """Returns scores [B, S, vocab_size] of sequences [B, S]; differentiable.

        `keep` is False at padding.
        """
        length = tokens.shape[1]
        positions = torch.arange(length, device=tokens.device)
        return self.logits(self.hidden(tokens, positions, DenseAttend(self.kernels, keep), length))


def read_config(checkpoint: Checkpoint) -> LlamaConfig:
    """Returns the checkpoint's config.

    Raises ModelError for absurd settings, and for sizes that the checkpoint's tensors cannot have, before any
    tensor is allocated.
    """
    if checkpoint.format == "gguf":
        config = LlamaConfig.from_gguf(checkpoint)
    else:
        config = LlamaConfig.from_hub(checkpoint.config)
    _check_sizes(config, checkpoint)
    return config


def _check_sizes(config: LlamaConfig, checkpoint: Checkpoint) -> None:
    """Raises ModelError for sizes beyond those of the stored tensors; loading compares each tensor later."""
    layers, width, *rows = _SIZE_KEYS[checkpoint.format]
    tensors = checkpoint.tensors.values()
    if config.layers > len(tensors):
        raise ModelError(
            f"{checkpoint.path}: {layers} is {config.layers}, but there are only {len(tensors)} tensors"
        )
    stored = sum(math.prod(info.shape) for info in tensors)
    counts = (config.vocab_size, config.heads * config.head_dim, config.mlp_width)
    for key, count in zip(rows, counts, strict=True):
        if count * config.width > stored:
            raise ModelError(
                f"{checkpoint.path}: {key} of {count} by {width} of {config.width} is more than "
                f"all tensors together hold ({stored} numbers)"
            )


# Where a format has the sizes: layers, width, and what the rows of the largest matrices follow from.
_SIZE_KEYS = {
    "safetensors": (
        "num_hidden_layers",
        "hidden_size",
        "vocab_size",
        "num_attention_heads times head_dim",
        "intermediate_size",
    ),
    "gguf": (
        "llama.block_count",
        "llama.embedding_length",
        "llama.vocab_size",
        "llama.attention.head_count times key_length",
        "llama.feed_forward_length",
    ),
}


def rules(config: LlamaConfig, checkpoint_format: str) -> Sequence[Rule]:
    """Returns the rules for the parameters of a hub checkpoint ("safetensors") or a GGUF file ("gguf")."""
    return _gguf_rules(config) if checkpoint_format == "gguf" else _hub_rules()


def _hub_rules() -> Sequence[Rule]:
    layer = "model.layers.{i}"
    found = [
        rename("embedding.weight", "model.embed_tokens.weight"),
        rename("layers.{i}.attn_norm.weight", f"{layer}.input_layernorm.weight"),
        rename("layers.{i}.mlp_norm.weight", f"{layer}.post_attention_layernorm.weight"),
        rename("norm.weight", "model.norm.weight"),
        rename("head.weight", "lm_head.weight"),
    ]
    for kind in ("weight", "bias"):
        qkv = [f"{layer}.self_attn.{part}_proj.{kind}" for part in "qkv"]
        gate_up = [f"{layer}.mlp.{part}_proj.{kind}" for part in ("gate", "up")]
        found += [
            merge(f"layers.{{i}}.attn.qkv.{kind}", qkv),
            rename(f"layers.{{i}}.attn.out.{kind}", f"{layer}.self_attn.o_proj.{kind}"),
            merge(f"layers.{{i}}.mlp.gate_up.{kind}", gate_up),
            rename(f"layers.{{i}}.mlp.down.{kind}", f"{layer}.mlp.down_proj.{kind}"),
        ]
    return found


def _gguf_rules(config: LlamaConfig) -> Sequence[Rule]:
    found = [
        rename("embedding.weight", "token_embd.weight"),
        rename("layers.{i}.attn_norm.weight", "blk.{i}.attn_norm.weight"),
        rename("layers.{i}.mlp_norm.weight", "blk.{i}.ffn_norm.weight"),
        rename("norm.weight", "output_norm.weight"),
        rename("head.weight", "output.weight"),
    ]
    for kind in ("weight", "bias"):
        qkv = [f"blk.{{i}}.attn_{part}.{kind}" for part in "qkv"]
        gate_up = [f"blk.{{i}}.ffn_{part}.{kind}" for part in ("gate", "up")]
        found += [
            merge(
                f"layers.{{i}}.attn.qkv.{kind}",
                qkv,
                [unpermute(config.heads), unpermute(config.kv_heads), None],
            ),
            rename(f"layers.{{i}}.attn.out.{kind}", f"blk.{{i}}.attn_output.{kind}"),
            merge(f"layers.{{i}}.mlp.gate_up.{kind}", gate_up),
            rename(f"layers.{{i}}.mlp.down.{kind}", f"blk.{{i}}.ffn_down.{kind}"),
        ]
    return found


DELICATE = (
    *("model.embed_tokens.weight", "lm_head.weight", "model.layers.*.self_attn.v_proj.weight"),
    *("token_embd.weight", "output.weight", "blk.*.attn_v.weight"),
)
"""The matrices that lose most quality in 4 bits for their size, by their names in both formats: those of the
vocabulary and of the values."""


def ignored(config: LlamaConfig) -> Sequence[str]:
    """Returns the tensors of a checkpoint that may be left unused."""
    derived = ("rope_freqs.weight", "model.layers.*.self_attn.rotary_emb.inv_freq")
    return (*derived, "lm_head.weight") if config.tied_head else derived
