"""Reads the splits of a data set that lies in files named for them."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

from decodery.errors import ParameterError
from decodery.evaluation.contract import Document, TaskData
from decodery.evaluation.layouts.tables import SUFFIXES, Row, find_file, read_rows

ReadRow = Callable[[Row, str], Document]


def read_splits(
    task: str,
    data: Path | None,
    *,
    asked: Sequence[str],
    shots: Sequence[str],
    document: ReadRow,
    required: Sequence[str] = (),
) -> TaskData:
    """Returns the documents of the first split of `asked` that is there, and shots from the first of `shots`.

    A folder holds files whose names begin with the split's, such as test.jsonl or test-00000.jsonl; a file
    alone has the documents, from which shots are drawn too. `document` makes a document of a row and of its
    place, "FILE, row N". Raises `ParameterError` for data that is missing or cannot be read.
    """
    if data is None:
        raise ParameterError(f"{task} needs --data: a file or folder in its published layout")
    if data.is_file():
        documents = _documents([data], document, required)
        return TaskData(documents, {"": documents}, data.name)
    split, files = _first_split(data, asked)
    documents = _documents(files, document, required)
    others = [name for name in shots if name != split]
    pool = next((found for name in others if (found := files_of(data, name))), [])
    pools = {"": _documents(pool, document, required)} if pool else {}
    return TaskData(documents, pools, f"{data.name}, {split}")


def files_of(folder: Path, split: str) -> list[Path]:
    """Returns the files of a split in a folder, in the order of their names."""
    return sorted(
        path
        for path in folder.iterdir()
        if path.is_file()
        and path.name.endswith(SUFFIXES)
        and (path.name.partition(".")[0] == split or path.name.startswith(f"{split}-"))
    )


def _first_split(folder: Path, names: Sequence[str]) -> tuple[str, list[Path]]:
    if not folder.is_dir():
        find_file(folder)
    for name in names:
        if files := files_of(folder, name):
            return name, files
    raise ParameterError(f"{folder} has no file {' or '.join(names)} ({', '.join(SUFFIXES)})")


def _documents(files: Sequence[Path], document: ReadRow, required: Sequence[str]) -> tuple[Document, ...]:
    return tuple(
        document(row, f"{file.name}, row {number}")
        for file in files
        for number, row in enumerate(read_rows(file, required), 1)
    )
