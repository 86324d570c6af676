from __future__ import annotations

import json
from pathlib import Path

import pytest
from bench.peers.results import RanContender, Results, from_json, to_json
from bench.peers.tables import drafts_table, page, publish, shown, table


def results() -> Results:
    found = Results("2026-01-01", "default", {"processor": "A fast one"}, 3)
    found.contenders = [RanContender(n, "1.0", "int4", "alone") for n in ("decodery", "slow", "slower")]
    for ours, slow, slower in ((90.0, 50.0, 30.0), (100.0, 40.0, 30.0), (300.0, 50.0, 10.0)):
        found.add("decodery", "decode", ours, "tok/s")
        found.add("slow", "decode", slow, "tok/s")
        found.add("slower", "decode", slower, "tok/s")
    found.add("decodery", "start", 0.5, "s", less_is_better=True)
    found.add("slower", "start", 2.0, "s", less_is_better=True)
    for ours, plain, peer in ((90.0, 50.0, 45.0), (100.0, 50.0, 80.0)):
        found.add_draft("decodery, plain", "story", plain)
        found.add_draft("decodery, drafts", "story", ours)
        found.add_draft("slow, plain", "story", 40.0)
        found.add_draft("slow, drafts", "story", peer)
    found.add_draft("decodery, drafts", "essay", 70.0)
    return found


def test_a_row_of_a_text_compares_our_drafts_with_plain_decoding_and_with_the_best_peer() -> None:
    lines = drafts_table(results()).splitlines()
    assert lines[0].endswith("| slow, plain | slow, drafts | over plain | over the best peer |")
    assert lines[2] == "| story | 50.0 | 95.0 | 40.0 | 62.5 | **1.90x** | **1.62x** |"
    assert lines[3] == "| essay | - | 70.0 | - | - |  |  |"


def test_results_without_drafts_are_read_too() -> None:
    content = json.loads(to_json(results()))
    del content["drafts"]
    assert from_json(json.dumps(content)).drafts == []


def test_a_row_has_medians_and_the_median_of_the_ratios_within_rounds() -> None:
    row = table(results()).splitlines()[2]
    assert row == "| decode | 100 | 50.0 (2.50x) | 30.0 (3.33x) | **2.50x** |"


def test_better_is_above_one_also_where_less_is_better_and_a_missing_figure_is_a_dash() -> None:
    row = table(results()).splitlines()[3]
    assert row == "| start | 500 ms | - | 2.00 s (4.00x) | **4.00x** |"


def test_results_come_back_from_json_as_they_were() -> None:
    assert from_json(to_json(results())) == results()


def test_a_page_is_a_function_of_its_json(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    data, written = tmp_path / "b.json", tmp_path / "b.md"
    monkeypatch.setattr("bench.peers.tables.DATA", data)
    monkeypatch.setattr("bench.peers.tables.PAGE", written)
    first, other = results(), results()
    other.shape, other.left_out = "1b", ["slow, decode: it fell over"]
    for run in (first, other, first):
        publish(run)
    assert written.read_text(encoding="utf-8") == page([first, other])
    assert "Left out: slow, decode: it fell over" in page([first, other])


@pytest.mark.parametrize(
    ("value", "unit", "text"),
    [
        (0.0123, "s", "12.3 ms"),
        (0.7, "share", "70%"),
        (1.31e9, "bytes", "1,310 MB"),
        (4.2e10, "bytes/s", "42.0 GB/s"),
        (1234.5, "tok/s", "1,234"),
        (12.34, "tok/s", "12.3"),
    ],
)
def test_a_value_is_shown_in_few_digits(value: float, unit: str, text: str) -> None:
    assert shown(value, unit) == text
