"""Writes a file piece by piece, so that a command that was killed goes on where it was."""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Iterable, Iterator, Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

from filelock import FileLock, Timeout

from decodery.cli.text_lines import Line
from decodery.errors import DecoderyError, ParameterError


def check_replaceable(path: Path, overwrite: bool) -> None:
    """Raises `ParameterError` for a file that exists and is not to be replaced."""
    if path.exists() and not overwrite:
        raise ParameterError(f"{path} exists already: remove it, name another file, or add --overwrite")


class ResumableFile:
    """Writes the results of lines into `path`, which exists only when all are written.

    One process alone may have it open; raises `DecoderyError` if another one does.

    Until then they are in `path`.part, and `path`.part.json says how many lines are done, a hash of those
    lines, and the `settings` of the command. `head` is the number of bytes that are left free at the start,
    for `finish` to write.
    """

    def __init__(
        self, path: Path, settings: Mapping[str, Any], *, head: int = 0, overwrite: bool = False
    ) -> None:
        self.path = path
        self.part = path.with_name(path.name + ".part")
        self._lock = FileLock(path.with_name(path.name + ".part.lock"), timeout=0)
        self.state = path.with_name(path.name + ".part.json")
        self.done = 0
        self._size = head
        self._settings = json.loads(json.dumps(settings))
        self._seen = hashlib.sha256()
        self._hash = self._seen.hexdigest()
        try:
            self._lock.acquire()
        except Timeout:
            raise DecoderyError(
                f"{self.part} is being written by another process: wait for it, or name another file"
            ) from None
        except OSError as error:
            raise DecoderyError(f"{path} cannot be written: {error.strerror}") from None
        try:
            self._open(overwrite)
        except BaseException:
            self._unlock()
            raise

    def _open(self, overwrite: bool) -> None:
        check_replaceable(self.path, overwrite)
        try:
            if self.state.exists() and self.part.exists():
                self._resume()
            # Opened for update, so that nothing that is done is lost.
            self._file = open(self.part, "r+b" if self.part.exists() else "w+b")  # noqa: SIM115
            self._file.truncate(self._size)
            self._file.seek(self._size)
            self._save()
        except OSError as error:
            raise DecoderyError(f"{self.path} cannot be written: {error.strerror}") from None

    def left(self, lines: Iterable[Line]) -> Iterator[Line]:
        """Yields the lines that are not done; raises `DecoderyError` if the others have changed."""
        given = iter(lines)
        for number in range(self.done):
            line = next(given, None)
            if line is None:
                raise DecoderyError(self._changed(f"has {number} lines, and {self.done} were done"))
            self._seen.update(line.raw)
        if self._seen.hexdigest() != self._hash:
            raise DecoderyError(self._changed(f"differs in its first {self.done} lines"))
        yield from given

    def write(self, data: bytes, lines: Iterable[Line]) -> None:
        """Appends the results of the next lines, for good."""
        for line in lines:
            self._seen.update(line.raw)
            self.done += 1
        self._hash = self._seen.hexdigest()
        self._file.write(data)
        self._file.flush()
        os.fsync(self._file.fileno())
        self._size += len(data)
        self._save()

    def finish(self, head: bytes = b"") -> None:
        """Writes the start of the file, and gives the file its name."""
        self._file.seek(0)
        self._file.write(head)
        self._file.flush()
        os.fsync(self._file.fileno())
        self._file.close()
        os.replace(self.part, self.path)
        self.state.unlink()
        self._unlock()

    def close(self) -> None:
        """Closes the file; a later command with the same settings goes on with it."""
        self._file.close()
        self._unlock()

    def _unlock(self) -> None:
        # Removed while it is held: who waits for it then finds that it is gone, and makes a new one. Windows
        # removes it with the lock.
        with suppress(OSError):
            Path(self._lock.lock_file).unlink()
        self._lock.release()

    def _resume(self) -> None:
        try:
            found = json.loads(self.state.read_text(encoding="utf-8"))
            settings, done, size, digest = (found[key] for key in ("settings", "done", "bytes", "sha256"))
            usable = self.part.stat().st_size >= size >= self._size and done >= 0
        except (ValueError, KeyError, TypeError):
            usable, settings = False, None
        if not usable:
            raise DecoderyError(f"{self.state} is damaged: remove it and {self.part} to begin again")
        if done == 0:
            return  # Nothing would be lost, so it is begun anew.
        if settings != self._settings:
            changed = [key for key in self._settings if settings.get(key) != self._settings[key]]
            raise ParameterError(
                f"{self.part} was begun with other settings ({', '.join(changed) or 'of another version'}):"
                " give the same ones to go on, or remove it to begin again"
            )
        self.done, self._size, self._hash = done, size, digest

    def _save(self) -> None:
        content = {"settings": self._settings, "done": self.done, "bytes": self._size, "sha256": self._hash}
        fresh = self.state.with_name(self.state.name + ".new")
        fresh.write_text(json.dumps(content), encoding="utf-8")
        os.replace(fresh, self.state)

    def _changed(self, how: str) -> str:
        return f"the input {how} when {self.part} was begun: give the same one, or remove it to begin again"


def replace_file(out: Path, text: str) -> None:
    """Writes a file, which has its name once it is whole. Raises `DecoderyError` if it cannot be written."""
    part = out.with_name(f"{out.name}.part")
    try:
        part.write_text(text, encoding="utf-8", errors="backslashreplace", newline="")
        os.replace(part, out)
    except OSError as error:
        raise DecoderyError(f"{out} cannot be written: {error.strerror or error}") from error


def check_outputs(outputs: Iterable[Path], inputs: Iterable[Path]) -> None:
    """Raises `ParameterError` for a file that would be written over another one, or into no folder."""
    taken = {path.resolve() for path in inputs}
    for out in outputs:
        if out.resolve() in taken:
            raise ParameterError(f"{out} is read or written already: name another file for the output")
        if out.is_dir() or not out.parent.is_dir():
            raise ParameterError(f"{out} cannot be written: it must be a file in a folder that exists")
        taken.add(out.resolve())
