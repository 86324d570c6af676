"""Reads the folder of a run that has ended."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from decodery.errors import ParameterError
from decodery.evaluation.runs.run_folder import RESULTS, RUN, SAMPLES, Effort, read_json
from decodery.metrics.score import Score
from decodery.wire.plain_forms import FormError, from_plain


@dataclass(frozen=True, slots=True)
class StoredRun:
    """Holds the files of a run; the samples are read when they are asked for.

    `about` is run.json: dates, versions and the calls that made the run. Not finished runs, and files that
    are damaged, raise `ParameterError` when they are read.
    """

    path: Path
    settings: Mapping[str, Any]
    results: Mapping[str, Score]
    groups: Mapping[str, Mapping[str, Score]]
    counts: Mapping[str, int]
    about: Mapping[str, Any]

    @staticmethod
    def read(path: str | Path) -> StoredRun:
        """Reads all but the samples. Raises `ParameterError` for a folder without a run that has ended."""
        folder = Path(path)
        if not (folder / RUN).is_file():
            raise ParameterError(f"{folder} holds no run")
        if not (folder / RESULTS).is_file():
            raise ParameterError(f"{folder} holds a run that has not ended: give its command again")
        found, about = read_json(folder / RESULTS), read_json(folder / RUN)
        try:
            results = _scores(found["results"])
            groups = {name: _scores(scores) for name, scores in found["groups"].items()}
            run = StoredRun(folder, found["settings"], results, groups, found["counts"], about)
        except (KeyError, TypeError, AttributeError, FormError) as error:
            raise ParameterError(f"{folder / RESULTS} does not hold the results of a run") from error
        if not results:
            raise ParameterError(f"{folder / RESULTS} has no results")
        return run

    @property
    def main(self) -> str:
        """Returns the name of the task's main metric."""
        return next(iter(self.results))

    @property
    def task(self) -> str:
        """Returns the name of the task."""
        return str(self.settings.get("task"))

    @property
    def model(self) -> str:
        """Returns the name of the model."""
        return str(self.settings.get("model"))

    @property
    def efforts(self) -> list[Effort]:
        """Returns what the calls that made the run have asked; those that asked nothing are left out."""
        names = ("asked", "prompt_tokens", "answer_tokens", "seconds")
        calls = [Effort(*(call.get(name, 0) for name in names)) for call in self.about.get("calls", [])]
        return [call for call in calls if call.asked]

    def samples(self) -> Iterator[dict[str, Any]]:
        """Yields the samples, in the order of the data."""
        file = self.path / SAMPLES
        try:
            with file.open(encoding="utf-8") as lines:
                for number, line in enumerate(lines, 1):
                    sample = json.loads(line)
                    if not isinstance(sample, dict) or not {"id", "values"} <= sample.keys():
                        raise ParameterError(f"{file}, line {number} is not a sample")
                    yield sample
        except (OSError, ValueError) as error:
            if isinstance(error, ParameterError):
                raise
            raise ParameterError(f"{file} cannot be read: {error}") from error


def _scores(plain: Mapping[str, Any]) -> dict[str, Score]:
    return {name: from_plain(Score, score) for name, score in plain.items()}
