"""Defines Command R: attention and a gated MLP read one normalised input, and the scores are scaled.

Cohere, Command R (2024) and Command A (2025). In the later models only layers with a window rotate.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

from torch import Tensor, nn

from decodery.kernels.contract import Kernels
from decodery.models.config_reader import (
    FLAG,
    NO_KEY,
    POSITIVE,
    REQUIRED,
    ConfigTable,
    Field,
    Setting,
    exists,
    value_of,
)
from decodery.models.contract import Family, Names
from decodery.models.decoders.decoder import Decoder
from decodery.models.decoders.decoder_config import (
    FIELDS,
    MATRICES,
    SAME_VALUE_SIZE,
    PartialRotaryConfig,
    context_length,
    layer_norm_eps,
)
from decodery.models.decoders.llama import ATTENTION_BIASES, SILU
from decodery.models.decoders.names import GGUF, HUB, Spelling, decoder_names
from decodery.models.layers.attention import Angles, Attention
from decodery.models.layers.blocks import ParallelBlock
from decodery.models.layers.mlp import GatedMLP
from decodery.models.layers.norm import LayerNorm
from decodery.models.layers.rope import Rope
from decodery.models.rope_config import RopeField
from decodery.models.window_config import WindowField, Windows
from decodery.weights.names import rename
from decodery.weights.transforms import by_element, permuted


@dataclass(frozen=True)
class CohereConfig(PartialRotaryConfig):
    """Holds the sizes and values of one Command R.

    The scores of tokens are multiplied by `logit_scale`. `windows` is described by `WindowField`.
    """

    logit_scale: float
    attention_bias: bool = False
    out_bias: bool = False
    head_norms: bool = False
    windows: Windows = ()


class Cohere(Decoder):
    """Defines a Command R over the given kernels; its parameters are not initialised."""

    config: CohereConfig

    def __init__(self, config: CohereConfig, kernels: Kernels) -> None:
        blocks = [_block(config, layer, kernels) for layer in range(config.layers)]
        norm = LayerNorm(config.width, config.norm_eps, kernels, bias=False)
        super().__init__(config, kernels, blocks, norm, rotary=config.rotary(kernels))

    def logits(self, hidden: Tensor) -> Tensor:
        return super().logits(hidden) * self.config.logit_scale


class Cohere2(Cohere):
    """Defines a Command R7B or later model over the given kernels; its parameters are not initialised."""

    def angles(
        self, positions: Tensor, length: int | None, sets: Tensor | None = None
    ) -> Sequence[Angles | None]:
        each = super().angles(positions, length, sets)
        windows = self.config.windows or [None] * self.depth
        return [None if window is None else angles for angles, window in zip(each, windows, strict=True)]


def _block(config: CohereConfig, layer: int, kernels: Kernels) -> nn.Module:
    width, eps = config.width, config.norm_eps
    attention = Attention(
        config.attention(layer, config.windows[layer] if config.windows else None),
        width,
        kernels,
        bias=config.attention_bias,
        out_bias=config.out_bias,
        head_norms=_head_norms(config, kernels) if config.head_norms else None,
    )
    norm = LayerNorm(width, eps, kernels, bias=False)
    return ParallelBlock(norm, attention, GatedMLP(width, config.mlp_width, kernels))


def _head_norms(config: CohereConfig, kernels: Kernels) -> tuple[nn.Module, nn.Module]:
    size, eps = config.head_dim, config.norm_eps
    return (
        LayerNorm(size, eps, kernels, bias=False, heads=config.heads),
        LayerNorm(size, eps, kernels, bias=False, heads=config.kv_heads),
    )


def _names(spelling: Spelling, config: CohereConfig) -> Names:
    """Returns the names; in both formats, neighbouring elements of a head rotate together."""
    pairs = permuted(config.heads), permuted(config.kv_heads)
    norms = [
        rename(
            f"layers.{{i}}.{ours}.weight", f"{spelling.layer}{spelling.norms[ours]}.weight", by_element(each)
        )
        for ours, each in zip(("attn.q_norm", "attn.k_norm"), pairs, strict=True)
    ]
    plain = replace(spelling, norms={"attn_norm": spelling.norms["attn_norm"]})
    return decoder_names(plain, config, qkv=(*pairs, None), further=norms)


COHERE_FIELDS: Mapping[str, Field] = {
    **FIELDS,
    # The first is the longest text that the model was trained for.
    "context_length": context_length(8192, "model_max_length", "max_position_embeddings"),
    "norm_eps": layer_norm_eps("layer_norm_eps"),
    "rotated": Setting(NO_KEY, default=value_of("head_dim")),
    "logit_scale": Setting(POSITIVE, "logit_scale", "logit_scale", default=0.0625, gguf_default=REQUIRED),
    **ATTENTION_BIASES,
    # GGUF files have no name for a head of its own.
    "tied_head": Setting(FLAG, "tie_word_embeddings", default=True),
}
COHERE = Family(
    name="cohere",
    config=ConfigTable(
        CohereConfig,
        fields={
            **COHERE_FIELDS,
            "rope": RopeField(default=Rope(500000.0), rotated="rotated"),
            "head_norms": Setting(
                FLAG, "use_qk_norm", default=False, gguf_default=exists("blk.0.attn_q_norm.weight")
            ),
        },
        fixed=(SAME_VALUE_SIZE, SILU),
        matrices=MATRICES,
    ),
    build={"causal": Cohere},
    hub_names=lambda config: _names(HUB, config),
    gguf_names=lambda config: _names(GGUF, config),
    gguf="command-r",
)
COHERE2 = Family(
    name="cohere2",
    config=ConfigTable(
        CohereConfig,
        fields={
            **COHERE_FIELDS,
            "rope": RopeField(rotated="rotated"),
            "windows": WindowField(pattern=4, default=4096, gguf="attention.sliding_window"),
        },
        fixed=(SAME_VALUE_SIZE, SILU),
        matrices=MATRICES,
    ),
    build={"causal": Cohere2},
    hub_names=lambda config: _names(HUB, config),
    gguf_names=lambda config: _names(GGUF, config),
    gguf="cohere2",
)
