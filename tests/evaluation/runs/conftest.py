"""Provides a small task over a tiny random model, and runs of it."""

from __future__ import annotations

import json
import random
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from decodery import LLM
from decodery.evaluation import Run, RunSettings, Subject, run
from decodery.evaluation.contract import Task
from decodery.evaluation.tasks.arc import TASK as ARC
from tests.cli.conftest import write_model

WORDS = ["sun", "moon", "water", "plant", "rock", "iron", "light", "heat", "sound", "force"]
FILES = ("samples.jsonl", "results.json")


def arc_rows(count: int, name: str, seed: int = 0) -> list[dict[str, Any]]:
    """Returns questions in ARC's columns."""
    rng = random.Random(seed)
    rows = []
    for number in range(count):
        options, gold = rng.sample(WORDS, 4), rng.randrange(4)
        rows.append(
            {
                "id": f"{name}{number}",
                "question": f"What is {options[gold]} {number}?",
                "choices": {"text": options, "label": list("ABCD")},
                "answerKey": "ABCD"[gold],
            }
        )
    return rows


def write_rows(path: Path, rows: list[dict[str, Any]]) -> None:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")


def write_arc(folder: Path, count: int = 20) -> Path:
    folder.mkdir(exist_ok=True)
    write_rows(folder / "test.jsonl", arc_rows(count, "q"))
    write_rows(folder / "train.jsonl", arc_rows(30, "t", 1))
    return folder


def written(folder: Path) -> list[bytes]:
    """Returns the content of the files that depend on the settings alone."""
    return [(folder / name).read_bytes() for name in FILES]


def samples_of(folder: Path) -> list[dict[str, Any]]:
    """Returns the samples of a run."""
    text = (folder / "samples.jsonl").read_text(encoding="utf-8")
    return [json.loads(line) for line in text.splitlines()]


@pytest.fixture(scope="session")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> str:
    """Returns the folder of a random model whose tokens are bytes, with room for shots."""
    return write_model(tmp_path_factory.mktemp("tiny"), context=512)


@pytest.fixture(scope="session")
def llm(tiny: str) -> LLM:
    return LLM(tiny, dtype="float32", kv_memory="16MB")


@pytest.fixture
def data(tmp_path: Path) -> Path:
    return write_arc(tmp_path / "data")


@dataclass
class Runs:
    """Runs ARC with two shots into a folder."""

    subject: Subject
    data: Path

    def __call__(self, out: Path | None, task: Task = ARC, **options: Any) -> Run:
        settings = options.pop("settings", RunSettings(shots=2))
        return run(task, self.subject, data=self.data, out=out, settings=settings, **options)


@pytest.fixture
def runs(llm: LLM, data: Path) -> Runs:
    return Runs(Subject(llm), data)
