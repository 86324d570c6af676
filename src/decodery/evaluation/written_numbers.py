"""Reads numbers as people and models write them, as decimals that can be compared."""

from __future__ import annotations

import re
from decimal import Decimal

# Separators of thousands: a comma, also in LaTeX's braces, its thin space, and the spaces of typography.
THOUSANDS = r"(?:,|\{,\}|\\,|[ \u00a0\u2009\u202f])"
MINUS = "-\u2212\u2013"
NUMBER = re.compile(
    rf"(?P<sign>(?<![\w)\]}}.])[{MINUS}])?[$€£]?\\?\$?(?P<sign_2>(?<=[$€£])[{MINUS}])?"
    rf"(?P<whole>(?<![\w.])(?:\d{{1,3}}(?:{THOUSANDS}\d{{3}})+(?!\d)|\d+)|(?<![\w.])(?=\.\d))(?P<part>\.\d+)?"
    r"(?P<power>[eE][+-]?\d{1,3}(?!\w))?"
)


def numbers_of(text: str) -> list[Decimal]:
    """Returns the numbers of a text, in their order.

    "$70,000", "9{,}500", "10 000" and U+2212 as a minus are read as people do. A full stop or comma after a
    number is not of it, and a hyphen between numbers or words is no minus.
    """
    found = []
    for match in NUMBER.finditer(text):
        digits = re.sub(r"\D", "", match["whole"]) or "0"
        value = Decimal(digits + (match["part"] or "") + (match["power"] or ""))
        found.append(-value if match["sign"] or match["sign_2"] else value)
    return found


def last_number(text: str) -> str | None:
    """Returns the number in the last \\boxed{...} of a text, or else its last number, or None."""
    boxed = re.findall(r"\\boxed\{((?:[^{}]|\{[^{}]*\})*)\}", text)
    for part in (*boxed[-1:], text):
        if found := numbers_of(part):
            return plain_number(found[-1])
    return None


def plain_number(value: Decimal) -> str:
    """Returns a decimal without an exponent and without zeros at its end."""
    text = f"{value:f}"
    text = text.rstrip("0").rstrip(".") if "." in text else text
    return "0" if text in ("-0", "") else text
