"""Reads and writes the rotary positions that checkpoints declare."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from types import MappingProxyType
from typing import Any

import torch
from torch import Tensor

from decodery.errors import ModelError
from decodery.models.checkpoint_keys import CheckpointKeys
from decodery.models.config_reader import Field, Source
from decodery.models.layers.rope import (
    DividedRope,
    DynamicRope,
    LinearRope,
    Llama3Rope,
    LongRope,
    ProportionalRope,
    Rope,
    YarnRope,
    yarn_magnitude,
)

DIVISORS = "rope_freqs.weight"
SHORT, LONG = "rope_factors_short.weight", "rope_factors_long.weight"
PARTIAL = "partial_rotary_factor"
ORIGINAL = "original_max_position_embeddings"
PLAIN = Rope()
STILL = 1e30
"""The divisor of pairs that do not rotate, in GGUF files."""


@dataclass(frozen=True)
class RopeField(Field):
    """Says how the rotary positions of all layers are stored.

    `default` is what a config.json without any of the keys means, and its theta what one without a theta
    means. If not `theta_alone`, a theta without the other keys is not read. `rotated` is the field with the
    number of elements of a head that are rotated. A family that rotates a part of a head names its own field,
    a `RotatedSize`; otherwise `partial_rotary_factor` must be 1. `theta` is the older key of theta in
    config.json. `renamed` are kinds of scaling that mean another. `original_length` is that of a config.json
    without one; None: the context length.
    """

    default: Rope = PLAIN
    rotated: str = "head_dim"
    theta: str = "rope_theta"
    theta_alone: bool = True
    renamed: Mapping[str, str] = field(default_factory=dict)
    original_length: int | None = None

    def keys(self, gguf: bool) -> Sequence[str]:
        return ("rope.freq_base",) if gguf else ("rope_parameters", "rope_scaling", self.theta)

    def read(self, source: Source, name: str) -> Rope:
        size, context_length = source[self.rotated], source["context_length"]
        if source.is_gguf:
            _check_gguf_size(source, size)
            return _rope_from_gguf(source, "rope.freq_base", size, context_length, scaled=True)
        if not any(source.keys.has(key) for key in ("rope_parameters", "rope_scaling")):
            _refuse_partial(source.keys, self.rotated)
            if not self.theta_alone:
                return self.default
            return _with_theta(self.default, source.keys, self.theta, self.default.theta)
        rope = self._section(source.keys)
        for key, value in rope.values.items():
            if key.endswith("_attention") and isinstance(value, Mapping):
                raise rope.error(key, "left out, since all layers have the same rotary positions")
        for keys in (rope, source.keys):
            _refuse_partial(keys, self.rotated)
        theta = self.default.theta
        return _rope_from_hub(rope, source.keys, self.theta, theta, size, context_length, self.renamed)

    def write(self, value: Rope, config: Any, *, gguf: bool) -> Mapping[str, Any]:
        if not gguf:
            # Phi's configs have a default outside that would replace what stands inside.
            outside = {ORIGINAL: value.original_length} if isinstance(value, LongRope) else {}
            return {"rope_parameters": _hub_settings(value), **outside}
        return {
            "rope.dimension_count": getattr(config, self.rotated),
            "rope.freq_base": value.theta,
            **_gguf_scaling(value),
        }

    def tensors(self, value: Rope, config: Any) -> Mapping[str, Tensor]:
        return _divisors(value, getattr(config, self.rotated))

    def _section(self, config: CheckpointKeys) -> CheckpointKeys:
        """Returns the settings, with the original length that stands outside of them or is the family's."""
        rope = config.section("rope_scaling" if config.has("rope_scaling") else "rope_parameters")
        if config.has(ORIGINAL):
            length: int | None = config.count(ORIGINAL)
        else:
            length = None if rope.has(ORIGINAL) else self.original_length
        return rope if length is None else CheckpointKeys({**rope.values, ORIGINAL: length}, rope.source)


