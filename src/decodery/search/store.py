"""Keeps an index in a folder: its header, its files, their chunks and the vectors of these.

All is in one SQLite file, so each change is made as a whole or not at all, also if the process is killed.
"""

from __future__ import annotations

import json
import sqlite3
import zlib
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from json import JSONDecodeError
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from decodery.errors import ModelError
from decodery.search.chunks import Chunk

Vectors = NDArray[np.float32]
Keys = NDArray[np.int64]

FORMAT = 1
FILE = "index.sqlite"
LATE_CHUNKING = "late chunking"
"""The name, in what an index depends on, of chunks whose vectors know their file."""
# Another process holds the file for as long as it writes the vectors of some hundred chunks.
BUSY_SECONDS = 60.0
SCHEMA = """
CREATE TABLE header (name TEXT PRIMARY KEY, value TEXT NOT NULL) WITHOUT ROWID;
CREATE TABLE files (
    id INTEGER PRIMARY KEY AUTOINCREMENT, path TEXT NOT NULL, size INTEGER NOT NULL,
    mtime_ns INTEGER NOT NULL, sha256 TEXT NOT NULL, complete INTEGER NOT NULL, UNIQUE (path, complete)
);
CREATE TABLE chunks (
    key INTEGER PRIMARY KEY AUTOINCREMENT, file INTEGER NOT NULL, line INTEGER NOT NULL,
    end_line INTEGER NOT NULL, heading TEXT NOT NULL, text TEXT NOT NULL, above TEXT NOT NULL
);
CREATE INDEX chunks_of_file ON chunks (file);
CREATE TABLE vectors (
    first INTEGER PRIMARY KEY, file INTEGER NOT NULL, count INTEGER NOT NULL, crc INTEGER NOT NULL,
    data BLOB NOT NULL
);
CREATE INDEX vectors_of_file ON vectors (file);
"""


@dataclass(frozen=True)
class StoredFile:
    """Holds what the index knows of a file; `complete` is False while its chunks are being added."""

    id: int
    path: str
    size: int
    mtime_ns: int
    sha256: str
    complete: bool


class StoredChunk(NamedTuple):
    """Holds a chunk with the path of its file."""

    path: str
    line: int
    end_line: int
    heading: str
    text: str
    above: str


