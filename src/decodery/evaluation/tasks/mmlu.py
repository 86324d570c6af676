"""Defines MMLU: questions of 57 subjects with four options, which are shown with letters.

Hendrycks et al., Measuring Massive Multitask Language Understanding (2021).
"""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from decodery.errors import ParameterError
from decodery.evaluation.choice_task import LETTERS, ChoiceRow, ChoiceStyle, ChoiceTask
from decodery.evaluation.contract import Document, TaskData
from decodery.evaluation.layouts.splits import Splits
from decodery.evaluation.layouts.tables import Row, read_rows

HEADER = ("question", "A", "B", "C", "D", "answer")
# The folder and the end of the names of each split's files in the published archive.
ARCHIVE = {"test": "test", "validation": "val", "dev": "dev"}
NEEDS = "question, choices and answer, or A, B, C, D in place of choices"


def read(data: Path | None, split: str | None) -> TaskData:
    """Reads the published archive, the folder with `data` or `data` itself, or files with the hub's columns.

    Each subject is a group, and its shots are the first rows of its dev split.
    """
    if data is not None and (root := _archive(data)):
        return _read_archive(root, split or "test")
    shots = ("dev", "validation", "train")
    found = Splits("mmlu", asked=("test", "validation"), shots=shots, document=_document).read(data, split)
    return replace(found, pools=_by_subject(found))


def _archive(data: Path) -> Path | None:
    for root in (data, data / "data"):
        if any((root / folder).is_dir() for folder in ARCHIVE.values()):
            return root
    return None


def _read_archive(root: Path, split: str) -> TaskData:
    if split not in ARCHIVE:
        raise ParameterError(f"mmlu has no split {split}: it has {', '.join(ARCHIVE)}")
    end = ARCHIVE[split]
    files = sorted((root / end).glob(f"*_{end}.csv"))
    if not files:
        raise ParameterError(f"{root / end} has no files SUBJECT_{end}.csv")
    documents: list[Document] = []
    pools = {}
    for file in files:
        subject = file.name.removesuffix(f"_{end}.csv")
        documents += _of_file(file, subject)
        shots = root / "dev" / f"{subject}_dev.csv"
        if shots.is_file():
            pools[subject] = _of_file(shots, subject)
    return TaskData(tuple(documents), pools, f"{root.name}, {split}")


def _of_file(file: Path, subject: str) -> tuple[Document, ...]:
    rows = read_rows(file, header=HEADER)
    return tuple(_document(row, f"{file.name}, row {number}", subject) for number, row in enumerate(rows, 1))


def _by_subject(data: TaskData) -> dict[str, tuple[Document, ...]]:
    pools: dict[str, tuple[Document, ...]] = {}
    for pool in data.pools.values():
        for shot in pool:
            pools[shot.group] = (*pools.get(shot.group, ()), shot)
    return pools


def _document(row: Row, place: str, group: str) -> Document:
    question, answer = row.get("question"), row.get("answer")
    choices = row.get("choices") or [row[letter] for letter in "ABCD" if letter in row]
    if not isinstance(question, str) or not isinstance(choices, list) or not choices or answer is None:
        raise ParameterError(f"{place} lacks {NEEDS}")
    return Document(
        place,
        {"question": question, "options": choices, "gold": _place_of(answer, len(choices), place)},
        str(row.get("subject") or group),
    )


def _place_of(answer: object, count: int, place: str) -> int:
    """Returns the place of the right option, given as a place from 0 or as a letter."""
    letter = str(answer).strip().upper()
    found = LETTERS.find(letter) if len(letter) == 1 else -1
    if found < 0 and letter.lstrip("-").isdigit():
        found = int(letter)
    if not 0 <= found < count:
        raise ParameterError(f"{place}: the answer {answer!r} is not one of {count} options")
    return found


def _row(document: Document) -> ChoiceRow:
    fields = document.fields
    return ChoiceRow(fields["question"].strip(), tuple(fields["options"]), (fields["gold"],))


def _description(document: Document) -> str:
    about = f" about {document.group.replace('_', ' ')}" if document.group else ""
    return f"The following are multiple choice questions (with answers){about}.\n\n"


TASK = ChoiceTask(
    "mmlu",
    read,
    _row,
    ChoiceStyle(options="letters"),
    shots=5,
    first_shots=True,
    description=_description,
)
