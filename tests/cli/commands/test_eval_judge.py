"""Checks the commands that judge answers and look for test data in a corpus."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from tests.cli.conftest import Run, write_model


@pytest.fixture(scope="module")
def judge(tmp_path_factory: pytest.TempPathFactory) -> str:
    return write_model(tmp_path_factory.mktemp("judge"), context=2048)


def answers(path: Path, *texts: str) -> str:
    rows = [{"question": f"q{i}", "answer": text} for i, text in enumerate(texts)]
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return str(path)


@pytest.fixture
def files(tmp_path: Path) -> tuple[str, str]:
    return answers(tmp_path / "a.jsonl", "one", "two"), answers(tmp_path / "b.jsonl", "uno", "dos")


def test_every_pair_has_two_verdicts_of_the_grammar(
    decodery: Run, judge: str, files: tuple[str, str], tmp_path: Path
) -> None:
    flags = ("--judge", judge, "--no-reasons", "--json", "--out", str(tmp_path / "run"))
    ran = decodery("eval", "judge", *files, *flags)
    assert ran.status == 0, ran.err
    (found,) = ran.json["judges"].values()
    assert found["verdicts"].keys() == {"1", "2"}
    assert all(word in ("A", "B", "tie") for words in found["verdicts"].values() for word in words)
    kept = (tmp_path / "run" / "verdicts.jsonl").read_bytes()
    assert len(kept.splitlines()) == 4
    again = decodery("eval", "judge", *files, *flags)
    assert again.out == ran.out
    assert (tmp_path / "run" / "verdicts.jsonl").read_bytes() == kept


def test_votes_stand_beside_the_judge(
    decodery: Run, judge: str, files: tuple[str, str], tmp_path: Path
) -> None:
    votes = tmp_path / "votes.jsonl"
    votes.write_text('{"id": 1, "vote": "one"}\n{"id": 2, "vote": "tie"}\n', encoding="utf-8")
    ran = decodery("eval", "judge", *files, "--judge", judge, "--no-reasons", "--votes", str(votes))
    assert ran.status == 0, ran.err
    assert f"agreement of {judge} and people: " in ran.out


def voted(path: Path, *votes: tuple[str, str]) -> str:
    """Writes a file of votes as the page saves it: each vote with the name of its second setting."""
    rows = [
        {
            **{"id": str(i), "question": f"q{i}", "one": f"one {i}", "other": f"other {i}", "vote": vote},
            "settings": {"one": {"name": "greedy", "model": "m"}, "other": {"name": name, "model": "m"}},
        }
        for i, (vote, name) in enumerate(votes)
    ]
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return str(path)


def test_votes_with_answers_need_no_other_files_and_are_told_by_pairs_of_settings(
    decodery: Run, judge: str, tmp_path: Path
) -> None:
    votes = voted(tmp_path / "v.jsonl", ("one", "drawn"), ("both_bad", "drawn"), ("other", "beams"))
    flags = ("--judge", judge, "--no-reasons", "--votes", votes, "--out", str(tmp_path / "run"))
    ran = decodery("eval", "judge", *flags)
    assert ran.status == 0, ran.err
    first, second = ran.out.split("first: ")[1:]
    assert first.startswith(f"greedy (m)\nsecond: drawn (m)\n{judge}: 2 pairs\n")
    assert "people: one 1, other 0, tie 1\n" in first
    assert second.startswith(f"greedy (m)\nsecond: beams (m)\n{judge}: 1 pairs\n")
    assert "people: one 0, other 1, tie 0\n" in second
    assert ran.out.count(f"agreement of {judge} and people: ") == 2
    plain = decodery("eval", "judge", *flags, "--json").json["pairs"]
    assert [(pair["one"], pair["other"]) for pair in plain] == [
        ("greedy (m)", "drawn (m)"),
        ("greedy (m)", "beams (m)"),
    ]
    assert [pair["votes"] for pair in plain] == [
        {"people": {"0": "one", "1": "tie"}},
        {"people": {"2": "other"}},
    ]
    assert plain[0]["agreement"][0]["voters"] == [judge, "people"]


@pytest.mark.parametrize("answered", [True, False])
def test_a_limit_leaves_out_the_votes_on_the_other_answers(
    decodery: Run, judge: str, files: tuple[str, str], tmp_path: Path, answered: bool
) -> None:
    votes = voted(tmp_path / "v.jsonl", *[("one", "drawn")] * 2)
    if answered:
        Path(votes).write_text('{"id": 1, "vote": "one"}\n{"id": 2, "vote": "tie"}\n', encoding="utf-8")
    flags = ("--judge", judge, "--no-reasons", "--votes", votes, "--limit", "1")
    ran = decodery("eval", "judge", *(files if answered else ()), *flags)
    assert ran.status == 0, ran.err
    assert "people: one 1, other 0, tie 0" in ran.out


def test_a_limit_is_of_pairs_whatever_the_order_of_the_files(
    decodery: Run, judge: str, tmp_path: Path
) -> None:
    rows = [{"id": str(i), "question": f"q{i}", "answer": f"text {i}"} for i in range(3)]
    files = []
    for name, given in (("a", rows), ("b", rows[::-1])):
        files.append(str(tmp_path / f"{name}.jsonl"))
        Path(files[-1]).write_text("".join(json.dumps(row) + "\n" for row in given), encoding="utf-8")
    ran = decodery("eval", "judge", *files, "--judge", judge, "--no-reasons", "--limit", "1", "--json")
    assert ran.status == 0, ran.err
    (found,) = ran.json["judges"].values()
    assert list(found["verdicts"]) == ["0"]


def test_a_rubric_gives_marks(decodery: Run, judge: str, files: tuple[str, str], tmp_path: Path) -> None:
    rubric = tmp_path / "rubric.txt"
    rubric.write_text("3 is right, 1 is wrong", encoding="utf-8")
    flags = ("--rubric", str(rubric), "--best", "3", "--judge", judge, "--no-reasons", "--json")
    ran = decodery("eval", "judge", files[0], *flags)
    assert ran.status == 0, ran.err
    (found,) = ran.json.values()
    assert all(mark in (1, 2, 3) for mark in found["marks"].values())
    assert sum(found["distribution"].values()) == 2


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        ((), "name a judge: --judge MODEL"),
        (("--judge", "http://localhost:9"), "no server answers at http://localhost:9"),
        (("--judge", "default", "--inconsistent", "maybe"), "inconsistent must be excluded or half"),
        (("--judge", "default", "--rubric", "r"), "give 1 sets of answers, not 2"),
        (("{more}", "--judge", "default", "--votes", "v.jsonl"), "give 2 sets of answers, not 3"),
    ],
)
def test_a_wrong_command_is_one_line(
    decodery: Run, files: tuple[str, str], flags: tuple[str, ...], message: str
) -> None:
    ran = decodery("eval", "judge", *files, *(flag.format(more=files[0]) for flag in flags))
    assert ran.status != 0
    assert message in ran.err
    assert len(ran.err.splitlines()) == 1


@pytest.mark.parametrize(("out", "reason"), [("/proc/x", "No such file"), ("{}/a.jsonl", "File exists")])
def test_a_folder_that_cannot_be_written_is_one_line(
    decodery: Run, files: tuple[str, str], tmp_path: Path, out: str, reason: str
) -> None:
    folder = out.format(tmp_path)
    ran = decodery("eval", "judge", *files, "--judge", "default", "--out", folder)
    assert ran.status != 0
    assert ran.err.startswith(f"decodery: {folder} cannot be written: {reason}")
    assert len(ran.err.splitlines()) == 1


def test_a_judge_that_cannot_converse_is_refused(
    decodery: Run, plain_model: str, files: tuple[str, str]
) -> None:
    ran = decodery("eval", "judge", *files, "--judge", plain_model)
    assert "has no chat template" in ran.err


def test_without_answers_and_votes_there_is_nothing_to_judge(decodery: Run) -> None:
    for flags in ((), ("--rubric", "r", "--votes", "v.jsonl")):
        ran = decodery("eval", "judge", "--judge", "default", *flags)
        assert ran.status != 0
        assert "sets of answers, not 0" in ran.err
        assert len(ran.err.splitlines()) == 1


def test_contamination_tells_the_results_with_and_without(decodery: Run, judge: str, tmp_path: Path) -> None:
    pairs = tmp_path / "pairs.csv"
    pairs.write_text("kind,more,less\na,one two three four,x\na,five six seven eight,y\na,nine,z\n")
    run = str(tmp_path / "run")
    assert decodery("eval", "bias", "--data", str(pairs), "-m", judge, "--out", run).status == 0
    corpus = tmp_path / "corpus"
    corpus.mkdir()
    (corpus / "page.txt").write_text("Before: One, two\nthree four.", encoding="utf-8")
    ran = decodery("eval", "contamination", run, str(corpus), "--words", "4", "--json")
    assert ran.status == 0, ran.err
    assert ran.json["counts"] == {"contaminated": 1, "clean": 1, "not checkable": 1}
    counted = {name: score["counted"] for name, score in ran.json["results"].items()}
    assert counted == {"all": 3, "clean": 1, "contaminated": 1, "not checkable": 1}
    nothing = decodery("eval", "contamination", str(corpus), str(corpus))
    assert "holds no run" in nothing.err


def samples(folder: Path, *rows: dict[str, Any]) -> str:
    folder.mkdir()
    (folder / "samples.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return str(folder)


def test_consistency_counts_equal_answers_over_runs_and_samples(decodery: Run, tmp_path: Path) -> None:
    one = samples(tmp_path / "1", {"id": "a", "predicted": 1}, {"id": "b", "predicted": [2]}, {"id": "c"})
    two = samples(tmp_path / "2", {"id": "a", "predicted": 1}, {"id": "b", "predicted": [3]}, {"id": "c"})
    ran = decodery("eval", "consistency", one, two, "--json")
    assert ran.status == 0, ran.err
    # Answers that could not be read do not agree.
    assert ran.json["agreement"]["value"] == pytest.approx(1 / 3)
    assert ran.json["changing"] == ["b"]
    texts = {"strict": ["4", "4", "5"], "flexible": ["4", "4", "4"]}
    sampled = samples(tmp_path / "3", {"id": "a", "predicted": "4", "details": {"extracted": texts}})
    assert "agreement  0.3333" in decodery("eval", "consistency", sampled).out
    other = decodery("eval", "consistency", one, sampled)
    assert "has other documents than" in other.err
