"""Runs a task on a model, in one batch, from the answers that are there already."""

from __future__ import annotations

import hashlib
import json
import time
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractContextManager, closing, nullcontext
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from decodery.errors import ParameterError
from decodery.evaluation.contract import Answer, Document, Generation, Sample, Task, TaskData
from decodery.evaluation.runs.answer_store import AnswerStore
from decodery.evaluation.runs.run_folder import RunFolder
from decodery.evaluation.shots import draw_shots, seed_of
from decodery.evaluation.subject import Prepared, Subject
from decodery.evaluation.tasks.registry import find_task
from decodery.llm import LLM
from decodery.metrics.score import Score
from decodery.progress import counting
from decodery.wire.plain_forms import to_plain

# Documents that one worker prepares and asks together.
BLOCK = 64


@dataclass(frozen=True, slots=True)
class RunSettings:
    """Holds what a run is asked for; with the model and the data, the results depend on nothing else.

    With `shots` None, the task's published number is shown. `limit` is the number of documents, from the
    first on; None is all. Each generated text is sampled `repeats` times.
    """

    shots: int | None = None
    limit: int | None = None
    repeats: int = 1
    seed: int = 0

    def __post_init__(self) -> None:
        for name, least in (("shots", 0), ("limit", 1), ("repeats", 1)):
            value = getattr(self, name)
            if value is None and name != "repeats":
                continue
            if type(value) is not int or value < least:
                raise ParameterError(f"{name} must be a whole number from {least} on, not {value!r}")
        if type(self.seed) is not int:
            raise ParameterError(f"seed must be a whole number, not {self.seed!r}")


@dataclass(frozen=True, slots=True)
class Run:
    """Holds a run that has ended. The first of `results` is the task's main metric.

    `groups` are the results of each group of documents. `counts` are sums over the documents. `seconds` and
    `answered` are the time and the number of requests that this call asked; the others were there.
    """

    task: str
    settings: Mapping[str, Any]
    results: Mapping[str, Score]
    groups: Mapping[str, Mapping[str, Score]]
    counts: Mapping[str, int]
    samples: Sequence[Sample] = field(repr=False)
    seconds: float = 0.0
    asked: int = 0


def run(
    task: Task | str | Path,
    model: LLM | Subject,
    *,
    data: str | Path | None = None,
    out: str | Path | None = None,
    settings: RunSettings | None = None,
    workers: int = 2,
    progress: bool = False,
    limit: int | None = None,
    shots: int | None = None,
) -> Run:
    """Runs a task and returns its results; with `out`, writes the files of the run into that folder.

    `task` may be a name, or the path of a TOML file with a task.
    A folder whose run was stopped, at any moment, is gone on with: answers that are there are not asked
    again, and the files become those of a run that was not stopped, byte for byte. `workers` threads ask at
    once, which changes no result. Raises `ParameterError` for data that cannot be read, for a folder with
    other settings, and for a document that does not fit.
    """
    started = time.perf_counter()
    settings = _with(settings or RunSettings(), limit=limit, shots=shots)
    if isinstance(task, (str, Path)):
        task = find_task(str(task))
    subject = model if isinstance(model, Subject) else Subject(model)
    read = task.read(None if data is None else Path(data))
    documents = read.documents[: settings.limit]
    _check_documents(task, documents)
    described = _described(task, subject, read, settings)
    with RunFolder.opened(out, described) as folder:
        store = AnswerStore(None if folder is None else folder.answers)
        with closing(store), _bar(task.name, len(documents), progress) as advance:
            worker = _Worker(task, subject, read, settings, store, advance)
            blocks = [documents[i : i + BLOCK] for i in range(0, len(documents), BLOCK)]
            with ThreadPoolExecutor(workers) as pool:
                done = [one for block in pool.map(worker.block, blocks) for one in block]
        samples = [sample for sample, _ in done]
        found = Run(
            task.name,
            described,
            task.results(samples),
            _groups(task, samples),
            _counts(samples),
            samples,
            time.perf_counter() - started,
            worker.asked,
        )
        if folder is not None:
            folder.write(found, [line for _, line in done])
    return found