@dataclass(frozen=True)
class RotatedSize(Field):
    """Says how many elements of a head are rotated, the first ones.

    `factor` is the share of a head in a config.json without the key, which stands under `rope_parameters` or,
    in older files, outside as one of `older`.
    """

    factor: float
    older: tuple[str, ...] = (PARTIAL,)

    def keys(self, gguf: bool) -> Sequence[str]:
        return ("rope.dimension_count",) if gguf else (f"rope_parameters.{PARTIAL}", *self.older)

    def read(self, source: Source, name: str) -> int:
        head_dim: int = source["head_dim"]
        if source.is_gguf:
            size = source.keys.count(source.key("rope.dimension_count"), head_dim)
        else:
            keys, key = source.place(source.stored(name) or self.older[0])
            size = int(head_dim * keys.positive(key, self.factor))
        if size % 2 or not 0 < size <= head_dim:
            raise source.error(name, f"such that an even part of a head of {head_dim} is rotated")
        return size

    def write(self, value: int, config: Any, *, gguf: bool) -> Mapping[str, Any]:
        if gguf:
            return {}  # The field of the rotary positions writes it.
        factor = value / config.head_dim
        exact = int(config.head_dim * factor) == value
        return {f"rope_parameters.{PARTIAL}": factor if exact else math.nextafter(factor, 1)}


@dataclass(frozen=True)
class KindOfLayer:
    """Holds where the rotary positions of one kind of layer are stored.

    `theta` is the default. `hub` is the older key of theta in config.json, and `gguf` that of a GGUF file. A
    GGUF file without it has the theta `gguf_theta`, or if that is None the theta of the first kind. `size` is
    the field with the size of a head, and `gguf_size` its key. `share` is the default share of the pairs that
    rotate, None if all do.
    """

    theta: float
    hub: str
    gguf: str
    gguf_theta: float | None = None
    size: str = "head_dim"
    gguf_size: str = "rope.dimension_count"
    share: float | None = None


@dataclass(frozen=True)
class RopeByKind(Field):
    """Says how rotary positions are stored that differ by the kind of layer; the value maps a kind to Rope.

    `kinds` has the names that `rope_parameters` and `layer_types` of a config.json have. Only the first kind
    is scaled by `rope_scaling` and by the scaling of a GGUF file.
    """

    kinds: Mapping[str, KindOfLayer]

    def keys(self, gguf: bool) -> Sequence[str]:
        own = tuple(filter(None, (kind.gguf if gguf else kind.hub for kind in self.kinds.values())))
        return own if gguf else ("rope_parameters", "rope_scaling", *own)

    def read(self, source: Source, name: str) -> Mapping[str, Rope]:
        found: dict[str, Rope] = {}
        for kind, stored in self.kinds.items():
            if source.is_gguf:
                _check_gguf_size(source, source[stored.size], stored.gguf_size)
                found[kind] = self._gguf_rope(source, stored, scaled=not found)
            else:
                rope = self._section(source.keys, kind, first=not found)
                found[kind] = self._hub_rope(source, stored, rope)
        return found

    def write(self, value: Mapping[str, Rope], config: Any, *, gguf: bool) -> Mapping[str, Any]:
        if not gguf:
            return {"rope_parameters": {kind: _hub_settings(rope) for kind, rope in value.items()}}
        first, *others = self.kinds
        if any(type(value[kind]) is not Rope for kind in others):
            raise ModelError(f"a GGUF file scales the rotary positions of {first} layers only")
        thetas = {stored.gguf: value[kind].theta for kind, stored in self.kinds.items()}
        sizes = {stored.gguf_size: getattr(config, stored.size) for stored in self.kinds.values()}
        return {**sizes, **thetas, **_gguf_scaling(value[first])}

    def tensors(self, value: Mapping[str, Rope], config: Any) -> Mapping[str, Tensor]:
        kind, stored = next(iter(self.kinds.items()))
        return _divisors(value[kind], getattr(config, stored.size))

    def _hub_rope(self, source: Source, stored: KindOfLayer, rope: CheckpointKeys) -> Rope:
        if stored.share is not None and (not rope.values or rope.values.get("rope_type") == "proportional"):
            share = rope.positive(PARTIAL, 1.0) if rope.values else stored.share
            if share > 1:
                raise rope.error(PARTIAL, "at most 1")
            return ProportionalRope(
                rope.positive("rope_theta", stored.theta), share, rope.positive("factor", 1.0)
            )
        for keys in (rope, source.keys):
            _refuse_partial(keys, "head_dim")
        size, length = source[stored.size], source["context_length"]
        return _rope_from_hub(rope, source.keys, stored.hub, stored.theta, size, length)

    def _gguf_rope(self, source: Source, stored: KindOfLayer, *, scaled: bool) -> Rope:
        size = source[stored.size]
        if stored.gguf_theta is not None and not source.keys.has(source.key(stored.gguf)):
            return Rope(stored.gguf_theta)
        key = stored.gguf if source.keys.has(source.key(stored.gguf)) else self.keys(True)[0]
        rope = _rope_from_gguf(source, key, size, source["context_length"], scaled=scaled)
        return rope if stored.share is None else _proportional(rope, size)

    def _section(self, config: CheckpointKeys, kind: str, *, first: bool) -> CheckpointKeys:
        """Returns the settings of one kind of layer, which older files have for the first kind only."""
        by_kind = config.section("rope_parameters")
        if any(by_kind.has(each) for each in self.kinds):
            rope = by_kind.section(kind)
        else:
            old = "rope_scaling" if config.has("rope_scaling") else "rope_parameters"
            rope = config.section(old) if first else CheckpointKeys({}, config.source)
        return rope


