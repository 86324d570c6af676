"""Tests of the commands that work on runs, on a tiny model."""

from __future__ import annotations

import json
import re
from pathlib import Path
from types import SimpleNamespace

import pytest

from decodery.cli.commands.evaluation.run import table
from decodery.metrics.score import Score
from tests.cli.conftest import Run
from tests.evaluation.runs.conftest import samples_of, write_arc, written
from tests.kernels.native.fixtures import built

pytestmark = built


@pytest.fixture
def data(tmp_path: Path) -> str:
    return str(write_arc(tmp_path / "data", 12))


@pytest.fixture
def arc(decodery: Run, model: str, data: str, tmp_path: Path) -> Run:
    def ran(out: str, *more: str) -> object:
        done = decodery("eval", "arc", "-m", model, "--data", data, "--out", str(tmp_path / out), *more)
        assert done.status == 0, done.err
        return done

    return ran  # type: ignore[return-value]


def test_a_run_leaves_its_files_and_prints_its_results(arc: Run, tmp_path: Path) -> None:
    done = arc("a", "--shots", "1", "--limit", "5")
    assert done.out.startswith("arc: 5 documents, 1 shots\n  acc_norm")
    names = {path.name for path in (tmp_path / "a").iterdir()} - {".lock"}
    assert names == {"answers.jsonl", "report.html", "results.json", "run.json", "samples.jsonl"}
    results = json.loads((tmp_path / "a" / "results.json").read_text())
    assert results["settings"]["limit"] == 5
    assert len(samples_of(tmp_path / "a")) == 5


def test_results_and_tasks_are_columns_whatever_their_names(decodery: Run) -> None:
    score = Score(0.5, 0.1, "fraction", 2)
    names = {"acc": score, "exact_match_flexible": score}
    found = SimpleNamespace(task="t", settings={}, samples=[], results=names, counts={})
    _, *lines = table(found)  # type: ignore[arg-type]
    assert len({line.index("0.5000") for line in lines}) == 1
    listed = decodery("eval", "tasks").out.splitlines()
    assert len({re.search(r"(?<=  )\S", line).start() for line in listed}) == 1  # type: ignore[union-attr]


def test_the_same_command_again_asks_nothing_and_changes_nothing(arc: Run, tmp_path: Path) -> None:
    arc("a", "--shots", "1")
    before = written(tmp_path / "a")
    report = (tmp_path / "a" / "report.html").read_text()
    arc("a", "--shots", "1", "--workers", "1")
    assert written(tmp_path / "a") == before
    assert [c["asked"] for c in json.loads((tmp_path / "a" / "run.json").read_text())["calls"]] == [48, 0]
    # A call that asked nothing says nothing about the speed.
    assert (tmp_path / "a" / "report.html").read_text() == report


def test_a_run_with_a_cache_asks_what_another_has_not(arc: Run, tmp_path: Path) -> None:
    cache = ("--cache", str(tmp_path / "cache"))
    arc("a", "--shots", "1", "--limit", "5", *cache)
    arc("b", "--shots", "1", *cache)
    (call,) = json.loads((tmp_path / "b" / "run.json").read_text())["calls"]
    assert call["asked"] == 4 * 7


def test_other_settings_in_a_used_folder_are_an_error(
    arc: Run, decodery: Run, model: str, data: str, tmp_path: Path
) -> None:
    arc("a", "--shots", "1")
    done = decodery("eval", "arc", "-m", model, "--data", data, "--out", str(tmp_path / "a"), "--shots", "0")
    assert done.status == 2
    assert "with another shots (1, now 0)" in done.err


def test_compare_says_whether_the_difference_is_real(arc: Run, decodery: Run, tmp_path: Path) -> None:
    arc("a", "--shots", "1")
    arc("b", "--shots", "0")
    runs = (str(tmp_path / "a"), str(tmp_path / "b"))
    done = decodery("eval", "compare", *runs, "--show", "1")
    assert done.status == 0
    assert "shots: 1 and 0" in done.out
    assert "The difference in acc_norm cannot be told from chance: " in done.out
    plain = decodery("eval", "compare", *runs, "--json").json
    assert plain["documents"] == 12
    assert plain["metrics"]["acc"]["verdict"] == "not told apart"
    changed = [one["id"] for one in plain["differing"]]
    firsts, seconds = (samples_of(tmp_path / name) for name in "ab")
    assert changed == [
        one["id"]
        for one, other in zip(firsts, seconds, strict=True)
        if one["values"]["acc_norm"] != other["values"]["acc_norm"]
    ]
    done = decodery("eval", "compare", runs[0], str(tmp_path))
    assert done.status == 2
    assert done.err == f"decodery: {tmp_path} holds no run\n"


def test_report_writes_the_page_again(arc: Run, decodery: Run, tmp_path: Path) -> None:
    arc("a", "--shots", "0")
    page = tmp_path / "a" / "report.html"
    before = page.read_text()
    page.unlink()
    done = decodery("eval", "report", str(tmp_path / "a"))
    assert done.out == f"{page}\n"
    assert page.read_text() == before


def test_a_leaderboard_is_printed_and_written(arc: Run, decodery: Run, tmp_path: Path) -> None:
    arc("a", "--shots", "0")
    for suffix in ("json", "html"):
        file = tmp_path / f"board.{suffix}"
        done = decodery("eval", "leaderboard", str(tmp_path / "a"), "--out", str(file))
        assert done.status == 0
        assert done.out.splitlines()[0].split() == ["model", "arc", "mean"]
        assert file.stat().st_size
    board = json.loads((tmp_path / "board.json").read_text())
    assert board["models"][0]["tasks"]["arc"]["chance"] == 0.25
    done = decodery("eval", "leaderboard", str(tmp_path / "a"), "--out", str(tmp_path / "board.txt"))
    assert done.status == 2
