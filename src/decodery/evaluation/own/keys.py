"""Checks the keys of a TOML file that describes a task, and fills its templates."""

from __future__ import annotations

import hashlib
import json
import re
import tomllib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from difflib import get_close_matches
from pathlib import Path
from typing import Any, NoReturn

from decodery.errors import ParameterError
from decodery.evaluation.layouts.tables import Row, read_text

COLUMN = re.compile(r"\{(\w+)\}")


@dataclass(frozen=True, slots=True)
class Keys:
    """Holds the keys of a file. Each method raises `ParameterError` with file and key for a wrong value."""

    path: Path
    values: Mapping[str, Any]

    @staticmethod
    def of_file(path: Path) -> Keys:
        """Returns the keys of a TOML file. Raises `ParameterError` if it cannot be read."""
        try:
            return Keys(path, tomllib.loads(read_text(path)))
        except tomllib.TOMLDecodeError as error:
            raise ParameterError(f"{path} is not TOML: {error}") from error

    @property
    def digest(self) -> str:
        """Returns a hash of all keys with their values."""
        return hashlib.sha256(json.dumps(self.values, sort_keys=True, default=str).encode()).hexdigest()

    def refuse(self, key: str, why: str) -> NoReturn:
        """Raises `ParameterError` for a key."""
        raise ParameterError(f"{self.path}: {key} {why}")

    def only(self, known: Sequence[str]) -> None:
        """Raises `ParameterError` for a key that is not known."""
        for key in self.values:
            if key not in known:
                near = get_close_matches(key, known, 1)
                hint = f"did you mean {near[0]}?" if near else f"the keys are {', '.join(known)}"
                self.refuse(key, f"is unknown; {hint}")

    def text(self, key: str, default: str | None = None) -> str:
        """Returns a text; without a default, the key must be there."""
        value = self.values.get(key, default)
        if value is None:
            self.refuse(key, "is missing")
        if not isinstance(value, str):
            self.refuse(key, f"must be a text: {value!r}")
        return value

    def optional(self, key: str) -> str | None:
        """Returns a text, or None without the key."""
        return self.text(key) if key in self.values else None

    def chosen(self, key: str, known: Sequence[str], default: str | None = None) -> str:
        """Returns one of the known texts."""
        value = self.text(key, default)
        if value not in known:
            self.refuse(key, f"must be one of {', '.join(known)}: {value!r}")
        return value

    def whole(self, key: str, default: int, least: int = 0) -> int:
        """Returns a whole number."""
        value = self.values.get(key, default)
        if type(value) is not int or value < least:
            self.refuse(key, f"must be a whole number from {least} on: {value!r}")
        return value

    def number(self, key: str, default: float) -> float:
        """Returns a number of at least 0."""
        value = self.values.get(key, default)
        if type(value) not in (int, float) or not 0 <= value < float("inf"):
            self.refuse(key, f"must be a number from 0 on: {value!r}")
        return float(value)

    def switch(self, key: str) -> bool:
        """Returns true or false; false without the key."""
        value = self.values.get(key, False)
        if type(value) is not bool:
            self.refuse(key, f"must be true or false: {value!r}")
        return value

    def texts(self, key: str) -> tuple[str, ...]:
        """Returns the texts of a list, or one text as the only one; none without the key."""
        value = self.values.get(key, [])
        listed = [value] if isinstance(value, str) else value
        if not isinstance(listed, list) or not all(isinstance(one, str) and one for one in listed):
            self.refuse(key, f"must be a text, or a list of texts: {value!r}")
        return tuple(listed)

    def filled(self, key: str, template: str, row: Row) -> str:
        """Returns a template in which each {column} is replaced by the row's text."""

        def replaced(match: re.Match[str]) -> str:
            return self.column(key, match[1], row)

        return COLUMN.sub(replaced, template)

    def column(self, key: str, name: str, row: Row) -> str:
        """Returns a row's text of a column that a key names."""
        value = row.get(name)
        if value is None:
            self.refuse(key, f"names the column {name}, and a row has only {', '.join(row)}")
        if isinstance(value, (dict, list)):
            self.refuse(key, f"names the column {name}, whose value is no text: {value!r}")
        return str(value)