class _Worker:
    """Asks about blocks of documents and judges the answers."""

    def __init__(
        self,
        task: Task,
        subject: Subject,
        data: TaskData,
        settings: RunSettings,
        store: AnswerStore,
        advance: Callable[[], None],
    ) -> None:
        self._task = task
        self._subject = subject
        self._data = data
        self._settings = settings
        self._shots = task.shots if settings.shots is None else settings.shots
        self._store = store
        self._advance = advance
        self.asked = 0

    def block(self, documents: Sequence[Document]) -> list[tuple[Sample, str]]:
        """Returns the sample of each document, with its line of the samples' file."""
        asked = [self._prepared(document) for document in documents]
        missing = {one.key: one for _, all_of in asked for one in all_of if self._store.get(one.key) is None}
        requests = list(missing.values())
        self._subject.answer(requests, lambda place, answer: self._store.put(requests[place].key, answer))
        self.asked += len(requests)
        return [
            self._judged(document, shots, prepared)
            for document, (shots, prepared) in zip(documents, asked, strict=True)
        ]

    def _prepared(self, document: Document) -> tuple[tuple[Document, ...], list[Prepared]]:
        task, seed = self._task, self._settings.seed
        pool = self._data.pool(document)
        shots = draw_shots(pool, document, self._shots, task=task.name, seed=seed, first=task.first_shots)
        prepared = []
        for request in task.requests(document, shots, self._settings.repeats):
            sample = request.sample if isinstance(request, Generation) else 0
            drawn = seed_of(seed, task.name, document.id, sample) % 2**31
            prepared.append(self._subject.prepare(request, document.id, drawn))
        return shots, prepared

    def _judged(
        self, document: Document, shots: Sequence[Document], prepared: Sequence[Prepared]
    ) -> tuple[Sample, str]:
        answers = [self._answer(one) for one in prepared]
        sample = Sample(document, self._task.outcome(document, answers))
        line = {
            "id": document.id,
            "group": document.group,
            "shots": [shot.id for shot in shots],
            "prompt": self._subject.text(prepared[0]) if prepared else "",
            "requests": [
                {"prompt_ids": one.prompt_ids, **to_plain_answer(self._subject, one, answer)}
                for one, answer in zip(prepared, answers, strict=True)
            ],
            **to_plain(sample.outcome),
        }
        for one in prepared:
            self._store.forget(one.key)
        self._advance()
        return sample, json.dumps(line, ensure_ascii=False)

    def _answer(self, one: Prepared) -> Answer:
        answer = self._store.get(one.key)
        assert answer is not None
        return answer


def to_plain_answer(subject: Subject, asked: Prepared, answer: Answer) -> dict[str, Any]:
    """Returns what was asked and answered as plain values of JSON."""
    plain: dict[str, Any] = to_plain(answer)
    plain.pop("prompt_ids", None)
    if asked.ids:
        plain["text"] = subject.llm.tokenizer.decode(asked.ids, skip_special_tokens=False)
    return plain


def _check_documents(task: Task, documents: Sequence[Document]) -> None:
    if not documents:
        raise ParameterError(f"{task.name}: the data has no documents")
    ids = [document.id for document in documents]
    if len(set(ids)) != len(ids):
        twice = next(one for one in ids if ids.count(one) > 1)
        raise ParameterError(f"{task.name}: two documents have the id {twice}")


def _described(task: Task, subject: Subject, data: TaskData, settings: RunSettings) -> dict[str, Any]:
    """Returns all that the results depend on."""
    content = hashlib.sha256()
    for document in data.documents[: settings.limit]:
        content.update(json.dumps([document.id, document.group, to_plain(document.fields)]).encode())
    return {
        "task": task.name,
        "version": task.version,
        "data": content.hexdigest(),
        "form": dict(data.settings),
        "model": subject.name,
        "identity": dict(subject.identity),
        **subject.settings,
        "shots": task.shots if settings.shots is None else settings.shots,
        "limit": settings.limit,
        "repeats": settings.repeats,
        "seed": settings.seed,
    }


def _groups(task: Task, samples: Sequence[Sample]) -> dict[str, Mapping[str, Score]]:
    groups: dict[str, list[Sample]] = {}
    for sample in samples:
        groups.setdefault(sample.document.group, []).append(sample)
    return {name: task.results(of) for name, of in groups.items()} if len(groups) > 1 else {}


def _counts(samples: Sequence[Sample]) -> dict[str, int]:
    found: dict[str, int] = {}
    for sample in samples:
        for name, count in sample.outcome.counts.items():
            found[name] = found.get(name, 0) + count
    return found


def _with(settings: RunSettings, *, limit: int | None, shots: int | None) -> RunSettings:
    return RunSettings(
        settings.shots if shots is None else shots,
        settings.limit if limit is None else limit,
        settings.repeats,
        settings.seed,
    )


def _bar(name: str, total: int, show: bool) -> AbstractContextManager[Callable[[], None]]:
    return counting(name, total) if show else nullcontext(lambda: None)
