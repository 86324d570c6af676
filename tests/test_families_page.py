"""Checks that the page of families lists every architecture that the code supports, under its family."""

from __future__ import annotations

import re
from pathlib import Path

from decodery.models.architectures import GGUF, HUB

PAGE = Path(__file__).parent.parent / "docs" / "families.md"


def listed(names: str) -> set[str]:
    return set() if names == "-" else set(names.split(", "))


def test_the_page_of_families_is_in_step_with_the_code() -> None:
    rows = re.findall(
        r"^\| ([^|]+) \| ([^|]+) \| ([^|]+) \| [^|]+ \|$", PAGE.read_text(encoding="utf-8"), re.MULTILINE
    )[1:]
    written = {family: (listed(hub), listed(gguf)) for family, hub, gguf in rows}
    assert len(written) == len(rows)
    expected: dict[str, tuple[set[str], set[str]]] = {}
    for place, table in enumerate((HUB, GGUF)):
        for name, (family, head) in table.items():
            if head == "causal":
                expected.setdefault(family.name, (set(), set()))[place].add(name)
    for family in (family for family, head in HUB.values() if head == "causal"):
        # A file of this family may declare the architecture of another one.
        if family.gguf is not None and not expected[family.name][1]:
            expected[family.name][1].add(family.gguf)
    assert written == expected


def test_the_table_of_encoders_is_in_step_with_the_code() -> None:
    rows = re.findall(
        r"^\| ([^|\n]+) \| ([^|\n]+) \| [^|\n]+ \|$", PAGE.read_text(encoding="utf-8"), re.MULTILINE
    )[1:]
    written = {family: names.split(", ") for family, names in rows}
    expected: dict[str, list[str]] = {}
    for name, (family, _) in HUB.items():
        if "causal" not in family.build:
            expected.setdefault(family.name, []).append(name)
    assert written == {family: sorted(names) for family, names in expected.items()}
    assert [family for family, _ in rows] == sorted(written)


def test_the_table_of_decoders_that_read_is_in_step_with_the_code() -> None:
    rows = re.findall(r"^\| ([^|\n]+) \| ([^|\n]+) \|$", PAGE.read_text(encoding="utf-8"), re.MULTILINE)
    expected: dict[str, list[str]] = {}
    for name, (family, head) in HUB.items():
        if "causal" in family.build and head != "causal":
            expected.setdefault(family.name, []).append(name)
    written = {family: names.split(", ") for family, names in rows[1:]}
    assert written == {family: sorted(names) for family, names in expected.items()}
    assert list(written) == sorted(written)


def test_the_page_names_the_gguf_architectures_of_encoders() -> None:
    (sentence,) = re.findall(
        r"^GGUF files with the architectures (.*) are read too\.", PAGE.read_text(), re.MULTILINE
    )
    written = re.sub(r" \(.*?\)", "", sentence).replace(" and ", ", ").split(", ")
    assert written == [name for name, (family, _) in GGUF.items() if "causal" not in family.build]
