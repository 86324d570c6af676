"""Checks which models a request may name, and that a host which does not open paths reads none."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from decodery import LLM
from decodery.errors import ModelError, ParameterError
from decodery.loading import open_model as loading
from decodery.loading.open_model import Opened, SecondModels, open_model
from tests.cli.conftest import write_model


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> str:
    return write_model(tmp_path_factory.mktemp("tiny"))


@pytest.fixture(scope="module")
def first(folder: str) -> Opened:
    return open_model(folder, dtype="float32", backend="torch")


def models(first: Opened, *, opens: bool) -> SecondModels:
    return SecondModels(first, opens=opens, dtype="float32", backend="torch")


@pytest.fixture
def opened_paths(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Returns a list that gets what is opened."""
    found: list[str] = []
    opening = loading.open_model

    def opened(model: Any, **settings: Any) -> Opened:
        found.append(str(model))
        return opening(model, **settings)

    monkeypatch.setattr(loading, "open_model", opened)
    return found


def test_a_host_that_opens_paths_opens_each_once(first: Opened, folder: str, opened_paths: list[str]) -> None:
    second = models(first, opens=True)
    assert second.named("amateur", folder) is second.named("DraftModel's model", Path(folder))
    assert opened_paths == [folder]


@pytest.mark.parametrize("name", ["org/name", "default", "/etc/passwd", Path("x"), "./default", ""])
def test_other_hosts_read_nothing_that_a_request_names_and_say_what_they_offer(
    first: Opened, folder: str, opened_paths: list[str], name: str | Path
) -> None:
    second = models(first, opens=False)
    with pytest.raises(ParameterError, match=r"amateur '.*' is not offered here; offered are: none"):
        second.named("amateur", name)
    second.add("small", folder)
    second.add("other", first)
    with pytest.raises(ParameterError, match="offered are: 'small', 'other'") as error:
        second.named("amateur", name)
    assert "\n" not in str(error.value)
    with pytest.raises(ParameterError, match="not offered"):
        second.named("amateur", folder)
    assert opened_paths == [folder]


def test_an_added_model_is_found_by_its_name_whatever_it_was_given_as(first: Opened, folder: str) -> None:
    second = models(first, opens=False)
    llm = LLM(folder, dtype="float32", backend="torch", kv_memory="1MB")
    second.add("path", folder)
    second.add("llm", llm)
    second.add("opened", first)
    assert second.named("amateur", "llm") is llm.model
    assert second.named("amateur", "opened") is first.model
    assert second.named("amateur", "path") is second.named("amateur", "path")
    # An object is no name: only the host's own code can give one.
    assert second.named("amateur", llm) is llm.model


def test_a_name_is_taken_once_and_a_model_that_cannot_be_opened_takes_none(
    first: Opened, folder: str, tmp_path: Path
) -> None:
    second = models(first, opens=False)
    with pytest.raises(ModelError):
        second.add("small", tmp_path / "nothing")
    second.add("small", folder)
    with pytest.raises(ParameterError, match="'small' already: choose another name"):
        second.add("small", folder)


def test_a_name_that_the_host_added_is_not_a_path(first: Opened, opened_paths: list[str]) -> None:
    second = models(first, opens=True)
    second.add("org/name", first)
    assert second.named("amateur", "org/name") is first.model
    assert opened_paths == []


def test_a_model_of_another_kind_is_refused(first: Opened) -> None:
    for opens in (True, False):
        with pytest.raises(ParameterError, match="amateur must be a path, a name or an LLM, not int"):
            models(first, opens=opens).named("amateur", 5)
