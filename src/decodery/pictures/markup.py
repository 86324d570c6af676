"""Writes elements of HTML and SVG, and escapes every text in them."""

from __future__ import annotations

from collections.abc import Iterable

# Control characters, which markup cannot hold, become Unicode's control pictures; tab and line feed stay.
_PICTURES = {c: chr(0x2400 + c) for c in range(32) if chr(c) not in "\t\n"} | {127: "\u2421"}
# Other characters that cannot be shown become U+FFFD; so do controls of the writing direction, which would
# reverse the text that follows.
_BIDI = [0x061C, 0x200E, 0x200F, *range(0x202A, 0x202F), *range(0x2066, 0x206A)]
_PICTURES |= dict.fromkeys([*range(128, 160), *range(0xD800, 0xE000), *_BIDI, 0xFFFE, 0xFFFF], "\ufffd")
_ESCAPES = _PICTURES | {ord(c): f"&{n};" for c, n in {"&": "amp", "<": "lt", ">": "gt", '"': "quot"}.items()}
_ALONE = {"meta", "br"}


class Markup(str):
    """Marks a string that is markup already, so that it is not escaped again."""


def escaped(text: str) -> Markup:
    """Returns the text with characters replaced that mean something in markup or that it cannot hold."""
    return Markup(text.translate(_ESCAPES))


def element(name: str, /, *children: str | Iterable[str], **attributes: object) -> Markup:
    """Returns an element; children that are not `Markup` are escaped.

    Attributes that are None are left out. `class_` is written as class, other underscores become hyphens.
    """
    written = "".join(
        f' {key.rstrip("_").replace("_", "-")}="{escaped(_number(value))}"'
        for key, value in attributes.items()
        if value is not None
    )
    if name in _ALONE:
        return Markup(f"<{name}{written}/>")
    return Markup(f"<{name}{written}>{joined(children)}</{name}>")


def joined(children: Iterable[str | Iterable[str]]) -> Markup:
    """Returns the children one after another as one piece of markup; those not `Markup` are escaped."""
    parts = []
    for child in children:
        if isinstance(child, str):
            parts.append(child if isinstance(child, Markup) else escaped(child))
        else:
            parts.append(joined(child))
    return Markup("".join(parts))


def _number(value: object) -> str:
    return f"{value:.2f}".rstrip("0").rstrip(".") if isinstance(value, float) else str(value)


def percent(share: float) -> str:
    """Returns a probability in percent with one decimal place."""
    if 0 < share < 0.0005:
        return "<0.1%"
    return f"{share:.1%}" if share < 0.9995 or share == 1 else ">99.9%"


def surprise(probability: float) -> int:
    """Returns a level from 0 for a likely token to 7; two levels more are about ten times less likely."""
    bounds = (0.9, 0.6, 0.35, 0.18, 0.08, 0.025, 0.005)
    return sum(probability < bound for bound in bounds)
