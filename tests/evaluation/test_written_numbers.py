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
        ("1/2", "0.5"),
        ("is 1/2.", "0.5"),
        ("-1/2", "-0.5"),
        ("3 1/2 pizzas", "3.5"),
        ("-3 1/2", "-3.5"),
        ("in 2023 1/2 of them", "0.5"),
        ("3 4/2", "2"),
        ("He sold 48/2=24", "24"),
        ("on 5/6/2023", "2023"),
        ("on 5/6/7", "7"),
        ("1/0", "0"),
        ("1,000/4", "4"),
        (r"\boxed{\frac{1}{2}}", "0.5"),
        (r"\boxed{-\dfrac{3}{4}}", "-0.75"),
        (r"3\frac{1}{2}", "3.5"),
        ("The answer is 72 (see page 3).", "72"),
        ("It is 72. (See page 3)", "72"),
        ("(See page 3)", "3"),
        ("5 apples, so (72)", "72"),
        ("It is 5, or f(x2, 7)", "7"),
        (r"of 5 it is \(x = 72\)", "72"),
        ("10 (in all) 000", "0"),
        ("x5", None),
        ("version v1.2.3", None),
        ("none", None),
        ("", None),
    ],
)
def test_the_last_number_of_a_text(text: str, number: str | None) -> None:
    assert last_number(text) == number


@pytest.mark.parametrize(("one", "other"), [("1/2", "0.50"), ("2/6", "1/3"), ("7/2", "3 1/2")])
def test_a_fraction_equals_the_same_number_in_another_form(one: str, other: str) -> None:
    assert last_number(one) == last_number(other)


def test_numbers_come_in_their_order() -> None:
    assert list(map(str, numbers_of("3 of 4,000 and -1.50"))) == ["3", "4000", "-1.50"]
