"""Checks the choice of the instruction set."""

from __future__ import annotations

from collections.abc import Iterator
from types import SimpleNamespace

import pytest

from decodery.errors import ParameterError
from decodery.kernels.backends import BACKENDS, chosen_backend
from decodery.kernels.native import library
from tests.kernels.native.fixtures import built

pytestmark = built


@pytest.fixture
def loads(monkeypatch: pytest.MonkeyPatch) -> Iterator[list[str]]:
    """Returns a list that gets the instruction set that a load of the library selects."""
    library.instruction_sets()
    used: list[str] = []
    fake = SimpleNamespace(
        decodery_use=lambda index: used.append(library.SETS[index]), decodery_threads=lambda count: None
    )
    monkeypatch.setattr(library, "_load", lambda: fake)
    library.library.cache_clear()
    yield used
    monkeypatch.undo()
    library.library.cache_clear()


def test_the_kernels_use_the_best_set_of_the_processor(
    loads: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("DECODERY_INSTRUCTION_SET", raising=False)
    library.library()
    assert loads == [library.instruction_sets()[-1]]


@pytest.mark.parametrize("name", library.instruction_sets() if library.available() else ())
def test_the_kernels_use_the_set_that_the_environment_names(
    loads: list[str], name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("DECODERY_INSTRUCTION_SET", name)
    library.library()
    assert loads == [name]


@pytest.mark.parametrize("backend", BACKENDS)
def test_a_set_that_the_processor_cannot_run_is_one_error_for_every_backend(
    backend: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("DECODERY_INSTRUCTION_SET", "avx1024")
    with pytest.raises(ParameterError) as caught:
        chosen_backend(backend)
    sets = " or ".join(library.instruction_sets())
    assert str(caught.value) == f"DECODERY_INSTRUCTION_SET must be {sets} here, not 'avx1024'"
    with pytest.raises(ParameterError, match=r"the instruction set must be portable.*, not 'avx1024'"):
        library.use_instruction_set("avx1024")
