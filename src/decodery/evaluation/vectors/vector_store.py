"""Keeps the vectors of a run in a file, so that a run that was killed goes on where it stopped."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from decodery.errors import ParameterError
from decodery.evaluation.vectors.contract import Floats

MAGIC = b"DCV1"
HEADER = 8
KEY = 16


class VectorStore:
    """Holds vectors by keys of 16 bytes. Only the keys are in memory.

    The file begins with four letters and the width of the vectors; a record of a fixed size follows for each
    vector: its key, the tokens that its text lost, its numbers. A record that a killed process left
    incomplete is cut off. Raises `ParameterError` for a file of another kind.
    """

    def __init__(self, path: Path) -> None:
        path.touch()
        self._file = path.open("r+b", buffering=0)
        self._places: dict[bytes, int] = {}
        self._record: np.dtype[Any] | None = None
        header = self._file.read(HEADER)
        if len(header) == HEADER:
            if header[:4] != MAGIC:
                self._file.close()
                raise ParameterError(f"{path} holds no vectors of a run: remove the folder")
            self._record = _record(int.from_bytes(header[4:], "little"))
            self._read_keys(self._record)
        else:
            self._file.truncate(0)

    def _read_keys(self, record: np.dtype[Any]) -> None:
        count = (os.fstat(self._file.fileno()).st_size - HEADER) // record.itemsize
        for place in range(count):
            self._places[self._read(HEADER + place * record.itemsize, KEY)] = place
        self._file.truncate(HEADER + count * record.itemsize)

    def __contains__(self, key: bytes) -> bool:
        return key in self._places

    def get(self, key: bytes) -> tuple[Floats, int]:
        """Returns the vector with this key, and the tokens that its text lost."""
        assert self._record is not None
        place = HEADER + self._places[key] * self._record.itemsize
        row = np.frombuffer(self._read(place, self._record.itemsize), self._record)[0]
        return row["vector"].astype(np.float32), int(row["lost"])

    def put(self, keys: Sequence[bytes], vectors: Floats, lost: NDArray[np.int64]) -> None:
        """Keeps vectors [keys, width]. They outlive the process from now on."""
        if self._record is None:
            self._record = _record(vectors.shape[1])
            self._file.seek(0)
            self._write(MAGIC + vectors.shape[1].to_bytes(4, "little"))
        rows = np.empty(len(keys), self._record)
        rows["key"] = [np.frombuffer(key, np.uint8) for key in keys]
        rows["lost"], rows["vector"] = lost, vectors
        self._file.seek(0, os.SEEK_END)
        self._write(rows.tobytes())
        self._places |= {key: place for place, key in enumerate(keys, len(self._places))}

    def _read(self, place: int, size: int) -> bytes:
        self._file.seek(place)
        return self._file.read(size)

    def _write(self, data: bytes) -> None:
        left = memoryview(data)
        while left:
            left = left[self._file.write(left) :]

    def close(self) -> None:
        """Closes the file."""
        self._file.close()


def _record(width: int) -> np.dtype[Any]:
    return np.dtype([("key", "u1", (KEY,)), ("lost", "<i4"), ("vector", "<f4", (width,))])
