"""Checks the flags that change a task's form, and tasks of a user's own file, from the command line."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from tests.cli.conftest import Run

ROWS = [
    {
        "id": str(i),
        "question": f"q{i}?",
        "choices": {"text": ["a", "b"], "label": ["A", "B"]},
        "answerKey": "A",
    }
    for i in range(3)
]


@pytest.fixture
def data(tmp_path: Path) -> str:
    for split in ("test", "special"):
        lines = "".join(json.dumps(row) + "\n" for row in ROWS[: 3 if split == "test" else 1])
        (tmp_path / f"{split}.jsonl").write_text(lines, encoding="utf-8")
    return str(tmp_path)


def test_forms_reach_the_prompts_and_the_settings(
    decodery: Run, model: str, data: str, tmp_path: Path
) -> None:
    flags = ("--options", "numbers", "--ending", r"\nReply: ", "--split", "special", "--shots", "0")
    out = tmp_path / "run"
    ran = decodery("eval", "arc", "-m", model, "--data", data, "--out", str(out), "--json", *flags)
    assert ran.status == 0, ran.err
    form = ran.json["settings"]["form"]
    assert (form["options"], form["ending"], form["split"]) == ("numbers", "\nReply:", "special")
    (line,) = (out / "samples.jsonl").read_text(encoding="utf-8").splitlines()
    assert json.loads(line)["prompt"].endswith("Question: q0?\n1. a\n2. b\nReply:")


def test_the_method_parse_reads_written_answers(decodery: Run, model: str, data: str) -> None:
    flags = ("--options", "letters", "--method", "parse", "--max-tokens", "4", "--shots", "0")
    ran = decodery("eval", "arc", "-m", model, "--data", data, *flags)
    assert ran.status == 0, ran.err
    assert "unparsed" in ran.out
    assert "mass" not in ran.out


@pytest.mark.parametrize(
    ("flags", "said"),
    [
        (("--options", "words"), "options must be one of texts, letters, numbers"),
        (("--method", "parse"), "let options be"),
        (("--split", "none"), "has no file none"),
    ],
)
def test_a_wrong_form_is_one_line(
    decodery: Run, model: str, data: str, flags: tuple[str, str], said: str
) -> None:
    ran = decodery("eval", "arc", "-m", model, "--data", data, "--shots", "0", *flags)
    assert ran.status != 0
    assert said in " ".join(ran.err.split())


def test_a_task_without_options_refuses_them(decodery: Run, model: str, tmp_path: Path) -> None:
    (tmp_path / "a.txt").write_text("some text", encoding="utf-8")
    ran = decodery("eval", "perplexity", "-m", model, "--data", str(tmp_path), "--options", "letters")
    assert ran.status != 0
    assert "perplexity takes no options" in ran.err
    ran = decodery("eval", "perplexity", "-m", model, "--data", str(tmp_path), "--json")
    assert ran.json["results"]["bits_per_byte"]["value"] > 0


def test_a_file_with_a_task_is_run_by_its_path(decodery: Run, model: str, tmp_path: Path) -> None:
    rows = [{"country": "France", "capital": "Paris"}, {"country": "Italy", "capital": "Rome"}]
    lines = "".join(json.dumps(row) + "\n" for row in rows)
    (tmp_path / "capitals.jsonl").write_text(lines, encoding="utf-8")
    task = tmp_path / "capitals.toml"
    keys = ('kind = "generation"', 'data = "capitals.jsonl"', 'question = "{country}:"', 'answer = "capital"')
    text = "\n".join((*keys, "max_tokens = 4", ""))
    task.write_text(text, encoding="utf-8")
    ran = decodery("eval", str(task), "-m", model, "--json")
    assert ran.status == 0, ran.err
    assert ran.json["settings"]["task"] == "capitals"
    assert ran.json["results"]["exact_match"]["counted"] == 2
    task.write_text(text + "stops = 3\n", encoding="utf-8")
    ran = decodery("eval", str(task), "-m", model)
    assert ran.status != 0
    assert "stops is unknown; did you mean stop?" in " ".join(ran.err.split())


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        ((), "translation needs --source-language and --target-language, such as en and de"),
        (("--source-language", "en"), "translation needs both --source-language and --target-language"),
        (("--source-language", "xx", "--target-language", "de"), "no name for the language 'xx'"),
        (("--source-language", "en", "--target-language", "yy"), "no name for the language 'yy'"),
        (("--source-language", "fr", "--target-language", "de"), "row 1 has no text in fr; it has en, de"),
    ],
)
def test_the_languages_of_a_translation_are_flags(
    decodery: Run, model: str, tmp_path: Path, flags: tuple[str, ...], message: str
) -> None:
    data = tmp_path / "test.jsonl"
    data.write_text('{"translation": {"en": "a cat", "de": "eine Katze"}}\n', encoding="utf-8")
    ran = decodery("eval", "translation", "--data", str(data), "-m", model, *flags)
    assert ran.status != 0
    assert message in ran.err
