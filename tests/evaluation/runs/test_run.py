from __future__ import annotations

import errno
import json
import threading
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from decodery import LLM, DecoderyError, GenerationParams, ParameterError
from decodery.evaluation import RunSettings, Subject, run
from decodery.evaluation.choice_task import ChoiceTask
from decodery.evaluation.contract import (
    Answer,
    Document,
    Generation,
    GenerationAnswer,
    Outcome,
    Prompt,
    Request,
    Sample,
    Task,
    TaskData,
)
from decodery.evaluation.runs import run as run_module
from decodery.evaluation.runs.answer_store import AnswerStore
from decodery.evaluation.runs.block_worker import BlockWorker, StoppedError
from decodery.evaluation.runs.run_folder import RunFolder
from decodery.evaluation.tasks.arc import TASK as ARC
from decodery.evaluation.tasks.bias import TASK as BIAS
from decodery.evaluation.tasks.perplexity import TASK as PERPLEXITY
from decodery.metrics.score import Score, mean
from tests.evaluation.runs.conftest import Runs, arc_rows, samples_of, write_arc, write_rows, written
from tests.kernels.native.fixtures import built

pytestmark = built


class Writes:
    """Asks for texts that are sampled; the metric is how long they are."""

    name, version, shots, first_shots = "writes", 1, 0, False

    def __init__(self, fails: bool = False) -> None:
        self.fails = fails

    def read(self, data: Path | None) -> TaskData:
        return TaskData(tuple(Document(f"d{i}", {"n": i}) for i in range(6)), source="made")

    def requests(self, document: Document, shots: Sequence[Document], repeats: int) -> Sequence[Request]:
        params = GenerationParams(max_tokens=8, temperature=1.0, ignore_eos=True)
        return [Generation(Prompt(f"number {document.fields['n']}"), params, i) for i in range(repeats)]

    def outcome(self, document: Document, answers: Sequence[Answer]) -> Outcome:
        if self.fails and document.id == "d5":
            raise ValueError("a defect of the task")
        texts = [answer.text for answer in answers if isinstance(answer, GenerationAnswer)]
        share = sum("e" in text for text in texts) / len(texts)
        return Outcome({"e": share}, None, texts[0], "", {}, {"texts": texts})

    def results(self, samples: Sequence[Sample]) -> Mapping[str, Score]:
        return {"e": mean([sample.outcome.values["e"] for sample in samples])}


