"""Reads and writes which layers of a model see a window of keys only, and which layers rotate."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from decodery.errors import ModelError
from decodery.models.checkpoint_keys import CheckpointKeys
from decodery.models.config_reader import Default, Field, Source

LAYER_TYPES = "layer_types"
WINDOWED, FULL = "sliding_attention", "full_attention"
GGUF_PATTERN = "attention.sliding_window_pattern"

Windows = tuple[int | None, ...]
"""The window of each layer, None for one that sees all keys. Empty: no layer has a window."""


def every_layer(source: Source, layer: int) -> bool:
    return True


@dataclass(frozen=True)
class WindowField(Field):
    """Says how the windows of a model's layers are stored; the value is `Windows`.

    `windowed` decides which layers have the window where a config.json has no `layer_types`, and in GGUF
    files. A family that is not `named` does not read `layer_types`. With `pattern` instead of `windowed`, one
    layer in so many sees all keys, the last one. Both formats may store another number, config.json letters
    such as "LLLG", and GGUF a flag for each layer. `pattern_key` is the key of config.json, "" if it has
    none. `default` is the window of a config.json without the key; null there means none. `zero_is_none`: so
    does 0. `enabled_by` is a key of a config.json without which, or if it is false, no layer has a window.
    `gguf` is the key of a GGUF file, "" if the format has none for this family; a file without the key has
    the window `gguf_default`.
    """

    windowed: Callable[[Source, int], bool] = every_layer
    pattern: int | None = None
    pattern_key: str = "sliding_window_pattern"
    named: bool = True
    default: int | None = None
    zero_is_none: bool = False
    enabled_by: str = ""
    gguf: str = ""
    gguf_default: int | None = None

    def keys(self, gguf: bool) -> Sequence[str]:
        return ((self.gguf,) if self.gguf else ()) if gguf else ("sliding_window",)

    def read(self, source: Source, name: str) -> Windows:
        window = self._window(source)
        if window is None:
            return ()
        windows = tuple(window if has else None for has in self._layers_with_window(source))
        return windows if any(windows) else ()

    def write(self, value: Windows, config: Any, *, gguf: bool) -> Mapping[str, Any]:
        window = next(filter(None, value), None)
        if gguf:
            return self._gguf_keys(value, window, config)
        written: dict[str, Any] = {"sliding_window": window}
        if self.enabled_by:
            written[self.enabled_by] = window is not None
        some = window is not None and (self.windowed is not every_layer or None in value)
        if some and not self.named:
            raise ModelError("a config.json of this family cannot express that some layers have no window")
        if self.named and (self.pattern or some):
            each = value or (None,) * config.layers
            written[LAYER_TYPES] = [FULL if window is None else WINDOWED for window in each]
        return written

    def _window(self, source: Source) -> int | None:
        if source.is_gguf:
            keys, key, default = source.keys, source.key(self.gguf), self.gguf_default
            if not self.gguf or key not in keys.values:
                return default
        else:
            keys, key, default = source.keys, "sliding_window", self.default
            if self.enabled_by and not keys.flag(self.enabled_by, False):
                return None
            if key not in keys.values:
                return default
        value = keys.values[key]
        if value is None or (self.zero_is_none and value == 0 and not isinstance(value, bool)):
            return None
        return keys.count(key)

    def _layers_with_window(self, source: Source) -> Sequence[bool]:
        layers = source["layers"]
        named = self.named and not source.is_gguf
        stored = layer_types(source.keys, layers, (WINDOWED, FULL)) if named else None
        if stored is not None:
            return [each == WINDOWED for each in stored]
        if self.pattern is not None:
            return by_pattern(source, self.pattern, self.pattern_key)
        return [self.windowed(source, layer) for layer in range(layers)]

    def _gguf_keys(self, value: Windows, window: int | None, config: Any) -> Mapping[str, Any]:
        if not self.gguf or self.windowed is not every_layer:
            if window is not None:
                raise ModelError("a GGUF file cannot express the window of these layers")
            return {}
        written: dict[str, Any] = {self.gguf: window or 0} if window is not None or self.gguf_default else {}
        has = [each is not None for each in value]
        if self.pattern and value and has != all_but_each(self.pattern, config.layers):
            written[GGUF_PATTERN] = has
        return written


def by_pattern(source: Source, default: int, hub: str) -> Sequence[bool]:
    """Returns which layers have the window, by the key of the pattern, in a config.json `hub`."""
    layers = source["layers"]
    key = source.key(GGUF_PATTERN) if source.is_gguf else hub
    stored = source.keys.values.get(key)
    if source.is_gguf and isinstance(stored, list):
        if len(stored) != layers:
            raise source.keys.error(key, f"a number, or a list of a flag for each of the {layers} layers")
        return list(map(bool, stored))
    if isinstance(stored, str) and stored and set(stored) <= {"L", "G"}:
        return [stored[layer % len(stored)] == "L" for layer in range(layers)]
    return all_but_each(source.keys.count(key, default), layers)


def all_but_each(number: int, layers: int) -> list[bool]:
    """Returns a flag for each layer that is False for the last of each `number` layers."""
    return [(layer + 1) % number != 0 for layer in range(layers)]


def layer_types(keys: CheckpointKeys, layers: int, known: Sequence[str]) -> Sequence[str] | None:
    """Returns the kind of each layer that a config.json names; None if it names none.

    Raises ModelError that names a kind that the family does not have.
    """
    found = keys.values.get(LAYER_TYPES)
    if found is None:
        return None
    if not isinstance(found, list) or len(found) != layers:
        raise keys.error(LAYER_TYPES, f"a list of one kind for each of the {layers} layers")
    for layer, kind in enumerate(found):
        if kind not in known:
            raise ModelError(
                f"{keys.source}: {LAYER_TYPES} has {kind!r} for layer {layer}, which is not supported for "
                f"this family; supported are {' and '.join(known)}"
            )
    return found


@dataclass(frozen=True)
class RotatedField(Field):
    """Says which layers rotate queries and keys; the value has a flag for each layer, () if all do.

    `hub` is a list in config.json that is 1 where a layer rotates; without it, `default` decides. GGUF has no
    key, so `default` decides there too.
    """

    default: Default
    hub: str = "no_rope_layers"

    def keys(self, gguf: bool) -> Sequence[str]:
        return () if gguf else (self.hub,)

    def read(self, source: Source, name: str) -> tuple[bool, ...]:
        stored = None if source.is_gguf else source.keys.values.get(self.hub)
        layers = source["layers"]
        if not stored:
            found = tuple(self.default(source))
        elif isinstance(stored, list) and len(stored) == layers and all(flag in (0, 1) for flag in stored):
            found = tuple(map(bool, stored))
        else:
            raise source.keys.error(self.hub, f"a list of 0 or 1 for each of the {layers} layers")
        return () if all(found) else found

    def write(self, value: tuple[bool, ...], config: Any, *, gguf: bool) -> Mapping[str, Any]:
        flags = value or (True,) * config.layers
        if gguf:
            return {}
        return {self.hub: [int(flag) for flag in flags]}
