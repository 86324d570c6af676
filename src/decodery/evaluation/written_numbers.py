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
# A fraction, also after whole units: "1/2", "3 1/2". Dates and "1/0" are none, and four digits are a year.
FRACTION = (
    r"(?:(?<![\w./,])(?P<units>\d{1,3}) )?(?<![\w./,])(?P<top>[1-9]\d*)/(?P<under>0*[1-9]\d*)(?![\w/]|[.,]\d)"
)
LATEX_FRACTION = re.compile(r"(?P<after>(?<=\d))?\\[dt]?frac\{(?P<top>\d+)\}\{(?P<under>\d+)\}")
# A remark in parentheses has a letter; "(72)", a call f(x) and LaTeX's \( \) are none.
REMARK = re.compile(r"(?<![\\\w])\((?=[^()]*[^\W\d_])[^()]*\)")
NUMBER = re.compile(
    rf"(?P<sign>(?<![\w)\]}}.])[{MINUS}])?[$€£]?\\?\$?(?P<sign_2>(?<=[$€£])[{MINUS}])?"
    rf"(?:{FRACTION}|(?<![\w.,])(?P<comma>{COMMA})|"
    rf"(?P<whole>(?<![\w.])(?:(?:\d{{1,3}}(?:{THOUSANDS}\d{{3}})+|{SPACED})(?!\d)|\d+)|(?<![\w.])(?=\.\d))"
    r"(?P<part>\.\d+)?(?P<power>[eE][+-]?\d{1,3}(?!\w))?)"
)


def numbers_of(text: str) -> list[Decimal]:
    """Returns the numbers of a text, in their order.

    "$70,000", "9{,}500", "10 000", "1,00", "1/2", "3 1/2" and U+2212 as a minus are read as people do. A full
    stop or comma after a number is not of it, and a hyphen between numbers or words is no minus.
    """
    plain = LATEX_FRACTION.sub(
        lambda found: f"{' ' if found['after'] is not None else ''}{found['top']}/{found['under']}", text
    )
    found: list[Decimal] = []
    for match in NUMBER.finditer(plain):
        sign = -1 if match["sign"] or match["sign_2"] else 1
        values = _fraction(match) if match["top"] else [_decimal(match)]
        found += [sign * values[0], *values[1:]]
    return found


def last_number(text: str) -> str | None:
    """Returns the number in the last \\boxed{...} of a text, or else its last number, or None.

    The numbers of a remark in parentheses, such as "(see page 3)", count only where there are no others.
    """
    boxed = re.findall(r"\\boxed\{((?:[^{}]|\{[^{}]*\})*)\}", text)
    for part in (*boxed[-1:], REMARK.sub("()", text), text):
        if found := numbers_of(part):
            return plain_number(found[-1])
    return None


def _fraction(match: re.Match[str]) -> list[Decimal]:
    """Returns one number, or two where "3 4/2" has no units and a proper fraction."""
    part = Decimal(match["top"]) / Decimal(match["under"])
    if match["units"] is None:
        return [part]
    units = Decimal(match["units"])
    return [units + part] if part < 1 else [units, part]


def _decimal(match: re.Match[str]) -> Decimal:
    whole, part = match["whole"], match["part"] or ""
    if match["comma"]:
        whole, _, cents = match["comma"].rpartition(",")
        part = f".{cents}"
    digits = re.sub(r"\D", "", whole) or "0"
    return Decimal(digits + part + (match["power"] or ""))


def plain_number(value: Decimal) -> str:
    """Returns a decimal without an exponent and without zeros at its end."""
    text = f"{value:f}"
    text = text.rstrip("0").rstrip(".") if "." in text else text
    return "0" if text in ("-0", "") else text
