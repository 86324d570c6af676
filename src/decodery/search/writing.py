"""Adds files to an index, renews those that have changed, and removes files."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import NamedTuple

import numpy as np
from filelock import FileLock

from decodery.errors import RequestError
from decodery.search.chunks import MARKDOWN_ENDS, Chunk, Chunking
from decodery.search.ranking import Vectors
from decodery.search.store import IndexStore, StoredFile
from decodery.search.text_files import TextFile, absolute_path, read_text_file, text_paths
from decodery.search.text_vectors import ContextEmbedder, Embedder

Progress = Callable[[int, int], None]

CHUNKS_AT_ONCE = 512
"""The number of chunks whose vectors are computed and written together."""

# A file that was changed in the moment it was read may change again without a new time.
MOMENT_NS = 2_000_000_000
LOCK = ".lock"


@dataclass(frozen=True)
class IndexChanges:
    """Holds the files that an update added, read again because their content had changed, and removed."""

    added: tuple[Path, ...] = ()
    changed: tuple[Path, ...] = ()
    removed: tuple[Path, ...] = ()


class _Part(NamedTuple):
    """Holds consecutive chunks of a file; `last` tells whether they end it."""

    file: TextFile
    chunks: list[Chunk]
    last: bool


class IndexWriter:
    """Changes the files of an index; of several processes, one at a time."""

    def __init__(self, store: IndexStore, embedder: Embedder, chunking: Chunking) -> None:
        self._store = store
        self._embedder = embedder
        self._chunking = chunking

    def lock(self) -> FileLock:
        """Returns the lock of the index, which waits for another process that changes it."""
        return FileLock(self._store.folder / LOCK)

    def update(self, given: Iterable[str | Path], progress: Progress | None) -> IndexChanges:
        """Makes the index that of these files and folders."""
        wanted = text_paths(given)
        if self._is_current(wanted):
            return IndexChanges()
        with self.lock():
            others = [file for path, file in self._store.files().items() if Path(path) not in wanted]
            others += [file for path, file in self._store.started().items() if Path(path) not in wanted]
            self._store.remove(file.id for file in others)
            changes = self._add(wanted, progress)
            # A process was killed while it added a file that has changed back.
            self._store.remove(file.id for file in self._store.started().values())
        removed = tuple(Path(file.path) for file in others if file.complete)
        return IndexChanges(changes.added, changes.changed, tuple(sorted((*removed, *changes.removed))))

    def add(self, given: Iterable[str | Path], progress: Progress | None) -> IndexChanges:
        """Adds files and folders to the index, and renews those that have changed."""
        wanted = text_paths(given)
        with self.lock():
            return self._add(wanted, progress)

    def remove(self, given: Iterable[str | Path]) -> None:
        """Removes files, and all that are in folders. Raises `RequestError` for one that is not there."""
        with self.lock():
            for name in given:
                path = absolute_path(name)
                files = self._store.files().items()
                found = [file.id for key, file in files if Path(key).is_relative_to(path)]
                if not found:
                    raise RequestError(f"{name} is not in the index {self._store.folder}")
                self._store.remove(found)

    def _is_current(self, wanted: dict[Path, bool]) -> bool:
        """True if nothing needs to be written, as far as sizes and times tell."""
        stored = self._store.files()
        if self._store.started() or any(Path(path) not in wanted for path in stored):
            return False
        # A file in a folder that is not there may be no text.
        known = (path for path, given in wanted.items() if given or str(path) in stored)
        new = [path for path, given in wanted.items() if not given and str(path) not in stored]
        return all(_unchanged(path, stored.get(str(path))) for path in known) and not any(
            read_text_file(path, given=False) for path in new
        )

    def _add(self, wanted: dict[Path, bool], progress: Progress | None) -> IndexChanges:
        stored = self._store.files()
        renewed = {
            path: given for path, given in wanted.items() if not _unchanged(path, stored.get(str(path)))
        }
        added: list[Path] = []
        changed: list[Path] = []
        removed: list[Path] = []
        total = sum(path.stat().st_size for path in renewed if path.exists())
        batch: list[_Part] = []
        count = done = 0
        for path, given in renewed.items():
            known = stored.get(str(path))
            file = read_text_file(path, given=given)
            if file is None:
                if known is not None:
                    self._store.remove([known.id])
                    removed.append(path)
                continue
            if known is not None and known.sha256 == file.sha256:
                self._store.touch(known.id, file.size, _time(file))
                continue
            (added if known is None else changed).append(path)
            for part in self._parts(file):
                batch.append(part)
                count += len(part.chunks)
                if count >= CHUNKS_AT_ONCE:
                    done += self._write(batch)
                    batch, count = [], 0
                    if progress is not None:
                        progress(min(done, total), total)
        self._write(batch)
        if progress is not None and (added or changed):
            progress(total, total)
        return IndexChanges(tuple(added), tuple(changed), tuple(removed))

    def _parts(self, file: TextFile) -> Iterator[_Part]:
        """Yields the chunks of a file that are not in the index yet, at least one part."""
        started = self._store.started().get(str(file.path))
        skipped = 0
        if started is not None and started.sha256 == file.sha256:
            skipped = self._store.chunk_count(started.id)
        elif started is not None:
            self._store.remove([started.id])
        markdown = file.path.suffix.lower() in MARKDOWN_ENDS
        chunks = islice(self._chunking.chunks(file.text, markdown=markdown), skipped, None)
        part = list(islice(chunks, CHUNKS_AT_ONCE))
        while following := list(islice(chunks, CHUNKS_AT_ONCE)):
            yield _Part(file, part, last=False)
            part = following
        yield _Part(file, part, last=True)

    def _write(self, batch: list[_Part]) -> int:
        """Writes parts of files with their vectors, as a whole; returns the bytes of their texts."""
        if not batch:
            return 0
        texts = [chunk.passage for part in batch for chunk in part.chunks]
        vectors = self._vectors(batch, texts) if texts else None
        start = 0
        with self._store.transaction():
            for part in batch:
                path = str(part.file.path)
                started = self._store.started().get(path)
                file = (
                    self._store.start_file(path, part.file.size, _time(part.file), part.file.sha256)
                    if started is None
                    else started.id
                )
                if vectors is not None and part.chunks:
                    self._store.add_chunks(file, part.chunks, vectors[start : start + len(part.chunks)])
                start += len(part.chunks)
                if part.last:
                    self._store.complete(file)
        return sum(len(text.encode()) for text in texts)

    def _vectors(self, batch: list[_Part], texts: list[str]) -> Vectors:
        embedder = self._embedder
        if not isinstance(embedder, ContextEmbedder):
            return embedder.documents(texts)
        spans = ([(chunk.start, chunk.end) for chunk in part.chunks] for part in batch)
        found = [embedder.in_context(part.file.text, each) for part, each in zip(batch, spans, strict=True)]
        return np.concatenate([vectors for vectors in found if len(vectors)])


def _unchanged(path: Path, stored: StoredFile | None) -> bool:
    if stored is None:
        return False
    try:
        stat = path.stat()
    except OSError:
        return False
    return (stat.st_size, stat.st_mtime_ns) == (stored.size, stored.mtime_ns)


def _time(file: TextFile) -> int:
    """Returns the time by which a file is known; -1, which no file has, if it has only just been changed."""
    return -1 if time.time_ns() - file.mtime_ns < MOMENT_NS else file.mtime_ns
