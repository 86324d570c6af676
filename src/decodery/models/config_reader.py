"""Reads a family's config from a checkpoint's settings by a table, and writes it back by the same table."""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Generic, TypeVar

from torch import Tensor

from decodery.errors import ModelError
from decodery.models.checkpoint_keys import CheckpointKeys
from decodery.weights.formats.checkpoint import Checkpoint

ConfigT = TypeVar("ConfigT")


class Source:
    """Offers the settings of one checkpoint to the fields of a table, with the values that were read before.

    `architecture` is the prefix of a GGUF file's keys, "" for a config.json. `source["heads"]` is the value
    of the field `heads`.
    """

    def __init__(
        self,
        keys: CheckpointKeys,
        fields: Mapping[str, Field],
        architecture: str = "",
        checkpoint: Checkpoint | None = None,
    ) -> None:
        self.keys = keys
        self.fields = fields
        self.architecture = architecture
        self.checkpoint = checkpoint
        self.values: dict[str, Any] = {}

    @property
    def is_gguf(self) -> bool:
        return bool(self.architecture)

    def __getitem__(self, field: str) -> Any:
        return self.values[field]

    def has_tensor(self, name: str) -> bool:
        return self.checkpoint is not None and name in self.checkpoint.tensors

    def key(self, key: str) -> str:
        """Returns a key of a table as the checkpoint has it."""
        return f"{self.architecture}.{key}" if self.is_gguf else key

    def place(self, key: str) -> tuple[CheckpointKeys, str]:
        """Returns the settings that hold a key of a table, and the key in them."""
        return (self.keys, self.key(key)) if self.is_gguf else self.keys.within(key)

    def stored(self, field: str) -> str | None:
        """Returns the key from which a field is read; None if the checkpoint has none of its keys."""
        for key in self.fields[field].keys(self.is_gguf):
            keys, name = self.place(key)
            if keys.has(name):
                return key
        return None

    def key_of(self, field: str) -> str:
        """Returns the key of a field as the checkpoint has it or should have it."""
        return self.key(self.stored(field) or next(iter(self.fields[field].keys(self.is_gguf)), field))

    def error(self, field: str, wanted: str) -> ModelError:
        """Returns the error that names a field's key, its value, and what it must be."""
        keys, name = self.place(
            self.stored(field) or next(iter(self.fields[field].keys(self.is_gguf)), field)
        )
        return keys.error(name, wanted)


class Field(ABC):
    """Says how one field of a config is stored."""

    @abstractmethod
    def keys(self, gguf: bool) -> Sequence[str]:
        """Returns its keys in a format, without the architecture; the first is the one that is written."""

    @abstractmethod
    def read(self, source: Source, name: str) -> Any:
        """Returns the value of the field `name`; raises ModelError that names the key of an absurd one."""

    @abstractmethod
    def write(self, value: Any, config: Any, *, gguf: bool) -> Mapping[str, Any]:
        """Returns the keys that store a value; raises ModelError if the format cannot express it."""

    def tensors(self, value: Any, config: Any) -> Mapping[str, Tensor]:
        """Returns the tensors in which a GGUF file stores parts of the value that have no key."""
        return {}


@dataclass(frozen=True)
class Kind:
    """Holds how a value is read from its key, and how it is written."""

    read: Callable[[CheckpointKeys, str], Any]
    write: Callable[[Any], Any] = lambda value: value


COUNT = Kind(CheckpointKeys.count)
COUNT_FROM_0 = Kind(lambda keys, key: keys.count(key, least=0))
POSITIVE = Kind(CheckpointKeys.positive)
FLAG = Kind(CheckpointKeys.flag)
TEXT = Kind(CheckpointKeys.text)


def _never(keys: CheckpointKeys, key: str) -> Any:
    raise AssertionError(f"{key} is read by a setting that has no keys")


NO_KEY = Kind(_never)
"""The kind of a field that has no key in either format, and so always its default."""


