from __future__ import annotations

import json
import sys
from pathlib import Path

import pytest

from tests.cli.conftest import Run
from tests.encoding.folders import encoder_folder
from tests.evaluation.vectors.fake_encoder import write_lines

PAIRS = [("the dog", "the cat", 3), ("the river", "paris", 0), ("the mat", "the mat", 5)]


@pytest.fixture(scope="module")
def encoder(tmp_path_factory: pytest.TempPathFactory) -> str:
    return str(encoder_folder(tmp_path_factory.mktemp("bert")))


@pytest.fixture
def data(tmp_path: Path) -> str:
    rows = [{"sentence1": one, "sentence2": other, "score": score} for one, other, score in PAIRS]
    return str(write_lines(tmp_path / "test.jsonl", rows))


def test_a_task_of_vectors_runs_on_an_encoder(decodery: Run, encoder: str, data: str, tmp_path: Path) -> None:
    out = str(tmp_path / "run")
    ran = decodery("eval", "stsb", "--data", data, "-m", encoder, "--out", out)
    assert (ran.status, ran.err) == (0, "")
    assert ran.out.startswith("stsb: 3 documents\n  cosine_spearman")
    results = json.loads((tmp_path / "run" / "results.json").read_text())["results"]
    as_json = decodery("eval", "stsb", "--data", data, "-m", encoder, "--out", out, "--json").json
    assert as_json["results"] == results
    assert as_json["settings"]["model"] == Path(encoder).name


def test_models_and_flags_of_the_other_kind_are_one_error(
    decodery: Run, encoder: str, model: str, data: str
) -> None:
    ran = decodery("eval", "stsb", "--data", data, "-m", model)
    assert ran.status != 0
    assert "writes texts, and this task compares vectors: give an encoder" in ran.err
    assert len(ran.err.splitlines()) == 1
    ran = decodery("eval", "arc", "--data", data, "-m", encoder)
    assert ran.status != 0
    assert "is an encoder" in ran.err
    assert len(ran.err.splitlines()) == 1
    ran = decodery("eval", "stsb", "--data", data, "-m", encoder, "--shots", "3", "--chat")
    assert "stsb compares vectors, and takes no shots, chat: leave it out" in ran.err
    ran = decodery("eval", "stsb", "--data", data, "-m", encoder, "--options", "letters")
    assert "stsb takes no options" in ran.err


def test_the_list_of_tasks_says_which_are_for_encoders(decodery: Run) -> None:
    lines = {line.split()[0]: line for line in decodery("eval", "tasks").out.splitlines()}
    for name in ("stsb", "banking77", "classification", "retrieval", "reranking", "clustering"):
        assert lines[name].endswith("an encoder's vectors")
    assert lines["arc"].endswith("shots")


@pytest.mark.parametrize(
    ("command", "library"), [(("lm-eval", "--tasks", "a"), "lm-eval"), (("mteb", "--tasks", "a"), "mteb")]
)
def test_a_harness_that_is_not_installed_is_one_error(
    decodery: Run, monkeypatch: pytest.MonkeyPatch, command: tuple[str, ...], library: str
) -> None:
    for module in ("lm_eval", "lm_eval.utils", "mteb"):
        monkeypatch.setitem(sys.modules, module, None)
    ran = decodery("eval", *command)
    assert ran.status != 0
    assert ran.err.startswith(f'decodery: {library} is needed: pip install "decodery[harness]"')
    assert len(ran.err.splitlines()) == 1


@pytest.mark.parametrize("harness", ["lm-eval", "mteb"])
def test_a_harness_without_tasks_is_one_error(decodery: Run, harness: str) -> None:
    ran = decodery("eval", harness)
    assert "tasks names no task: give --tasks NAME,..." in ran.err
