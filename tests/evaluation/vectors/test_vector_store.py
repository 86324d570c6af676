from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from decodery import ParameterError
from decodery.evaluation.vectors.vector_store import HEADER, VectorStore

KEYS = [bytes([number]) * 16 for number in range(5)]
ROWS = np.random.default_rng(0).normal(size=(5, 3)).astype(np.float32)
LOST = np.array([0, 1, 0, 7, 0])


def filled(path: Path) -> None:
    store = VectorStore(path)
    store.put(KEYS[:2], ROWS[:2], LOST[:2])
    store.put(KEYS[2:], ROWS[2:], LOST[2:])
    store.close()


def check(store: VectorStore, count: int) -> None:
    assert [key in store for key in KEYS] == [place < count for place in range(5)]
    for key, row, lost in zip(KEYS[:count], ROWS, LOST, strict=False):
        vector, found = store.get(key)
        assert vector.tobytes() == row.tobytes()
        assert found == lost


def test_vectors_are_read_back_bit_for_bit(tmp_path: Path) -> None:
    filled(tmp_path / "vectors")
    store = VectorStore(tmp_path / "vectors")
    check(store, 5)
    store.close()


@pytest.mark.parametrize("length", [0, 3, HEADER, HEADER + 1, HEADER + 32, HEADER + 50, HEADER + 159])
def test_a_file_that_was_cut_at_any_byte_goes_on_after_the_last_whole_vector(
    tmp_path: Path, length: int
) -> None:
    path = tmp_path / "vectors"
    filled(path)
    path.write_bytes(path.read_bytes()[:length])
    whole = max(length - HEADER, 0) // 32
    store = VectorStore(path)
    check(store, whole)
    store.put(KEYS[whole:], ROWS[whole:], LOST[whole:])
    check(store, 5)
    store.close()
    again = VectorStore(path)
    check(again, 5)
    again.close()


def test_another_file_is_an_error(tmp_path: Path) -> None:
    path = tmp_path / "vectors"
    path.write_bytes(b"something else")
    with pytest.raises(ParameterError, match="holds no vectors of a run"):
        VectorStore(path)
