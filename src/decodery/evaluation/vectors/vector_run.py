"""Runs a task of vectors, from the vectors that are there already."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable
from contextlib import closing, nullcontext
from dataclasses import dataclass
from typing import Any

from decodery.evaluation.contract import Document, Sample
from decodery.evaluation.runs.run_folder import Effort, RunFolder
from decodery.evaluation.vectors.contract import Evaluated, VectorData, VectorTask
from decodery.evaluation.vectors.encoder_subject import EncoderSubject
from decodery.evaluation.vectors.vector_store import VectorStore
from decodery.wire.plain_forms import to_plain

VECTORS = "vectors.bin"


@dataclass(frozen=True, slots=True)
class VectorRun:
    """Holds what a task of vectors has found, and what was asked for it."""

    evaluated: Evaluated
    effort: Effort

    @staticmethod
    def of(
        task: VectorTask,
        subject: EncoderSubject,
        data: VectorData,
        folder: RunFolder | None,
        *,
        seed: int,
        advance: Callable[[], None] = lambda: None,
    ) -> VectorRun:
        """Evaluates the task; with a folder, keeps the vectors in it and writes the samples."""
        opened = nullcontext(None) if folder is None else closing(VectorStore(folder.path / VECTORS))
        with opened as store:
            embed = subject.embedder(store, advance)
            evaluated = task.evaluate(data, embed, seed=seed)
        if folder is not None:
            with folder.samples() as write:
                for sample in evaluated.samples:
                    write(_line(sample))
        return VectorRun(evaluated, Effort(asked=embed.asked, prompt_tokens=embed.tokens))


def vector_settings(
    task: VectorTask, subject: EncoderSubject, data: VectorData, *, limit: int | None, seed: int
) -> dict[str, Any]:
    """Returns all that the results depend on. The content of the data is in it as a digest."""
    content = hashlib.sha256()
    for name, documents in (("", data.documents), *data.beside.items()):
        for document in documents:
            plain = [name, document.id, document.group, to_plain(document.fields)]
            content.update(json.dumps(plain).encode())
    return {
        "task": task.name,
        "version": task.version,
        "data": content.hexdigest(),
        "model": subject.name,
        "identity": dict(subject.identity),
        **subject.settings,
        "limit": limit,
        "seed": seed,
    }


def _line(sample: Sample) -> str:
    document, outcome = sample.document, sample.outcome
    line = {"id": document.id, "group": document.group, "prompt": _shown(document)}
    for name in ("values", "gold", "predicted", "why", "counts", "details"):
        line[name] = to_plain(getattr(outcome, name))
    return json.dumps(line, ensure_ascii=False)


def _shown(document: Document) -> str:
    """Returns the texts of a document, for people."""
    fields = document.fields
    return "\n".join(fields.get("sentences") or fields.get("texts") or [fields["text"]])
