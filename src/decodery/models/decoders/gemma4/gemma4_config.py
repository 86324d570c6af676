"""Reads and writes the settings of Gemma 4, whose full layers have heads of their own."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from decodery.errors import ModelError
from decodery.kernels.attention_layer import AttentionLayer
from decodery.models.config_reader import COUNT_FROM_0, Field, Setting, Source
from decodery.models.decoders.experts.moe import MoEConfig
from decodery.models.decoders.gemma import GemmaConfig
from decodery.models.window_config import GGUF_PATTERN, WindowField, Windows

OVERRIDES = "per_layer_config"


@dataclass(frozen=True, kw_only=True)
class Gemma4Config(GemmaConfig, MoEConfig):
    """Holds the sizes and values of one Gemma 4.

    `head_dim` and `kv_heads` are those of layers with a window. The last `shared_kv` layers have no keys and
    values; with `wide_shared` their MLPs are twice as wide. With `key_is_value` the values of full layers are
    their keys before they are normalised. `layer_width` is the width of each layer's embedding, 0 for none.
    """

    full_head_dim: int
    full_kv_heads: int
    shared_kv: int = 0
    wide_shared: bool = False
    key_is_value: bool = False
    layer_width: int = 0

    def is_full(self, layer: int) -> bool:
        """True if a layer sees all keys."""
        return not self.windows or self.windows[layer] is None

    def source(self, layer: int) -> int | None:
        """Returns the layer whose keys and values a layer reads, None for its own."""
        own = self.layers - self.shared_kv
        if layer < own:
            return None
        return max(each for each in range(own) if self.is_full(each) == self.is_full(layer))

    def heads_of(self, layer: int) -> tuple[int, ...]:
        """Returns the numbers of a layer's heads of queries, keys and values that have weights."""
        if self.source(layer) is not None:
            return (self.heads,)
        if not self.is_full(layer):
            return self.heads, self.kv_heads, self.kv_heads
        return self.heads, *[self.full_kv_heads] * (1 if self.key_is_value else 2)

    def size_of(self, layer: int) -> int:
        """Returns the size of a layer's heads."""
        return self.full_head_dim if self.is_full(layer) else self.head_dim

    def attention(self, layer: int) -> AttentionLayer:
        full, size = self.is_full(layer), self.size_of(layer)
        return AttentionLayer(
            layer,
            self.heads,
            self.full_kv_heads if full else self.kv_heads,
            size,
            size,
            1.0,
            window=None if full else self.windows[layer],
            kv_source=self.source(layer),
        )


def full_layers(source: Source) -> Sequence[int]:
    """Returns the layers that see all keys."""
    windows = source["windows"] or (None,) * source["layers"]
    return [layer for layer, window in enumerate(windows) if window is None]


@dataclass(frozen=True)
class LastIsFull(WindowField):
    """Says that the last layer has no window, whatever else is said.

    GGUF files have a flag for each layer.
    """

    def read(self, source: Source, name: str) -> Windows:
        found = super().read(source, name)
        windows = (*found[:-1], None) if found else ()
        return windows if any(windows) else ()

    def write(self, value: Windows, config: Any, *, gguf: bool) -> Mapping[str, Any]:
        written = super().write(value, config, gguf=gguf)
        flags = [window is not None for window in value] or [False] * config.layers
        return {**written, GGUF_PATTERN: flags} if gguf else written


@dataclass(frozen=True)
class OfFullLayers(Field):
    """Says how a size of full layers is stored that other layers have under another key.

    `hub` is its key in a config.json, and `override` that under `per_layer_config`, which has an object for
    each full layer. `needs` is a key that must be true, or `hub` is not read. `default` is the value without
    any of them; None: that of the field `of`.
    """

    hub: str
    override: str
    of: str
    needs: str = ""
    default: int | None = None

    def keys(self, gguf: bool) -> Sequence[str]:
        return () if gguf else (self.hub, OVERRIDES)

    def read(self, source: Source, name: str) -> int:
        default: int = source[self.of] if self.default is None else self.default
        if OVERRIDES in source.keys.values:
            return self._override(source, source[self.of])
        if self.needs and not source.keys.flag(self.needs, False):
            return default
        return source.keys.count(self.hub, default)

    def write(self, value: int, config: Any, *, gguf: bool) -> Mapping[str, Any]:
        if gguf:
            return {}
        if not self.needs:
            return {self.hub: value}
        if value == getattr(config, self.of):
            return {}
        if not config.key_is_value:
            raise ModelError(f"a config.json has {self.hub} only with {self.needs}")
        return {self.hub: value}

    def _override(self, source: Source, default: int) -> int:
        layers, full = source.keys.section(OVERRIDES), full_layers(source)
        found = dict.fromkeys(range(source["layers"]), default)
        for key in layers.values:
            if not key.isdigit() or int(key) not in found:
                raise source.keys.error(OVERRIDES, f"an object for layers from 0 to {len(found) - 1}")
            found[int(key)] = layers.section(key).count(self.override, default)
        if len({found[layer] for layer in full}) > 1 or any(
            size != default for layer, size in found.items() if layer not in full
        ):
            raise source.keys.error(OVERRIDES, f"such that {self.override} differs for full layers only")
        return found[full[0]]


