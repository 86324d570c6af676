"""Checks the choice of the backend, and the errors for options that exclude each other."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from decodery.errors import ParameterError
from decodery.kernels import backends
from decodery.kernels.backends import chosen_backend
from decodery.kernels.native import library
from tests.kernels.native.fixtures import built

Settings = tuple[str, str, "str | None"]


@pytest.fixture(params=[None, "there are no kernels: build them"], ids=["built", "missing"])
def problem(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str | None:
    monkeypatch.setattr(backends, "missing", lambda: request.param)
    monkeypatch.setattr(backends, "first_instruction_set", lambda: "portable")
    found: str | None = request.param
    return found


@pytest.mark.parametrize("dtype", ["auto", "float32"])
def test_auto_is_native_where_it_is_built(dtype: str, problem: str | None) -> None:
    assert chosen_backend("auto", dtype) == ("native" if problem is None else "torch")


def test_auto_is_what_can_do_what_is_asked(problem: str | None) -> None:
    assert chosen_backend("auto", "bfloat16") == "torch"
    if problem is None:
        assert chosen_backend("auto", "float32", "int4") == "native"


@pytest.mark.parametrize("dtype", ["auto", "float32", "bfloat16"])
def test_the_reference_is_there_when_it_is_named(dtype: str, problem: str | None) -> None:
    assert chosen_backend("torch", dtype) == "torch"


@pytest.mark.parametrize(
    ("settings", "named"),
    [
        (("cuda", "auto", None), ["backend", "auto or torch or native", "cuda"]),
        (("auto", "auto", "int2"), ["quantization", "int4 or int8 or bf16", "int2"]),
        (("torch", "auto", "int8"), ["quantization=int8", "backend=torch"]),
    ],
)
def test_what_no_machine_can_do_is_an_error_that_names_it(
    settings: Settings, named: list[str], problem: str | None
) -> None:
    with pytest.raises(ParameterError) as caught:
        chosen_backend(*settings)
    assert all(part in str(caught.value) for part in named)


@pytest.mark.parametrize(
    ("settings", "asked"),
    [
        (("native", "bfloat16", None), "backend=native"),
        (("auto", "bfloat16", "int4"), "quantization=int4"),
        (("native", "bfloat16", "bf16"), "quantization=bf16"),
    ],
)
def test_bfloat16_is_refused_where_it_could_not_be_kept(
    settings: Settings, asked: str, problem: str | None
) -> None:
    expected = f"dtype=bfloat16 and {asked} do not go" if problem is None else f"{asked}: {problem}"
    with pytest.raises(ParameterError, match=expected):
        chosen_backend(*settings)


@pytest.mark.parametrize("settings", [("native", "auto", None), ("auto", "auto", "int8")])
def test_missing_kernels_that_were_asked_for_are_an_error_that_says_what_to_do(
    settings: Settings, problem: str | None
) -> None:
    if problem is None:
        assert chosen_backend(*settings) == "native"
    else:
        with pytest.raises(ParameterError, match=problem):
            chosen_backend(*settings)


def test_a_missing_or_invalid_library_is_reported(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    found = []
    text = tmp_path / "_native.so"
    text.write_bytes(b"no library")
    # The last one is a library, with other functions.
    for path in (tmp_path / "none.so", text, Path(torch._C.__file__)):
        monkeypatch.setattr(library, "PATH", path)
        library.missing.cache_clear()
        library._load.cache_clear()
        found.append(library.missing())
    monkeypatch.undo()
    library.missing.cache_clear()
    library._load.cache_clear()
    assert [str(text).partition(":")[0] for text in found] == [
        "the native kernels are not built",
        "the native kernels cannot be loaded",
        "the native kernels cannot be loaded",
    ]


@built
def test_kernels_of_another_version_are_reported(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(library, "VERSION", -1)
    library.missing.cache_clear()
    assert "another version" in str(library.missing())
    monkeypatch.undo()
    library.missing.cache_clear()
    assert library.missing() is None


def test_reference_is_an_older_name_of_torch_that_warns() -> None:
    with pytest.warns(DeprecationWarning, match='backend="torch"'):
        assert chosen_backend("reference") == "torch"
