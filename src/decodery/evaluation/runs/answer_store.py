"""Keeps answers in files, so that a run that was killed goes on where it stopped."""

from __future__ import annotations

import hashlib
import json
import warnings
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from io import BytesIO
from pathlib import Path
from threading import Lock
from typing import IO, Any

from filelock import FileLock, Timeout

from decodery.errors import DecoderyError
from decodery.evaluation.contract import (
    Answer,
    ContinuationAnswer,
    GenerationAnswer,
    Outcome,
    WholeTextAnswer,
)
from decodery.wire.plain_forms import FormError, from_plain, plain_fields

KINDS: dict[str, type[Any]] = {
    kind.__name__: kind for kind in (ContinuationAnswer, GenerationAnswer, WholeTextAnswer, Outcome)
}
# The number of characters of a line's checksum.
CHECK = 16


class AnswerStore:
    """Holds answers and outcomes by the keys of what was asked and judged, one in each line of its files.

    Answers are appended to `written`; those of the files `read` are known too. Memory holds their places
    alone. Each line has a checksum. A line that a killed process left incomplete is cut off, and one that is
    damaged is left out with a warning: what it answered is asked again. Several threads may use it at once.
    Without `written`, memory holds them all. Raises `DecoderyError` for a file that cannot be
    read.
    """

    def __init__(self, written: Path | None = None, read: Sequence[Path] = ()) -> None:
        self._places: dict[str, tuple[IO[bytes], int, int]] = {}
        self._name = written
        self._lock = Lock()
        self._files: list[IO[bytes]] = []
        self._end = 0
        try:
            for path in read:
                if path != written:
                    self._index(path, "rb")
            if written is None:
                self._file: IO[bytes] = BytesIO()
            else:
                written.touch()
                self._file, self._end = self._index(written, "r+b")
                self._file.truncate(self._end)
        except OSError as error:
            self.close()
            raise DecoderyError(f"{error.filename}: {error.strerror}: answers cannot be kept") from error

    def __contains__(self, key: str) -> bool:
        with self._lock:
            return key in self._places

    def get(self, key: str, prompt_ids: tuple[int, ...] = ()) -> Answer | None:
        """Returns the answer to what has this key, with these ids of the prompt, or None."""
        found: Answer | None = self._get(key, {"prompt_ids": list(prompt_ids)})
        return found

    def outcome(self, key: str) -> Outcome | None:
        """Returns the outcome with this key, or None."""
        found: Outcome | None = self._get(key, {})
        return found

    def _get(self, key: str, known: Mapping[str, Any]) -> Any:
        with self._lock:
            place = self._places.get(key)
            if place is None:
                return None
            file, start, length = place
            file.seek(start)
            found = _parsed(file.read(length))
        if found is None or found[0] != key:
            raise DecoderyError(f"{self._name} has been changed by another program")
        return _read(found[1], {**found[2], **known})

    def put(self, key: str, answer: Answer | Outcome) -> None:
        """Keeps an answer or an outcome. It outlives the process from now on.

        Raises `DecoderyError` for a full disk.
        """
        if key in self:
            return
        line = _line(key, answer)
        with self._lock:
            try:
                self._file.seek(self._end)
                written = 0
                while written < len(line):
                    written += self._file.write(line[written:])
            except OSError as error:
                with suppress(OSError):
                    self._file.truncate(self._end)
                raise DecoderyError(
                    f"{self._name} cannot be written: {error.strerror}; the answers before are kept,"
                    " and the same command goes on with them"
                ) from error
            self._places[key] = (self._file, self._end, len(line))
            self._end += len(line)

    def close(self) -> None:
        """Closes the files."""
        for file in self._files:
            file.close()

    def _index(self, path: Path, mode: str) -> tuple[IO[bytes], int]:
        """Opens a file and finds its answers; returns the end of the last whole line."""
        file = open(path, mode, buffering=0 if "+" in mode else -1)  # noqa: SIM115
        self._files.append(file)
        end = damaged = 0
        with path.open("rb") as lines:
            for line in lines:
                if not line.endswith(b"\n"):
                    break
                found = _parsed(line)
                if found is None:
                    damaged += 1
                else:
                    self._places[found[0]] = (file, end, len(line))
                end += len(line)
        if damaged:
            warnings.warn(f"{path}: {damaged} damaged lines are left out and asked again", stacklevel=2)
        return file, end


@contextmanager
def cache_files(folder: Path, model: str) -> Iterator[tuple[Path, list[Path]]]:
    """Yields a file of a cache that no other process writes meanwhile, and all files of this model.

    `model` is a digest; each model has a folder of its own. Raises `DecoderyError` if it cannot be written.
    """
    own = folder / model[:16]
    try:
        own.mkdir(parents=True, exist_ok=True)
        number = 0
        while True:
            lock = FileLock(own / f"answers-{number}.lock", timeout=0)
            try:
                lock.acquire()
                break
            except Timeout:
                number += 1
    except OSError as error:
        raise DecoderyError(f"the cache {folder} cannot be written: {error.strerror}") from error
    try:
        yield own / f"answers-{number}.jsonl", sorted(own.glob("answers-*.jsonl"))
    finally:
        lock.release()


def _line(key: str, answer: Answer | Outcome) -> bytes:
    # The prompt is known when the answer is asked for, and would be most of the file.
    plain = plain_fields(answer, leave_out=("prompt_ids",))
    body = json.dumps([key, type(answer).__name__, plain], separators=(",", ":")).encode()
    return b'["' + _check(body) + b'",' + body[1:] + b"\n"


def _parsed(line: bytes) -> tuple[str, str, dict[str, Any]] | None:
    """Returns the key, the kind and the plain form of an answer; None for a damaged line."""
    check, body = line[2 : 2 + CHECK], b"[" + line[4 + CHECK :].removesuffix(b"\n")
    if check != _check(body):
        return None
    try:
        key, kind, plain = json.loads(body)
        _read(kind, {**plain, "prompt_ids": []})
    except (ValueError, KeyError, TypeError, FormError):
        return None
    return key, kind, plain


def _read(kind: str, plain: dict[str, Any]) -> Any:
    return from_plain(KINDS[kind], plain)


def _check(body: bytes) -> bytes:
    return hashlib.blake2b(body, digest_size=CHECK // 2).hexdigest().encode()
