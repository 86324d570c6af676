"""Defines Llama: a pre-norm decoder with rotary positions, grouped-query attention and a gated MLP.

Touvron et al., LLaMA (2023); Llama Team, The Llama 3 Herd of Models (2024). Many families differ from it in
values only; their files have a table of settings and one of names.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

from torch import Tensor, nn

from decodery.kernels.attention_layer import AttentionLayer
from decodery.kernels.contract import Activation, Kernels, PositionGrowth
from decodery.models.config_reader import (
    FLAG,
    NO_KEY,
    POSITIVE,
    REQUIRED,
    ConfigTable,
    Field,
    Fixed,
    Setting,
    exists,
    value_of,
)
from decodery.models.contract import Family, Names
from decodery.models.decoders.decoder import Decoder
from decodery.models.decoders.decoder_config import FIELDS, MATRICES, SAME_VALUE_SIZE, DecoderConfig
from decodery.models.decoders.names import GGUF, HUB, decoder_names
from decodery.models.layers.attention import Angles, Attention
from decodery.models.layers.blocks import NormAfterBlock, PreNormBlock, SandwichBlock
from decodery.models.layers.mlp import GatedMLP
from decodery.models.layers.norm import AllHeadsNorm, RMSNorm
from decodery.models.layers.rope import DynamicRope, Rope, Rotary
from decodery.models.rope_config import RopeField
from decodery.models.window_config import FULL, WINDOWED, Windows
from decodery.weights.transforms import permuted

NormPlaces = Literal["before", "after", "both"]


@dataclass(frozen=True)
class LlamaConfig(DecoderConfig):
    """Holds the sizes and values of one Llama.

    `rotated` has a flag for each layer, () if all layers rotate; `windows` is described by `WindowField`.
    `rope` is one for all layers, or one for each kind, FULL and WINDOWED. It rotates the first `rotated_size`
    elements of a head, None: all. `growth` is that of queries with their positions. `norms` says where norms
    are: before attention and MLP, after them, or both. With `joint_head_norms`, all heads are normalised
    together. `clip` is the largest magnitude of the elements of queries, keys and values, with `clip_normed`
    of normalised queries and keys.
    """

    norm_eps: float
    rope: Rope | Mapping[str, Rope]
    attention_bias: bool = False
    out_bias: bool = False
    mlp_bias: bool = False
    head_norms: bool = False
    windows: Windows = ()
    rotated: tuple[bool, ...] = ()
    activation: Activation = "silu"
    rotated_size: int | None = None
    growth: PositionGrowth | None = None
    norms: NormPlaces = "before"
    joint_head_norms: bool = False
    clip: float | None = None
    clip_normed: bool = False

    @property
    def scale(self) -> float:
        """Returns the factor of the scores."""
        scale: float = self.head_dim**-0.5
        return scale

    @property
    def exact_norms(self) -> bool:
        """True if the weights of norms are kept in float32."""
        return False

    @property
    def extensible(self) -> bool:
        return isinstance(self.rope, DynamicRope)

    def attention(self, layer: int) -> AttentionLayer:
        """Returns the attention of a layer."""
        return AttentionLayer(
            layer,
            self.heads,
            self.kv_heads,
            self.head_dim,
            self.head_dim,
            self.scale,
            window=self.windows[layer] if self.windows else None,
        )


def rms_norm_eps(default: float) -> Setting:
    """Returns the setting of what an RMSNorm adds to the mean square."""
    return Setting(
        POSITIVE, "rms_norm_eps", "attention.layer_norm_rms_epsilon", default=default, gguf_default=REQUIRED
    )


LLAMA_FIELDS: Mapping[str, Field] = {
    **FIELDS,
    "norm_eps": rms_norm_eps(1e-6),
    "rope": RopeField(),
}
"""The fields that the families of this file's model share; a family replaces and adds."""

SILU = Fixed(hub="hidden_act", value="silu", accepted=("swish",), wanted="'silu'")
NO_EXPERTS = Fixed(gguf="expert_count", accepted=(0,), wanted="0: this family has no experts")
ATTENTION_BIASES: Mapping[str, Field] = {
    "attention_bias": Setting(
        FLAG, "attention_bias", default=False, gguf_default=exists("blk.0.attn_q.bias")
    ),
    "out_bias": Setting(
        NO_KEY, default=value_of("attention_bias"), gguf_default=exists("blk.0.attn_output.bias")
    ),
}
BIASES: Mapping[str, Field] = {
    **ATTENTION_BIASES,
    "mlp_bias": Setting(FLAG, "mlp_bias", default=False, gguf_default=exists("blk.0.ffn_gate.bias")),
}
CONFIG = ConfigTable(
    LlamaConfig,
    fields={**LLAMA_FIELDS, **BIASES},
    fixed=(SAME_VALUE_SIZE, SILU, NO_EXPERTS),
    matrices=MATRICES,
)