@dataclass(frozen=True)
class FullHeadSize(OfFullLayers):
    """Says how the size of a head of full layers is stored."""

    def keys(self, gguf: bool) -> Sequence[str]:
        return ("attention.key_length",) if gguf else super().keys(gguf)

    def read(self, source: Source, name: str) -> int:
        if source.is_gguf:
            size = source.keys.count(source.key("attention.key_length"))
        else:
            size = super().read(source, name)
        if size % 2:
            raise source.error(name, "an even size of a head")
        return size

    def write(self, value: int, config: Any, *, gguf: bool) -> Mapping[str, Any]:
        if gguf:
            return {"attention.key_length": value}
        return super().write(value, config, gguf=gguf)


def _by_layer(source: Source, key: str) -> Sequence[int] | None:
    """Returns the numbers that a GGUF file has for the layers, None if it has one for all."""
    stored = source.keys.values.get(source.key(key))
    if not isinstance(stored, list):
        return None
    if len(stored) != source["layers"] or any(type(each) is not int or each < 1 for each in stored):
        raise source.keys.error(source.key(key), f"a number above 0 for each of {source['layers']} layers")
    return stored


KV_HEADS = "attention.head_count_kv"


@dataclass(frozen=True)
class WindowedHeads(Field):
    """Says how the number of heads of keys is stored, of layers with a window.

    A GGUF file has one number for all layers or one for each.
    """

    def keys(self, gguf: bool) -> Sequence[str]:
        return (KV_HEADS,) if gguf else ("num_key_value_heads",)

    def read(self, source: Source, name: str) -> int:
        each = _by_layer(source, KV_HEADS) if source.is_gguf else None
        if each is not None:
            windows = source["windows"] or (None,) * source["layers"]
            return _one_of(source, [n for n, window in zip(each, windows, strict=True) if window] or each)
        heads = source.keys.count(source.key(self.keys(source.is_gguf)[0]), 4 if not source.is_gguf else None)
        return _divisor(source, name, heads)

    def write(self, value: int, config: Any, *, gguf: bool) -> Mapping[str, Any]:
        if not gguf:
            return {"num_key_value_heads": value}
        windows = config.windows or (None,) * config.layers
        each = [value if window else config.full_kv_heads for window in windows]
        return {KV_HEADS: value if set(each) == {value} else each}


@dataclass(frozen=True)
class FullHeads(OfFullLayers):
    """Says how the number of heads of keys of full layers is stored."""

    def read(self, source: Source, name: str) -> int:
        if not source.is_gguf:
            return _divisor(source, name, super().read(source, name))
        each = _by_layer(source, KV_HEADS)
        if each is None:
            return int(source["kv_heads"])
        return _divisor(source, name, _one_of(source, [each[layer] for layer in full_layers(source)]))


def _one_of(source: Source, numbers: Sequence[int]) -> int:
    if len(set(numbers)) > 1:
        raise source.keys.error(source.key(KV_HEADS), "one number for each kind of layer")
    return numbers[0]


def _divisor(source: Source, name: str, heads: int) -> int:
    if source["heads"] % heads:
        raise source.error(name, f"a divisor of {source.key_of('heads')} ({source['heads']})")
    return heads


def _has_sources(source: Source, name: str) -> None:
    own, windows = source["layers"] - source[name], source["windows"] or (None,) * source["layers"]
    kinds = {window is None for window in windows[: max(own, 0)]}
    if own < 1 or any((window is None) not in kinds for window in windows[own:]):
        raise source.error(name, "such that each kind of layer has one with its own keys and values")


