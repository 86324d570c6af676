"""Defines OPT: GPT-2 with relu, whose smallest variants normalise after attention and MLP.

Zhang et al., OPT: Open Pre-trained Transformer Language Models (2022).
"""

from __future__ import annotations

from dataclasses import dataclass, replace

from torch import Tensor, nn

from decodery.kernels.contract import Kernels
from decodery.models.config_reader import COUNT, FLAG, NO_KEY, ConfigTable, Fixed, Setting, value_of
from decodery.models.contract import Family, Names
from decodery.models.decoders.decoder_config import ACTIVATIONS, MATRICES, context_length
from decodery.models.decoders.layer_norm.gpt2 import GPT2, GPT2_FIELDS, GPT2Config
from decodery.models.decoders.names import Spelling, decoder_names, either, without_prefix
from decodery.models.layers.attention import Attention
from decodery.models.layers.blocks import PostNormBlock, PreNormBlock
from decodery.models.layers.embedding import Embedding
from decodery.models.layers.linear import Linear
from decodery.models.layers.mlp import PlainMLP
from decodery.models.layers.norm import LayerNorm
from decodery.weights.names import rename
from decodery.weights.transforms import without_first


@dataclass(frozen=True)
class OPTConfig(GPT2Config):
    """Holds the sizes and values of one OPT.

    Embeddings have `embedding_width` elements, and a linear map leads to the `width` of the layers and
    another one back. There is no last norm unless `pre_norm`, or if `norm_removed`.
    """

    embedding_width: int = 0
    pre_norm: bool = True
    norm_removed: bool = False


class OPT(GPT2):
    """Defines an OPT over the given kernels; its parameters are not initialised."""

    config: OPTConfig

    def __init__(self, config: OPTConfig, kernels: Kernels) -> None:
        super().__init__(config, kernels)
        inner, width = config.embedding_width, config.width
        self.project_in = self.project_out = None
        if inner != width:
            self.embedding = Embedding(config.vocab_size, inner, kernels, multiplied=config.tied_head)
            self.head = None if config.tied_head else Linear(inner, config.vocab_size, kernels)
            self.project_in = Linear(inner, width, kernels)
            self.project_out = Linear(width, inner, kernels)

    def block(self, config: GPT2Config, layer: int, kernels: Kernels) -> nn.Module:
        assert isinstance(config, OPTConfig)
        width, bias = config.width, config.attention_bias
        attention = Attention(config.attention(layer), width, kernels, bias=bias)
        mlp = PlainMLP(width, config.mlp_width, config.activation, kernels, bias=bias)
        attn_norm, mlp_norm = (LayerNorm(width, config.norm_eps, kernels) for _ in range(2))
        if config.pre_norm:
            return PreNormBlock(attn_norm, attention, mlp_norm, mlp)
        return PostNormBlock(attention, attn_norm, mlp, mlp_norm)

    def last_norm(self, config: GPT2Config, kernels: Kernels) -> nn.Module:
        assert isinstance(config, OPTConfig)
        has_none = config.norm_removed or not config.pre_norm
        return nn.Identity() if has_none else super().last_norm(config, kernels)

    def embed(self, tokens: Tensor, positions: Tensor) -> Tensor:
        x = super().embed(tokens, positions)
        return x if self.project_in is None else self.project_in(x)

    def logits(self, hidden: Tensor) -> Tensor:
        return super().logits(hidden if self.project_out is None else self.project_out(hidden))


HUB = Spelling(
    embedding="model.decoder.embed_tokens",
    layer="model.decoder.layers.{i}.",
    norms={"attn_norm": "self_attn_layer_norm", "mlp_norm": "final_layer_norm"},
    qkv=("self_attn.q_proj", "self_attn.k_proj", "self_attn.v_proj"),
    out="self_attn.out_proj",
    gate_up=(),
    up="fc1",
    down="fc2",
    norm="model.decoder.final_layer_norm",
    head="lm_head",
)


def _names(spelling: Spelling, config: OPTConfig) -> Names:
    decoder = spelling.embedding.removesuffix("embed_tokens")
    further = [
        rename("positions.weight", f"{decoder}embed_positions.weight", without_first(2)),
        *(rename(f"{name}.weight", f"{decoder}{name}.weight") for name in ("project_in", "project_out")),
    ]
    names = decoder_names(spelling, config, further=further)
    return replace(names, delicate=(*names.delicate, f"{decoder}embed_positions.weight"))


POSITIONS = context_length(2048)
OPT_FAMILY = Family(
    name="opt",
    config=ConfigTable(
        OPTConfig,
        fields={
            **GPT2_FIELDS,
            "width": Setting(COUNT, "hidden_size"),
            "layers": Setting(COUNT, "num_hidden_layers"),
            "heads": Setting(COUNT, "num_attention_heads"),
            "mlp_width": Setting(COUNT, "ffn_dim", default=3072),
            "context_length": POSITIONS,
            "positions": POSITIONS,
            "norm_eps": Setting(NO_KEY, default=1e-5),
            "activation": Setting(ACTIVATIONS, "activation_function", default="relu"),
            "attention_bias": Setting(FLAG, "enable_bias", default=True),
            "embedding_width": Setting(COUNT, "word_embed_proj_dim", default=value_of("width")),
            "pre_norm": Setting(FLAG, "do_layer_norm_before", default=True),
            "norm_removed": Setting(FLAG, "_remove_final_layer_norm", default=False),
        },
        fixed=(
            Fixed(
                hub="layer_norm_elementwise_affine",
                value=True,
                wanted="true: norms without weights are not supported for this family",
            ),
        ),
        matrices=MATRICES[1:],
    ),
    build={"causal": OPT},
    hub_names=lambda config: either(_names(HUB, config), _names(without_prefix(HUB, "model."), config)),
)
