"""Defines Gemma 4: Gemma with full layers of larger heads, normalised values and an embedding for each layer.

The last layers may read the keys and values of earlier ones, the values of full layers may be their keys, and
experts may be added to the MLP. Gemma Team, Gemma 4 (2026); Brandon et al., Reducing Transformer Key-Value
Cache Size with Cross-Layer Attention (2024).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor, nn

from decodery.kernels.contract import Kernels
from decodery.models.config_reader import (
    COUNT,
    COUNT_FROM_0,
    REQUIRED,
    ConfigTable,
    Field,
    Fixed,
    Setting,
    is_even,
    missing_or_null,
)
from decodery.models.contract import Family
from decodery.models.decoders.decoder import Decoder
from decodery.models.decoders.decoder_config import MATRICES, context_length
from decodery.models.decoders.experts.moe import EXPERT_MATRICES
from decodery.models.decoders.gemma import GELU, GEMMA3_FIELDS, GEMMA_FIELDS, Gemma
from decodery.models.decoders.gemma4.gemma4_config import (
    EXPERT_WIDTH,
    EXPERTS_PER_TOKEN,
    SHARED_KV,
    EnabledExperts,
    FullHeads,
    FullHeadSize,
    Gemma4Config,
    KeyIsValue,
    LastIsFull,
    OwnWidth,
    WideShared,
    WindowedHeads,
)
from decodery.models.decoders.gemma4.gemma4_names import gguf_names, hub_names
from decodery.models.layers.attention import Angles, Attend
from decodery.models.layers.embedding import Embedding
from decodery.models.layers.experts import Experts, Router
from decodery.models.layers.linear import Linear
from decodery.models.layers.mlp import GatedMLP
from decodery.models.layers.norm import FixedRMSNorm, RMSNorm
from decodery.models.layers.rope import Rotary
from decodery.models.rope_config import KindOfLayer, RopeByKind
from decodery.models.window_config import FULL, WINDOWED


class Gemma4Attention(nn.Module):
    """Computes attention with normalised queries, keys and values, of its own or another layer's keys."""

    def __init__(self, config: Gemma4Config, layer: int, kernels: Kernels) -> None:
        super().__init__()
        self.kernels = kernels
        self.layer = config.attention(layer)
        self.heads = config.heads_of(layer)
        size, eps = config.size_of(layer), config.norm_eps
        self.qkv = Linear(config.width, sum(self.heads) * size, kernels, bias=config.attention_bias)
        self.q_norm = RMSNorm(size, eps, kernels)
        own = len(self.heads) > 1
        self.k_norm = RMSNorm(size, eps, kernels) if own else None
        self.v_norm = FixedRMSNorm(size, eps, kernels) if own else None
        self.out = Linear(config.heads * size, config.width, kernels, bias=config.out_bias)

    def forward(self, x: Tensor, angles: Angles, attend: Attend) -> Tensor:
        """Computes the attention of states x [..., width]."""
        qkv: Tensor = self.qkv(x).view(*x.shape[:-1], sum(self.heads), self.layer.k_width)
        q, *kv = qkv.split_with_sizes(self.heads, -2)
        q = self.kernels.rotary(self.q_norm(q), angles.cos, angles.sin)
        if self.k_norm is None or self.v_norm is None:
            attended = attend(self.layer, q)
        else:
            k = self.kernels.rotary(self.k_norm(kv[0]), angles.cos, angles.sin)
            attended = attend(self.layer, q, k, self.v_norm(kv[-1]))
        out: Tensor = self.out(attended)
        return out


class AddedExperts(nn.Module):
    """Computes a mixture of experts of the states, and adds it to the output of an MLP, both normalised."""

    def __init__(self, config: Gemma4Config, kernels: Kernels) -> None:
        super().__init__()
        width, eps = config.width, config.norm_eps
        self.kernels = kernels
        self.routing = config.routing
        self.dense_norm = RMSNorm(width, eps, kernels)
        # Scores are divided by the root of the width, and so are the states before them.
        self.router_norm = RMSNorm(width, eps, kernels)
        self.router = Router(width, config.experts, kernels)
        self.temperature: Tensor
        self.register_buffer("temperature", torch.tensor([width**-0.5], device="cpu"), persistent=False)
        self.scales = nn.Parameter(torch.empty(config.experts))
        self.norm = RMSNorm(width, eps, kernels)
        self.experts = Experts(
            config.experts,
            config.experts_per_token,
            width,
            config.expert_width,
            kernels,
            activation=config.activation,
        )
        self.post_norm = RMSNorm(width, eps, kernels)

    def forward(self, x: Tensor, dense: Tensor) -> Tensor:
        scores = self.kernels.multiply(self.router(self.router_norm(x)), self.temperature)
        ids, weights = self.kernels.route(scores, self.routing, scales=self.scales)
        mixed = self.experts(self.norm(x), ids, weights)
        out: Tensor = self.post_norm(mixed, self.dense_norm(dense))
        return out


