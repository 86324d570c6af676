"""Reads numbers as people and models write them, as decimals that can be compared."""

from __future__ import annotations

import re
from decimal import Decimal

# Separators of thousands: a comma, also in LaTeX's braces, its thin space, and the spaces of typography.
THOUSANDS = r"(?:,|\{,\}|\\,|[\u00a0\u2009\u202f])"
# An ordinary space separates thousands only where no count can come before it: not in "3 200 gram bags".
SPACED = r"(?:\d{2,3}|\d(?= 000| \d{3} \d{3}))(?: \d{3})+"
MINUS = "-\u2212\u2013"
# A comma is that of decimals after thousands, after a sign of money, and before a zero: "1,000,50", "1,00".
MONEY = rf"(?:(?<=[$€£])|(?<=[$€£][{MINUS}]))"
COMMA = rf"(?:\d{{1,3}}(?:,\d{{3}})+,\d{{2}}|{MONEY}\d+,\d{{2}}|\d+,0\d)(?![\d,]|\.\d)"
NUMBER = re.compile(
    rf"(?P<sign>(?<![\w)\]}}.])[{MINUS}])?[$€£]?\\?\$?(?P<sign_2>(?<=[$€£])[{MINUS}])?"
    rf"(?:(?<![\w.,])(?P<comma>{COMMA})|"
    rf"(?P<whole>(?<![\w.])(?:(?:\d{{1,3}}(?:{THOUSANDS}\d{{3}})+|{SPACED})(?!\d)|\d+)|(?<![\w.])(?=\.\d))"
    r"(?P<part>\.\d+)?(?P<power>[eE][+-]?\d{1,3}(?!\w))?)"
)


def numbers_of(text: str) -> list[Decimal]:
    """Returns the numbers of a text, in their order.

    "$70,000", "9{,}500", "10 000", "1,00" and U+2212 as a minus are read as people do. A full stop or comma
    after a number is not of it, and a hyphen between numbers or words is no minus.
    """
    found = []
    for match in NUMBER.finditer(text):
        whole, part = match["whole"], match["part"] or ""
        if match["comma"]:
            whole, _, cents = match["comma"].rpartition(",")
            part = f".{cents}"
        digits = re.sub(r"\D", "", whole) or "0"
        value = Decimal(digits + part + (match["power"] or ""))
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
