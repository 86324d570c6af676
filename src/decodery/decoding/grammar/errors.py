"""Words the error of a grammar that the grammar library refuses."""

from __future__ import annotations

import re

from decodery.errors import ParameterError


def refusal(name: str, message: str) -> ParameterError:
    """Returns the error, of one line, for the library's message on a grammar of this class."""
    place = re.match(r"(?:at )?(\d+)\((\d+)\): ", message)
    reason = message[place.end() :] if place else message
    where = f"line {place[1]}, column {place[2]}: " if place and name == "Lark" else ""
    inner = re.search(r"regex parse error:\n    (.*)\n    ( *)\^.*\nerror: (.*)", reason)
    if inner:
        reason = f"{inner[3]} at offset {len(inner[2])} of the regular expression {inner[1]!r}"
    else:
        reason = re.sub(r'^invalid regex ".*?" \(in regex\): ', "", reason.split("\n")[0])
    reason = " ".join(reason.split())
    reason = reason if len(reason) <= 300 else f"{reason[:300]}..."
    return ParameterError(f"{name} cannot be followed: {where}{reason or 'no reason is given'}")
