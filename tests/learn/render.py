"""Writes what the learner's pages hold of runs: the outputs below their examples, and their pictures.

Command: `python -m tests.learn.render`, which `make learn` runs.
"""

from __future__ import annotations

import io
import os
import re
import shlex
import sys
from collections.abc import Iterator
from contextlib import contextmanager, redirect_stderr, redirect_stdout
from pathlib import Path
from typing import Any
from unittest.mock import patch

import decodery
from decodery import LLM
from decodery.cli.main import run
from decodery.learn import learn_pages
from tests.learn.pictures import PICTURES

FOLDER = Path(__file__).parents[2] / "docs" / "learn"
# A program and what it prints; a command line and what it prints.
_PROGRAM = re.compile(r"(```python\n(?P<program>.*?)```\n\n```text\n).*?(```)", re.DOTALL)
_COMMAND = re.compile(r"(```console\n\$ decodery (?P<command>[^\n]*)\n).*?(```)", re.DOTALL)
_COLUMNS = "100"


def rendered(llm: LLM) -> Iterator[tuple[Path, str]]:
    """Yields the path and the true text of each page and each picture."""
    for page in learn_pages():
        path = FOLDER / f"{page.name}.md"
        yield path, with_outputs(llm, path.read_text(encoding="utf-8"))
        yield FOLDER / f"{page.name}.svg", PICTURES[page.name](llm, page)


def with_outputs(llm: LLM, text: str) -> str:
    """Returns a page in which each example is followed by what it prints with this model."""
    with _only_model(llm):
        text = _PROGRAM.sub(lambda found: found[1] + _printed(found["program"]) + found[3], text)
        return _COMMAND.sub(lambda found: found[1] + _answered(found["command"]) + found[3], text)


def _printed(program: str) -> str:
    with redirect_stdout(io.StringIO()) as printed:
        exec(compile(program, "example", "exec"), {})
    return printed.getvalue()


def _answered(command: str) -> str:
    with (
        patch.dict(os.environ, COLUMNS=_COLUMNS),
        redirect_stdout(io.StringIO()) as printed,
        redirect_stderr(io.StringIO()) as errors,
    ):
        status = run(shlex.split(command))
    assert status == 0, f"{command}: {errors.getvalue()}"
    lines = printed.getvalue().splitlines()
    return "".join(f"{line.rstrip()}\n" for line in lines)


@contextmanager
def _only_model(llm: LLM) -> Iterator[None]:
    """Lets every program and command use this model in place of loading it again."""

    def loaded(*arguments: Any, **options: Any) -> LLM:
        return llm

    with patch.object(decodery, "LLM", loaded), patch("decodery.cli.load_llm.LLM", loaded):
        yield


def main() -> None:
    """Writes the files that differ, and prints their names."""
    for path, text in rendered(LLM()):
        if not path.exists() or path.read_text(encoding="utf-8") != text:
            path.write_text(text, encoding="utf-8")
            print(f"wrote {path.relative_to(FOLDER.parents[1])}", file=sys.stderr)


if __name__ == "__main__":
    main()
