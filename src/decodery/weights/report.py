"""Reports progress and lists of names to the user."""

from __future__ import annotations

from collections.abc import Callable, Sequence

# Called with a stage, the bytes done and the total bytes; (stage, 0, 0) when neither is known.
Progress = Callable[[str, int, int], None]


def listed(names: Sequence[str], most: int = 8) -> str:
    """Returns the names in one line, cut after `most` of them."""
    more = f" and {len(names) - most} more" if len(names) > most else ""
    return ", ".join(names[:most]) + more
