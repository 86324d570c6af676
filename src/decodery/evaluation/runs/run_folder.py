"""Writes and reads the files of a run."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Protocol

from decodery.errors import ParameterError
from decodery.metrics.score import Score
from decodery.version import __version__
from decodery.wire.plain_forms import to_plain

SAMPLES, RESULTS, RUN, ANSWERS = "samples.jsonl", "results.json", "run.json", "answers.jsonl"


class Finished(Protocol):
    """Holds what a run has found."""

    @property
    def settings(self) -> Mapping[str, Any]: ...

    @property
    def results(self) -> Mapping[str, Score]: ...

    @property
    def groups(self) -> Mapping[str, Mapping[str, Score]]: ...

    @property
    def counts(self) -> Mapping[str, int]: ...

    @property
    def seconds(self) -> float: ...

    @property
    def asked(self) -> int: ...


@dataclass(frozen=True, slots=True)
class RunFolder:
    """Holds the folder of one run.

    samples.jsonl and results.json depend on the settings alone. Times, dates and versions are in run.json.
    answers.jsonl has the answers in the order in which they came.
    """

    path: Path

    @staticmethod
    @contextmanager
    def opened(out: str | Path | None, settings: Mapping[str, Any]) -> Iterator[RunFolder | None]:
        """Yields the folder for this run, which no other process uses meanwhile; None without one.

        Raises `ParameterError` if the folder holds a run with other settings, if it is in use, or if it
        holds files that are not a run's.
        """
        if out is None:
            yield None
            return
        from filelock import FileLock, Timeout

        folder = RunFolder(Path(out))
        folder.path.mkdir(parents=True, exist_ok=True)
        try:
            with FileLock(folder.path / ".lock", timeout=0):
                folder._begin(settings)
                yield folder
        except Timeout as error:
            raise ParameterError(f"another process runs in {folder.path}") from error

    @property
    def answers(self) -> Path:
        """Returns the path of the file of answers."""
        return self.path / ANSWERS

    def _begin(self, settings: Mapping[str, Any]) -> None:
        file = self.path / RUN
        if not file.exists():
            others = sorted(p.name for p in self.path.iterdir() if p.name != ".lock")
            if others:
                raise ParameterError(f"{self.path} is not empty and holds no run: give another folder")
            self._replace(file, _json({"settings": settings, "begun": _now(), "version": __version__}))
            return
        before = self.read_run().get("settings", {})
        now = json.loads(_json(settings))
        differing = sorted(k for k in {*before, *now} if before.get(k) != now.get(k))
        if differing:
            raise ParameterError(
                f"{self.path} holds a run with another {', '.join(differing)}: give another folder,"
                " or the same settings"
            )

    def write(self, run: Finished, samples: Sequence[str]) -> None:
        """Writes the files of a run that has ended; each gets its name once it is whole."""
        self._replace(self.path / SAMPLES, "".join(line + "\n" for line in samples))
        results = {
            "settings": run.settings,
            "results": plain_scores(run.results),
            "groups": {name: plain_scores(scores) for name, scores in run.groups.items()},
            "counts": dict(sorted(run.counts.items())),
        }
        self._replace(self.path / RESULTS, _json(results))
        begun = self.read_run()
        ended = {"ended": _now(), "seconds": round(run.seconds, 3), "asked": run.asked}
        self._replace(self.path / RUN, _json({**begun, **ended}))

    def read_run(self) -> dict[str, Any]:
        """Returns the content of run.json. Raises `ParameterError` if it is damaged."""
        try:
            found = json.loads((self.path / RUN).read_text(encoding="utf-8"))
        except (OSError, ValueError) as error:
            raise ParameterError(f"{self.path / RUN} cannot be read: {error}") from error
        return found if isinstance(found, dict) else {}

    @staticmethod
    def _replace(file: Path, text: str) -> None:
        part = file.with_name(file.name + ".part")
        with part.open("w", encoding="utf-8", newline="\n") as target:
            target.write(text)
            target.flush()
            os.fsync(target.fileno())
        os.replace(part, file)


def plain_scores(scores: Mapping[str, Score]) -> dict[str, Any]:
    """Returns scores as plain values of JSON."""
    fields = ("value", "error", "unit", "counted", "undefined", "settings")
    return {
        name: {field: to_plain(getattr(score, field)) for field in fields} for name, score in scores.items()
    }


def _json(value: Mapping[str, Any]) -> str:
    return json.dumps(to_plain(value), indent=1, ensure_ascii=False) + "\n"


def _now() -> str:
    return datetime.now(UTC).isoformat(timespec="seconds")