def test_the_files_do_not_depend_on_workers_blocks_or_other_load(
    runs: Runs, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    runs(tmp_path / "one", workers=1)
    expected = written(tmp_path / "one")
    monkeypatch.setattr(run_module, "BLOCK", 3)
    runs(tmp_path / "two", workers=2)
    assert written(tmp_path / "two") == expected
    ended = threading.Event()

    def load() -> None:
        while not ended.is_set():
            runs.subject.llm.generate(
                ["What is sun", "Question: W"], GenerationParams(max_tokens=20, temperature=1), progress=False
            )

    other = threading.Thread(target=load)
    other.start()
    try:
        runs(tmp_path / "three", workers=2)
    finally:
        ended.set()
        other.join()
    assert written(tmp_path / "three") == expected


class Changes(Writes):
    """Judges the same texts otherwise each time, as a program that returns the time does."""

    def __init__(self) -> None:
        super().__init__()
        self.judged = 0

    def outcome(self, document: Document, answers: Sequence[Answer]) -> Outcome:
        self.judged += 1
        return replace(super().outcome(document, answers), why=f"judged as {self.judged}", kept=True)


def test_an_outcome_that_may_change_is_kept(llm: LLM, tmp_path: Path) -> None:
    task = Changes()
    run(task, llm, out=tmp_path / "out")
    expected = written(tmp_path / "out")
    for name in ("results.json", "samples.jsonl"):
        (tmp_path / "out" / name).unlink()
    assert run(task, llm, out=tmp_path / "out").asked == 0
    assert written(tmp_path / "out") == expected
    assert task.judged == 6
    # Other texts are judged, also of the same documents.
    run(task, llm, out=tmp_path / "other", settings=RunSettings(seed=1))
    assert task.judged == 12


class Same(Changes):
    """Says the same of each document, so that its answers are equal, and judges each as another."""

    def __init__(self, name: str = "same") -> None:
        super().__init__()
        self.name = name

    def requests(self, document: Document, shots: Sequence[Document], repeats: int) -> list[Request]:
        return [Generation(Prompt("q"), GenerationParams(max_tokens=8, temperature=0))]


def test_a_kept_outcome_is_that_of_its_task_and_document_alone(llm: LLM, tmp_path: Path) -> None:
    task, other = Same(), Same("another")
    for one in (task, other):
        run(one, llm, out=tmp_path / one.name, cache=tmp_path / "cache")
    lines = [samples_of(tmp_path / name) for name in ("same", "another")]
    texts = {request["text"] for line in lines for one in line for request in one["requests"]}
    assert len(texts) == 1
    assert [[one["why"] for one in line] for line in lines] == [[f"judged as {n}" for n in range(1, 7)]] * 2


def test_a_stopped_block_judges_no_further_document(llm: LLM) -> None:
    class Stops(Changes):
        def outcome(self, document: Document, answers: Sequence[Answer]) -> Outcome:
            worker.stop()
            return super().outcome(document, answers)

    task = Stops()
    data = task.read(None)
    worker = BlockWorker(task, Subject(llm), data, AnswerStore(), shots=0)
    with pytest.raises(StoppedError):
        worker.block(data.documents)
    assert task.judged == 1
    assert worker.failure is None


@pytest.mark.parametrize("name", ["answers.jsonl", "results.json", "samples.jsonl"])
def test_a_finished_run_without_one_of_its_files_gets_it_again(runs: Runs, tmp_path: Path, name: str) -> None:
    runs(tmp_path / "out")
    expected = written(tmp_path / "out")
    (tmp_path / "out" / name).unlink()
    again = runs(tmp_path / "out")
    assert written(tmp_path / "out") == expected
    assert again.asked == (80 if name == "answers.jsonl" else 0)


def test_a_run_goes_on_from_the_answers_that_are_there(runs: Runs, tmp_path: Path) -> None:
    runs(tmp_path / "whole")
    runs(tmp_path / "part")
    lines = (tmp_path / "part" / "answers.jsonl").read_bytes().splitlines(keepends=True)
    for kept in (0, 1, 33, 79):
        (tmp_path / "part" / "answers.jsonl").write_bytes(b"".join(lines[:kept]) + lines[kept][:20])
        assert runs(tmp_path / "part").asked == 80 - kept
        assert written(tmp_path / "part") == written(tmp_path / "whole")


def test_documents_that_ask_the_same_share_the_answer(llm: LLM, tmp_path: Path) -> None:
    rows = arc_rows(3, "q")
    data = tmp_path / "data"
    data.mkdir()
    write_rows(data / "test.jsonl", [*rows, {**rows[0], "id": "again"}])
    found = run(ARC, llm, data=data, shots=0, out=tmp_path / "out")
    assert found.asked == 12
    first, *_, last = samples_of(tmp_path / "out")
    assert first["requests"] == last["requests"]
    assert last["id"] == "again"


def test_a_limit_changes_no_sample(runs: Runs, tmp_path: Path) -> None:
    runs(tmp_path / "few", limit=3, cache=tmp_path / "cache")
    whole = runs(tmp_path / "all", cache=tmp_path / "cache")
    assert whole.asked == 80 - 12
    few, every = ((tmp_path / name / "samples.jsonl").read_bytes() for name in ("few", "all"))
    assert every.startswith(few)
    assert few.count(b"\n") == 3


@pytest.mark.parametrize(
    ("change", "named"),
    [
        ({"shots": 1}, r"another shots \(2, now 1\)"),
        ({"shots": 2, "limit": 5}, r"data, limit \(null, now 5\)"),
        ({"shots": 2, "seed": 1}, r"seed \(0, now 1\)"),
    ],
)
def test_another_setting_in_a_used_folder_is_an_error_that_names_it(
    runs: Runs, tmp_path: Path, change: dict[str, Any], named: str
) -> None:
    runs(tmp_path / "out")
    before = {path.name: path.read_bytes() for path in (tmp_path / "out").iterdir()}
    with pytest.raises(ParameterError, match=named):
        runs(tmp_path / "out", settings=RunSettings(**change))
    assert {path.name: path.read_bytes() for path in (tmp_path / "out").iterdir()} == before


def test_other_repeats_in_a_used_folder_are_an_error_that_names_them(runs: Runs, tmp_path: Path) -> None:
    runs(tmp_path / "out", task=Writes(), settings=RunSettings())
    before = {path.name: path.read_bytes() for path in (tmp_path / "out").iterdir()}
    with pytest.raises(ParameterError, match=r"repeats \(1, now 2\)"):
        runs(tmp_path / "out", task=Writes(), settings=RunSettings(repeats=2))
    assert {path.name: path.read_bytes() for path in (tmp_path / "out").iterdir()} == before


@pytest.mark.parametrize("task", [ARC, PERPLEXITY, BIAS])
def test_repeats_of_a_task_that_writes_nothing_are_an_error(runs: Runs, tmp_path: Path, task: Task) -> None:
    (tmp_path / "text.txt").write_text("some text")
    data = {"arc": runs.data, "perplexity": tmp_path / "text.txt"}.get(task.name)
    with pytest.raises(
        ParameterError, match=f"{task.name} compares texts and writes none: leave repeats out"
    ):
        run(task, runs.subject, data=data, out=tmp_path / "out", settings=RunSettings(repeats=2))
    assert not (tmp_path / "out").exists()


def test_other_data_version_model_or_template_in_a_used_folder_is_an_error(
    runs: Runs, tmp_path: Path, tiny: str
) -> None:
    runs(tmp_path / "out")
    with pytest.raises(ParameterError, match="version"):
        runs(tmp_path / "out", task=replace(ARC, version=2))
    with pytest.raises(ParameterError, match="chat"):
        Runs(Subject(runs.subject.llm, chat=True), runs.data)(tmp_path / "out")
    with pytest.raises(ParameterError, match="identity"):
        Runs(Subject(LLM(tiny, dtype="bfloat16", kv_memory="16MB")), runs.data)(tmp_path / "out")
    with pytest.raises(ParameterError, match="data"):
        Runs(runs.subject, write_arc(tmp_path / "more", 21))(tmp_path / "out")


def test_other_shots_to_draw_from_in_a_used_folder_are_an_error(runs: Runs, tmp_path: Path) -> None:
    runs(tmp_path / "out")
    rows = arc_rows(30, "t", 1)
    rows[29]["question"] = "What is not?"
    write_rows(runs.data / "train.jsonl", rows)
    with pytest.raises(ParameterError, match="with another shots data:"):
        runs(tmp_path / "out")
    without = RunSettings(shots=0)
    runs(tmp_path / "none", settings=without)
    write_rows(runs.data / "train.jsonl", rows[:20])
    assert runs(tmp_path / "none", settings=without).asked == 0


def test_a_document_that_is_among_the_only_shots_has_fewer_and_is_counted(runs: Runs, tmp_path: Path) -> None:
    asked = arc_rows(4, "q")
    write_rows(runs.data / "test.jsonl", asked)
    write_rows(runs.data / "train.jsonl", [{**asked[2], "id": "copy"}, *arc_rows(1, "t", 1)])
    found = runs(tmp_path / "out", task=replace(ARC, first_shots=True))
    assert found.counts["fewer shots"] == 1
    shots = [line["shots"] for line in samples_of(tmp_path / "out")]
    assert shots == [["copy", "t0"], ["copy", "t0"], ["t0"], ["copy", "t0"]]


def test_a_cache_never_mixes_models_precisions_or_templates(runs: Runs, tmp_path: Path, tiny: str) -> None:
    cache = tmp_path / "cache"
    assert runs(tmp_path / "one", cache=cache).asked == 80
    assert runs(tmp_path / "two", cache=cache).asked == 0
    assert runs(None, cache=cache).asked == 0
    assert written(tmp_path / "one") == written(tmp_path / "two")
    assert not (tmp_path / "one" / "answers.jsonl").exists()
    precise = Subject(LLM(tiny, dtype="bfloat16", kv_memory="16MB"))
    assert Runs(precise, runs.data)(None, cache=cache).asked == 80
    assert Runs(Subject(runs.subject.llm, chat=True), runs.data)(None, cache=cache).asked == 80


def test_a_run_in_a_folder_goes_on_with_a_cache(runs: Runs, tmp_path: Path) -> None:
    runs(tmp_path / "out")
    expected = written(tmp_path / "out")
    assert runs(tmp_path / "out", cache=tmp_path / "cache").asked == 0
    assert written(tmp_path / "out") == expected


def test_a_folder_with_other_files_is_not_touched(runs: Runs, tmp_path: Path) -> None:
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "mine.txt").write_text("mine")
    with pytest.raises(ParameterError, match="holds no run"):
        runs(tmp_path / "out")
    (tmp_path / "file").write_text("mine")
    with pytest.raises(DecoderyError, match="cannot be written"):
        runs(tmp_path / "file")
    other = tmp_path / "other"
    other.mkdir()
    for content, message in (("{}", "not that of a run"), ("[]", "object"), ("{", "cannot be read")):
        (other / "run.json").write_text(content)
        with pytest.raises(ParameterError, match=message):
            runs(other)


