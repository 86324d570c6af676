"""Names the places of faults as the caller wrote them, where a request is read as a chat completion."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

from decodery.serving.errors import ApiError

# The key of a message that has the caller's places of its parts, such as ".content", and "" for the whole.
ORIGIN = "_origin"


def separated(messages: Sequence[Mapping[str, Any]]) -> tuple[list[dict[str, Any]], dict[str, str]]:
    """Returns the messages without the keys that begin with an underscore, and the caller's places of parts.

    The places stand by those in the chat completion, such as "messages[2].content".
    """
    plain = [{key: value for key, value in one.items() if not key.startswith("_")} for one in messages]
    places = {
        f"messages[{number}]{part}": place
        for number, message in enumerate(messages)
        for part, place in message.get(ORIGIN, {}).items()
    }
    return plain, places


def tool_places(count: int, schema: str) -> dict[str, str]:
    """Returns the caller's places of tools without `function`, whose schema has a name of its own."""
    found = {}
    for number in range(count):
        found[f"tools[{number}].function"] = f"tools[{number}]"
        found[f"tools[{number}].function.parameters"] = f"tools[{number}].{schema}"
    return found


@contextmanager
def renamed(places: Mapping[str, str]) -> Iterator[None]:
    """Replaces the beginning of an `ApiError`'s place by the caller's; the longest one that fits counts."""
    try:
        yield
    except ApiError as error:
        param = error.param or ""
        fitting = [begin for begin in places if re.match(rf"{re.escape(begin)}(?!\w)", param)]
        if fitting:
            begin = max(fitting, key=len)
            place = places[begin]
            error.param = (place + param[len(begin) :])[:100]
            if error.message.startswith(begin):
                error.message = place + error.message[len(begin) :]
        raise
