"""Reads and writes the settings that only DeepSeek's models have."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from decodery.errors import ModelError
from decodery.models.checkpoint_keys import CheckpointKeys
from decodery.models.config_reader import Field, Kind, Setting, Source
from decodery.models.layers.rope import Rope, YarnRope
from decodery.models.rope_config import RopeField

LOG_MULTIPLIER = "rope.scaling.yarn_log_multiplier"
_GATINGS = {1: "softmax", 2: "sigmoid"}


def _read_gating(keys: CheckpointKeys, key: str) -> str:
    number = keys.count(key)
    if number not in _GATINGS:
        raise keys.error(key, "1 (softmax) or 2 (logistic function)")
    return _GATINGS[number]


GATING = Kind(_read_gating, lambda name: next(n for n, each in _GATINGS.items() if each == name))
"""How scores become probabilities, by their numbers in GGUF files."""


def is_positive_even(source: Source, name: str) -> None:
    """Raises ModelError if a number of rotated elements is odd."""
    if source[name] % 2:
        raise source.error(name, "even")


def has_correction(source: Source) -> bool:
    """True if a GGUF file has a bias for the choice of experts."""
    return any(source.has_tensor(f"blk.{i}.exp_probs_b.bias") for i in range(source["layers"]))


@dataclass(frozen=True)
class HeadSizes(Field):
    """Says how the size of a head's queries and keys is stored; `default` is that of what is not rotated.

    A config.json has the size of what is not rotated. Newer GGUF files describe an attention of one key head
    over the short vectors, and have the size of a head under a key of their own.
    """

    default: int

    def keys(self, gguf: bool) -> Sequence[str]:
        return ("attention.key_length_mla", "attention.key_length") if gguf else ("qk_nope_head_dim",)

    def read(self, source: Source, name: str) -> int:
        if not source.is_gguf:
            return int(source.keys.count("qk_nope_head_dim", self.default) + source["rotated_size"])
        stored = source.stored(name) or self.keys(True)[0]
        size = source.keys.count(source.key(stored))
        if size <= source["rotated_size"]:
            raise source.error(name, f"more than what is rotated ({source['rotary_size']})")
        return int(size)

    def write(self, value: int, config: Any, *, gguf: bool) -> Mapping[str, Any]:
        if not gguf:
            return {"qk_nope_head_dim": value - config.rotated_size}
        return {
            "attention.head_count_kv": 1,
            "attention.key_length": config.kv_rank + config.rotated_size,
            "attention.value_length": config.kv_rank,
            "attention.key_length_mla": value,
        }


@dataclass(frozen=True)
class AllDimensions(Field):
    """Says which part of yarn's magnitude multiplies the scores of all dimensions, 0 for none."""

    def keys(self, gguf: bool) -> Sequence[str]:
        if gguf:
            return (LOG_MULTIPLIER,)
        return "rope_parameters.mscale_all_dim", "rope_scaling.mscale_all_dim"

    def read(self, source: Source, name: str) -> float:
        stored = source.stored(name)
        if stored is None:
            return 0.0
        keys, key = source.place(stored)
        value = keys.values[key]
        if isinstance(value, bool) or not isinstance(value, (int, float)) or not 0 <= value < math.inf:
            raise keys.error(key, "a number from 0 on")
        # GGUF files have the factor of the logarithm.
        return float(value) / 0.1 if source.is_gguf else float(value)

    def write(self, value: float, config: Any, *, gguf: bool) -> Mapping[str, Any]:
        if not value:
            return {}
        return {LOG_MULTIPLIER: value * 0.1} if gguf else {"rope_parameters.mscale_all_dim": value}


@dataclass(frozen=True)
class LatentRope(RopeField):
    """Says how rotary positions are stored whose magnitude is in the scale where GGUF files have yarn."""

    def read(self, source: Source, name: str) -> Rope:
        found = super().read(source, name)
        scaled = source.is_gguf and source.keys.has(source.key(LOG_MULTIPLIER))
        return replace(found, attention_factor=1.0) if scaled and isinstance(found, YarnRope) else found

    def write(self, value: Rope, config: Any, *, gguf: bool) -> Mapping[str, Any]:
        if gguf and isinstance(value, YarnRope) and config.all_dimensions:
            if value.magnitude() != 1:
                raise ModelError("a GGUF file of this family has yarn without a magnitude of its own")
            value = replace(value, attention_factor=None)
        return super().write(value, config, gguf=gguf)


@dataclass(frozen=True)
class Method(Field):
    """Says how many groups there are, as `field` does, and that there is one if `topk_method` is greedy."""

    field: Setting

    @staticmethod
    def fields(fields: Mapping[str, Field]) -> Mapping[str, Field]:
        """Returns fields in which the groups depend on the method."""
        found = {name: fields[name] for name in ("groups", "kept_groups")}
        return {
            **fields,
            **{name: Method(field) for name, field in found.items() if isinstance(field, Setting)},
        }

    def keys(self, gguf: bool) -> Sequence[str]:
        return self.field.keys(gguf)

    def read(self, source: Source, name: str) -> int:
        if not source.is_gguf:
            method = source.keys.text("topk_method", "greedy")
            if method not in ("greedy", "group_limited_greedy"):
                raise source.keys.error("topk_method", "'greedy' or 'group_limited_greedy'")
            if method == "greedy":
                return 1
        return int(self.field.read(source, name))

    def write(self, value: int, config: Any, *, gguf: bool) -> Mapping[str, Any]:
        written = self.field.write(value, config, gguf=gguf)
        method = "group_limited_greedy" if config.groups > 1 else "greedy"
        return written if gguf else {**written, "topk_method": method}
