"""Reads problems of programming in HumanEval's layout, and makes programs of what a model wrote."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from decodery.errors import ParameterError
from decodery.evaluation.layouts.tables import read_rows
from decodery.evaluation.written_answers import cut_before

COLUMNS = ("task_id", "prompt", "entry_point", "test")
# A model that goes on with a function writes these once it is done with it.
STOPS = ("\nclass", "\ndef", "\n#", "\nif", "\nprint")
FENCE = re.compile(r"^[ \t]*```[^\n]*\n(.*?)(?:^[ \t]*```|\Z)", re.MULTILINE | re.DOTALL)
BEGINNING = re.compile(r"^(?:import |from |def |async def |class |@)", re.MULTILINE)


@dataclass(frozen=True, slots=True)
class CodeProblem:
    """Holds a problem: a program that ends in an unfinished function, the function's name, and its test.

    `test` defines `check(candidate)`. `solution` is the published end of the function, "" if there is none.
    """

    name: str
    prompt: str
    entry_point: str
    test: str
    solution: str = ""

    @property
    def given(self) -> str:
        """Returns the prompt as a program of its own, whose last function does nothing."""
        for text in (self.prompt, f"{self.prompt.rstrip()}\n    pass\n"):
            if _is_code(text):
                return text
        return ""


def read_problems(path: Path) -> list[CodeProblem]:
    """Returns the problems of a file, .jsonl or .jsonl.gz.

    Raises `ParameterError` with file and row for a missing column, one that is no text, a test that is no
    Python, and an entry point that the prompt does not define.
    """
    found = []
    for number, row in enumerate(read_rows(path, COLUMNS), 1):
        place = f"{path.name}, row {number}"
        if not all(isinstance(row[name], str) for name in COLUMNS):
            raise ParameterError(f"{place}: {', '.join(COLUMNS)} must be texts")
        if not re.search(rf"^(?:async )?def {re.escape(row['entry_point'])}\b", row["prompt"], re.MULTILINE):
            raise ParameterError(f"{place}: the prompt does not define {row['entry_point']}")
        if not _is_code(row["test"]):
            raise ParameterError(f"{place}: the test is no Python")
        solution = str(row.get("canonical_solution") or "")
        found.append(CodeProblem(row["task_id"], row["prompt"], row["entry_point"], row["test"], solution))
    return found


def program_of(text: str, problem: CodeProblem) -> str:
    """Returns the program of what a model wrote after a prompt.

    A text that begins with an indented line goes on with the prompt's function, up to the first of `STOPS`.
    Of any other text, such as a reply in a conversation, the first block between fences (```) that defines
    the function is taken, or the first block; without blocks, the lines from the first import or definition
    on, as many as are Python. It then comes after the prompt, whose imports and other functions it may use.
    """
    lines = [line for line in text.split("\n") if line.strip()]
    if not lines or lines[0][0] in " \t":
        return problem.prompt + cut_before(text, STOPS)
    defines = re.compile(rf"^[ \t]*(?:async )?def {re.escape(problem.entry_point)}\b", re.MULTILINE)
    blocks = [found[1] for found in FENCE.finditer(text)]
    code = next((block for block in blocks if defines.search(block)), blocks[0] if blocks else "")
    if not blocks:
        code = _code_within(text)
    if not defines.search(code):
        return problem.prompt + cut_before(code if code.strip() else text, STOPS)
    return f"{problem.given}\n\n{_unindented(code)}"


def _code_within(text: str) -> str:
    """Returns the lines from the first import or definition on, as many as are Python together."""
    begin = BEGINNING.search(text)
    lines = text[begin.start() :].split("\n") if begin else []
    return next((code for code in _beginnings(lines) if _is_code(code)), "")


def _beginnings(lines: list[str]) -> Iterator[str]:
    for count in range(len(lines), 0, -1):
        yield "\n".join(lines[:count])


def _unindented(code: str) -> str:
    """Returns a block without the indentation that all its lines share, as within a list of a reply."""
    import textwrap

    return textwrap.dedent(code)


def _is_code(text: str) -> bool:
    try:
        compile(text, "text", "exec", dont_inherit=True)
    except (SyntaxError, ValueError, MemoryError, RecursionError):
        return False
    return True
