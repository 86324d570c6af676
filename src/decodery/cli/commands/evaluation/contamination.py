"""Implements `decodery eval contamination`."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import asdict
from pathlib import Path

from decodery.cli.commands.evaluation.run import shown
from decodery.errors import ParameterError
from decodery.evaluation.contract import Document, Outcome, Sample, Task, WholeText
from decodery.evaluation.layouts.tables import read_rows
from decodery.evaluation.probes.contamination import contaminated
from decodery.evaluation.runs.run_folder import SAMPLES, RunFolder, plain_scores
from decodery.evaluation.tasks.registry import find_task
from decodery.evaluation.vectors.contract import VectorTask


def contamination(run: Path, corpus: Sequence[Path], data: str | None, words: int, *, as_json: bool) -> None:
    """Prints which documents of a run a corpus holds. Raises `ParameterError` for what cannot be read."""
    settings = RunFolder(run).read_run().get("settings", {})
    task = find_task(str(settings.get("task")))
    if isinstance(task, VectorTask):
        raise ParameterError(f"{task.name} compares vectors: contamination is looked for in prompts")
    documents = task.read(None if data is None else Path(data)).documents[: settings.get("limit")]
    samples = _samples(run, documents)
    found = contaminated({one.id: text_of(task, one) for one in documents}, _texts(corpus), words=words)
    states = {one.document: one.state for one in found}
    counts = Counter(states.values())
    parts = {"all": samples}
    for state in ("clean", "contaminated", "not checkable"):
        parts[state] = [sample for sample in samples if states[sample.document.id] == state]
    results = {name: task.results(of) for name, of in parts.items() if of}
    if as_json:
        plain = {name: plain_scores(scores) for name, scores in results.items()}
        listed = [asdict(one) for one in found]
        print(json.dumps({"counts": counts, "results": plain, "documents": listed}, ensure_ascii=False))
        return
    print(f"{task.name}: {len(documents)} documents, windows of {words} words")
    for name, scores in results.items():
        count = len(parts[name])
        main, score = next(iter(scores.items()))
        print(f"  {name:<14} {count:>6}  {main} {shown(score)}")
    for one in found:
        if one.state == "contaminated":
            print(f"  {one.document}: {one.found} of {one.windows} windows, such as: {one.example}")


def text_of(task: Task, document: Document) -> str:
    """Returns the text of a document that is looked for: its question without shots."""
    first = task.requests(document, (), 1)[0]
    return first.text if isinstance(first, WholeText) else first.prompt.question


def _samples(run: Path, documents: Sequence[Document]) -> list[Sample]:
    """Returns the samples of a run. Raises `ParameterError` if the data is not that of the run."""
    rows = {str(row["id"]): row for row in read_rows(run / SAMPLES, ("id", "values"))}
    if rows.keys() != {one.id for one in documents}:
        raise ParameterError(f"{run} is a run over other documents than these: give the run's own --data")
    return [Sample(one, _outcome(rows[one.id])) for one in documents]


def _outcome(row: dict[str, object]) -> Outcome:
    fields = ("values", "gold", "predicted", "why", "counts", "details")
    return Outcome(**{name: row[name] for name in fields if name in row})  # type: ignore[arg-type]


def _texts(paths: Sequence[Path]) -> Iterator[Iterator[str]]:
    """Yields the lines of each file; of a folder, those of all its files."""
    for path in paths:
        if not path.exists():
            raise ParameterError(f"{path} does not exist")
        for file in sorted(path.rglob("*")) if path.is_dir() else [path]:
            if file.is_file():
                with file.open(encoding="utf-8", errors="replace") as lines:
                    yield iter(lines)