SHARED_KV = Setting(
    COUNT_FROM_0,
    "num_kv_shared_layers",
    "attention.shared_kv_layers",
    default=0,
    checks=(_has_sources,),
)
MLP_WIDTH = "feed_forward_length"


@dataclass(frozen=True)
class OwnWidth(Field):
    """Says how wide the MLPs are, of layers with keys and values of their own; GGUF may list all layers."""

    def keys(self, gguf: bool) -> Sequence[str]:
        return (MLP_WIDTH,) if gguf else ("intermediate_size",)

    def read(self, source: Source, name: str) -> int:
        each = _by_layer(source, MLP_WIDTH) if source.is_gguf else None
        if each is None:
            return source.keys.count(source.key(self.keys(source.is_gguf)[0]))
        own = source["layers"] - source["shared_kv"]
        kinds = set(each[:own]), set(each[own:]) or {each[0]}
        if len(kinds[0]) > 1 or kinds[1] not in ({each[0]}, {2 * each[0]}):
            raise source.error(name, "one width, and twice that where layers share keys and values")
        return each[0]

    def write(self, value: int, config: Any, *, gguf: bool) -> Mapping[str, Any]:
        if not gguf or not config.wide_shared:
            return {self.keys(gguf)[0]: value}
        own = config.layers - config.shared_kv
        return {MLP_WIDTH: [value * (2 if layer >= own else 1) for layer in range(config.layers)]}


@dataclass(frozen=True)
class WideShared(Field):
    """Says whether layers that share keys and values have MLPs of twice the width."""

    def keys(self, gguf: bool) -> Sequence[str]:
        return () if gguf else ("use_double_wide_mlp",)

    def read(self, source: Source, name: str) -> bool:
        if not source["shared_kv"]:
            return False
        if not source.is_gguf:
            return source.keys.flag("use_double_wide_mlp", False)
        each = _by_layer(source, MLP_WIDTH)
        return each is not None and each[-1] != each[0]

    def write(self, value: bool, config: Any, *, gguf: bool) -> Mapping[str, Any]:
        return {} if gguf else {"use_double_wide_mlp": value}


@dataclass(frozen=True)
class KeyIsValue(Field):
    """Says whether values of full layers are their keys; a GGUF file then lacks the tensor of values."""

    def keys(self, gguf: bool) -> Sequence[str]:
        return () if gguf else ("attention_k_eq_v",)

    def read(self, source: Source, name: str) -> bool:
        if source.is_gguf:
            return not source.has_tensor(f"blk.{full_layers(source)[0]}.attn_v.weight")
        return source.keys.flag("attention_k_eq_v", False)

    def write(self, value: bool, config: Any, *, gguf: bool) -> Mapping[str, Any]:
        return {} if gguf else {"attention_k_eq_v": value}


@dataclass(frozen=True)
class EnabledExperts(Field):
    """Says how many experts each layer has, 0 for none."""

    def keys(self, gguf: bool) -> Sequence[str]:
        return ("expert_count",) if gguf else ("num_experts", "enable_moe_block")

    def read(self, source: Source, name: str) -> int:
        if source.is_gguf:
            return source.keys.count(source.key("expert_count"), 0, least=0)
        return source.keys.count("num_experts") if source.keys.flag("enable_moe_block", False) else 0

    def write(self, value: int, config: Any, *, gguf: bool) -> Mapping[str, Any]:
        if gguf:
            return {"expert_count": value} if value else {}
        return {"enable_moe_block": value > 0, **({"num_experts": value} if value else {})}


def _of_experts(source: Source, name: str) -> None:
    if source["experts"] and not source[name]:
        raise source.error(name, "at least 1, since layers have experts")
    if name == "experts_per_token" and source[name] > source["experts"] > 0:
        raise source.error(name, f"at most {source.key_of('experts')} ({source['experts']})")


EXPERTS_PER_TOKEN = Setting(
    COUNT_FROM_0, "top_k_experts", "expert_used_count", default=0, checks=(_of_experts,)
)
EXPERT_WIDTH = Setting(
    COUNT_FROM_0, "moe_intermediate_size", "expert_feed_forward_length", default=0, checks=(_of_experts,)
)
