"""The house rules: who may import whom, and how long a file may get."""

from __future__ import annotations

import ast
from pathlib import Path

import pytest

SOURCE = Path(__file__).parent.parent / "src" / "decodery"
WALL = 600

# What each layer may import, besides itself and the leaf modules.
ALLOWED: dict[str, set[str]] = {
    "kernels": set(),
    "weights": {"kernels"},
    "models": {"weights", "kernels"},
    "decoding": {"kernels"},
    "text": set(),
    "engine": {"models", "weights", "kernels", "decoding"},
    "settings": {"weights"},
    "outputs": {"engine", "decoding", "text"},
    "selection": {"outputs", "decoding"},
    "opening": {"settings", "models", "weights", "kernels", "text"},
    "resolving": {"models", "decoding", "text"},
    "llm": {
        *("opening", "resolving", "selection", "outputs", "settings", "engine", "models", "weights"),
        *("kernels", "decoding", "text"),
    },
    "cli": {"llm", "outputs", "settings", "engine", "models", "weights", "kernels", "decoding", "text"},
}
LEAVES = {"errors", "version", "progress"}
ROOTS = {"__init__", "__main__"}


def layer_of(path: Path) -> str:
    part = path.relative_to(SOURCE).parts[0]
    return part.removesuffix(".py")


def imported_layers(path: Path) -> set[str]:
    found: set[str] = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        names: list[str] = []
        if isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}: relative imports hide the layer"
            module = node.module or ""
            names = [f"{module}.{alias.name}" for alias in node.names] if module == "decodery" else [module]
        found |= {name.split(".")[1] for name in names if name.startswith("decodery.")}
    return found


FILES = sorted(SOURCE.rglob("*.py"))


@pytest.mark.parametrize("path", FILES, ids=lambda p: str(p.relative_to(SOURCE)))
def test_a_layer_imports_only_what_stands_left_of_it(path: Path) -> None:
    layer = layer_of(path)
    if layer in ROOTS:
        return
    allowed = LEAVES if layer in LEAVES else ALLOWED[layer] | LEAVES | {layer}
    assert imported_layers(path) <= allowed


@pytest.mark.parametrize("path", FILES, ids=lambda p: str(p.relative_to(SOURCE)))
def test_no_type_checking_back_door_and_no_file_over_the_wall(path: Path) -> None:
    text = path.read_text(encoding="utf-8")
    assert "TYPE_CHECKING" not in text
    assert len(text.splitlines()) <= WALL
