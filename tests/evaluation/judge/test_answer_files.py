"""Checks how answers and votes are read."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from decodery.errors import ParameterError
from decodery.evaluation.judge.answer_files import pairs_of, read_answers, read_voted_pairs, read_votes


def write(path: Path, *rows: dict[str, Any]) -> Path:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return path


def test_rows_of_several_tools_are_read_and_numbered(tmp_path: Path) -> None:
    path = write(
        tmp_path / "a.jsonl",
        {"question": "q", "answer": "a"},
        {"prompt": "p", "output": "o", "id": "x"},
        {"instruction": "i", "response": "r"},
    )
    assert read_answers(path) == {"1": ("q", "a"), "x": ("p", "o"), "3": ("i", "r")}


def test_a_run_gives_the_first_text_of_each_document(tmp_path: Path) -> None:
    texts = [{"text": "a", "finish_reason": "stop"}, {"text": "b", "finish_reason": "stop"}]
    write(tmp_path / "samples.jsonl", {"id": "1", "prompt": "p", "requests": texts})
    assert read_answers(tmp_path) == {"1": ("p", "a")}
    write(tmp_path / "samples.jsonl", {"id": "1", "prompt": "p", "requests": [{"logprobs": [0]}]})
    with pytest.raises(ParameterError, match="row 1 has no generated text"):
        read_answers(tmp_path)


def test_answers_to_other_questions_are_not_compared() -> None:
    one = {"1": ("q", "a"), "2": ("r", "b")}
    (first, _) = pairs_of(one, {"1": ("q", "c"), "2": ("r", "d")})
    assert (first.id, first.one, first.other) == ("1", "a", "c")
    with pytest.raises(ParameterError, match="1 ids are in one of the two only, the first is 2"):
        pairs_of(one, {"1": ("q", "c")})
    with pytest.raises(ParameterError, match="different questions of the id 2"):
        pairs_of(one, {"1": ("q", "c"), "2": ("s", "d")})


def test_votes_are_kept_by_voter(tmp_path: Path) -> None:
    path = write(
        tmp_path / "v.jsonl",
        {"id": 1, "vote": "one"},
        {"id": "2", "vote": "tie"},
        {"id": "1", "vote": "other", "voter": "Ann"},
    )
    assert read_votes(path, ["1", "2"]) == {"people": {"1": "one", "2": "tie"}, "Ann": {"1": "other"}}


@pytest.mark.parametrize(
    ("row", "message"),
    [
        ({"id": "1", "vote": "A"}, "row 2: the vote is 'A': write one, other, tie, both_bad"),
        ({"id": "9", "vote": "one"}, "row 2: no answers have the id 9"),
        ({"id": "1", "vote": "one"}, "row 2: people has voted on 1 already"),
        ({"id": "1"}, "row 2 has no vote"),
    ],
)
def test_a_wrong_vote_is_named(tmp_path: Path, row: dict[str, Any], message: str) -> None:
    path = write(tmp_path / "v.jsonl", {"id": "1", "vote": "one"}, row)
    with pytest.raises(ParameterError, match=message):
        read_votes(path, ["1", "2"])


def test_rows_without_an_answer_or_with_the_same_id_are_named(tmp_path: Path) -> None:
    path = write(tmp_path / "a.jsonl", {"question": "q", "answer": "a"}, {"question": "q"})
    with pytest.raises(ParameterError, match="row 2 has none of answer, output"):
        read_answers(path)
    twice = write(tmp_path / "b.jsonl", *[{"id": 1, "question": "q", "answer": "a"}] * 2)
    with pytest.raises(ParameterError, match="row 2: the id 1 is there twice"):
        read_answers(twice)


def test_two_bad_answers_are_a_tie_to_a_judge(tmp_path: Path) -> None:
    path = write(tmp_path / "v.jsonl", {"id": "1", "vote": "both_bad"})
    assert read_votes(path, ["1"]) == {"people": {"1": "tie"}}


def voted(key: str, one: str, other: str, **more: Any) -> dict[str, Any]:
    return {"id": key, "question": "q", "one": one, "other": other, "vote": "tie", **more}


def test_votes_that_have_the_answers_are_grouped_by_their_settings(tmp_path: Path) -> None:
    settings = {"one": {"name": "greedy", "model": "m"}, "other": {"name": "drawn", "model": "m"}}
    path = write(
        tmp_path / "v.jsonl",
        voted("1", "a", "b"),
        voted("2", "c", "d", settings=settings),
        voted("3", "", "e", settings=settings),
        # Another voter's.
        voted("1", "a", "b", voter="Ann"),
    )
    found = read_voted_pairs(path)
    assert {names: [(one.id, one.one, one.other) for one in some] for names, some in found.items()} == {
        ("one", "other"): [("1", "a", "b")],
        ("greedy (m)", "drawn (m)"): [("2", "c", "d"), ("3", "", "e")],
    }


@pytest.mark.parametrize(
    ("row", "message"),
    [
        ({"id": "2", "vote": "one"}, "row 2 has no question, one, other"),
        (voted("1", "a", "b", settings={"one": {"name": "x"}}), "row 2: the id 1 is there with another"),
        (
            voted("1", "a", "c"),
            "row 2: the id 1 is there with another question, other answers or ",
        ),
    ],
)
def test_a_vote_without_answers_or_with_others_is_named(
    tmp_path: Path, row: dict[str, Any], message: str
) -> None:
    path = write(tmp_path / "v.jsonl", voted("1", "a", "b"), row)
    with pytest.raises(ParameterError, match=message):
        read_voted_pairs(path)
