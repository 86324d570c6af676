"""Searches for the regular expressions of JSON schemas, in bounded time."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from decodery.decoding.json_schema.lookaround import LookaroundRegex, in_re2
from decodery.errors import ParameterError
from decodery.text.streaming.stops import compile_regex


class Patterns:
    """Holds the compiled patterns of one schema. `spend` is called with the steps that a search takes."""

    def __init__(self, spend: Callable[[int], None]) -> None:
        self._spend = spend
        self._re2: dict[str, Any] = {}
        self._lookaround: dict[str, LookaroundRegex] = {}

    def add(self, pattern: str) -> None:
        """Compiles a pattern. Raises `ParameterError` if it cannot be searched for."""
        if pattern in self._re2 or pattern in self._lookaround:
            return
        try:
            self._re2[pattern] = compile_regex("pattern", in_re2(pattern))
        except ParameterError:
            self._lookaround[pattern] = LookaroundRegex(pattern)

    def search(self, pattern: str, text: str) -> bool:
        """True if the text contains a match of the pattern."""
        self.add(pattern)
        if not text.isascii():
            # The library takes no halves of surrogate pairs.
            text = text.encode("utf-16", "surrogatepass").decode("utf-16", "replace")
        if pattern in self._re2:
            return self._re2[pattern].search(text) is not None
        return self._lookaround[pattern].search(text, self._spend)
