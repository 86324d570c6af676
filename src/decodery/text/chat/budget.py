"""Limits the time of a chat template and the characters that it builds."""

from __future__ import annotations

import time
from collections.abc import Iterable, Mapping, Set, ValuesView
from typing import Any

MAX_SECONDS = 2.0
# The most characters of one value, the most of all values together, and the cost of a list item (its memory).
MAX_VALUE = 4_000_000
MAX_BUILT = 64_000_000
ITEM_COST = 16


class LimitError(Exception):
    """Reports that a template exceeded its budget."""


class Budget:
    """Holds what one render has left: a number of characters, list items and steps, and a deadline."""

    def __init__(self) -> None:
        self._deadline = time.thread_time() + MAX_SECONDS
        self._left = MAX_BUILT
        self._weights: dict[int, tuple[Any, int]] = {}

    def spend(self, cost: int) -> None:
        """Subtracts a cost. Raises `LimitError` when the budget or the time is used up."""
        self._left -= cost
        if self._left < 0:
            raise LimitError("it builds too much text")
        if time.thread_time() > self._deadline:
            raise LimitError(f"it ran for more than {MAX_SECONDS:g} seconds")

    def reserve(self, size: int) -> None:
        """Raises `LimitError` when a value of this size may not be built."""
        if size > MAX_VALUE:
            raise LimitError(f"it builds a value of more than {MAX_VALUE} characters")

    def weigh(self, value: Any) -> int:
        """Returns the number of characters in a value and all that it contains.

        A part that occurs several times counts each time. Containers never change in the sandbox, so the
        weight of each is computed once.
        """
        if isinstance(value, (str, bytes)):
            return len(value) + 1
        if isinstance(value, int):
            return value.bit_length() // 3 + 1
        if not isinstance(value, (Mapping, list, tuple, Set, ValuesView)):
            return 1
        known = self._weights.get(id(value))
        if known is None:
            weight = 1 + self._weigh_all(value)
            if isinstance(value, Mapping):
                weight += self._weigh_all(value.values())
            known = self._weights[id(value)] = (value, weight)
        return known[1]

    def _weigh_all(self, parts: Iterable[Any]) -> int:
        # A template that extends a list in a loop has each of its items weighed each time.
        weights, total = self._weights, 0
        for part in parts:
            known = weights.get(id(part))
            total += known[1] if known is not None else self.weigh(part)
        return total

    def admit(self, value: Any) -> Any:
        """Subtracts the cost of a new value and returns it. Raises `LimitError` when it is too large."""
        self.reserve(self.weigh(value))
        if isinstance(value, (list, tuple, Mapping)):
            self.spend(ITEM_COST * (len(value) + 1))
        else:
            self.spend(len(value) + 1 if isinstance(value, (str, bytes)) else 1)
        return value
