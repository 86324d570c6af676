"""Defines HellaSwag: descriptions of situations with four endings.

Zellers et al., HellaSwag: Can a Machine Really Finish Your Sentence? (2019).
"""

from __future__ import annotations

import re

from decodery.errors import ParameterError
from decodery.evaluation.choice_task import ChoiceRow, ChoiceStyle, ChoiceTask
from decodery.evaluation.contract import Document
from decodery.evaluation.layouts.splits import Splits
from decodery.evaluation.layouts.tables import Row

COLUMNS = ("activity_label", "ctx_a", "ctx_b", "endings", "label")


def _document(row: Row, place: str, group: str) -> Document:
    fields = {name: row[name] for name in COLUMNS}
    return Document(place, fields, group)


def _row(document: Document) -> ChoiceRow:
    fields = document.fields
    label = str(fields["label"]).strip()
    if not label.isdigit():
        raise ParameterError(f"the label is {fields['label']!r}: the split has no labels")
    context = f"{fields['activity_label']}: {fields['ctx_a']} {fields['ctx_b'].capitalize()}"
    return ChoiceRow(plain(context), tuple(map(plain, fields["endings"])), (int(label),))


def plain(text: str) -> str:
    """Returns a text without the marks that WikiHow's headings and captions leave in it."""
    text = text.strip().replace(" [title]", ". ")
    return re.sub(r"\[.*?\]", "", text).replace("  ", " ").strip()


TASK = ChoiceTask(
    "hellaswag",
    Splits(
        "hellaswag",
        asked=("validation",),
        shots=("train",),
        document=_document,
        files={name: (f"hellaswag_{end}",) for name, end in (("train", "train"), ("validation", "val"))}
        | {"test": ("hellaswag_test",)},
        required=COLUMNS,
    ).read,
    _row,
    ChoiceStyle(ending=""),
    shots=10,
    metrics=("acc_norm", "acc", "acc_bytes", "acc_tokens"),
)