def choice(spellings: Mapping[str, Any]) -> Kind:
    """Returns the kind of a text that stands for one of several values; the first spelling is written."""

    def read(keys: CheckpointKeys, key: str) -> Any:
        text = keys.text(key)
        if text not in spellings:
            raise keys.error(key, " or ".join(map(repr, spellings)))
        return spellings[text]

    def write(value: Any) -> str:
        return next(text for text, meant in spellings.items() if meant == value)

    return Kind(read, write)


REQUIRED = object()
"""The default of a field that a checkpoint must have."""

SAME = object()
"""The default in GGUF files that is that of the hub."""

# Several times what any published model has. Values or modules are made for each of them.
MOST: Mapping[str, int] = {"layers": 4096, "heads": 2**16, "head_dim": 2**16, "experts": 2**16}
LARGEST_MATRIX = 2**40

Default = Callable[[Source], Any]
Check = Callable[[Source, str], None]


@dataclass(frozen=True)
class Setting(Field):
    """Says that a field is one key.

    `hub` and `gguf` are its key in each format, or several spellings of which the first is written. A hub key
    with dots lies in nested objects; a GGUF key follows the architecture. A field without a key in a format
    has its default there, and only that can be written.

    `default` is a value, a function of the fields before, or REQUIRED; `gguf_default` replaces it in GGUF
    files. The stored values in `none` mean that the field is None, and the first of them is written for None.
    Without None in `none`, a key that is null counts as missing. GGUF has no null: None is not written there,
    and is an error where a missing key means a number. `checks` raise a ModelError.
    """

    kind: Kind
    hub: str | tuple[str, ...] = ()
    gguf: str | tuple[str, ...] = ()
    default: Any = REQUIRED
    gguf_default: Any = SAME
    none: tuple[Any, ...] = ()
    checks: tuple[Check, ...] = ()

    def keys(self, gguf: bool) -> Sequence[str]:
        keys = self.gguf if gguf else self.hub
        return (keys,) if isinstance(keys, str) else keys

    def read(self, source: Source, name: str) -> Any:
        value = source.values[name] = self._value(source)
        if value is not None:
            for check in self.checks:
                check(source, name)
        return value

    def write(self, value: Any, config: Any, *, gguf: bool) -> Mapping[str, Any]:
        for key in self.keys(gguf)[:1]:
            if value is not None:
                return {key: self.kind.write(value)}
            marks = [mark for mark in self.none if not (gguf and mark is None)]
            missing = self.default if self.gguf_default is SAME else self.gguf_default
            if gguf and not marks and missing is not None:
                raise ModelError(f"a GGUF file cannot express that there is no {key}")
            return {key: marks[0]} if marks else {}
        default = self.gguf_default if gguf and self.gguf_default is not SAME else self.default
        if not callable(default) and default is not REQUIRED and value != default:
            named = next(iter(self.keys(not gguf)), "setting")
            raise ModelError(f"a {'GGUF file' if gguf else 'config.json'} cannot express {named} {value!r}")
        return {}

    def _value(self, source: Source) -> Any:
        for key in self.keys(source.is_gguf):
            keys, name = source.place(key)
            if name in keys.values:
                stored = keys.values[name]
                if any(type(mark) is type(stored) and mark == stored for mark in self.none):
                    return None
                if stored is not None:
                    return self.kind.read(keys, name)
        default = self.gguf_default if source.is_gguf and self.gguf_default is not SAME else self.default
        value = default(source) if callable(default) else default
        # A kind's reader raises the error that the key is missing.
        return self.kind.read(*source.place(self.keys(source.is_gguf)[0])) if value is REQUIRED else value


@dataclass(frozen=True)
class Fixed:
    """Says that a family has one value of a setting only, so a checkpoint with another is refused.

    `value` is what is written (None: nothing), or a function that gives it from the config. `accepted` are
    further values that mean the same. `wanted` is the end of the error's text, `{value}` in it the value.
    """

    wanted: str
    hub: str = ""
    gguf: str = ""
    value: Any = None
    accepted: tuple[Any, ...] = ()

    def check(self, source: Source, config: Any) -> None:
        key = self.gguf if source.is_gguf else self.hub
        if not key:
            return
        keys, name = source.place(key)
        value = self.value(config) if callable(self.value) else self.value
        if keys.has(name) and keys.values[name] not in (value, *self.accepted):
            raise keys.error(name, self.wanted.format(value=value))

    def write(self, config: Any, *, gguf: bool) -> Mapping[str, Any]:
        key = self.gguf if gguf else self.hub
        value = self.value(config) if callable(self.value) else self.value
        return {key: value} if key and value is not None else {}


