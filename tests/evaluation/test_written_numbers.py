"""Checks that numbers are read as people write them."""

from __future__ import annotations

import pytest

from decodery.evaluation.written_numbers import last_number, numbers_of


@pytest.mark.parametrize(
    ("text", "number"),
    [
        ("is $29.00.", "29"),
        ("72 clips...", "72"),
        ("72, in total.", "72"),
        ("$70,000", "70000"),
        ("9{,}500", "9500"),
        (r"\boxed{8,000}", "8000"),
        ("10 000", "10000"),
        ("10\u00a0000", "10000"),
        ("10\u202f000", "10000"),
        ("\u22125", "-5"),
        ("72.0", "72"),
        ("-$5", "-5"),
        ("$-5", "-5"),
        ("10-5=5", "5"),
        ("3-5", "5"),
        ("pages 5\u20136", "6"),
        ("= -5", "-5"),
        (".5", "0.5"),
        ("-.5", "-0.5"),
        ("1,000,000.50", "1000000.5"),
        ("1,2,3", "3"),
        ("in 2023, 5", "5"),
        ("room 1 2000", "2000"),
        (r"\boxed{-12} or 3", "-12"),
        (r"first \boxed{1}, then \boxed{2} of 3", "2"),
        (r"\$1,200", "1200"),
        ("1e3", "1000"),
        ("50%", "50"),
        ("**7**", "7"),
        ("007", "7"),
        ("-0.0", "0"),
        ("1,00", "1"),
        ("1,000,00", "1000"),
        ("1,000,50", "1000.5"),
        ("-12,05", "-12.05"),
        ("€1,50", "1.5"),
        ("$-1,50.", "-1.5"),
        ("(3,10)", "10"),
        ("10,20,30", "30"),
        ("1,00,05", "5"),
        ("1,000,000", "1000000"),
        ("3 200 gram bags and 5 100 dollar bills", "100"),
        ("5 000", "5000"),
        ("1 234 567", "1234567"),
        ("5\u00a0100", "5100"),
        ("x5", None),
        ("version v1.2.3", None),
        ("none", None),
        ("", None),
    ],
)
def test_the_last_number_of_a_text(text: str, number: str | None) -> None:
    assert last_number(text) == number


def test_numbers_come_in_their_order() -> None:
    assert list(map(str, numbers_of("3 of 4,000 and -1.50"))) == ["3", "4000", "-1.50"]