class OwnEmbedding(nn.Module):
    """Adds to the states what a layer's own embedding [..., layer_width] says, through a gate."""

    def __init__(self, config: Gemma4Config, kernels: Kernels) -> None:
        super().__init__()
        self.kernels = kernels
        self.activation = config.activation
        self.gate = Linear(config.width, config.layer_width, kernels)
        self.out = Linear(config.layer_width, config.width, kernels)
        # The embedding is not divided by the root of 2, which the norm would undo but for its epsilon.
        self.norm = RMSNorm(config.width, 2 * config.norm_eps, kernels)

    def forward(self, x: Tensor, own: Tensor) -> Tensor:
        gate = self.kernels.activation(self.gate(x), self.activation)
        out: Tensor = self.norm(self.out(self.kernels.multiply(gate, own)), x)
        return out


class LayerScale(nn.Module):
    """Multiplies states by one number, 1 in checkpoints without it."""

    def __init__(self, kernels: Kernels) -> None:
        super().__init__()
        self.kernels = kernels
        self.weight = nn.Parameter(torch.empty(1))

    def reset_parameters(self) -> None:
        nn.init.ones_(self.weight)

    def forward(self, x: Tensor) -> Tensor:
        return self.kernels.multiply(x, self.weight)


class Gemma4Block(nn.Module):
    """Computes attention, the MLP and a layer's own embedding, each between norms, and scales the sum."""

    def __init__(self, config: Gemma4Config, layer: int, kernels: Kernels) -> None:
        super().__init__()
        norms = [RMSNorm(config.width, config.norm_eps, kernels) for _ in range(4)]
        self.attn_norm, self.attn_post_norm, self.mlp_norm, self.mlp_post_norm = norms
        self.attn = Gemma4Attention(config, layer, kernels)
        wide = config.wide_shared and config.source(layer) is not None
        inner = config.mlp_width * (2 if wide else 1)
        self.mlp = GatedMLP(config.width, inner, kernels, activation=config.activation)
        self.experts = AddedExperts(config, kernels) if config.experts else None
        self.own = OwnEmbedding(config, kernels) if config.layer_width else None
        self.scale = LayerScale(kernels)

    def forward(self, x: Tensor, angles: Angles, attend: Attend, own: Tensor | None = None) -> Tensor:
        x = self.attn_post_norm(self.attn(self.attn_norm(x), angles, attend), x)
        inner = self.mlp(self.mlp_norm(x))
        if self.experts is not None:
            inner = self.experts(x, inner)
        x = self.mlp_post_norm(inner, x)
        if self.own is not None:
            x = self.own(x, own)
        out: Tensor = self.scale(x)
        return out


class LayerEmbeddings(nn.Module):
    """Computes each layer's embedding of tokens: a table's rows plus a normalised map of the first states."""

    def __init__(self, config: Gemma4Config, kernels: Kernels) -> None:
        super().__init__()
        self.layers = config.layers
        every = config.layers * config.layer_width
        self.embedding = Embedding(config.vocab_size, every, kernels, multiplied=False)
        self.projection = Linear(config.width, every, kernels)
        # The map is not divided by the root of the width, which the norm would undo but for its epsilon.
        self.norm = RMSNorm(config.layer_width, config.norm_eps * config.width, kernels)

    def forward(self, tokens: Tensor, x: Tensor, scale: float) -> Sequence[Tensor]:
        """Returns the embeddings [..., layer_width] of tokens [...] with first states x [..., width]."""
        shape = *tokens.shape, self.layers, -1
        projected = self.projection(x).view(shape)
        both: Tensor = self.norm(projected, self.embedding(tokens, scale=scale).view(shape))
        return both.unbind(-2)


