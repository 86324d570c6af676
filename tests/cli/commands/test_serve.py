"""Tests how `decodery serve` reads the models that it serves."""

from __future__ import annotations

import pytest

from decodery.cli.commands.serve import served_models
from decodery.cli.flags.model_options import RunOptions
from decodery.errors import ParameterError

HOW = RunOptions(dtype="float32", threads=3)


@pytest.mark.parametrize(
    ("given", "served"),
    [
        ((), {"default": ("default", True)}),
        (("dir/model.gguf",), {"model": ("dir/model.gguf", True)}),
        (("org/name",), {"name": ("org/name", True)}),
        (("a=dir/x.gguf",), {"a": ("dir/x.gguf", True)}),
        (("default", "b=x.gguf"), {"default": ("default", True), "b": ("x.gguf", False)}),
        (("a=x", "b=y,pin", "z.gguf"), {"a": ("x", True), "b": ("y", True), "z": ("z.gguf", False)}),
        (("a=x,pin", "y,pin"), {"a": ("x", True), "y": ("y", True)}),
        # What stands before a first slash alone may be a name.
        (("dir/a=b.gguf",), {"a=b": ("dir/a=b.gguf", True)}),
        (("n=dir/a=b.gguf",), {"n": ("dir/a=b.gguf", True)}),
        (("n:1=x",), {"n:1": ("x", True)}),
    ],
)
def test_a_model_has_a_name_a_path_and_may_be_pinned(
    given: tuple[str, ...], served: dict[str, tuple[str, bool]]
) -> None:
    found = served_models(given, HOW)
    assert {name: (one.model, pinned) for name, (one, pinned) in found.items()} == served
    assert list(found) == list(served)
    assert all((one.dtype, one.threads) == ("float32", 3) for one, _ in found.values())


@pytest.mark.parametrize(
    "given", [("=x",), ("a=",), ("",), (",pin",), ("a=,pin",), ("x", "y/x.gguf"), ("a=x", "a=y")]
)
def test_a_model_without_a_name_or_with_another_ones_is_refused(given: tuple[str, ...]) -> None:
    with pytest.raises(ParameterError, match=r"^model "):
        served_models(given, HOW)
