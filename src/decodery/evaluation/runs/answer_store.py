"""Keeps the answers of a run in a file, so that a run that was killed goes on where it stopped."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from pathlib import Path
from threading import Lock
from typing import IO, Any

from decodery.errors import ParameterError
from decodery.evaluation.contract import (
    Answer,
    ContinuationAnswer,
    GenerationAnswer,
    WholeTextAnswer,
)
from decodery.wire.plain_forms import FormError, from_plain, to_plain

KINDS: dict[str, type[Any]] = {
    kind.__name__: kind for kind in (ContinuationAnswer, GenerationAnswer, WholeTextAnswer)
}


class AnswerStore:
    """Holds answers by the keys of what was asked; with a file, each is a line of it.

    A line that a killed process left incomplete is cut off. Several threads may use it at once. Raises
    `ParameterError` for a damaged line that is not the last.
    """

    def __init__(self, path: Path | None = None) -> None:
        self._answers: dict[str, Answer] = {}
        self._lock = Lock()
        self._file: IO[bytes] | None = None
        if path is not None:
            path.touch()
            self._file = path.open("r+b")
            for key, answer in _lines(self._file, path):
                self._answers[key] = answer
            self._file.seek(0, os.SEEK_END)

    def get(self, key: str) -> Answer | None:
        """Returns the answer to what has this key, or None."""
        with self._lock:
            return self._answers.get(key)

    def put(self, key: str, answer: Answer) -> None:
        """Keeps an answer. It outlives the process from now on."""
        with self._lock:
            if self._file is not None:
                line = json.dumps([key, type(answer).__name__, to_plain(answer)], separators=(",", ":"))
                self._file.write(line.encode() + b"\n")
                self._file.flush()
            self._answers[key] = answer

    def forget(self, key: str) -> None:
        """Frees the memory of an answer that is no longer needed; the file keeps it."""
        with self._lock:
            self._answers.pop(key, None)

    def close(self) -> None:
        """Closes the file."""
        if self._file is not None:
            self._file.close()


def _lines(file: IO[bytes], path: Path) -> Iterator[tuple[str, Answer]]:
    """Yields the answers of a file, and cuts off its last line if that is incomplete."""
    end = 0
    for number, line in enumerate(file, 1):
        try:
            if not line.endswith(b"\n"):
                raise ValueError("the line has no end")
            key, kind, plain = json.loads(line)
            answer = from_plain(KINDS[kind], plain)
        except (ValueError, KeyError, TypeError, FormError) as error:
            if file.read(1):
                raise ParameterError(f"{path}, line {number} is damaged: remove the folder") from error
            break
        end += len(line)
        yield key, answer
    file.truncate(end)
