"""Runs decodery eval lm-eval and decodery eval mteb."""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest

from decodery import LLM
from tests.cli.conftest import Run, decodery
from tests.evaluation.harness.tiny_models import write_llama

# `make test-harness` has the libraries; elsewhere they may be missing.
if "DECODERY_TEST_HARNESS" not in os.environ:
    pytest.importorskip("lm_eval")
    pytest.importorskip("mteb")

from tests.evaluation.harness.test_lm_eval import write_tasks

__all__ = ["decodery"]


def test_lm_eval_prints_its_table_and_writes_its_samples(decodery: Run, tmp_path: Path) -> None:
    model = write_llama(tmp_path / "model")
    (tmp_path / "tasks").mkdir()
    tasks = write_tasks(tmp_path / "tasks", LLM(model, kv_memory="16MB"))
    out = tmp_path / "out.json"
    command = ("eval", "lm-eval", "--tasks", "local_choices, local_texts", "--include-path", str(tasks))
    ran = decodery(*command, "-m", model, "--limit", "4", "--num-fewshot", "2", "--out", str(out))
    assert ran.status == 0
    assert "|local_choices" in ran.out
    assert "acc_norm" in ran.out
    found = json.loads(out.read_text())
    assert len(found["samples"]["local_choices"]) == 4
    assert found["config"]["model_name"] == "model"
    assert found["n-shot"]["local_choices"] == 2


def test_an_unknown_task_is_one_error(decodery: Run, tmp_path: Path) -> None:
    model = write_llama(tmp_path / "model")
    ran = decodery("eval", "lm-eval", "--tasks", "no_such_task", "-m", model)
    assert ran.status != 0
    assert "lm-eval has no task no_such_task" in ran.err
    ran = decodery("eval", "lm-eval", "--tasks", "a", "--include-path", str(tmp_path / "no"), "-m", model)
    assert "is no folder" in ran.err