class Gemma4(Gemma):
    """Defines a Gemma 4 over the given kernels; its parameters are not initialised."""

    config: Gemma4Config

    def __init__(self, config: Gemma4Config, kernels: Kernels) -> None:
        blocks = [Gemma4Block(config, layer, kernels) for layer in range(config.layers)]
        assert isinstance(config.rope, Mapping)
        sizes = {FULL: config.full_head_dim, WINDOWED: config.head_dim}
        length = config.context_length
        rotary = {kind: Rotary(rope, sizes[kind], length, kernels) for kind, rope in config.rope.items()}
        norm = RMSNorm(config.width, config.norm_eps, kernels)
        Decoder.__init__(self, config, kernels, blocks, norm, rotary=rotary[FULL])
        self.window_rotary = rotary[WINDOWED]
        self.own = LayerEmbeddings(config, kernels) if config.layer_width else None

    def layer_inputs(self, tokens: Tensor, x: Tensor) -> Sequence[tuple[Tensor, ...]]:
        if self.own is None:
            return super().layer_inputs(tokens, x)
        scale = self.rounded(self.config.layer_width**0.5)
        return [(each,) for each in self.own(tokens, x, scale)]


def _windows(default: int) -> LastIsFull:
    return LastIsFull(pattern=6, pattern_key="", default=default, gguf="attention.sliding_window")


# Fields that need the windows are read after them.
LATER = "head_dim", "kv_heads", "mlp_width", "rope"
GEMMA4_FIELDS: Mapping[str, Field] = {
    **{name: field for name, field in GEMMA_FIELDS.items() if name not in LATER},
    "windows": _windows(512),
    "head_dim": Setting(
        COUNT,
        "head_dim",
        "attention.key_length_swa",
        default=256,
        gguf_default=REQUIRED,
        checks=(is_even("heads"),),
    ),
    "full_head_dim": FullHeadSize("global_head_dim", "head_dim", "head_dim", default=512),
    "key_is_value": KeyIsValue(),
    "kv_heads": WindowedHeads(),
    "full_kv_heads": FullHeads(
        "num_global_key_value_heads", "num_key_value_heads", "kv_heads", needs="attention_k_eq_v"
    ),
    "context_length": context_length(131072),
    "shared_kv": SHARED_KV,
    "mlp_width": OwnWidth(),
    "wide_shared": WideShared(),
    "activation": Setting(GELU, "hidden_activation", default="gelu_tanh"),
    "logit_softcap": GEMMA3_FIELDS["logit_softcap"],
    "layer_width": Setting(
        COUNT_FROM_0,
        "hidden_size_per_layer_input",
        "embedding_length_per_layer_input",
        default=missing_or_null("hidden_size_per_layer_input", 256, lambda source: 0),
        gguf_default=0,
    ),
    "experts": EnabledExperts(),
    "experts_per_token": EXPERTS_PER_TOKEN,
    "expert_width": EXPERT_WIDTH,
    "rope": RopeByKind(
        {
            FULL: KindOfLayer(1e6, "", "rope.freq_base", size="full_head_dim", share=0.25),
            WINDOWED: KindOfLayer(
                1e4, "", "rope.freq_base_swa", gguf_theta=1e4, gguf_size="rope.dimension_count_swa"
            ),
        }
    ),
}


FIXED = (
    Fixed(
        gguf="attention.value_length",
        value=lambda config: config.full_head_dim,
        wanted="the size of a key ({value})",
    ),
    Fixed(
        gguf="attention.value_length_swa",
        value=lambda config: config.head_dim,
        wanted="the size of a key ({value})",
    ),
    Fixed(
        hub="use_bidirectional_attention",
        accepted=("vision",),
        wanted="null or 'vision', since a text is generated from left to right",
    ),
)


def _family(name: str, fields: Mapping[str, Field], fixed: Sequence[Fixed]) -> Family[Gemma4Config]:
    return Family(
        name=name,
        config=ConfigTable(Gemma4Config, fields=fields, fixed=fixed, matrices=(*MATRICES, *EXPERT_MATRICES)),
        build={"causal": Gemma4},
        hub_names=hub_names,
        gguf_names=gguf_names,
        gguf="gemma4",
    )


GEMMA4 = _family(
    "gemma4",
    GEMMA4_FIELDS,
    (
        *FIXED,
        Fixed(
            hub="vocab_size_per_layer_input",
            value=lambda config: config.vocab_size,
            wanted="vocab_size ({value})",
        ),
    ),
)
# The text part of a model that reads images and sounds without encoders.
GEMMA4_UNIFIED = _family(
    "gemma4_unified",
    {
        **GEMMA4_FIELDS,
        "windows": _windows(1024),
        "context_length": context_length(262144),
        "layer_width": Setting(COUNT_FROM_0, gguf="embedding_length_per_layer_input", default=0),
        **{
            name: Setting(COUNT_FROM_0, gguf=key, default=0)
            for name, key in (
                ("experts", "expert_count"),
                ("experts_per_token", "expert_used_count"),
                ("expert_width", "expert_feed_forward_length"),
            )
        },
    },
    FIXED,
)