def test_a_process_killed_at_its_start_leaves_a_folder_that_can_be_used(runs: Runs, tmp_path: Path) -> None:
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "run.json.part").write_text('{"settings":')
    assert runs(tmp_path / "out").asked == 80


def test_two_runs_in_one_folder_are_an_error(runs: Runs, tmp_path: Path) -> None:
    settings = runs(tmp_path / "out").settings
    opened = RunFolder.opened(tmp_path / "out", settings)
    with opened, pytest.raises(ParameterError, match="another process runs in"):
        runs(tmp_path / "out")
    assert runs(tmp_path / "out").asked == 0


def test_scoring_that_fails_keeps_the_answers(runs: Runs, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="a defect of the task"):
        runs(tmp_path / "out", task=Writes(fails=True), settings=RunSettings())
    assert not (tmp_path / "out" / "samples.jsonl").exists()
    assert runs(tmp_path / "out", task=Writes(), settings=RunSettings()).asked == 0


def test_a_full_disk_while_the_files_are_written_is_one_error_and_keeps_the_answers(
    runs: Runs, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(file: int) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    runs(tmp_path / "whole")
    with monkeypatch.context() as patched:
        patched.setattr("decodery.evaluation.runs.run_folder.os.fsync", full)
        with pytest.raises(DecoderyError, match="No space left on device"):
            runs(tmp_path / "out")
    # Nothing was begun in the folder, so that it can be used.
    assert runs(tmp_path / "out").asked == 80
    with monkeypatch.context() as patched:
        patched.setattr("decodery.evaluation.runs.run_folder.os.fsync", full)
        with pytest.raises(DecoderyError, match="what was answered is kept"):
            runs(tmp_path / "out")
    assert runs(tmp_path / "out").asked == 0
    assert written(tmp_path / "out") == written(tmp_path / "whole")


@pytest.mark.parametrize("workers", [1, 2])
def test_a_failure_of_one_worker_stops_the_others_and_is_what_is_raised(
    runs: Runs, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, workers: int
) -> None:
    monkeypatch.setattr(run_module, "BLOCK", 1)
    rows = arc_rows(20, "q")
    rows[7]["choices"]["text"][2] = "x" * 600
    write_rows(runs.data / "test.jsonl", rows)
    with pytest.raises(ParameterError, match="document q7: the continuation has"):
        runs(tmp_path / "out", workers=workers)
    lines = (tmp_path / "out" / "answers.jsonl").read_bytes().count(b"\n")
    assert lines < 60


def test_samples_of_one_prompt_differ_and_are_the_same_in_every_run(runs: Runs, tmp_path: Path) -> None:
    for name in ("one", "two"):
        runs(tmp_path / name, task=Writes(), settings=RunSettings(repeats=16), workers=2)
    assert written(tmp_path / "one") == written(tmp_path / "two")
    lines = samples_of(tmp_path / "one")
    texts = [[request["text"] for request in line["requests"]] for line in lines]
    assert all(len(set(of)) == 16 for of in texts)
    assert len({text for of in texts for text in of}) == 6 * 16
    runs(tmp_path / "few", task=Writes(), settings=RunSettings(repeats=3))
    few = samples_of(tmp_path / "few")
    # More samples change none of the first ones.
    assert [[r["text"] for r in line["requests"]] for line in few] == [of[:3] for of in texts]
    other = run(Writes(), runs.subject, settings=RunSettings(repeats=3, seed=1))
    assert [s.outcome.details["texts"] for s in other.samples] != [of[:3] for of in texts]


def test_the_error_of_repeated_samples_is_that_of_the_documents(runs: Runs) -> None:
    found = run(Writes(), runs.subject, settings=RunSettings(repeats=8))
    means = [sample.outcome.values["e"] for sample in found.samples]
    assert found.results["e"] == mean(means)
    assert found.results["e"].counted == 6


def test_a_sample_tells_what_was_asked_what_was_answered_and_why_it_counts(
    runs: Runs, tmp_path: Path
) -> None:
    found = runs(tmp_path / "out")
    lines = samples_of(tmp_path / "out")
    assert [line["id"] for line in lines] == [f"q{i}" for i in range(20)]
    for line, sample in zip(lines, found.samples, strict=True):
        assert runs.subject.llm.tokenizer.decode(line["prompt_ids"]) == line["prompt"]
        assert line["prompt"].endswith("\nAnswer:")
        assert line["prompt"].count("Question:") == 3
        assert len(line["shots"]) == 2
        assert [r["choice"] for r in line["requests"]] == list(sample.document.fields["options"])
        assert [r["text"] for r in line["requests"]] == [f" {r['choice']}" for r in line["requests"]]
        for request in line["requests"]:
            assert "prompt_ids" not in request
            assert len(request["token_ids"]) == len(request["logprobs"])
            assert request["logprob"] == sum(request["logprobs"])
        best = max(range(4), key=lambda i: line["requests"][i]["logprob"])
        assert line["details"]["chance"] == 0.25
        assert line["values"]["acc"] == float(best in line["gold"])


def test_requests_with_prompts_of_their_own_tell_them(runs: Runs, tmp_path: Path) -> None:
    def row(document: Document) -> Any:
        from decodery.evaluation.choice_task import ChoiceRow

        return ChoiceRow("", ("ant", "elephant"), (0,), ("the ant", "the elephant"), "is big")

    task = ChoiceTask("partial", lambda data, *form: TaskData((Document("d", {}),)), row)
    run(task, runs.subject, out=tmp_path / "out")
    (line,) = samples_of(tmp_path / "out")
    assert "prompt_ids" not in line
    assert [r["prompt"] for r in line["requests"]] == ["the ant", "the elephant"]


def test_a_text_that_utf8_lacks_is_its_escape(tmp_path: Path) -> None:
    with RunFolder.opened(tmp_path / "out", {}) as folder:
        assert folder is not None
        with folder.samples() as write:
            write(json.dumps("a\ud800é", ensure_ascii=False))
    content = (tmp_path / "out" / "samples.jsonl").read_text(encoding="utf-8")
    assert json.loads(content) == "a\ud800é"
    assert "é" in content


def test_the_files_hold_no_time_date_or_path(runs: Runs, tmp_path: Path) -> None:
    runs(tmp_path / "out")
    content = b"".join(written(tmp_path / "out")).decode()
    assert str(tmp_path) not in content
    assert "seconds" not in content
    assert "20" + "26-" not in content


@pytest.mark.parametrize("workers", [0, -1, True, 1.5])
def test_a_wrong_number_of_workers_is_an_error(runs: Runs, workers: Any) -> None:
    with pytest.raises(ParameterError, match="workers"):
        runs(None, workers=workers)
