"""Reads the splits of a data set that lies in files named for them."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from decodery.errors import ParameterError
from decodery.evaluation.contract import Document, TaskData
from decodery.evaluation.layouts.tables import SUFFIXES, Row, read_rows

# Makes a document of a row, of its place "FILE, row N" and of its group.
ReadRow = Callable[[Row, str, str], Document]


@dataclass(frozen=True, slots=True)
class Splits:
    """Says where a task's splits lie.

    The documents are those of the first split of `asked` that is there, and shots come from the first of
    `shots` that is another one. `files` are further names of a split's files, without their ending. `header`
    are the columns of CSV files without a first line of names. `required` are the columns that a row has.
    """

    task: str
    asked: Sequence[str]
    shots: Sequence[str]
    document: ReadRow
    files: Mapping[str, Sequence[str]] = field(default_factory=dict)
    header: Sequence[str] | None = None
    required: Sequence[str] = ()

    def read(self, data: Path | None, split: str | None = None) -> TaskData:
        """Reads a file, a folder with files, or a folder with a folder for each group.

        In a folder, the files of a split begin with its name, such as test.jsonl or test-00000.jsonl. A file
        alone has the documents, from which shots are drawn too. With `split`, its documents are read. Raises
        `ParameterError` for data that is missing or cannot be read.
        """
        if data is None:
            raise ParameterError(f"{self.task} needs --data: a file or folder in its published layout")
        if not data.exists():
            raise ParameterError(f"{data} does not exist")
        if data.is_file():
            if split is not None:
                raise ParameterError(f"{data} is a file: --split {split} needs a folder with the splits")
            documents = self._documents([data], "")
            return TaskData(documents, {"": documents}, data.name)
        asked = (split,) if split else self.asked
        if name := self._first(data, asked):
            pool = self._pool(data, name, "")
            return TaskData(self._of(data, name, ""), {"": pool} if pool else {}, f"{data.name}, {name}")
        return self._groups(data, asked)

    def _groups(self, data: Path, asked: Sequence[str]) -> TaskData:
        folders = sorted(path for path in data.iterdir() if path.is_dir())
        found = [(folder, name) for folder in folders if (name := self._first(folder, asked))]
        if not found:
            names = [name for split in asked for name in (split, *self.files.get(split, ()))]
            raise ParameterError(f"{data} has no file {' or '.join(names)} ({', '.join(SUFFIXES)})")
        documents = tuple(one for folder, name in found for one in self._of(folder, name, folder.name))
        pools = {folder.name: self._pool(folder, name, folder.name) for folder, name in found}
        return TaskData(documents, pools, f"{data.name}, {found[0][1]}")

    def _first(self, folder: Path, asked: Sequence[str]) -> str | None:
        return next((name for name in asked if self._files(folder, name)), None)

    def _pool(self, folder: Path, asked: str, group: str) -> tuple[Document, ...]:
        name = self._first(folder, [name for name in self.shots if name != asked])
        return () if name is None else self._of(folder, name, group)

    def _of(self, folder: Path, split: str, group: str) -> tuple[Document, ...]:
        return self._documents(self._files(folder, split), group)

    def _files(self, folder: Path, split: str) -> list[Path]:
        for name in (split, *self.files.get(split, ())):
            if found := files_of(folder, name):
                return found
        return []

    def _documents(self, files: Sequence[Path], group: str) -> tuple[Document, ...]:
        return tuple(
            self.document(row, f"{group}/{file.name}, row {number}".removeprefix("/"), group)
            for file in files
            for number, row in enumerate(read_rows(file, self.required, header=self.header), 1)
        )


def files_of(folder: Path, split: str) -> list[Path]:
    """Returns the files of a split in a folder, in the order of their names."""
    return sorted(
        path
        for path in folder.iterdir()
        if path.is_file()
        and path.name.endswith(SUFFIXES)
        and (path.name.partition(".")[0] == split or path.name.startswith(f"{split}-"))
    )
