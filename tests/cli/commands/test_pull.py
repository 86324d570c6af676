from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from decodery.errors import ModelError
from tests.cli.conftest import Run


def test_pull_prints_the_path_alone(decodery: Run, model: str) -> None:
    ran = decodery("pull", model)
    assert (ran.status, ran.out, ran.err) == (0, f"{model}\n", "")


def test_pull_names_each_stage_once_if_stderr_is_no_terminal(
    decodery: Run, model: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    from decodery.cli.commands import pull

    def resolve(name: str | None, revision: str | None, progress: Any) -> Path:
        for done in range(3):
            progress("fetching it", done, 3)
        return Path(f"/{name}@{revision}")

    monkeypatch.setattr(pull, "resolve", resolve)
    ran = decodery("pull", "it", "--revision", "v1")
    assert (ran.status, ran.out, ran.err) == (0, "/it@v1\n", "decodery: fetching it\n")


def test_a_model_that_cannot_be_fetched_is_one_line(decodery: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    from decodery.cli.commands import pull

    def resolve(name: str | None, revision: str | None, progress: Any) -> Path:
        progress("fetching it", 0, 0)
        raise ModelError("there is no it")

    monkeypatch.setattr(pull, "resolve", resolve)
    ran = decodery("pull", "it")
    assert (ran.status, ran.out, ran.err) == (1, "", "decodery: there is no it\n")
