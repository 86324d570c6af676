"""How the modules here tell a person what happens: progress while they wait, and lists of names in errors."""

from __future__ import annotations

from collections.abc import Callable, Sequence

# Called with a stage, the bytes done and the bytes in all; (stage, 0, 0) when neither is known.
Progress = Callable[[str, int, int], None]


def listed(names: Sequence[str], most: int = 8) -> str:
    """The names in one line, cut after `most` of them."""
    more = f" and {len(names) - most} more" if len(names) > most else ""
    return ", ".join(names[:most]) + more