class Llama(Decoder):
    """Defines a Llama over the given kernels; its parameters are not initialised."""

    config: LlamaConfig

    def __init__(self, config: LlamaConfig, kernels: Kernels) -> None:
        blocks = [self.block(config, layer, kernels) for layer in range(config.layers)]
        size, length = config.rotated_size or config.head_dim, config.context_length
        ropes = config.rope if isinstance(config.rope, Mapping) else {FULL: config.rope}
        rotaries = {kind: Rotary(rope, size, length, kernels, config.growth) for kind, rope in ropes.items()}
        norm = self.width_norm(config, kernels)
        self.rotary: Rotary
        super().__init__(config, kernels, blocks, norm, rotary=rotaries[FULL])
        self.window_rotary = rotaries.get(WINDOWED, rotaries[FULL])

    def block(self, config: LlamaConfig, layer: int, kernels: Kernels) -> nn.Module:
        """Returns a layer."""
        norms = [self.width_norm(config, kernels) for _ in range(4)]
        attention, mlp = self.attention(config, layer, kernels), self.mlp(config, layer, kernels)
        if config.norms == "both":
            return SandwichBlock(norms[0], attention, norms[1], norms[2], mlp, norms[3])
        if config.norms == "after":
            return NormAfterBlock(attention, norms[0], mlp, norms[1])
        return PreNormBlock(norms[0], attention, norms[1], mlp)

    def attention(self, config: LlamaConfig, layer: int, kernels: Kernels) -> Attention:
        """Returns the attention of a layer."""
        return Attention(
            config.attention(layer),
            config.width,
            kernels,
            bias=config.attention_bias,
            out_bias=config.out_bias,
            head_norms=self.head_norms(config, kernels) if config.head_norms else None,
            clip=config.clip,
            clip_normed=config.clip_normed,
        )

    def width_norm(self, config: LlamaConfig, kernels: Kernels) -> nn.Module:
        """Returns a norm of states."""
        return RMSNorm(config.width, config.norm_eps, kernels, exact=config.exact_norms)

    def head_norms(self, config: LlamaConfig, kernels: Kernels) -> tuple[nn.Module, nn.Module]:
        """Returns the norms of queries and keys."""
        size, eps = config.head_dim, config.norm_eps
        if config.joint_head_norms:
            sizes = config.heads * size, config.kv_heads * size
            return AllHeadsNorm(sizes[0], eps, kernels), AllHeadsNorm(sizes[1], eps, kernels)
        exact = config.exact_norms
        return RMSNorm(size, eps, kernels, exact=exact), RMSNorm(size, eps, kernels, exact=exact)

    def mlp(self, config: LlamaConfig, layer: int, kernels: Kernels) -> nn.Module:
        """Returns the MLP of a layer."""
        return GatedMLP(
            config.width, config.mlp_width, kernels, bias=config.mlp_bias, activation=config.activation
        )

    def angles(
        self, positions: Tensor, length: int | None, sets: Tensor | None = None
    ) -> Sequence[Angles | None]:
        full = self.rotary(positions, length, sets)
        alike = self.window_rotary is self.rotary
        windowed = full if alike else self.window_rotary(positions, length, sets)
        windows = self.config.windows or [None] * self.depth
        rotated = self.config.rotated or [True] * self.depth
        each = zip(windows, rotated, strict=True)
        return [(windowed if window else full) if rotates else None for window, rotates in each]


def gguf_names(config: LlamaConfig) -> Names:
    """Returns the names in GGUF files whose rows of queries and keys are permuted."""
    rows = permuted(config.heads), permuted(config.kv_heads), None
    return decoder_names(GGUF, config, qkv=rows)


FAMILY = Family(
    name="llama",
    config=CONFIG,
    build={"causal": Llama},
    hub_names=lambda config: decoder_names(HUB, config),
    gguf_names=gguf_names,
    gguf="llama",
)