def _refuse_partial(settings: CheckpointKeys, rotated: str) -> None:
    if rotated == "head_dim" and settings.positive("partial_rotary_factor", 1.0) != 1.0:
        raise settings.error("partial_rotary_factor", "1, since all elements of a head are rotated")


def _proportional(rope: Rope, size: int) -> Rope:
    """Returns rotary positions whose last pairs have the divisor `STILL` as those that rotate a share."""
    if not isinstance(rope, DividedRope):
        return rope
    rotated = sum(divisor < STILL / 2 for divisor in rope.divisors)
    if rope.divisors[:rotated] != (1.0,) * rotated:
        return rope
    return ProportionalRope(rope.theta, 2 * rotated / size)


def _rope_from_hub(
    rope: CheckpointKeys,
    config: CheckpointKeys,
    theta_key: str,
    default_theta: float,
    size: int,
    context_length: int,
    renamed: Mapping[str, str] = MappingProxyType({}),
) -> Rope:
    """Returns the rotary positions of one section of a config.json, whose theta may stand outside of it.

    Raises ModelError that names the key when a value is absurd or the kind of scaling is not supported.
    """
    kind_key = "rope_type" if rope.has("rope_type") else "type"
    stored = rope.text(kind_key, "default")
    kind = renamed.get(stored, stored)
    keys, key = (rope, "rope_theta") if rope.has("rope_theta") else (config, theta_key)
    if kind == "default":
        return _with_theta(PLAIN, keys, key, default_theta)
    if kind not in _HUB_READERS:
        *names, last = _HUB_READERS
        raise rope.error(kind_key, f"default, {', '.join(names)} or {last}")
    return _with_theta(_HUB_READERS[kind](rope, size, context_length), keys, key, default_theta)


def _with_theta(rope: Rope, keys: CheckpointKeys, key: str, default: float) -> Rope:
    theta = keys.positive(key, default)
    if isinstance(rope, YarnRope) and theta <= 1:
        raise keys.error(key, "above 1 for yarn")
    return replace(rope, theta=theta)


def _hub_linear(rope: CheckpointKeys, size: int, context_length: int) -> Rope:
    return LinearRope(factor=rope.positive("factor"))


def _hub_dynamic(rope: CheckpointKeys, size: int, context_length: int) -> Rope:
    factor = rope.positive("factor")
    if factor < 1:
        raise rope.error("factor", "at least 1")
    if size < 4:
        raise ModelError(f"{rope.source}: dynamic scaling needs heads of at least 4, not {size}")
    return DynamicRope(factor=factor, original_length=context_length)


def _hub_yarn(rope: CheckpointKeys, size: int, context_length: int) -> Rope:
    magnitude, factor = None, rope.positive("factor")
    if rope.has("attention_factor"):
        magnitude = rope.positive("attention_factor")
    elif rope.values.get("mscale") and rope.values.get("mscale_all_dim"):
        whole = yarn_magnitude(factor, rope.positive("mscale_all_dim"))
        magnitude = yarn_magnitude(factor, rope.positive("mscale")) / whole
    return YarnRope(
        factor=factor,
        original_length=rope.count(ORIGINAL, context_length),
        beta_fast=rope.positive("beta_fast", 32.0),
        beta_slow=rope.positive("beta_slow", 1.0),
        attention_factor=magnitude,
        truncate=rope.flag("truncate", True),
    )


def _hub_llama3(rope: CheckpointKeys, size: int, context_length: int) -> Rope:
    original_length = rope.count(ORIGINAL, context_length)
    low, high = rope.positive("low_freq_factor"), rope.positive("high_freq_factor")
    if high < low:
        raise rope.error("high_freq_factor", f"at least low_freq_factor ({low})")
    return Llama3Rope(
        factor=rope.positive("factor"),
        low_frequency_factor=low,
        high_frequency_factor=high,
        original_length=original_length,
    )