class IndexStore:
    """Reads and writes the index in a folder.

    Several processes may read at once while one writes. Raises `ModelError` in one line for a file that is
    damaged or that another version wrote.
    """

    def __init__(self, folder: Path, *, create: bool = True) -> None:
        self.folder = folder
        self.path = folder / FILE
        if not create and not self.path.is_file():
            raise ModelError(f"{folder} holds no index: name the files to search, and it is made")
        with self._errors():
            if create:
                folder.mkdir(parents=True, exist_ok=True)
            mode = "rwc" if create else "rw"
            self._db = sqlite3.connect(
                f"{self.path.absolute().as_uri()}?mode={mode}",
                uri=True,
                timeout=BUSY_SECONDS,
                isolation_level=None,
                check_same_thread=False,
            )
            self._prepare()

    def close(self) -> None:
        """Closes the file."""
        self._db.close()

    def _prepare(self) -> None:
        """Makes the tables of a new index, and checks the format of one that is there."""
        self._db.execute("PRAGMA synchronous = FULL")
        if not self._table_count():
            self._db.execute("PRAGMA auto_vacuum = FULL")
            with self.transaction():
                # Another process may have made them meanwhile.
                if not self._table_count():
                    for statement in SCHEMA.split(";\n"):
                        self._db.execute(statement)
                    self.set_header("format", FORMAT)
                    self.set_header("version", 0)
        found = self.header("format")
        if found != FORMAT:
            raise ModelError(
                f"the index {self.folder} has format {found}, and this version of Decodery reads {FORMAT}:"
                " delete the folder, and it is made anew"
            )

    def _table_count(self) -> int:
        [count] = self._db.execute("SELECT count(*) FROM sqlite_schema WHERE name = 'header'").fetchone()
        return int(count)

    @contextmanager
    def transaction(self) -> Iterator[None]:
        """Makes all changes inside as a whole; an exception undoes them."""
        with self._errors():
            self._db.execute("BEGIN IMMEDIATE")
            try:
                yield
            except BaseException:
                self._db.execute("ROLLBACK")
                raise
            self._db.execute("COMMIT")

    @contextmanager
    def reading(self) -> Iterator[None]:
        """Lets all reads inside see the same state, whatever another process writes."""
        with self._errors():
            self._db.execute("BEGIN")
            try:
                yield
            finally:
                self._db.execute("ROLLBACK")

    @contextmanager
    def _errors(self) -> Iterator[None]:
        try:
            yield
        except sqlite3.OperationalError as error:
            raise ModelError(f"the index {self.folder} cannot be used: {error}") from error
        except (sqlite3.DatabaseError, JSONDecodeError) as error:
            raise self._damaged(str(error)) from error
        except OSError as error:
            raise ModelError(f"the index {self.folder} cannot be used: {error.strerror or error}") from error

    def _damaged(self, why: str) -> ModelError:
        return ModelError(
            f"the index {self.folder} is damaged ({why}): delete the folder, and it is made anew"
        )

    def header(self, name: str) -> Any:
        """Returns an entry of the header; None if there is none."""
        with self._errors():
            found = self._db.execute("SELECT value FROM header WHERE name = ?", (name,)).fetchone()
            return None if found is None else json.loads(found[0])

    def set_header(self, name: str, value: Any) -> None:
        """Writes an entry of the header, within a transaction."""
        self._db.execute("INSERT OR REPLACE INTO header VALUES (?, ?)", (name, json.dumps(value)))

    @property
    def version(self) -> int:
        """Returns a number that grows with each change of the complete files."""
        return int(self.header("version"))

    def files(self) -> dict[str, StoredFile]:
        """Returns the complete files by path, in the order of their paths."""
        return self._files(complete=True)

    def started(self) -> dict[str, StoredFile]:
        """Returns the files whose chunks are not all there yet, by path."""
        return self._files(complete=False)

    def _files(self, *, complete: bool) -> dict[str, StoredFile]:
        with self._errors():
            rows = self._db.execute(
                "SELECT id, path, size, mtime_ns, sha256 FROM files WHERE complete = ? ORDER BY path",
                (complete,),
            ).fetchall()
        return {
            path: StoredFile(id_, path, size, mtime_ns, sha256, complete)
            for id_, path, size, mtime_ns, sha256 in rows
        }

    def start_file(self, path: str, size: int, mtime_ns: int, sha256: str) -> int:
        """Adds a file that is not complete yet, and returns its id; only within a transaction."""
        found = self._db.execute(
            "INSERT INTO files (path, size, mtime_ns, sha256, complete) VALUES (?, ?, ?, ?, 0)",
            (path, size, mtime_ns, sha256),
        )
        assert found.lastrowid is not None
        return found.lastrowid

    def add_chunks(self, file: int, chunks: Sequence[Chunk], vectors: Vectors) -> None:
        """Adds chunks to a file that is not complete, with their vectors [chunks, width].

        Only within a transaction. Raises `ModelError` for vectors that are not finite, or of another width
        than those in the index.
        """
        vectors = np.ascontiguousarray(vectors, dtype="<f4")
        self._check(chunks, vectors)
        first = None
        for chunk in chunks:
            row = self._db.execute(
                "INSERT INTO chunks (file, line, end_line, heading, text, above) VALUES (?, ?, ?, ?, ?, ?)",
                (file, chunk.line, chunk.end_line, chunk.heading, chunk.text, chunk.above),
            )
            first = row.lastrowid if first is None else first
        data = vectors.tobytes()
        self._db.execute(
            "INSERT INTO vectors VALUES (?, ?, ?, ?, ?)", (first, file, len(chunks), zlib.crc32(data), data)
        )

    def _check(self, chunks: Sequence[Chunk], vectors: Vectors) -> None:
        if vectors.ndim != 2 or len(vectors) != len(chunks):
            raise ModelError(f"{len(chunks)} chunks have vectors of the shape {vectors.shape}")
        finite = np.isfinite(vectors).all(axis=1)
        if not finite.all():
            chunk = chunks[int(np.argmin(finite))]
            raise ModelError(
                f"the vector of line {chunk.line} is not finite (NaN or infinity), so no index takes it:"
                " check the model's weights"
            )
        width = self.header("width")
        if width is None:
            self.set_header("width", vectors.shape[1])
        elif width != vectors.shape[1]:
            raise ModelError(
                f"the index {self.folder} has vectors of {width} numbers, and these have {vectors.shape[1]}"
            )

    def chunk_count(self, file: int) -> int:
        """Returns the number of a file's chunks that are there."""
        with self._errors():
            [count] = self._db.execute(
                "SELECT coalesce(sum(count), 0) FROM vectors WHERE file = ?", (file,)
            ).fetchone()
            return int(count)

    def complete(self, file: int) -> None:
        """Puts a file in the place of an older one with its path, within a transaction."""
        older = self._db.execute(
            "SELECT id FROM files WHERE complete = 1 AND path = (SELECT path FROM files WHERE id = ?)",
            (file,),
        ).fetchall()
        self._delete(id_ for (id_,) in older)
        self._db.execute("UPDATE files SET complete = 1 WHERE id = ?", (file,))
        self.set_header("version", self.version + 1)

    def touch(self, file: int, size: int, mtime_ns: int) -> None:
        """Writes the new time of a file whose content is the same."""
        with self.transaction():
            self._db.execute("UPDATE files SET size = ?, mtime_ns = ? WHERE id = ?", (size, mtime_ns, file))

    def remove(self, files: Iterable[int]) -> None:
        """Removes files with all that belongs to them."""
        with self.transaction():
            self._delete(files)
            self.set_header("version", self.version + 1)

    def _delete(self, files: Iterable[int]) -> None:
        for file in list(files):
            for table, column in (("chunks", "file"), ("vectors", "file"), ("files", "id")):
                self._db.execute(f"DELETE FROM {table} WHERE {column} = ?", (file,))

    def size(self) -> int:
        """Returns the number of chunks of all complete files."""
        with self._errors():
            [count] = self._db.execute(
                "SELECT coalesce(sum(count), 0) FROM vectors JOIN files ON files.id = file WHERE complete"
            ).fetchone()
            return int(count)

    def blocks(self) -> Iterator[tuple[Keys, Vectors]]:
        """Yields the keys and vectors of all chunks, some at a time, in the order of paths and places.

        Raises `ModelError` if what is read is not what was written.
        """
        width = self.header("width")
        with self._errors():
            # The order is made of the numbers alone: SQLite would sort the vectors with them.
            order = self._db.execute(
                "SELECT first, count, crc FROM vectors JOIN files ON files.id = file WHERE complete"
                " ORDER BY path, first"
            ).fetchall()
            for first, count, crc in order:
                [data] = self._db.execute("SELECT data FROM vectors WHERE first = ?", (first,)).fetchone()
                if len(data) != 4 * count * width or zlib.crc32(data) != crc:
                    raise self._damaged("vectors have other bytes than were written")
                yield np.arange(first, first + count), np.frombuffer(data, "<f4").reshape(count, width)

    def vectors_of(self, keys: Sequence[int]) -> Vectors:
        """Returns the vectors of some chunks."""
        width = self.header("width")
        found = np.empty((len(keys), width), np.float32)
        with self._errors():
            for place, key in enumerate(keys):
                first, data = self._db.execute(
                    "SELECT first, data FROM vectors WHERE first <= ? ORDER BY first DESC LIMIT 1", (key,)
                ).fetchone()
                found[place] = np.frombuffer(data, "<f4", width, 4 * width * (key - first))
        return found

    def passages(self) -> Iterator[str]:
        """Yields the passages of all chunks, in the order of `blocks`."""
        for file in self.files().values():
            with self._errors():
                rows = self._db.execute(
                    "SELECT above, text FROM chunks WHERE file = ? ORDER BY key", (file.id,)
                )
                yield from (above + text for above, text in rows)

    def keys(self) -> Keys:
        """Returns the keys of all chunks, in the order of `blocks`."""
        with self._errors():
            rows = self._db.execute(
                "SELECT first, count FROM vectors JOIN files ON files.id = file WHERE complete"
                " ORDER BY path, first"
            ).fetchall()
        parts = [np.arange(first, first + count) for first, count in rows]
        return np.concatenate([np.empty(0, np.int64), *parts])

    def chunks(self, keys: Sequence[int]) -> list[StoredChunk]:
        """Returns chunks by their keys."""
        found = []
        with self._errors():
            for key in keys:
                row = self._db.execute(
                    "SELECT path, line, end_line, heading, text, above"
                    " FROM chunks JOIN files ON files.id = file WHERE key = ?",
                    (key,),
                ).fetchone()
                found.append(StoredChunk(*row))
        return found

    def agree(self, identity: Mapping[str, Any], version: str) -> None:
        """Writes the header of a new index: all that its vectors depend on, and the version of the package.

        Raises `ModelError` if an older index has another identity.
        """
        if self.header("identity") is None:
            with self.transaction():
                if self.header("identity") is None:
                    self.set_header("identity", dict(identity))
                    self.set_header("package", version)
        known = self.header("identity")
        for name in {**identity, **known}:
            if known.get(name) != identity.get(name):
                raise ModelError(
                    f"the index {self.folder} was made {_difference(name, known, identity)}: search it with"
                    " the same model and options, or keep another index"
                )


def _difference(name: str, known: Mapping[str, Any], wanted: Mapping[str, Any]) -> str:
    """Returns how an index was made and what is wanted of it, for an error."""
    if name == LATE_CHUNKING:
        return f"{'with' if name in known else 'without'} {name} (--late)"
    return f"with {name} {_short(known.get(name))}, not {_short(wanted.get(name))}"


def _short(value: Any) -> str:
    """Returns a value for an error; of a digest its beginning."""
    return value[:12] if isinstance(value, str) and len(value) == 64 else repr(value)
