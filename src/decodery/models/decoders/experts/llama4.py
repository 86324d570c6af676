"""Defines the text model of Llama 4: layers in chunks that rotate, and layers over all keys that do not.

Queries and keys are normalised after they rotate, and queries of layers that do not rotate grow with the
position. Experts see their input times the router's score. Meta, The Llama 4 herd (2025); Yang et al., Rope
to Nope and Back Again (2025).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from decodery.kernels.attention_layer import AttentionLayer
from decodery.kernels.contract import Kernels, PositionGrowth
from decodery.models.config_reader import (
    COUNT,
    COUNT_FROM_0,
    NO_KEY,
    ConfigTable,
    Setting,
    rows_in_layers,
    value_of,
)
from decodery.models.contract import Family, Names
from decodery.models.decoders.decoder_config import (
    MATRICES,
    NULL_IS_QUOTIENT,
    SAME_VALUE_SIZE,
    head_size,
    if_missing,
)
from decodery.models.decoders.experts.llama4_config import (
    EXPERTS_PER_TOKEN,
    ROTATED,
    ChunkField,
    HeadNormField,
    InterleavedField,
    UnrotatedGrowth,
)
from decodery.models.decoders.experts.moe import (
    EXPERT_MATRICES,
    GGUF_EXPERTS,
    ExpertSpelling,
    MoEConfig,
    MoELlama,
    exact_tensors,
    expert_rules,
)
from decodery.models.decoders.llama import ATTENTION_BIASES, LLAMA_FIELDS, SILU, LlamaConfig, rms_norm_eps
from decodery.models.decoders.names import GGUF, HUB, Spelling, decoder_names
from decodery.models.layers.attention import Angles, Attention
from decodery.models.layers.norm import FixedRMSNorm
from decodery.models.layers.rope import Rope
from decodery.models.rope_config import RopeField
from decodery.models.window_config import Windows
from decodery.weights.transforms import TRANSPOSED, permuted


@dataclass(frozen=True, kw_only=True)
class Llama4Config(MoEConfig):
    """Holds the sizes and values of one Llama 4.

    `chunks` has for each layer the number of tokens in a chunk, None for a layer that sees all keys; () if
    all do. `unrotated_growth` is that of queries with their positions in layers that do not rotate.
    """

    chunks: Windows = ()
    unrotated_growth: PositionGrowth | None = None

    def attention(self, layer: int) -> AttentionLayer:
        return replace(super().attention(layer), chunk=self.chunks[layer] if self.chunks else None)

    def rotates(self, layer: int) -> bool:
        """True if a layer rotates queries and keys."""
        return not self.rotated or self.rotated[layer]


class Llama4Attention(Attention):
    """Computes attention whose queries and keys rotate and are then normalised, or whose queries grow."""

    def __init__(self, config: Llama4Config, layer: int, kernels: Kernels) -> None:
        super().__init__(
            config.attention(layer),
            config.width,
            kernels,
            bias=config.attention_bias,
            out_bias=config.out_bias,
        )
        self.rotates = config.rotates(layer)
        normalised = config.head_norms and self.rotates
        self.head_norm = FixedRMSNorm(config.head_dim, config.norm_eps, kernels) if normalised else None

    def _queries_and_keys(self, qk: Tensor, angles: Angles | None) -> Sequence[Tensor]:
        sizes = self.layer.heads, self.layer.kv_heads
        if self.rotates:
            assert angles is not None
            rotated = self.kernels.rotary(qk, angles.cos, angles.sin)
            normed: Tensor = rotated if self.head_norm is None else self.head_norm(rotated)
            return normed.split_with_sizes(sizes, -2)
        q, k = qk.split_with_sizes(sizes, -2)
        return q if angles is None else self.kernels.rotary(q, angles.cos, angles.sin), k


class Llama4(MoELlama):
    """Defines a Llama 4 over the given kernels; its parameters are not initialised."""

    config: Llama4Config

    def __init__(self, config: Llama4Config, kernels: Kernels) -> None:
        super().__init__(config, kernels)
        # Frequencies of pairs that do not rotate.
        self.still = torch.zeros(config.head_dim // 2, device="cpu")

    def attention(self, config: LlamaConfig, layer: int, kernels: Kernels) -> Attention:
        assert isinstance(config, Llama4Config)
        return Llama4Attention(config, layer, kernels)

    def angles(
        self, positions: Tensor, length: int | None, sets: Tensor | None = None
    ) -> Sequence[Angles | None]:
        layers = range(self.depth)
        rotated = self.rotary(positions, length, sets)
        if all(map(self.config.rotates, layers)):
            return [rotated] * self.depth
        grown = self._grown(positions)
        return [rotated if self.config.rotates(layer) else grown for layer in layers]

    def _grown(self, positions: Tensor) -> Angles | None:
        """Returns angles of 0 whose cosines are the growth of queries."""
        growth = self.config.unrotated_growth
        if growth is None:
            return None
        still = self.still.to(positions.device)
        return Angles(*self.kernels.angles(positions, still, 1.0, growth=growth))


NAMES = replace(
    HUB,
    gate_up=("feed_forward.gate_proj", "feed_forward.up_proj"),
    down="feed_forward.down_proj",
)
SHARED = tuple(f"feed_forward.shared_expert.{part}_proj" for part in ("gate", "up", "down"))
IN_HUB = ExpertSpelling(
    "feed_forward.router",
    ("feed_forward.experts.gate_up_proj",),
    "feed_forward.experts.down_proj",
    SHARED,
    transforms=(TRANSPOSED, TRANSPOSED),
)
IN_GGUF = replace(GGUF_EXPERTS, shared_gate="", correction="")


def _names(spelling: Spelling, experts: ExpertSpelling, config: Llama4Config) -> Names:
    """Returns the names; both formats store queries and keys for a rotation of neighbouring pairs."""
    rows = permuted(config.heads), permuted(config.kv_heads), None
    further = expert_rules(spelling.layer, config, (experts,)) if config.experts else ()
    names = decoder_names(spelling, config, qkv=rows, further=further)
    return replace(names, exact=exact_tensors(spelling.layer, (experts,)))


LLAMA4 = Family(
    name="llama4",
    config=ConfigTable(
        Llama4Config,
        fields={
            **LLAMA_FIELDS,
            **if_missing(context=131072, heads=8),
            **ATTENTION_BIASES,
            "head_dim": head_size(NULL_IS_QUOTIENT),
            "norm_eps": rms_norm_eps(1e-5),
            "rope": RopeField(default=Rope(5e5)),
            "mlp_width": Setting(COUNT, "intermediate_size_mlp", "feed_forward_length", default=16384),
            "experts": Setting(COUNT_FROM_0, "num_local_experts", "expert_count", default=16, gguf_default=0),
            "sparse": InterleavedField(),
            "experts_per_token": EXPERTS_PER_TOKEN,
            "expert_width": Setting(
                COUNT,
                "intermediate_size",
                "expert_feed_forward_length",
                default=8192,
                gguf_default=rows_in_layers("blk.{i}.ffn_gate_exps.weight"),
            ),
            "shared_width": Setting(NO_KEY, default=value_of("expert_width")),
            "renormalised": Setting(NO_KEY, default=False),
            "probability": Setting(NO_KEY, default="sigmoid"),
            "weigh": Setting(NO_KEY, default="input"),
            "head_norms": HeadNormField(),
            "rotated": ROTATED,
            "chunks": ChunkField(),
            "unrotated_growth": UnrotatedGrowth(),
        },
        fixed=(SAME_VALUE_SIZE, SILU),
        matrices=(*MATRICES, *EXPERT_MATRICES),
    ),
    build={"causal": Llama4},
    hub_names=lambda config: _names(NAMES, IN_HUB, config),
    gguf_names=lambda config: _names(GGUF, IN_GGUF, config),
    gguf="llama4",
)
