"""Runs a task on a model, in one batch, from the answers that are there already."""

from __future__ import annotations

import hashlib
import json
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractContextManager, ExitStack, closing, contextmanager, nullcontext
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from decodery.errors import ParameterError
from decodery.evaluation.contract import Document, Generation, Sample, Task, TaskData
from decodery.evaluation.runs.answer_store import AnswerStore, cache_files
from decodery.evaluation.runs.block_worker import BlockWorker, StoppedError
from decodery.evaluation.runs.report_page import report_page
from decodery.evaluation.runs.run_folder import Effort, RunFolder
from decodery.evaluation.runs.stored_run import StoredRun
from decodery.evaluation.shots import check_pool
from decodery.evaluation.subject import Subject
from decodery.evaluation.tasks.registry import find_task
from decodery.evaluation.vectors.contract import VectorTask
from decodery.evaluation.vectors.encoder_subject import EncoderSubject
from decodery.evaluation.vectors.vector_run import VectorRun, vector_settings
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

    `groups` are the results of each group of documents. `counts` are sums over the documents. `effort` is
    what this call asked; the other answers were there.
    """

    task: str
    settings: Mapping[str, Any]
    results: Mapping[str, Score]
    groups: Mapping[str, Mapping[str, Score]]
    counts: Mapping[str, int]
    samples: Sequence[Sample] = field(repr=False)
    effort: Effort

    @property
    def asked(self) -> int:
        """Returns the number of requests that this call asked."""
        return self.effort.asked


def run(
    task: Task | VectorTask | str | Path,
    model: LLM | Subject | EncoderSubject,
    *,
    data: str | Path | None = None,
    out: str | Path | None = None,
    cache: str | Path | None = None,
    settings: RunSettings | None = None,
    workers: int = 2,
    progress: bool = False,
    limit: int | None = None,
    shots: int | None = None,
) -> Run:
    """Runs a task and returns its results; with `out`, writes the files of the run into that folder.

    `task` may be a name, or the path of a TOML file with a task. A folder whose run was stopped, at any
    moment, is gone on with: answers that are there are not asked again, and the files become those of a run
    that was not stopped, byte for byte. Runs with the same folder `cache` share their answers: what one has
    asked of the same weights, the others do not ask. `workers` threads ask at once, which changes no result.
    A task of vectors needs an encoder; it has no shots, no repeats and no cache. Raises `ParameterError` for
    data that cannot be read, for a folder with other settings, and for a document that does not fit.
    """
    started = time.perf_counter()
    settings = _with(settings or RunSettings(), limit=limit, shots=shots)
    if type(workers) is not int or workers < 1:
        raise ParameterError(f"workers must be a whole number from 1 on, not {workers!r}")
    if isinstance(task, (str, Path)):
        task = find_task(str(task))
    if isinstance(task, VectorTask):
        return _run_vectors(task, model, data, out, cache, settings, progress)
    subject = _subject(task, model)
    read = task.read(None if data is None else Path(data))
    documents = read.documents[: settings.limit]
    _check_documents(task, documents)
    _check_repeats(task, documents[0], settings.repeats)
    described = _described(task, subject, read, settings)
    for document in documents:
        check_pool(read.pool(document), document, described["shots"], task=task.name)
    with RunFolder.opened(out, described, read.source) as folder:
        with ExitStack() as stack:
            worker = BlockWorker(
                task,
                subject,
                read,
                stack.enter_context(_opened_store(folder, cache, subject)),
                shots=described["shots"],
                repeats=settings.repeats,
                seed=settings.seed,
                advance=stack.enter_context(_bar(task.name, len(documents), progress)),
            )
            write = stack.enter_context(folder.samples()) if folder is not None else None
            samples = []
            for sample, line in _all_of(worker, documents, workers):
                samples.append(sample)
                if write is not None:
                    write(line)
        found = Run(
            task.name,
            described,
            task.results(samples),
            _groups(task, samples),
            _counts(samples),
            samples,
            worker.effort(time.perf_counter() - started),
        )
        _write(folder, found)
    return found


def _run_vectors(
    task: VectorTask,
    model: LLM | Subject | EncoderSubject,
    data: str | Path | None,
    out: str | Path | None,
    cache: str | Path | None,
    settings: RunSettings,
    progress: bool,
) -> Run:
    started = time.perf_counter()
    for name, unset in (("shots", settings.shots is None), ("repeats", settings.repeats == 1)):
        if not unset:
            raise ParameterError(f"{task.name} compares vectors: {name} means nothing to it")
    if cache is not None:
        raise ParameterError(f"{task.name} keeps its vectors in the folder of the run: leave cache out")
    subject = _encoder(task, model)
    whole = task.read(None if data is None else Path(data))
    read = replace(whole, documents=whole.documents[: settings.limit])
    _check_documents(task, read.documents)
    described = vector_settings(task, subject, read, limit=settings.limit, seed=settings.seed)
    with RunFolder.opened(out, described, read.source) as folder:
        with _bar(task.name, None, progress) as advance:
            done = VectorRun.of(task, subject, read, folder, seed=settings.seed, advance=advance)
        samples = done.evaluated.samples
        effort = replace(done.effort, seconds=time.perf_counter() - started)
        found = Run(task.name, described, done.evaluated.results, {}, _counts(samples), samples, effort)
        _write(folder, found)
    return found


def _subject(task: Task, model: LLM | Subject | EncoderSubject) -> Subject:
    if isinstance(model, EncoderSubject):
        raise ParameterError(f"{task.name} asks a model to write, and {model.name} is an encoder")
    return model if isinstance(model, Subject) else Subject(model)


def _encoder(task: VectorTask, model: LLM | Subject | EncoderSubject) -> EncoderSubject:
    if isinstance(model, EncoderSubject):
        return model
    llm = model.llm if isinstance(model, Subject) else model
    if not llm.is_encoder:
        raise ParameterError(
            f"{task.name} compares vectors, and this model writes texts: give an encoder, such as minilm"
        )
    return EncoderSubject(llm)


def _write(folder: RunFolder | None, found: Run) -> None:
    if folder is not None:
        folder.write_results(found.settings, found.results, found.groups, found.counts, found.effort)
        folder.write_report(report_page(StoredRun.read(folder.path)))


@contextmanager
def _opened_store(
    folder: RunFolder | None, cache: str | Path | None, subject: Subject
) -> Iterator[AnswerStore]:
    """Yields the store of a run. Answers go into the cache if there is one, else into the run's folder."""
    own = None if folder is None else folder.answers
    if cache is None:
        with closing(AnswerStore(own)) as store:
            yield store
        return
    with cache_files(Path(cache), subject.identity["files"]) as (written, others):
        if own is not None and own.exists():
            others.append(own)
        with closing(AnswerStore(written, others)) as store:
            yield store


