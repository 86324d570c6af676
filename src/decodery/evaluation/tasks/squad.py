"""Defines SQuAD: questions whose answer is a span of a paragraph, or none.

Rajpurkar et al., SQuAD: 100,000+ Questions for Machine Comprehension of Text (2016); Know What You Don't Know
(2018).
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from decodery.decoding.request.params import GenerationParams
from decodery.errors import ParameterError
from decodery.evaluation.contract import Document, TaskData
from decodery.evaluation.generation_task import AnswerMetric, AnswerRow, GenerationTask
from decodery.evaluation.layouts.splits import Splits
from decodery.evaluation.layouts.tables import Row, read_text
from decodery.evaluation.written_answers import first_line, normalised_match, shared_words

UNANSWERABLE = "unanswerable"


def read(data: Path | None, split: str | None) -> TaskData:
    """Reads the published JSON file, whose articles hold paragraphs, or rows with the hub's columns."""
    splits = Splits("squad", asked=("validation",), shots=("train",), document=_document)
    if data is None or not data.is_file() or data.suffix != ".json" or split is not None:
        return splits.read(data, split)
    try:
        content = json.loads(read_text(data))
    except ValueError as error:
        raise ParameterError(f"{data} is not JSON: {error}") from error
    if not isinstance(content, dict):
        return splits.read(data, split)
    documents = tuple(_questions(content, data.name))
    return TaskData(documents, {"": documents}, data.name)


def _questions(content: dict[str, Any], place: str) -> Iterator[Document]:
    try:
        for article in content["data"]:
            for paragraph in article["paragraphs"]:
                for asked in paragraph["qas"]:
                    texts = [answer["text"] for answer in asked["answers"]]
                    row = {**asked, "context": paragraph["context"], "answers": {"text": texts}}
                    yield _document(row, place, "")
    except (KeyError, TypeError) as error:
        raise ParameterError(f"{place} lacks data, paragraphs, qas, context or answers: {error}") from error


def _document(row: Row, place: str, group: str) -> Document:
    answers = row.get("answers")
    missing = [name for name in ("context", "question") if not isinstance(row.get(name), str)]
    if missing or not isinstance(answers, dict) or not isinstance(answers.get("text"), list):
        raise ParameterError(f"{place} lacks {', '.join([*missing, 'answers'])}")
    fields = {name: row[name] for name in ("context", "question")}
    return Document(str(row.get("id") or place), {**fields, "answers": list(answers["text"])}, group)


def _row(document: Document) -> AnswerRow:
    fields = document.fields
    gold = tuple(fields["answers"]) or (UNANSWERABLE,)
    return AnswerRow(f"{fields['context']}\nQuestion: {fields['question']}\nAnswer:", gold, gold[0])


TASK = GenerationTask(
    "squad",
    read,
    _row,
    {"exact_match": AnswerMetric(first_line, normalised_match), "f1": AnswerMetric(first_line, shared_words)},
    params=GenerationParams(max_tokens=64, temperature=0, stop=("\n",)),
    description="Answer with words of the text, or with: unanswerable.\n\n",
)
