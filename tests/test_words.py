"""Checks the words: how docstrings begin, and names and terms that say nothing to a newcomer."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
SOURCES = sorted(path for folder in ("src", "bench") for path in (ROOT / folder).rglob("*.py"))
PROSE = [
    ROOT / "README.md",
    ROOT / "CONTRIBUTING.md",
    *(path for path in sorted((ROOT / "docs").rglob("*.md")) if path.name != "log.md"),
]
# A clause that begins with one of these names a thing; a contract says what the function does.
QUESTIONS = ("What", "Whether", "Who", "Whom", "Whose", "How", "Where", "When", "Which", "Why")
# Names say what the thing does, in the terms of the field.
NAMES = {
    *(
        "told",
        "stands",
        "led",
        "lean",
        "soften",
        "walk",
        "walks",
        "walking",
        "mix",
        "munch",
        "tape",
        "straight",
    ),
    *("room", "rooms", "lease", "quiet", "assistant", "assistants", "follower", "story", "composed"),
}
TERMS = re.compile(
    r"\b(rooms|tenants?|house|munch|tape|quiet\(\)|goes straight|straight from|assistants?|followers?)\b",
    re.IGNORECASE,
)
# The field's own uses of such words: a message's role, a published text, llama.cpp's option.
FIELD_TERMS = re.compile(r"[\"'`](assistant)[\"'`]|role.{0,20}assistant|Assistant-")


def definitions(path: Path) -> Iterator[tuple[ast.AST, str]]:
    """Yields the module, classes and functions of a file that have a docstring, with its first line."""
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, (ast.Module, ast.ClassDef, ast.FunctionDef, ast.AsyncFunctionDef)):
            text = ast.get_docstring(node)
            if text:
                yield node, text.splitlines()[0]


def names(path: Path) -> Iterator[tuple[int, str]]:
    """Yields the names that a file defines or assigns: its line and the name."""
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, (ast.ClassDef, ast.FunctionDef, ast.AsyncFunctionDef)):
            yield node.lineno, node.name
        elif isinstance(node, ast.arg):
            yield node.lineno, node.arg
        elif isinstance(node, (ast.Name, ast.Attribute)) and isinstance(node.ctx, ast.Store):
            yield node.lineno, node.id if isinstance(node, ast.Name) else node.attr


@pytest.mark.parametrize("path", SOURCES, ids=lambda p: str(p.relative_to(ROOT)))
def test_a_docstring_says_what_its_function_does(path: Path) -> None:
    wrong = []
    for node, line in definitions(path):
        first = line.split()[0].rstrip(",:;.")
        if first in QUESTIONS:
            wrong.append(line)
        elif isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef)) and not re.match(
            r"True if |False if |[A-Z][a-z]+s\b(?! that\b)", line
        ):
            wrong.append(f"{node.name}: {line}")
    assert not wrong, "\n".join(wrong)


@pytest.mark.parametrize("path", SOURCES, ids=lambda p: str(p.relative_to(ROOT)))
def test_names_are_terms_of_the_field(path: Path) -> None:
    wrong = [f"{line}: {name}" for line, name in names(path) if NAMES & set(words_of(name))]
    assert not wrong, "\n".join(wrong)


@pytest.mark.parametrize("path", [*SOURCES, *PROSE], ids=lambda p: str(p.relative_to(ROOT)))
def test_prose_has_no_metaphor_where_there_is_a_term(path: Path) -> None:
    wrong = [
        f"{number}: {line.strip()}"
        for number, line in enumerate(path.read_text(encoding="utf-8").splitlines(), 1)
        if TERMS.search(FIELD_TERMS.sub("", line))
    ]
    assert not wrong, "\n".join(wrong)


def words_of(name: str) -> list[str]:
    """Returns the lower-case words of a name in snake_case or CamelCase."""
    return re.sub(r"(?<=[a-z])(?=[A-Z])", "_", name).lower().strip("_").split("_")
