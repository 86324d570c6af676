from __future__ import annotations

import json
from pathlib import Path

import pytest

from tests.cli.conftest import Run
from tests.encoding.folders import encoder_folder

ROWS = [
    ("the dog ran", "a"),
    ("the cat sat", "b"),
    ("a dog", "a"),
    ("a cat", "b"),
    ("dogs", "a"),
    ("mat", "b"),
]


@pytest.fixture(scope="module")
def encoder(tmp_path_factory: pytest.TempPathFactory) -> str:
    return str(encoder_folder(tmp_path_factory.mktemp("bert")))


@pytest.fixture
def data(tmp_path: Path) -> Path:
    path = tmp_path / "rows.csv"
    path.write_text("text,label\n" + "".join(f"{text},{label}\n" for text, label in ROWS))
    return path


def test_the_recipe_prints_a_table_and_what_differs(
    decodery: Run, encoder: str, model: str, data: Path, tmp_path: Path
) -> None:
    out = tmp_path / "rows.jsonl"
    arguments = ("--data", str(data), "--encoder", encoder, "-m", model, "--shots", "1", "--out", str(out))
    ran = decodery("recipe", "classification", *arguments)
    assert ran.status == 0
    assert "2 labels, 2 examples, 4 texts in the test" in ran.out
    ways = ("most frequent label", "similarity to labels", "logistic regression", "chat model, zero-shot")
    for way in (*ways, "chat model, 1 per label"):
        assert [line for line in ran.out.splitlines() if line.startswith(way) and "±" in line]
    rows = [json.loads(line) for line in out.read_text().splitlines()]
    assert len(rows) == 4
    assert {row[way] for row in rows for way in ways} <= {"a", "b"}
    markdown = decodery("recipe", "classification", *arguments, "--markdown", "--show", "0")
    assert "| most frequent label | 0.500 ± " in markdown.out
    found = decodery("recipe", "classification", *arguments, "--json").json
    assert [one["way"] for one in found["results"]][:2] == list(ways[:2])
    assert found["results"][0]["accuracy"]["value"] == 0.5


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("text,class\na,b\n", "row 2 has no label; it has text, class"),
        ("text,label\n,b\n", "the text of row 1 of 1 must be a text that is not empty"),
        ("text,label\na, \n", "the label of row 1 of 1 must be a text that is not empty"),
        ("text,label\na,b\nc,b \n", "two different labels or more are needed, not 1"),
        ("text,label\na,b\nc,d\n", "the label 'b' has 1 different texts"),
        ("text,label\n", "has no rows"),
    ],
)
def test_wrong_data_is_one_error_before_a_model_is_loaded(
    decodery: Run, data: Path, text: str, message: str
) -> None:
    data.write_text(text)
    ran = decodery("recipe", "classification", "--data", str(data), "-m", "missing")
    assert ran.status != 0
    assert message in ran.err
    assert len(ran.err.splitlines()) == 1


def test_an_encoder_in_place_of_the_chat_model_is_one_error(decodery: Run, encoder: str, data: Path) -> None:
    ran = decodery(
        "recipe", "classification", "--data", str(data), "--encoder", encoder, "-m", encoder, "--shots", "1"
    )
    assert ran.status != 0
    assert "is an encoder" in ran.err
    assert len(ran.err.splitlines()) == 1


def test_wrong_flags_are_one_error_before_a_model_is_loaded(
    decodery: Run, data: Path, tmp_path: Path
) -> None:
    for flags, message in (
        (("--shots", "0"), "shots must be 1 or more"),
        (("--out", str(tmp_path / "missing" / "out.jsonl")), "must be a file in a folder that exists"),
        (("--out", str(data)), "is read or written already"),
    ):
        ran = decodery(
            "recipe", "classification", "--data", str(data), "-m", "missing", "--shots", "1", *flags
        )
        assert ran.status != 0
        assert message in ran.err
        assert len(ran.err.splitlines()) == 1
