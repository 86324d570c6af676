"""Defines ARC: questions of school science with three to five options.

Clark et al., Think you have Solved Question Answering? (2018).
"""

from __future__ import annotations

from pathlib import Path

from decodery.errors import ParameterError
from decodery.evaluation.choice_task import ChoiceRow, ChoiceStyle, ChoiceTask
from decodery.evaluation.contract import Document, TaskData
from decodery.evaluation.layouts.splits import Splits
from decodery.evaluation.layouts.tables import Row

STYLE = ChoiceStyle(question="Question: {question}")
METRICS = ("acc_norm", "acc", "acc_bytes", "acc_tokens")


def read(data: Path | None, split: str | None) -> TaskData:
    """Reads the hub's columns, or the original lines, in which the choices are within the question.

    A folder with both parts, as the archive has them, is read with each part as a group.
    """
    return _splits("arc", "Challenge", "Easy").read(data, split)


def _read_challenge(data: Path | None, split: str | None) -> TaskData:
    return _splits("arc_challenge", "Challenge").read(_part(data, "ARC-Challenge"), split)


def _read_easy(data: Path | None, split: str | None) -> TaskData:
    return _splits("arc_easy", "Easy").read(_part(data, "ARC-Easy"), split)


def _part(data: Path | None, name: str) -> Path | None:
    return data / name if data is not None and (data / name).is_dir() else data


def _splits(task: str, *parts: str) -> Splits:
    ends = {"test": "Test", "validation": "Dev", "train": "Train"}
    return Splits(
        task,
        asked=("test", "validation"),
        shots=("train", "validation"),
        document=_document,
        files={split: [f"ARC-{part}-{end}" for part in parts] for split, end in ends.items()},
    )


def _document(row: Row, place: str, group: str) -> Document:
    question, choices = row.get("question"), row.get("choices")
    if isinstance(question, dict):
        listed = question.get("choices") or []
        choices = {"text": [c.get("text") for c in listed], "label": [c.get("label") for c in listed]}
        question = question.get("stem")
    if not isinstance(question, str) or not isinstance(choices, dict) or "answerKey" not in row:
        raise ParameterError(f"{place} lacks question, choices or answerKey")
    labels, texts = list(choices.get("label", [])), list(choices.get("text", []))
    if row["answerKey"] not in labels:
        raise ParameterError(f"{place}: the answerKey {row['answerKey']!r} is not one of {labels}")
    fields = {"question": question, "options": texts, "gold": labels.index(row["answerKey"])}
    return Document(str(row.get("id") or place), fields, group)


def _row(document: Document) -> ChoiceRow:
    fields = document.fields
    return ChoiceRow(fields["question"], tuple(fields["options"]), (fields["gold"],))


TASK = ChoiceTask("arc", read, _row, STYLE, shots=25, metrics=METRICS)
CHALLENGE = ChoiceTask("arc_challenge", _read_challenge, _row, STYLE, shots=25, metrics=METRICS)
EASY = ChoiceTask("arc_easy", _read_easy, _row, STYLE, shots=25, metrics=METRICS)