@dataclass(frozen=True)
class ConfigTable(Generic[ConfigT]):
    """Reads and writes the config of a family: `config` makes it from a value for each of `fields`.

    Fields are read in their order. `matrices` are products of fields that are the rows of a matrix with
    `width` columns. A config is refused before any tensor is allocated if such a matrix is larger than all
    tensors of the checkpoint together, or than `LARGEST_MATRIX`, and if a field is above its bound in `MOST`.
    `own_layers` is the field that counts the layers with tensors of their own.
    """

    config: Callable[..., ConfigT]
    fields: Mapping[str, Field]
    fixed: Sequence[Fixed] = ()
    matrices: Sequence[tuple[str, ...]] = ()
    own_layers: str = "layers"

    def read(self, checkpoint: Checkpoint) -> ConfigT:
        """Returns the checkpoint's config; raises ModelError that names the key of an absurd setting.

        The sizes of a checkpoint without tensors are not compared with those of tensors.
        """
        source = self._gguf(checkpoint) if checkpoint.format == "gguf" else self._hub(checkpoint.config)
        config = self._read(source)
        if checkpoint.tensors:
            self._check_sizes(source, checkpoint)
        return config

    def from_hub(self, settings: Mapping[str, Any]) -> ConfigT:
        """Returns the config of a config.json's content; raises ModelError as `read` does."""
        return self._read(self._hub(settings))

    def from_gguf(self, checkpoint: Checkpoint) -> ConfigT:
        """Returns the config of a GGUF file, its sizes unchecked; raises ModelError as `read` does."""
        return self._read(self._gguf(checkpoint))

    def to_hub(self, config: ConfigT) -> dict[str, Any]:
        """Returns the settings of a config.json; raises ModelError for a config that it cannot express."""
        settings: dict[str, Any] = {}
        for path, value in self._written(config, gguf=False).items():
            _put(settings, path.split("."), value)
        return settings

    def to_gguf(self, config: ConfigT, architecture: str) -> tuple[dict[str, Any], dict[str, Tensor]]:
        """Returns the metadata of a GGUF file, and the tensors that it stores for settings without a key.

        Raises ModelError for a config that GGUF cannot express.
        """
        written = self._written(config, gguf=True)
        metadata = {f"{architecture}.{key}": value for key, value in written.items()}
        tensors: dict[str, Tensor] = {}
        for name, field in self.fields.items():
            tensors |= field.tensors(getattr(config, name), config)
        return {"general.architecture": architecture, **metadata}, tensors

    def _written(self, config: ConfigT, *, gguf: bool) -> dict[str, Any]:
        written: dict[str, Any] = {}
        for name, field in self.fields.items():
            written |= field.write(getattr(config, name), config, gguf=gguf)
        for fixed in self.fixed:
            written |= fixed.write(config, gguf=gguf)
        return written

    def _hub(self, settings: Mapping[str, Any]) -> Source:
        return Source(CheckpointKeys(settings, "config.json"), self.fields)

    def _gguf(self, checkpoint: Checkpoint) -> Source:
        keys = CheckpointKeys(checkpoint.config, str(checkpoint.path))
        return Source(keys, self.fields, keys.text("general.architecture"), checkpoint)

    def _read(self, source: Source) -> ConfigT:
        for name, field in self.fields.items():
            source.values[name] = field.read(source, name)
            if name in MOST and source[name] > MOST[name]:
                raise source.error(name, f"at most {MOST[name]}")
        self._check_products(source)
        config = self.config(**source.values)
        for fixed in self.fixed:
            fixed.check(source, config)
        return config

    def _check_products(self, source: Source) -> None:
        for factors in self.matrices:
            size = math.prod(source[factor] for factor in (*factors, "width"))
            if size > LARGEST_MATRIX:
                raise ModelError(
                    f"{source.keys.source}: {' times '.join(map(source.key_of, factors))} by "
                    f"{source.key_of('width')} is a matrix of {size} numbers; it must have at most "
                    f"{LARGEST_MATRIX}"
                )

    def _check_sizes(self, source: Source, checkpoint: Checkpoint) -> None:
        tensors = checkpoint.tensors.values()
        if source[self.own_layers] > len(tensors):
            raise ModelError(
                f"{checkpoint.path}: {source.key_of(self.own_layers)} is {source[self.own_layers]}, "
                f"but there are only {len(tensors)} tensors"
            )
        stored = sum(math.prod(info.shape) for info in tensors)
        for factors in self.matrices:
            rows = math.prod(source[factor] for factor in factors)
            if rows * source["width"] > stored:
                raise ModelError(
                    f"{checkpoint.path}: {' times '.join(map(source.key_of, factors))} of {rows} by "
                    f"{source.key_of('width')} of {source['width']} is more than all tensors together hold "
                    f"({stored} numbers)"
                )


