"""Reads the settings of a checkpoint; an error names the wrong key."""

from __future__ import annotations

import reprlib
import sys
from collections.abc import Mapping
from typing import Any

from decodery.errors import ModelError

# Small enough that a product of two sizes fits the 64-bit integers of torch.
LARGEST = 2**31 - 1


class CheckpointKeys:
    """Reads the key-value settings of a checkpoint; every reader raises a ModelError that names the key.

    A key that is null counts as missing; a missing key without a default is an error.
    """

    def __init__(self, values: Mapping[str, Any], source: str) -> None:
        self.values = values
        self.source = source

    def has(self, key: str) -> bool:
        return self.values.get(key) is not None

    def count(self, key: str, default: int | None = None, least: int = 1) -> int:
        """Returns an integer from `least` to `LARGEST`."""
        value = self._value(key, default)
        if isinstance(value, bool) or not isinstance(value, int) or value < least:
            raise self.error(key, f"a whole number that is at least {least}")
        if value > LARGEST:
            raise self.error(key, f"at most {LARGEST}")
        return value

    def positive(self, key: str, default: float | None = None) -> float:
        """Returns a finite number above 0."""
        value = self._value(key, default)
        if isinstance(value, bool) or not isinstance(value, int | float):
            raise self.error(key, "a number")
        if not 0 < value <= sys.float_info.max:
            raise self.error(key, "a finite number above 0")
        return float(value)

    def flag(self, key: str, default: bool | None = None) -> bool:
        value = self._value(key, default)
        if not isinstance(value, bool):
            raise self.error(key, "true or false")
        return value

    def text(self, key: str, default: str | None = None) -> str:
        value = self._value(key, default)
        if not isinstance(value, str):
            raise self.error(key, "a string")
        return value

    def within(self, path: str) -> tuple[CheckpointKeys, str]:
        """Returns the settings that hold the key at the end of a path such as "attn_config.alibi", and it."""
        *sections, key = path.split(".")
        found = self
        for section in sections:
            found = found.section(section)
        return found, key

    def section(self, key: str) -> CheckpointKeys:
        """Returns the settings nested under a key; empty if the key is missing."""
        value = self._value(key, {})
        if not isinstance(value, Mapping):
            raise self.error(key, "an object")
        return CheckpointKeys(value, f"{self.source}, {key}")

    def error(self, key: str, wanted: str) -> ModelError:
        found = f"is {reprlib.repr(self.values[key])}" if self.has(key) else "is missing"
        return ModelError(f"{self.source}: {key} {found}; it must be {wanted}")

    def _value(self, key: str, default: Any) -> Any:
        value = self.values.get(key)
        return default if value is None else value