def _hub_longrope(rope: CheckpointKeys, size: int, context_length: int) -> Rope:
    length = rope.count(ORIGINAL, context_length)
    factor = rope.positive("factor", context_length / length)
    magnitude = rope.positive("attention_factor", _longrope_magnitude(factor, length))
    return LongRope(
        short=_divisor_list(rope, "short_factor", size),
        long=_divisor_list(rope, "long_factor", size),
        original_length=length,
        magnitudes=(magnitude, magnitude),
    )


def _longrope_magnitude(factor: float, original_length: int) -> float:
    """Returns `sqrt(1 + ln(factor) / ln(original_length))`, as the code of LongRoPE has it."""
    if factor <= 1 or original_length == 1:
        return 1.0
    return math.sqrt(1 + math.log(factor) / math.log(original_length))


def _divisor_list(rope: CheckpointKeys, key: str, size: int) -> tuple[float, ...]:
    found = rope.values.get(key)
    wanted = f"a list of {size // 2} finite numbers above 0"
    if not isinstance(found, list) or len(found) != size // 2:
        raise rope.error(key, wanted)
    if not all(type(each) in (int, float) and 0 < each < math.inf for each in found):
        raise rope.error(key, wanted)
    return tuple(map(float, found))


_HUB_READERS: Mapping[str, Callable[[CheckpointKeys, int, int], Rope]] = {
    "linear": _hub_linear,
    "dynamic": _hub_dynamic,
    "yarn": _hub_yarn,
    "llama3": _hub_llama3,
    "longrope": _hub_longrope,
}


def _hub_settings(rope: Rope) -> dict[str, Any]:
    """Returns the settings of one section; raises ModelError for what a config.json cannot express."""
    common = {"rope_theta": rope.theta}
    if isinstance(rope, LinearRope):
        return {"rope_type": "linear", **common, "factor": rope.factor}
    if isinstance(rope, DynamicRope):
        return {"rope_type": "dynamic", **common, "factor": rope.factor}
    if isinstance(rope, YarnRope):
        settings = {"factor": rope.factor, ORIGINAL: rope.original_length}
        optional = {
            "beta_fast": rope.beta_fast,
            "beta_slow": rope.beta_slow,
            "attention_factor": rope.attention_factor,
            "truncate": rope.truncate,
        }
        plain = YarnRope()
        changed = {key: value for key, value in optional.items() if value != getattr(plain, key)}
        return {"rope_type": "yarn", **common, **settings, **changed}
    if isinstance(rope, Llama3Rope):
        return {
            "rope_type": "llama3",
            **common,
            "factor": rope.factor,
            "low_freq_factor": rope.low_frequency_factor,
            "high_freq_factor": rope.high_frequency_factor,
            ORIGINAL: rope.original_length,
        }
    if isinstance(rope, LongRope) and rope.magnitudes[0] == rope.magnitudes[1]:
        return {
            "rope_type": "longrope",
            **common,
            "short_factor": list(rope.short),
            "long_factor": list(rope.long),
            ORIGINAL: rope.original_length,
            "attention_factor": rope.magnitudes[0],
        }
    if isinstance(rope, ProportionalRope):
        scaled = {} if rope.factor == 1 else {"factor": rope.factor}
        return {"rope_type": "proportional", **common, PARTIAL: rope.share, **scaled}
    if type(rope) is Rope:
        return {"rope_type": "default", **common}
    raise ModelError(f"a config.json cannot express the rotary positions {type(rope).__name__}")


def _check_gguf_size(source: Source, size: int, name: str = "rope.dimension_count") -> None:
    key = source.key(name)
    if source.keys.count(key, size) != size:
        raise source.keys.error(key, f"the size of a head ({size})")


