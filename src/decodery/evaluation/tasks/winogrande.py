"""Defines WinoGrande: sentences with a gap, which one of two names fills.

Each name is put into the gap, and the rest of the sentence is scored after it. Sakaguchi et al., WinoGrande
(2019); scored as in Trinh and Le, A Simple Method for Commonsense Reasoning (2018).
"""

from __future__ import annotations

from decodery.errors import ParameterError
from decodery.evaluation.choice_task import ChoiceRow, ChoiceStyle, ChoiceTask
from decodery.evaluation.contract import Document
from decodery.evaluation.layouts.splits import Splits
from decodery.evaluation.layouts.tables import Row

COLUMNS = ("sentence", "option1", "option2", "answer")
SIZES = ("xl", "l", "m", "s", "xs")


def _document(row: Row, place: str, group: str) -> Document:
    return Document(str(row.get("qID") or place), {name: row[name] for name in COLUMNS}, group)


def _row(document: Document) -> ChoiceRow:
    fields = document.fields
    answer, sentence = str(fields["answer"]).strip(), fields["sentence"]
    if answer not in ("1", "2"):
        raise ParameterError(f"the answer is {fields['answer']!r}, not 1 or 2: the split has no labels")
    before, gap, rest = sentence.partition("_")
    if not gap or not rest.strip():
        raise ParameterError(f"the sentence has no gap _ with text after it: {sentence!r}")
    options = (fields["option1"], fields["option2"])
    contexts = tuple(before + option for option in options)
    return ChoiceRow(sentence, options, (int(answer) - 1,), contexts, rest.rstrip())


TASK = ChoiceTask(
    "winogrande",
    Splits(
        "winogrande",
        asked=("validation",),
        shots=("train",),
        document=_document,
        files={"validation": ("dev",), "train": tuple(f"train_{size}" for size in SIZES)},
        required=COLUMNS,
    ).read,
    _row,
    # The rest of the sentence begins with its own space, or with an apostrophe.
    ChoiceStyle(ending="", delimiter=""),
    shots=5,
    metrics=("acc",),
)
