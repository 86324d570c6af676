"""Defines GSM8k: word problems whose answer is a number after several steps.

Cobbe et al., Training Verifiers to Solve Math Word Problems (2021).
"""

from __future__ import annotations

from decodery.decoding.request.params import GenerationParams
from decodery.errors import ParameterError
from decodery.evaluation.contract import Document
from decodery.evaluation.generation_task import AnswerMetric, AnswerRow, GenerationTask
from decodery.evaluation.layouts.splits import Splits
from decodery.evaluation.layouts.tables import Row
from decodery.evaluation.written_answers import same
from decodery.evaluation.written_numbers import last_number, numbers_of, plain_number

MARK = "####"


def strict(text: str) -> str | None:
    """Returns the number directly after the first "####", which the shots show, or None."""
    _, mark, after = text.partition(MARK)
    line = after.lstrip(" ").partition("\n")[0]
    found = numbers_of(line)
    return plain_number(found[0]) if mark and found else None


def flexible(text: str) -> str | None:
    """Returns the number after "####", or else the number in \\boxed{}, or else the last one, or None."""
    return strict(text) or last_number(text)


def _document(row: Row, place: str, group: str) -> Document:
    fields = {"question": row["question"], "answer": row["answer"]}
    if strict(row["answer"]) is None:
        raise ParameterError(f"{place}: the answer has no number after {MARK}")
    return Document(place, fields, group)


def _row(document: Document) -> AnswerRow:
    fields = document.fields
    gold = strict(fields["answer"])
    if gold is None:
        raise ParameterError(f"the answer has no number after {MARK}")
    return AnswerRow(f"Question: {fields['question']}\nAnswer:", (gold,), fields["answer"])


TASK = GenerationTask(
    "gsm8k",
    Splits(
        "gsm8k", asked=("test",), shots=("train",), document=_document, required=("question", "answer")
    ).read,
    _row,
    {"exact_match": AnswerMetric(strict, same), "exact_match_flexible": AnswerMetric(flexible, same)},
    params=GenerationParams(max_tokens=256, temperature=0, stop=("Question:",)),
    cut=("\nQuestion:",),
    shots=5,
    version=2,
)