def _all_of(worker: BlockWorker, documents: Sequence[Document], workers: int) -> Iterator[tuple[Sample, str]]:
    """Yields the documents' samples, in their order. An error or an interrupt stops all threads."""
    blocks = [documents[i : i + BLOCK] for i in range(0, len(documents), BLOCK)]
    with ThreadPoolExecutor(workers) as pool:
        try:
            for block in pool.map(worker.block, blocks):
                yield from block
        except StoppedError:
            assert worker.failure is not None
            raise worker.failure from None
        finally:
            worker.stop()


def _check_documents(task: Task | VectorTask, documents: Sequence[Document]) -> None:
    if not documents:
        raise ParameterError(f"{task.name}: the data has no documents")
    ids = [document.id for document in documents]
    if len(set(ids)) != len(ids):
        twice = next(one for one in ids if ids.count(one) > 1)
        raise ParameterError(f"{task.name}: two documents have the id {twice}")


def _check_repeats(task: Task, document: Document, repeats: int) -> None:
    """Raises `ParameterError` for repeats of a task that writes no text."""
    if repeats > 1 and not any(
        isinstance(request, Generation) for request in task.requests(document, (), repeats)
    ):
        raise ParameterError(f"{task.name} compares texts and writes none: leave repeats out")


def _described(task: Task, subject: Subject, data: TaskData, settings: RunSettings) -> dict[str, Any]:
    """Returns all that the results depend on."""
    shots = task.shots if settings.shots is None else settings.shots
    pools = [document for _, pool in sorted(data.pools.items()) for document in pool]
    return {
        "task": task.name,
        "version": task.version,
        "data": _digest(data.documents[: settings.limit]),
        "shots data": _digest(pools) if shots else None,
        "form": dict(data.settings),
        "model": subject.name,
        "identity": dict(subject.identity),
        **subject.settings,
        "shots": shots,
        "limit": settings.limit,
        "repeats": settings.repeats,
        "seed": settings.seed,
    }


def _digest(documents: Sequence[Document]) -> str:
    content = hashlib.sha256()
    for document in documents:
        content.update(json.dumps([document.id, document.group, to_plain(document.fields)]).encode())
    return content.hexdigest()


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
    return replace(
        settings,
        shots=settings.shots if shots is None else shots,
        limit=settings.limit if limit is None else limit,
    )


def _bar(name: str, total: int | None, show: bool) -> AbstractContextManager[Callable[[], None]]:
    return counting(name, total) if show else nullcontext(lambda: None)
