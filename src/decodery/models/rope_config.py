"""Reads the rotary positions that checkpoints declare."""

from __future__ import annotations

import math
from collections.abc import Sequence

from decodery.errors import ModelError
from decodery.models.checkpoint_keys import CheckpointKeys
from decodery.models.layers.rope import (
    DividedRope,
    DynamicRope,
    LinearRope,
    Llama3Rope,
    Rope,
    YarnRope,
    yarn_magnitude,
)


def rope_from_hub(config: CheckpointKeys, head_dim: int, context_length: int) -> Rope:
    """Reads `rope_parameters` of a config.json, or the older pair `rope_theta` and `rope_scaling`.

    Raises ModelError that names the key when a value is absurd or the kind of scaling is not supported.
    """
    key = "rope_scaling" if config.has("rope_scaling") else "rope_parameters"
    rope = config.section(key)
    theta = rope.positive("rope_theta", config.positive("rope_theta", 10000.0))
    _refuse_partial(rope)
    _refuse_partial(config)
    kind_key = "rope_type" if rope.has("rope_type") else "type"
    kind = rope.text(kind_key, "default")
    if kind == "default":
        return Rope(theta)
    if kind not in ("linear", "dynamic", "yarn", "llama3"):
        raise rope.error(kind_key, "default, linear, dynamic, yarn or llama3")
    factor = rope.positive("factor")
    if kind == "linear":
        return LinearRope(theta, factor)
    if kind == "dynamic":
        if factor < 1:
            raise rope.error("factor", "at least 1")
        if head_dim < 4:
            raise ModelError(f"{rope.source}: dynamic scaling needs heads of at least 4, not {head_dim}")
        return DynamicRope(theta, factor, context_length)
    original_length = rope.count("original_max_position_embeddings", context_length)
    if kind == "yarn":
        if theta <= 1:
            raise (rope if rope.has("rope_theta") else config).error("rope_theta", "above 1 for yarn")
        return YarnRope(
            theta,
            factor,
            original_length,
            rope.positive("beta_fast", 32.0),
            rope.positive("beta_slow", 1.0),
            _hub_yarn_magnitude(rope, factor),
            rope.flag("truncate", True),
        )
    low, high = rope.positive("low_freq_factor"), rope.positive("high_freq_factor")
    if high <= low:
        raise rope.error("high_freq_factor", f"above low_freq_factor ({low})")
    return Llama3Rope(theta, factor, low, high, original_length)


def _hub_yarn_magnitude(rope: CheckpointKeys, factor: float) -> float | None:
    if rope.has("attention_factor"):
        return rope.positive("attention_factor")
    if rope.values.get("mscale") and rope.values.get("mscale_all_dim"):
        whole = yarn_magnitude(factor, rope.positive("mscale_all_dim"))
        return yarn_magnitude(factor, rope.positive("mscale")) / whole
    return None


def _refuse_partial(settings: CheckpointKeys) -> None:
    if settings.positive("partial_rotary_factor", 1.0) != 1.0:
        raise settings.error("partial_rotary_factor", "1, since all elements of a head are rotated")


def rope_from_gguf(
    metadata: CheckpointKeys, architecture: str, head_dim: int, context_length: int, divisors: Sequence[float]
) -> Rope:
    """Reads the keys `<architecture>.rope.*` of a GGUF file; `divisors` are its tensor rope_freqs, if any.

    Raises ModelError that names the key when a value is absurd or the kind of scaling is not supported.
    """
    prefix = f"{architecture}.rope"
    if metadata.count(f"{prefix}.dimension_count", head_dim) != head_dim:
        raise metadata.error(f"{prefix}.dimension_count", f"the size of a head ({head_dim})")
    theta = metadata.positive(f"{prefix}.freq_base", 10000.0)
    kind = metadata.text(f"{prefix}.scaling.type", "none")
    if divisors:
        if len(divisors) != head_dim // 2 or not all(0 < divisor < math.inf for divisor in divisors):
            raise ModelError(
                f"{metadata.source}: the tensor rope_freqs must hold {head_dim // 2} finite numbers above 0"
            )
        if kind != "none":
            raise metadata.error(f"{prefix}.scaling.type", "none, since the file has a tensor rope_freqs")
        return DividedRope(theta, tuple(divisors))
    if kind == "none":
        return Rope(theta)
    if kind not in ("linear", "yarn"):
        raise metadata.error(f"{prefix}.scaling.type", "none, linear or yarn")
    factor = metadata.positive(f"{prefix}.scaling.factor")
    if kind == "linear":
        return LinearRope(theta, factor)
    if theta <= 1:
        raise metadata.error(f"{prefix}.freq_base", "above 1 for yarn")
    return YarnRope(
        theta,
        factor,
        metadata.count(f"{prefix}.scaling.original_context_length", context_length),
        metadata.positive(f"{prefix}.scaling.yarn_beta_fast", 32.0),
        metadata.positive(f"{prefix}.scaling.yarn_beta_slow", 1.0),
        metadata.positive(f"{prefix}.scaling.attn_factor", 1.0) * yarn_magnitude(factor),
    )
