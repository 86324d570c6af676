"""Tests how `decodery serve` reads the models that it serves."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import pytest

from decodery.cli.commands.serve import kind_of, model_sources, served_models
from decodery.cli.flags.model_options import ModelOptions, RunOptions
from decodery.errors import ParameterError
from decodery.serving.encoders.token_arrays import checked_token_arrays, cl100k
from tests.encoding.folders import encoder_folder

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


def test_the_kind_of_a_model_on_this_machine_is_known_before_it_is_opened(model: str, tmp_path: Path) -> None:
    encoder = str(encoder_folder(tmp_path / "bert"))
    (tmp_path / "empty").mkdir()
    kinds = {
        None: "decoder",
        "default": "decoder",
        model: "decoder",
        encoder: "encoder",
        "minilm": "encoder",
        "org/name": None,
        str(tmp_path / "empty"): None,
    }
    assert {path: kind_of(ModelOptions(model=path)) for path in kinds} == kinds
    writer, reader = model_sources([f"a={model}", f"b={encoder}"], RunOptions(), {}, {})
    assert (writer.kind, reader.kind) == ("decoder", "encoder")
    assert reader.memory() > 0


def test_token_arrays_are_own_or_cl100k(monkeypatch: pytest.MonkeyPatch) -> None:
    assert (checked_token_arrays(None), checked_token_arrays("own")) == (None, "own")
    with pytest.raises(ParameterError, match="own or cl100k"):
        checked_token_arrays("gpt2")
    cl100k.cache_clear()
    monkeypatch.setitem(sys.modules, "tiktoken", None)
    with pytest.raises(ParameterError, match="pip install tiktoken"):
        checked_token_arrays("cl100k")


def test_a_vocabulary_that_cannot_be_fetched_is_one_clear_error(monkeypatch: pytest.MonkeyPatch) -> None:
    class Offline:
        @staticmethod
        def get_encoding(name: str) -> Any:
            raise ConnectionError(name)

    cl100k.cache_clear()
    monkeypatch.setitem(sys.modules, "tiktoken", Offline)
    with pytest.raises(ParameterError, match="TIKTOKEN_CACHE_DIR"):
        checked_token_arrays("cl100k")
    cl100k.cache_clear()