def _put(settings: dict[str, Any], path: Sequence[str], value: Any) -> None:
    """Stores a value under the keys of a path; objects that are there already are extended."""
    for key in path[:-1]:
        settings = settings.setdefault(key, {})
    if isinstance(value, dict) and isinstance(settings.get(path[-1]), dict):
        settings[path[-1]] |= value
    else:
        settings[path[-1]] = value


# Defaults and checks that families share.


def value_of(field: str) -> Default:
    """Returns the default that is the value of another field."""
    return lambda source: source[field]


def missing_or_null(key: str, missing: Any, null: Default) -> Default:
    """Returns the default that is `missing` of a config.json without the key, and `null` where it is null."""
    return lambda source: null(source) if key in source.keys.values else missing


def quotient(field: str, divisor: str) -> Default:
    """Returns the default that is a field divided by another, which must divide it."""

    def default(source: Source) -> int:
        whole, rest = divmod(source[field], source[divisor])
        if rest:
            raise source.error(divisor, f"a divisor of {source.key_of(field)} ({source[field]})")
        return int(whole)

    return default


def rows_of(tensor: str) -> Default:
    """Returns the default that is the number of rows of a tensor; the key is required without the tensor.

    Those of a stack are those of one of its matrices.
    """

    def default(source: Source) -> Any:
        info = None if source.checkpoint is None else source.checkpoint.tensors.get(tensor)
        return (info.shape[-2:][0] if info is not None and info.shape else 0) or REQUIRED

    return default


def rows_in_layers(tensor: str) -> Default:
    """Returns the default of `rows_of` for the first layer with the tensor; `{i}` is the layer's index."""

    def default(source: Source) -> Any:
        found = (rows_of(tensor.format(i=layer))(source) for layer in range(source["layers"]))
        return next((rows for rows in found if rows is not REQUIRED), REQUIRED)

    return default


def exists(tensor: str) -> Default:
    """Returns the default that is True if the checkpoint has a tensor."""
    return lambda source: source.has_tensor(tensor)


def is_missing(tensor: str) -> Default:
    """Returns the default that is True if the checkpoint lacks a tensor."""
    return lambda source: not source.has_tensor(tensor)


def divides(field: str) -> Check:
    """Returns the check that a value divides another field."""

    def check(source: Source, name: str) -> None:
        if source[field] % source[name]:
            raise source.error(name, f"a divisor of {source.key_of(field)} ({source[field]})")

    return check


def is_even(derived_from: str) -> Check:
    """Returns the check that a head's size is even; the error names `derived_from` if no key has the size."""

    def check(source: Source, name: str) -> None:
        if source[name] % 2:
            named = name if source.stored(name) else derived_from
            raise source.error(named, "such that a head has an even size")

    return check
