"""Reads and writes what differs between the layers of a Llama 4: chunks, rotation, norms and experts.

llama.cpp has no keys for most of it. A GGUF file with a window of 0 has layers that all rotate and see all
keys; any other has chunks of 8,192 tokens in three layers of four, which rotate.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from decodery.errors import ModelError
from decodery.kernels.contract import PositionGrowth
from decodery.models.config_reader import COUNT_FROM_0, Field, Setting, Source
from decodery.models.window_config import (
    FULL,
    GGUF_PATTERN,
    LAYER_TYPES,
    RotatedField,
    Windows,
    all_but_each,
    by_pattern,
    layer_types,
)

CHUNKED = "chunked_attention"
WINDOW = "attention.sliding_window"
GGUF_CHUNK, GGUF_INTERVAL, GGUF_WITHOUT_NORMS = 8192, 4, 128
GGUF_GROWTH = PositionGrowth(0.1, 8192, offset=1)


def _has_chunks(source: Source) -> bool:
    """True if a GGUF file has layers with chunks."""
    return source.keys.values.get(source.key(WINDOW)) != 0


@dataclass(frozen=True)
class InterleavedField(Field):
    """Says which layers have experts; the value has a flag for each layer, () if all do.

    In a config.json `moe_layers` lists them. Without it, and in GGUF files, every
    `interleave_moe_layer_step`-th layer has, in a GGUF file with 0 none.
    """

    def keys(self, gguf: bool) -> Sequence[str]:
        return ("interleave_moe_layer_step",) if gguf else ("moe_layers", "interleave_moe_layer_step")

    def read(self, source: Source, name: str) -> tuple[bool, ...]:
        layers, key = source["layers"], source.key("interleave_moe_layer_step")
        if source.is_gguf:
            found = _each(source.keys.count(key, least=0), layers)
        elif source.keys.has("moe_layers"):
            listed = source.keys.values["moe_layers"]
            if not isinstance(listed, list) or any(type(i) is not int or not 0 <= i < layers for i in listed):
                raise source.keys.error("moe_layers", f"a list of layers from 0 to {layers - 1}")
            found = tuple(layer in listed for layer in range(layers))
        else:
            found = _each(source.keys.count(key, 1), layers)
        if any(found) and not source["experts"]:
            raise source.error("experts", "at least 1, since layers have experts")
        return () if all(found) else found

    def write(self, value: tuple[bool, ...], config: Any, *, gguf: bool) -> Mapping[str, Any]:
        layers = config.layers
        flags = value or (True,) * layers
        if not gguf:
            return {"moe_layers": [layer for layer in range(layers) if flags[layer]]}
        step = next((step for step in range(layers + 1) if _each(step, layers) == flags), None)
        if step is None:
            raise ModelError("in a GGUF file of this family each so many-th layer has experts")
        return {"interleave_moe_layer_step": step}


def _each(step: int, layers: int) -> tuple[bool, ...]:
    """Returns a flag for each layer that is True for the last of each `step` layers; 0: for none."""
    return tuple(step > 0 and (layer + 1) % step == 0 for layer in range(layers))


def _fits(source: Source, name: str) -> None:
    sparse = source["sparse"]
    if (any(sparse) or not sparse) and not 1 <= source[name] <= source["experts"]:
        raise source.error(name, f"from 1 to {source.key_of('experts')} ({source['experts']})")


EXPERTS_PER_TOKEN = Setting(
    COUNT_FROM_0, "num_experts_per_tok", "expert_used_count", default=1, gguf_default=0, checks=(_fits,)
)


@dataclass(frozen=True)
class HeadNormField(Field):
    """Says whether queries and keys are normalised; those of GGUF files are but for 128 experts."""

    def keys(self, gguf: bool) -> Sequence[str]:
        return () if gguf else ("use_qk_norm",)

    def read(self, source: Source, name: str) -> bool:
        if source.is_gguf:
            return bool(source["experts"] != GGUF_WITHOUT_NORMS)
        return source.keys.flag("use_qk_norm", True)

    def write(self, value: bool, config: Any, *, gguf: bool) -> Mapping[str, Any]:
        if not gguf:
            return {"use_qk_norm": value}
        if value == (config.experts == GGUF_WITHOUT_NORMS):
            raise ModelError("a GGUF file of this family has norms of queries and keys but for 128 experts")
        return {}


def _turned(source: Source) -> Sequence[bool]:
    if not source.is_gguf:
        return all_but_each(source.keys.count("no_rope_layer_interval", 4), source["layers"])
    return all_but_each(GGUF_INTERVAL if _has_chunks(source) else source["layers"] + 1, source["layers"])


@dataclass(frozen=True)
class TurnedField(RotatedField):
    """Says which layers rotate queries and keys."""

    def write(self, value: tuple[bool, ...], config: Any, *, gguf: bool) -> Mapping[str, Any]:
        wanted = tuple(all_but_each(GGUF_INTERVAL, config.layers)) if config.chunks else ()
        if gguf and value != (() if all(wanted) else wanted):
            raise ModelError("a GGUF file of this family has chunks, and each fourth layer does not rotate")
        return super().write(value, config, gguf=gguf)


ROTATED = TurnedField(_turned)


@dataclass(frozen=True)
class ChunkField(Field):
    """Says how many tokens a chunk of each layer has; the value is that of `Llama4Config.chunks`.

    In a config.json without `layer_types`, the layers that rotate have chunks.
    """

    def keys(self, gguf: bool) -> Sequence[str]:
        return (WINDOW,) if gguf else ("attention_chunk_size",)

    def read(self, source: Source, name: str) -> Windows:
        layers, keys = source["layers"], source.keys
        if source.is_gguf:
            size = GGUF_CHUNK if _has_chunks(source) else None
            has: Sequence[bool] = by_pattern(source, GGUF_INTERVAL, "")
        else:
            given = keys.values.get("attention_chunk_size", GGUF_CHUNK)
            size = None if given is None else keys.count("attention_chunk_size", GGUF_CHUNK)
            kinds = layer_types(keys, layers, (CHUNKED, FULL))
            rotated = source["rotated"] or (True,) * layers
            has = rotated if kinds is None else [kind == CHUNKED for kind in kinds]
        return tuple(size if each else None for each in has) if size and any(has) else ()

    def write(self, value: Windows, config: Any, *, gguf: bool) -> Mapping[str, Any]:
        flags = [size is not None for size in value] or [False] * config.layers
        size = next(filter(None, value), None)
        if not gguf:
            # Without a size, transformers cannot make its masks.
            kinds = [CHUNKED if flag else FULL for flag in flags]
            return {"attention_chunk_size": size or GGUF_CHUNK, LAYER_TYPES: kinds}
        if size is None:
            return {WINDOW: 0}
        if size != GGUF_CHUNK:
            raise ModelError(f"a GGUF file of this family has chunks of {GGUF_CHUNK} tokens")
        return {} if flags == all_but_each(GGUF_INTERVAL, config.layers) else {GGUF_PATTERN: flags}


@dataclass(frozen=True)
class UnrotatedGrowth(Field):
    """Says how queries of layers that do not rotate grow; None if they do not, or there are none."""

    def keys(self, gguf: bool) -> Sequence[str]:
        return () if gguf else ("attn_temperature_tuning", "attn_scale", "floor_scale")

    def read(self, source: Source, name: str) -> PositionGrowth | None:
        keys = source.keys
        if not source["rotated"]:
            return None
        if source.is_gguf:
            return GGUF_GROWTH
        # Older files have a number.
        grows = keys.values.get("attn_temperature_tuning", True)
        if not isinstance(grows, int):
            raise keys.error("attn_temperature_tuning", "true or false")
        if not grows:
            return None
        return PositionGrowth(keys.positive("attn_scale", 0.1), keys.count("floor_scale", 8192), offset=1)

    def write(self, value: PositionGrowth | None, config: Any, *, gguf: bool) -> Mapping[str, Any]:
        if gguf:
            if config.rotated and value != GGUF_GROWTH:
                raise ModelError("a GGUF file of this family cannot express how queries grow")
            return {}
        if value is None:
            return {"attn_temperature_tuning": False}
        return {"attn_temperature_tuning": True, "attn_scale": value.slope, "floor_scale": value.length}
