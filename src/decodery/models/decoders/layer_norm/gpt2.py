"""Defines GPT-2: a pre-norm decoder with learned positions, LayerNorm and a plain MLP.

Radford et al., Language Models are Unsupervised Multitask Learners (2019).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace

from torch import Tensor, nn

from decodery.kernels.attention_layer import AttentionLayer
from decodery.kernels.contract import Activation, Kernels
from decodery.models.config_reader import COUNT, FLAG, NO_KEY, ConfigTable, Field, Fixed, Setting, quotient
from decodery.models.contract import Family, Names
from decodery.models.decoders.decoder import Decoder
from decodery.models.decoders.decoder_config import (
    ACTIVATIONS,
    FIELDS,
    MATRICES,
    ONE_KV_HEAD_EACH,
    DecoderConfig,
    context_length,
    layer_norm_eps,
    tied_head,
    times_width,
)
from decodery.models.decoders.names import GGUF_FUSED, Spelling, decoder_names, either, without_prefix
from decodery.models.layers.attention import Attention
from decodery.models.layers.blocks import PreNormBlock
from decodery.models.layers.embedding import Embedding
from decodery.models.layers.mlp import PlainMLP
from decodery.models.layers.norm import LayerNorm
from decodery.models.window_config import Windows
from decodery.weights.transforms import TRANSPOSED


@dataclass(frozen=True)
class GPT2Config(DecoderConfig):
    """Holds the sizes and values of one GPT-2.

    `positions` is the number of learned positions, at least `context_length`. Scores are divided by the root
    of a head's size if `scaled`, and by the number of the layer, from 1, if `scaled_by_layer` (Stanford CRFM,
    Mistral, 2021). `windows` is described by `WindowField`.
    """

    positions: int
    norm_eps: float
    activation: Activation = "gelu_tanh"
    attention_bias: bool = True
    scaled: bool = True
    scaled_by_layer: bool = False
    windows: Windows = ()

    def attention(self, layer: int) -> AttentionLayer:
        """Returns the attention of a layer."""
        scale = (self.head_dim**-0.5 if self.scaled else 1.0) / (layer + 1 if self.scaled_by_layer else 1)
        window = self.windows[layer] if self.windows else None
        return AttentionLayer(
            layer, self.heads, self.kv_heads, self.head_dim, self.head_dim, scale, window=window
        )


class GPT2(Decoder):
    """Defines a GPT-2 over the given kernels; its parameters are not initialised."""

    config: GPT2Config

    def __init__(self, config: GPT2Config, kernels: Kernels) -> None:
        blocks = [self.block(config, layer, kernels) for layer in range(config.layers)]
        super().__init__(config, kernels, blocks, self.last_norm(config, kernels))
        self.positions = Embedding(config.positions, config.width, kernels, multiplied=False)

    def block(self, config: GPT2Config, layer: int, kernels: Kernels) -> nn.Module:
        """Returns a layer."""
        width, eps = config.width, config.norm_eps
        bias = config.attention_bias
        attention = Attention(config.attention(layer), width, kernels, bias=bias, out_bias=True)
        mlp = PlainMLP(width, config.mlp_width, config.activation, kernels)
        return PreNormBlock(LayerNorm(width, eps, kernels), attention, LayerNorm(width, eps, kernels), mlp)

    def last_norm(self, config: GPT2Config, kernels: Kernels) -> nn.Module:
        """Returns the norm after the last layer."""
        return LayerNorm(config.width, config.norm_eps, kernels)

    def first_states(self, x: Tensor, positions: Tensor) -> Tensor:
        out: Tensor = self.positions(positions, residual=x)
        return out


CONTEXT = ("n_positions", "max_position_embeddings")
POSITIONS = context_length(1024, *CONTEXT)
GPT2_FIELDS: Mapping[str, Field] = {
    **FIELDS,
    "width": Setting(COUNT, ("n_embd", "hidden_size"), "embedding_length"),
    "layers": Setting(COUNT, ("n_layer", "num_hidden_layers"), "block_count"),
    "heads": Setting(COUNT, ("n_head", "num_attention_heads"), "attention.head_count"),
    "kv_heads": ONE_KV_HEAD_EACH,
    "head_dim": Setting(NO_KEY, default=quotient("width", "heads")),
    "mlp_width": Setting(COUNT, "n_inner", "feed_forward_length", default=times_width(4)),
    "context_length": POSITIONS,
    # The same keys: after a model was opened for a shorter context, the table of positions is still whole.
    "positions": POSITIONS,
    "norm_eps": layer_norm_eps("layer_norm_epsilon"),
    "activation": Setting(ACTIVATIONS, "activation_function", default="gelu_tanh"),
    "tied_head": tied_head(True),
}
"""The fields that GPT-1, GPT-2 and GPT-BigCode share."""

SCALES: Mapping[str, Field] = {
    "scaled": Setting(FLAG, "scale_attn_weights", default=True),
    "scaled_by_layer": Setting(FLAG, "scale_attn_by_inverse_layer_idx", default=False),
}
NO_CROSS_ATTENTION = Fixed(hub="add_cross_attention", value=False, wanted="false: there is no encoder")
CONV1D = Spelling(
    embedding="transformer.wte",
    positions="transformer.wpe",
    layer="transformer.h.{i}.",
    norms={"attn_norm": "ln_1", "mlp_norm": "ln_2"},
    qkv=("attn.c_attn",),
    out="attn.c_proj",
    gate_up=(),
    up="mlp.c_fc",
    down="mlp.c_proj",
    norm="transformer.ln_f",
    head="lm_head",
    # Buffers of older versions.
    derived=("transformer.h.*.attn.bias", "transformer.h.*.attn.masked_bias"),
)


def hub_names(config: GPT2Config) -> Names:
    """Returns the names with a prefix and without one; matrices are stored [inputs, outputs]."""
    plain = without_prefix(CONV1D, "transformer.")
    return either(*(decoder_names(each, config, linear=TRANSPOSED) for each in (CONV1D, plain)))


def gguf_names(config: GPT2Config) -> Names:
    """Returns the names in GGUF files, whose matrices are [outputs, inputs]."""
    return decoder_names(replace(GGUF_FUSED, positions="position_embd"), config)


GPT2_FAMILY = Family(
    name="gpt2",
    config=ConfigTable(
        GPT2Config,
        fields={**GPT2_FIELDS, **SCALES},
        fixed=(NO_CROSS_ATTENTION,),
        matrices=MATRICES,
    ),
    build={"causal": GPT2},
    hub_names=hub_names,
    gguf_names=gguf_names,
    gguf="gpt2",
)
