"""Implements `decodery eval contamination`."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from decodery.cli.commands.evaluation.run import shown
from decodery.errors import ParameterError
from decodery.evaluation.probes.contamination import contaminated
from decodery.evaluation.runs.run_folder import plain_scores
from decodery.evaluation.runs.stored_run import StoredRun
from decodery.metrics.score import Score, mean

STATES = ("clean", "contaminated", "not checkable")


def contamination(path: Path, corpus: Sequence[Path], words: int, *, as_json: bool) -> None:
    """Prints which documents of a run a corpus holds. Raises `ParameterError` for what cannot be read."""
    run = StoredRun.read(path)
    samples = list(run.samples())
    questions = {str(one["id"]): str(one.get("question", "")) for one in samples}
    found = contaminated(questions, _texts(corpus), words=words)
    states = {one.document: one.state for one in found}
    parts = {"all": samples}
    for state in STATES:
        parts[state] = [sample for sample in samples if states[str(sample["id"])] == state]
    results = {name: _score(run, of) for name, of in parts.items() if of}
    if as_json:
        plain = {
            "counts": Counter(states.values()),
            "metric": run.main,
            "results": plain_scores(results),
            "documents": [asdict(one) for one in found],
        }
        print(json.dumps(plain, ensure_ascii=False))
        return
    print(f"{run.task}: {len(samples)} documents, windows of {words} words")
    for name, score in results.items():
        print(f"  {name:<14} {len(parts[name]):>6}  {run.main} {shown(score)}")
    for one in found:
        if one.state == "contaminated":
            print(f"  {one.document}: {one.found} of {one.windows} windows, such as: {one.example}")


def _score(run: StoredRun, samples: Sequence[Mapping[str, Any]]) -> Score:
    """Returns the mean of the main metric over some samples of a run."""
    return mean(
        [sample["values"].get(run.main) for sample in samples],
        unit=run.results[run.main].unit,
        weights=[(sample.get("weights") or {}).get(run.main, 1.0) for sample in samples],
        settings="mean over documents",
    )


def _texts(paths: Sequence[Path]) -> Iterator[Iterator[str]]:
    """Yields the lines of each file; of a folder, those of all its files."""
    for path in paths:
        if not path.exists():
            raise ParameterError(f"{path} does not exist")
        for file in sorted(path.rglob("*")) if path.is_dir() else [path]:
            if file.is_file():
                with file.open(encoding="utf-8", errors="replace") as lines:
                    yield iter(lines)
