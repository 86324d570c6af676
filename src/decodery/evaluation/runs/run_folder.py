"""Writes the files of a run."""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from decodery.errors import DecoderyError, ParameterError
from decodery.metrics.score import Score
from decodery.version import __version__
from decodery.wire.plain_forms import to_plain

SAMPLES, RESULTS, RUN, ANSWERS = "samples.jsonl", "results.json", "run.json", "answers.jsonl"
REPORT, LOCK, PART = "report.html", ".lock", ".part"


@dataclass(frozen=True, slots=True)
class Effort:
    """Holds what one call of a run has asked, the others being known, and the seconds that it took.

    `prompt_tokens` are those of all prompts, also where several share them; `answer_tokens` are those that
    were scored or generated.
    """

    asked: int = 0
    prompt_tokens: int = 0
    answer_tokens: int = 0
    seconds: float = 0.0


@dataclass(frozen=True, slots=True)
class RunFolder:
    """Holds the folder of one run.

    samples.jsonl and results.json depend on the settings alone. Times, dates and versions are in run.json
    and in report.html. answers.jsonl has the answers in the order in which they came.
    """

    path: Path

    @staticmethod
    @contextmanager
    def opened(
        out: str | Path | None, settings: Mapping[str, Any], source: str = ""
    ) -> Iterator[RunFolder | None]:
        """Yields the folder for this run, which no other process uses meanwhile; None without one.

        `source` says where the data is from, for people. Raises `ParameterError` if the folder holds a run
        with other settings, if it is in use, or if it holds files that are not a run's, and `DecoderyError`
        if it cannot be written.
        """
        if out is None:
            yield None
            return
        from filelock import FileLock, Timeout

        folder = RunFolder(Path(out))
        lock = FileLock(folder.path / LOCK, timeout=0)
        with _named_errors(folder.path):
            folder.path.mkdir(parents=True, exist_ok=True)
            try:
                lock.acquire()
            except Timeout as error:
                raise ParameterError(
                    f"another process runs in {folder.path}: wait, or give another folder"
                ) from error
        try:
            with _named_errors(folder.path):
                folder._begin(settings, source)
            yield folder
        finally:
            lock.release()

    @property
    def answers(self) -> Path:
        """Returns the path of the file of answers."""
        return self.path / ANSWERS

    def _begin(self, settings: Mapping[str, Any], source: str) -> None:
        file = self.path / RUN
        if not file.exists():
            # A process that was killed at its start may have left the first two.
            others = {p.name for p in self.path.iterdir()} - {LOCK, RUN + PART}
            if others:
                raise ParameterError(f"{self.path} is not empty and holds no run: give another folder")
            begun = {"version": __version__, "begun": _now(), "source": source, "settings": settings}
            self._replace(file, _json(begun))
            return
        before, now = self.read_run().get("settings"), json.loads(_json(settings))
        if not isinstance(before, dict):
            raise ParameterError(f"{file} is not that of a run: give another folder")
        differing = [_change(k, before, now) for k in sorted({*before, *now}) if before.get(k) != now.get(k)]
        if differing:
            raise ParameterError(
                f"{self.path} holds a run with another {', '.join(differing)}: give another folder,"
                " or the same settings"
            )

    def read_run(self) -> dict[str, Any]:
        """Returns the content of run.json. Raises `ParameterError` if it cannot be read."""
        return read_json(self.path / RUN)

    @contextmanager
    def samples(self) -> Iterator[Callable[[str], None]]:
        """Yields a function that writes a line of samples.jsonl, which is there once all are written."""
        with _whole(self.path / SAMPLES) as write:
            yield lambda line: write(f"{line}\n")

    def write_results(
        self,
        settings: Mapping[str, Any],
        results: Mapping[str, Score],
        groups: Mapping[str, Mapping[str, Score]],
        counts: Mapping[str, int],
        effort: Effort,
    ) -> None:
        """Writes the results of a run that has ended, and adds this call to those of run.json."""
        plain = {
            "settings": settings,
            "results": plain_scores(results),
            "groups": {name: plain_scores(scores) for name, scores in groups.items()},
            "counts": dict(sorted(counts.items())),
        }
        begun = self.read_run()
        calls = [*begun.get("calls", []), {"ended": _now(), **asdict(effort)}]
        self._replace(self.path / RESULTS, _json(plain))
        self._replace(self.path / RUN, _json({**begun, "calls": calls}))

    def write_report(self, page: str) -> None:
        """Writes the page of a run."""
        self._replace(self.path / REPORT, page)

    @staticmethod
    def _replace(file: Path, text: str) -> None:
        with _whole(file) as write:
            write(text)


@contextmanager
def _whole(file: Path) -> Iterator[Callable[[str], None]]:
    """Yields a function that writes text into a file, which has its name once it is whole."""
    part = file.with_name(file.name + PART)
    with _named_errors(part):
        target = part.open("wb")

    def write(text: str) -> None:
        with _named_errors(part):
            # Half of a surrogate pair, which UTF-8 lacks, becomes its escape in JSON.
            target.write(text.encode("utf-8", "backslashreplace"))

    try:
        yield write
        with _named_errors(part):
            target.flush()
            os.fsync(target.fileno())
            target.close()
            os.replace(part, file)
    except BaseException:
        with suppress(OSError):
            target.close()
        with suppress(OSError):
            part.unlink()
        raise


@contextmanager
def _named_errors(folder: Path) -> Iterator[None]:
    """Makes one error of what the system says about a folder."""
    try:
        yield
    except OSError as error:
        raise DecoderyError(
            f"{error.filename or folder} cannot be written: {error.strerror or error}; what was answered is"
            " kept, and the same command goes on with it"
        ) from error


def _change(name: str, before: Mapping[str, Any], now: Mapping[str, Any]) -> str:
    """Returns a setting's name, with both values where they are short."""
    values = [json.dumps(settings.get(name)) for settings in (before, now)]
    return f"{name} ({values[0]}, now {values[1]})" if max(map(len, values)) <= 40 else name


def read_json(file: Path) -> dict[str, Any]:
    """Returns the object in a JSON file. Raises `ParameterError` if it cannot be read."""
    try:
        found = json.loads(file.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise ParameterError(f"{file} cannot be read: {error}") from error
    if not isinstance(found, dict):
        raise ParameterError(f"{file} does not hold an object")
    return found


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
