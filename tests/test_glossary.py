"""Checks the glossary: one line for each class that packages share, and none for a class that is gone."""

from __future__ import annotations

import ast
import re
from functools import cache
from pathlib import Path

from tests.test_layout import FILES, LAYERS, ROOTS, module_of

PAGE = Path(__file__).parent.parent / "docs" / "glossary.md"
# A class, its module, and a sentence that begins with a verb in the third person.
ENTRY = re.compile(r"- `(?P<name>\w+)` \(`(?P<module>[\w.]+)`\): [A-Z][a-z]*s\b [^\n]+\.")
PATHS = {".".join(("decodery", *module_of(path))).removesuffix(".__init__"): path for path in FILES}


@cache
def tree(module: str) -> ast.Module:
    """Returns the parsed source of a module."""
    return ast.parse(PATHS[module].read_text(encoding="utf-8"))


def imports(module: str) -> list[tuple[str, str]]:
    """Returns the modules and names that a module imports from the package, wherever it does."""
    return [
        (node.module, alias.name)
        for node in ast.walk(tree(module))
        if isinstance(node, ast.ImportFrom) and node.module in PATHS
        for alias in node.names
    ]


@cache
def classes(module: str) -> set[str]:
    """Returns the public classes that a module defines."""
    return {
        node.name
        for node in tree(module).body
        if isinstance(node, ast.ClassDef) and not node.name.startswith("_")
    }


def definition(module: str, name: str) -> tuple[str, str] | None:
    """Returns the module that defines a class, and its name; None if the name is no public class."""
    if name in classes(module):
        return module, name
    return next((definition(source, name) for source, other in imports(module) if other == name), None)


def package(module: str) -> str:
    """Returns the top-level package, or file, of a module."""
    return module.split(".")[1]


def shared_classes() -> set[tuple[str, str]]:
    """Returns the classes that one package defines and another imports, the root's own exports aside."""
    found = set()
    for module in PATHS:
        if module == "decodery" or package(module) in ROOTS:
            continue
        for source, name in imports(module):
            defined = definition(source, name)
            if defined is not None and package(defined[0]) != package(module):
                found.add(defined)
    return found


def entries() -> list[tuple[str, str, str]]:
    """Returns the heading, module and class of each line of the page that begins a list item."""
    found = []
    heading = ""
    for line in PAGE.read_text(encoding="utf-8").splitlines():
        if line.startswith("## "):
            heading = line.removeprefix("## ")
        elif line.startswith("-"):
            entry = ENTRY.fullmatch(line)
            assert entry is not None, f"not `Name` (`module`): Verbs something. But: {line}"
            found.append((heading, entry["module"], entry["name"]))
    return found


def test_each_class_that_packages_share_has_exactly_one_line() -> None:
    listed = [(module, name) for _, module, name in entries()]
    assert len(listed) == len(set(listed))
    shared = shared_classes()
    assert ("decodery.decoding.rows", "Row") in shared  # Else nothing was found.
    assert sorted(shared - set(listed)) == [], "docs/glossary.md has no line for these classes"


def test_each_line_names_a_class_of_its_module() -> None:
    listed = {(module, name) for _, module, name in entries()}
    existing = {(module, name) for module in PATHS for name in classes(module)}
    assert sorted(listed - existing) == [], "docs/glossary.md names classes that are not there"


def test_lines_are_grouped_by_package_in_the_order_of_the_layers() -> None:
    headings = list(dict.fromkeys(heading for heading, _, _ in entries()))
    assert all(heading == package(module) for heading, module, _ in entries())
    order = [name for layer in LAYERS for name in layer]
    assert headings == [name for name in order if name in headings]
