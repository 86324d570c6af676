"""Asks a model about blocks of documents, and judges the answers."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Sequence
from dataclasses import replace
from threading import Event, Lock
from typing import Any

from decodery.evaluation.contract import (
    Answer,
    Continuation,
    Document,
    Generation,
    GenerationAnswer,
    Outcome,
    Request,
    Sample,
    Task,
    TaskData,
    WholeText,
)
from decodery.evaluation.runs.answer_store import AnswerStore
from decodery.evaluation.runs.run_folder import Effort
from decodery.evaluation.shots import draw_shots, seed_of
from decodery.evaluation.subject import Prepared, Subject
from decodery.wire.plain_forms import plain_fields, to_plain


class StoppedError(Exception):
    """Ends a worker's block because the run has failed or was interrupted."""


class BlockWorker:
    """Answers and judges blocks of documents; several threads may do so at once.

    `advance` is called for each document whose answers are there. After `stop`, or when a block fails, the
    other blocks end with `StoppedError` after the requests that run and the document that is being judged,
    and `failure` is what failed first.
    """

    def __init__(
        self,
        task: Task,
        subject: Subject,
        data: TaskData,
        store: AnswerStore,
        *,
        shots: int,
        repeats: int = 1,
        seed: int = 0,
        advance: Callable[[], None] = lambda: None,
    ) -> None:
        self._task = task
        self._subject = subject
        self._data = data
        self._store = store
        self._shots = shots
        self._repeats = repeats
        self._seed = seed
        self._advance = advance
        self._stopped = Event()
        self._lock = Lock()
        self._asked = self._prompt_tokens = self._answer_tokens = 0
        self.failure: BaseException | None = None

    def stop(self) -> None:
        """Ends the blocks that run."""
        self._stopped.set()

    def effort(self, seconds: float) -> Effort:
        """Returns what was asked so far."""
        return Effort(self._asked, self._prompt_tokens, self._answer_tokens, round(seconds, 3))

    def block(self, documents: Sequence[Document]) -> list[tuple[Sample, str]]:
        """Returns the sample of each document, with its line of the samples' file."""
        try:
            self._check()
            asked = [self.prepared(document) for document in documents]
            known = self._answered([requests for _, requests in asked])
            return [
                self._judged(document, shots, prepared, [known[one.key] for one in prepared])
                for document, (shots, prepared) in zip(documents, asked, strict=True)
            ]
        except BaseException as error:
            if self.failure is None and not isinstance(error, StoppedError):
                self.failure = error
            self.stop()
            raise

    def _check(self) -> None:
        if self._stopped.is_set():
            raise StoppedError

    def prepared(self, document: Document) -> tuple[tuple[Document, ...], list[Prepared]]:
        """Returns the shots of a document and what is asked about it."""
        task = self._task
        shots = draw_shots(
            self._data.pool(document),
            document,
            self._shots,
            task=task.name,
            seed=self._seed,
            first=task.first_shots,
        )
        prepared = []
        for request in task.requests(document, shots, self._repeats):
            sample = request.sample if isinstance(request, Generation) else 0
            drawn = seed_of(self._seed, task.name, document.id, sample) % 2**31
            prepared.append(self._subject.prepare(request, document.id, drawn))
        return shots, prepared

    def _answered(self, asked: Sequence[Sequence[Prepared]]) -> dict[str, Answer]:
        """Returns the answers by key. What the store lacks is asked, and stored as soon as it is there."""
        known: dict[str, Answer] = {}
        missing: dict[str, Prepared] = {}
        for one in (one for requests in asked for one in requests):
            answer = None if one.key in known else self._store.get(one.key, one.prompt_ids)
            if answer is not None:
                known[one.key] = answer
            elif one.key not in known:
                missing[one.key] = one
        open_ = [{one.key for one in requests if one.key in missing} for requests in asked]
        waiting: dict[str, list[int]] = {}
        for number, keys in enumerate(open_):
            for key in keys:
                waiting.setdefault(key, []).append(number)
            if not keys:
                self._advance()
        requests = list(missing.values())

        def ready(place: int, answer: Answer) -> None:
            key = requests[place].key
            known[key] = answer
            self._store.put(key, answer)
            self._count(requests[place], answer)
            for number in waiting[key]:
                open_[number].discard(key)
                if not open_[number]:
                    self._advance()
            self._check()

        self._subject.answer(requests, ready)
        return known

    def _count(self, one: Prepared, answer: Answer) -> None:
        with self._lock:
            self._asked += 1
            self._prompt_tokens += len(one.prompt_ids)
            self._answer_tokens += len(answer.token_ids)

    def _judged(
        self,
        document: Document,
        shots: Sequence[Document],
        prepared: Sequence[Prepared],
        answers: Sequence[Answer],
    ) -> tuple[Sample, str]:
        self._check()
        outcome = self._outcome(document, answers)
        if len(shots) < self._shots:
            outcome = replace(outcome, counts={**outcome.counts, "fewer shots": 1})
        line: dict[str, Any] = {"id": document.id, "group": document.group, "cluster": document.cluster}
        line["shots"] = [shot.id for shot in shots]
        line["question"] = _question(prepared[0].request) if prepared else ""
        shared = len({one.prompt_ids for one in prepared}) == 1
        if shared:
            line |= self._prompt(prepared[0])
        line["requests"] = [
            {**({} if shared else self._prompt(one)), **self._plain(one, answer)}
            for one, answer in zip(prepared, answers, strict=True)
        ]
        for name in ("values", "gold", "predicted", "why", "counts", "details", "weights"):
            line[name] = to_plain(getattr(outcome, name))
        return Sample(document, outcome), json.dumps(line, ensure_ascii=False)

    def _outcome(self, document: Document, answers: Sequence[Answer]) -> Outcome:
        """Judges a document, unless the store has its outcome."""
        task = self._task
        given = [plain_fields(answer, leave_out=("prompt_ids",)) for answer in answers]
        judged = [task.name, task.version, self._data.settings, document.id, document.fields, given]
        key = hashlib.sha256(json.dumps(to_plain(judged)).encode()).hexdigest()
        outcome = self._store.outcome(key)
        if outcome is None:
            outcome = task.outcome(document, answers)
            if outcome.kept:
                self._store.put(key, outcome)
        return outcome

    def _prompt(self, one: Prepared) -> dict[str, Any]:
        return {"prompt": self._subject.text(one), "prompt_ids": list(one.prompt_ids)}

    def _plain(self, one: Prepared, answer: Answer) -> dict[str, Any]:
        """Returns an answer as plain values of JSON, with its text and, where it was scored, its sum."""
        plain: dict[str, Any] = to_plain(answer)
        plain.pop("prompt_ids", None)
        if isinstance(answer, GenerationAnswer):
            return plain
        text = self._subject.llm.tokenizer.decode(list(one.ids), skip_special_tokens=False)
        chosen = {"choice": one.request.text} if isinstance(one.request, Continuation) else {}
        return {**chosen, "text": text, "logprob": to_plain(answer.logprob), **plain}


def _question(request: Request) -> str:
    """Returns the text of a request without its shots."""
    return request.text if isinstance(request, WholeText) else request.prompt.question
