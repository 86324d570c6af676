"""Defines ARC: questions of school science with three to five options."""

from __future__ import annotations

from pathlib import Path

from decodery.errors import ParameterError
from decodery.evaluation.choice_task import ChoiceRow, ChoiceStyle, ChoiceTask
from decodery.evaluation.contract import Document, TaskData
from decodery.evaluation.layouts.splits import read_splits
from decodery.evaluation.layouts.tables import Row

STYLE = ChoiceStyle(question="Question: {question}")


def read(data: Path | None) -> TaskData:
    """Reads the hub's columns, or the original lines, in which the choices are within the question."""
    return read_splits(
        "arc", data, asked=("test", "validation"), shots=("train", "validation"), document=_document
    )


def _document(row: Row, place: str) -> Document:
    question, choices = row.get("question"), row.get("choices")
    if isinstance(question, dict):
        stem, listed = question.get("stem"), question.get("choices") or []
        choices = {"text": [c.get("text") for c in listed], "label": [c.get("label") for c in listed]}
        question = stem
    if not isinstance(question, str) or not isinstance(choices, dict) or "answerKey" not in row:
        raise ParameterError(f"{place} lacks question, choices or answerKey")
    labels, texts = choices.get("label", []), choices.get("text", [])
    if row["answerKey"] not in labels:
        raise ParameterError(f"{place}: the answerKey {row['answerKey']!r} is not one of {labels}")
    fields = {"question": question, "options": texts, "gold": labels.index(row["answerKey"])}
    return Document(str(row.get("id") or place), fields)


def _row(document: Document) -> ChoiceRow:
    fields = document.fields
    return ChoiceRow(fields["question"], tuple(fields["options"]), (fields["gold"],))


TASK = ChoiceTask("arc", read, _row, STYLE, shots=25)
