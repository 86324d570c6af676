"""Checks the layout: which package imports which, how files are named, and how long they may get."""

from __future__ import annotations

import ast
import warnings
from importlib import import_module
from itertools import combinations
from pathlib import Path

import pytest

SOURCE = Path(__file__).parent.parent / "src" / "decodery"
LONGEST_FILE = 600
MOST_FILES = 18

# The layers from the lowest. A module imports from layers below its own and from its own package.
LAYERS: tuple[tuple[str, ...], ...] = (
    ("errors", "progress", "token_ids", "version"),
    ("kernels", "metrics", "text"),
    ("decoding", "weights"),
    ("models",),
    ("encoding", "engine", "lens", "loading"),
    ("conversations", "outputs"),
    ("wire",),
    ("collector", "consensus", "encoding_calls", "intake", "pictures", "shared_scores"),
    ("llm", "client"),
    ("evaluation", "learn", "recipes", "search"),
    ("serving",),
    ("cli",),
)
# Within a package, from the lowest: packages and files of it; "" is its other files.
INNER: dict[str, tuple[str, ...]] = {
    "decoding": ("json_schema", "request", "", "grammar", "processors", "strategies"),
    "text": ("tokenizer", "streaming", "chat"),
    "weights": ("report", "formats", "sources", "transforms", "layouts", "names", "parameters"),
    "models": (
        *("checkpoint_keys", "config_reader", "layers", "rope_config", "window_config", "contract"),
        "missing_parts",
        *("decoders", "encoders", "readers", "architectures", "families", "load", "describe"),
    ),
    "serving": (
        *("errors", "settings", "", "openai", "responses", "anthropic", "encoders"),
        *("trace_route", "schemas", "page", "app", "run"),
    ),
    "cli": (
        *("", "tables", "flags", "command_registry", "resumable_file", "line_work"),
        *("load_llm", "load_encoder", "load_text_model", "commands", "encoder_commands"),
        *("search_commands", "eval_commands", "recipe_commands", "main"),
    ),
}
# Imports that are forbidden even where the layers allow them.
NEVER = {("encoding", "engine"), ("training", "engine"), ("models", "decoding"), ("cli", "models")}
# Former names of modules, and the present ones. A former name forwards to the present one, with a warning.
ALIASES = {"selection": "consensus", "decoding.watermark": "decoding.processors.watermark"}
ROOTS = {"__init__", "__main__", *(alias for alias in ALIASES if "." not in alias)}

RANKS = {name: rank for rank, names in enumerate(LAYERS) for name in names}
FILES = sorted(SOURCE.rglob("*.py"))


def module_of(path: Path) -> tuple[str, ...]:
    """Returns a file's module as names below `decodery`."""
    parts = path.relative_to(SOURCE).with_suffix("").parts
    return parts[:-1] if parts[-1] == "__init__" and len(parts) > 1 else parts


def imported(path: Path) -> set[tuple[str, ...]]:
    """Returns the modules below `decodery` that a file imports, wherever it does."""
    found: set[str] = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}: relative imports hide the package"
            module = node.module or ""
            for alias in node.names:
                deeper = SOURCE.parent.joinpath(*module.split("."), alias.name)
                is_module = deeper.is_dir() or deeper.with_suffix(".py").exists()
                found.add(f"{module}.{alias.name}" if is_module else module)
    return {tuple(name.split(".")[1:]) for name in found if name.startswith("decodery.")}


def inner_rank(module: tuple[str, ...]) -> int:
    """Returns the index of a module in the order of its package."""
    order = INNER[module[0]]
    return order.index(module[1] if len(module) > 1 and module[1] in order else "")


@pytest.mark.parametrize("path", FILES, ids=lambda p: str(p.relative_to(SOURCE)))
def test_imports_go_down_only(path: Path) -> None:
    module = module_of(path)
    if module[0] in ROOTS or ".".join(module) in ALIASES:
        return
    package = module[0]
    for other in imported(path):
        assert (package, other[0]) not in NEVER, f"{package} never imports {other[0]}"
        if other[0] != package:
            assert RANKS[other[0]] < RANKS[package], f"{'.'.join(module)} imports {'.'.join(other)}"
        elif package in INNER and len(module) > 1 and len(other) > 1:
            assert inner_rank(other) <= inner_rank(module), f"{'.'.join(module)} imports {'.'.join(other)}"


@pytest.mark.parametrize("path", FILES, ids=lambda p: str(p.relative_to(SOURCE)))
def test_no_type_checking_back_door_and_no_file_over_the_wall(path: Path) -> None:
    text = path.read_text(encoding="utf-8")
    assert "TYPE_CHECKING" not in text
    assert len(text.splitlines()) <= LONGEST_FILE


def test_every_package_has_a_place_in_the_order_and_few_files() -> None:
    for folder in {path.parent for path in FILES}:
        files = [path for path in folder.glob("*.py") if path.name != "__init__.py"]
        assert len(files) <= MOST_FILES, folder
        inner = INNER.get(folder.parent.name)
        if folder.parent.parent == SOURCE and inner is not None:
            assert folder.name in inner, folder
    assert {module_of(path)[0] for path in FILES} - ROOTS <= set(RANKS)


def test_no_modules_import_each_other_in_a_circle() -> None:
    graph = {module_of(path): imported(path) - {module_of(path)} for path in FILES}
    while leaves := {module for module, others in graph.items() if not others & graph.keys()}:
        graph = {module: others for module, others in graph.items() if module not in leaves}
    assert not graph, sorted(".".join(module) for module in graph)


def stem(name: str) -> str:
    """Returns what is left of a file's name without the ends that make two names look alike."""
    for end in ("ing", "ed", "er", "es", "s", "e", "y", "ies", "ative"):
        if len(name) - len(end) >= 4 and name.endswith(end):
            return name.removesuffix(end)
    return name


def test_no_two_files_differ_by_a_letter_or_a_participle() -> None:
    shared = {"__init__", "native", "reference"}  # Packages and modules of the two backends.
    names = {path.stem for path in FILES} - shared
    for one, other in combinations(sorted(names), 2):
        assert stem(one) != stem(other), f"{one} and {other}"


@pytest.mark.parametrize(("old", "new"), ALIASES.items())
def test_a_documented_import_that_moved_warns_and_still_works(old: str, new: str) -> None:
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        module = import_module(f"decodery.{old}")
        names = [name for name in vars(import_module(f"decodery.{new}")) if not name.startswith("_")]
        assert names
        for name in names:
            assert getattr(module, name) is getattr(import_module(f"decodery.{new}"), name)
    assert any(issubclass(w.category, DeprecationWarning) and new in str(w.message) for w in caught)
