"""Defines Granite: Llama whose embedding, scores, residuals and logits are multiplied by constants.

Granite Team, IBM, Granite 3.0 Language Models (2024); Yang et al., Tensor Programs V (2022).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace

from torch import Tensor

from decodery.kernels.contract import Kernels
from decodery.models.config_reader import POSITIVE, ConfigTable, Field, Setting
from decodery.models.contract import Family
from decodery.models.decoders.decoder_config import MATRICES, SAME_VALUE_SIZE
from decodery.models.decoders.llama import (
    BIASES,
    LLAMA_FIELDS,
    NO_EXPERTS,
    SILU,
    Llama,
    LlamaConfig,
    gguf_names,
)
from decodery.models.decoders.names import HUB, decoder_names


@dataclass(frozen=True)
class GraniteConfig(LlamaConfig):
    """Holds the sizes and values of one Granite.

    `score_scale` is the factor of the scores, and `logit_divisor` divides the logits. What attention and MLP
    compute is multiplied by `residual_scale` before it is added to the residual stream.
    """

    embedding_scale: float = 1.0
    score_scale: float = 1.0
    residual_scale: float = 1.0
    logit_divisor: float = 1.0

    @property
    def scale(self) -> float:
        return self.score_scale


class Granite(Llama):
    """Defines a Granite over the given kernels; its parameters are not initialised.

    The residual stream is held divided by `residual_scale`, so that nothing multiplies what is added to it. A
    norm of the quotient is that of the stream if its epsilon is divided by the square of the divisor.
    """

    config: GraniteConfig

    def __init__(self, config: GraniteConfig, kernels: Kernels) -> None:
        eps = config.norm_eps / config.residual_scale**2
        super().__init__(replace(config, norm_eps=eps), kernels)
        # What is written is the epsilon that was read.
        self.config = config

    def embed(self, tokens: Tensor, positions: Tensor) -> Tensor:
        scale = self.config.embedding_scale / self.config.residual_scale
        scaled: Tensor = self.embedding(tokens, scale=scale)
        return scaled

    def logits(self, hidden: Tensor) -> Tensor:
        return super().logits(hidden) / self.config.logit_divisor


MULTIPLIERS: Mapping[str, Field] = {
    "embedding_scale": Setting(POSITIVE, "embedding_multiplier", "embedding_scale", default=1.0),
    # Without the key, llama.cpp divides by the root of a head's size, and the hub's code does not.
    "score_scale": Setting(
        POSITIVE,
        "attention_multiplier",
        "attention.scale",
        default=1.0,
        gguf_default=lambda source: source["head_dim"] ** -0.5,
    ),
    "residual_scale": Setting(POSITIVE, "residual_multiplier", "residual_scale", default=1.0),
    "logit_divisor": Setting(POSITIVE, "logits_scaling", "logit_scale", default=1.0),
}
GRANITE = Family(
    name="granite",
    config=ConfigTable(
        GraniteConfig,
        fields={**LLAMA_FIELDS, **BIASES, **MULTIPLIERS},
        fixed=(SAME_VALUE_SIZE, SILU, NO_EXPERTS),
        matrices=MATRICES,
    ),
    build={"causal": Granite},
    hub_names=lambda config: decoder_names(HUB, config),
    gguf_names=gguf_names,
    gguf="granite",
)