def _rope_from_gguf(source: Source, theta_key: str, size: int, context_length: int, *, scaled: bool) -> Rope:
    """Returns the rotary positions of the keys `<architecture>.rope.*` and the tensor rope_freqs.

    Raises ModelError that names the key when a value is absurd or the kind of scaling is not supported.
    """
    metadata, scaling = source.keys, source.key("rope.scaling")
    theta = metadata.positive(source.key(theta_key), 10000.0)
    if not scaled:
        return Rope(theta)
    kind, factor = metadata.text(f"{scaling}.type", "linear"), _gguf_factor(source)
    if factor is None and kind == "linear":
        kind = "none"
    divisors, short, long = (_stored_divisors(source, size, name) for name in (DIVISORS, SHORT, LONG))
    if short or long:
        if not (short and long) or divisors or kind not in ("none", "longrope"):
            raise ModelError(
                f"{metadata.source}: the tensors {SHORT} and {LONG} belong together, without another scaling"
            )
        length = metadata.count(f"{scaling}.original_context_length", context_length)
        magnitude = metadata.positive(f"{scaling}.attn_factor", 1.0)
        return LongRope(theta, short, long, length, (magnitude, magnitude))
    if divisors and kind != "none":
        raise metadata.error(f"{scaling}.type", "none, since the file has a tensor rope_freqs")
    if divisors:
        return DividedRope(theta, divisors)
    if kind == "none":
        return Rope(theta)
    if kind not in ("linear", "yarn"):
        raise metadata.error(f"{scaling}.type", "none, linear or yarn")
    if factor is None:
        raise metadata.error(f"{scaling}.factor", "a finite number above 0")
    if kind == "linear":
        return LinearRope(theta, factor)
    if theta <= 1:
        raise metadata.error(source.key(theta_key), "above 1 for yarn")
    sharper, log = f"{scaling}.attn_factor", f"{scaling}.yarn_log_multiplier"
    magnitude = metadata.positive(sharper, 1.0) * yarn_magnitude(factor)
    if metadata.values.get(log):
        magnitude /= yarn_magnitude(factor, metadata.positive(log))
    return YarnRope(
        theta,
        factor,
        metadata.count(f"{scaling}.original_context_length", context_length),
        metadata.positive(f"{scaling}.yarn_beta_fast", 32.0),
        metadata.positive(f"{scaling}.yarn_beta_slow", 1.0),
        magnitude if metadata.has(sharper) or metadata.has(log) else None,
    )


def _gguf_factor(source: Source) -> float | None:
    """Returns the factor of a scaling, under its key or the older one; None without them or if it is 0."""
    keys = (source.key(key) for key in ("rope.scaling.factor", "rope.scale_linear"))
    key = next(filter(source.keys.has, keys), None)
    return source.keys.positive(key) if key and source.keys.values[key] != 0 else None


def _stored_divisors(source: Source, size: int, tensor: str) -> tuple[float, ...]:
    """Returns the numbers of a tensor, none without it."""
    if source.checkpoint is None or tensor not in source.checkpoint.tensors:
        return ()
    wanted = f"{source.keys.source}: the tensor {tensor.removesuffix('.weight')} must hold {size // 2}"
    info = source.checkpoint.tensors[tensor]
    if info.shape != (size // 2,):
        raise ModelError(f"{wanted} numbers, not {info.shape}")
    divisors = tuple(source.checkpoint.read(tensor, torch.float32).tolist())
    if not all(0 < divisor < math.inf for divisor in divisors):
        raise ModelError(f"{wanted} finite numbers above 0")
    return divisors


def _gguf_scaling(rope: Rope) -> dict[str, Any]:
    """Returns the keys of a scaling; raises ModelError for one that GGUF cannot express."""
    scaling = "rope.scaling"
    if isinstance(rope, LinearRope):
        return {f"{scaling}.type": "linear", f"{scaling}.factor": rope.factor}
    if isinstance(rope, YarnRope) and rope.truncate:
        keys = {
            "type": "yarn",
            "factor": rope.factor,
            "original_context_length": rope.original_length,
            "yarn_beta_fast": rope.beta_fast,
            "yarn_beta_slow": rope.beta_slow,
        }
        if rope.attention_factor is not None:
            keys["attn_factor"] = rope.attention_factor / yarn_magnitude(rope.factor)
        return {f"{scaling}.{key}": value for key, value in keys.items()}
    if isinstance(rope, LongRope) and rope.magnitudes[0] == rope.magnitudes[1]:
        return {
            f"{scaling}.original_context_length": rope.original_length,
            f"{scaling}.attn_factor": rope.magnitudes[0],
        }
    if type(rope) is Rope or isinstance(rope, (DividedRope, Llama3Rope, ProportionalRope)):
        return {}
    raise ModelError(f"a GGUF file cannot express the rotary positions {rope}")


def _divisors(rope: Rope, size: int) -> Mapping[str, Tensor]:
    """Returns the tensor of a scaling for which GGUF has no keys."""
    if isinstance(rope, DividedRope):
        return {DIVISORS: torch.tensor(rope.divisors)}
    if isinstance(rope, LongRope):
        return {SHORT: torch.tensor(rope.short), LONG: torch.tensor(rope.long)}
    if isinstance(rope, ProportionalRope):
        still = torch.arange(size // 2) >= rope.rotated_pairs(size)
        return {DIVISORS: torch.where(still, STILL, rope.factor)}
    if isinstance(rope, Llama3Rope):
        plain = Rope(rope.theta).frequencies(size, 0)
        return {DIVISORS: plain / rope.frequencies(size, rope.original_length)}
    return {}
