"""Checks how problems of programming are read, and which program is made of what a model wrote."""

from __future__ import annotations

import gzip
import json
from pathlib import Path

import pytest

from decodery.errors import ParameterError
from decodery.evaluation.layouts.code_problems import CodeProblem, program_of, read_problems

PROMPT = 'import math\n\ndef half(x):\n    return x / 2\n\ndef area(r):\n    """Area of a circle."""\n'
PROBLEM = CodeProblem("t/0", PROMPT, "area", "def check(candidate):\n    assert candidate(0) == 0\n")
RIGHT = "math.pi * half(2) * r * r"
WHOLE = f"def area(r):\n    return {RIGHT}\n"

TEXTS = {
    "goes on": f"    return {RIGHT}\n",
    "goes on after a line": f"\n    return {RIGHT}",
    "goes on and more follows": f"    return {RIGHT}\n\ndef other():\n    return (",
    "goes on and prints": f"    return {RIGHT}\nprint(area(1)",
    "goes on and tests": f"    return {RIGHT}\nif True: (",
    "goes on and comments": f"    return {RIGHT}\n# Now (the tests",
    "goes on and a class follows": f"    return {RIGHT}\nclass A(",
    "a block": f"Here it is:\n```python\n{WHOLE}```\nIt works for r > 0.",
    "a block without a language": f"```\n{WHOLE}\n```",
    "a block that does not end": f"```python\n{WHOLE}",
    "a block with imports": f"```python\nimport os, math as m\n{WHOLE.replace('math', 'm')}```",
    "the second block": f"Install:\n```sh\npip install x\n```\nthen\n```python\n{WHOLE}```",
    "the first of two": f"```python\n{WHOLE}```\nUse it:\n```python\nprint(area(2)\n```",
    "a block in a list": f"1. Write:\n   ```python\n   def area(r):\n       return {RIGHT}\n   ```\n",
    "a block with the end alone": f"```python\n    return {RIGHT}\n```",
    "no block": f"Sure! This is it.\n\n{WHOLE}\nIt multiplies the square.",
    "a whole function": WHOLE,
    "a function with a decorator": f"from functools import cache\n@cache\n{WHOLE}",
    "a helper of its own": "```python\ndef square(r):\n    return r * r\n\n"
    f"{WHOLE.replace('r * r', 'square(r)')}```",
}


@pytest.mark.parametrize("name", TEXTS)
def test_the_function_is_found_in_a_text(name: str) -> None:
    scope: dict[str, object] = {}
    exec(program_of(TEXTS[name], PROBLEM), scope)
    assert scope["area"](2.0) == pytest.approx(12.566370614)  # type: ignore[operator]


@pytest.mark.parametrize("text", ["", "  \n", "I cannot do that.", "```\n```"])
def test_a_text_without_a_function_is_no_solution(text: str) -> None:
    scope: dict[str, object] = {}
    try:
        exec(program_of(text, PROBLEM), scope)
    except SyntaxError:
        return
    assert scope["area"](2.0) is None  # type: ignore[operator]


def test_a_prompt_without_a_body_is_given_one() -> None:
    problem = CodeProblem("t/1", "import math\ndef area(r):\n    # no docstring\n", "area", "")
    exec(problem.given, {})
    assert CodeProblem("t/2", "def area(r:\n", "area", "").given == ""


ROW = {"task_id": "t/0", "prompt": PROMPT, "entry_point": "area", "test": PROBLEM.test}


def written(path: Path, *rows: object) -> Path:
    """Writes rows as JSON lines, compressed if the name says so; returns the path."""
    text = "".join(json.dumps(row) + "\n" for row in rows).encode()
    path.write_bytes(gzip.compress(text) if path.suffix == ".gz" else text)
    return path


@pytest.mark.parametrize("name", ["mine.jsonl", "mine.jsonl.gz"])
def test_files_of_both_kinds_are_read(name: str, tmp_path: Path) -> None:
    rows = [{**ROW, "canonical_solution": "    return 0\n"}, {**ROW, "task_id": "t/1"}]
    first, second = read_problems(written(tmp_path / name, *rows))
    assert (first.name, first.entry_point, first.solution) == ("t/0", "area", "    return 0\n")
    assert (second.name, second.solution) == ("t/1", "")


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"test": None}, "row 2: test is null"),
        ({"prompt": 3}, "row 2: .*must be texts"),
        ({"entry_point": "volume"}, "row 2: the prompt does not define volume"),
        ({"test": "def check(candidate:"}, "row 2: the test is no Python"),
    ],
)
def test_a_wrong_row_is_named(change: dict[str, object], message: str, tmp_path: Path) -> None:
    path = written(tmp_path / "mine.jsonl", ROW, {**ROW, "task_id": "t/1", **change})
    with pytest.raises(ParameterError, match=message):
        read_problems(path)


def test_an_empty_or_damaged_file_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(ParameterError, match="no rows"):
        read_problems(written(tmp_path / "mine.jsonl"))
    (tmp_path / "mine.jsonl.gz").write_bytes(b"not gzip")
    with pytest.raises(ParameterError, match="gzip"):
        read_problems(tmp_path / "mine.jsonl.gz")
