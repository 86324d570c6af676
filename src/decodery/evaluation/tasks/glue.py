"""Defines GLUE's tasks: sentences and pairs of sentences with a label, asked as questions.

Wang et al., GLUE: A Multi-Task Benchmark and Analysis Platform for Natural Language Understanding (2018).
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path

from decodery.errors import ParameterError
from decodery.evaluation.choice_task import ChoiceRow, ChoiceTask
from decodery.evaluation.contract import Document, Sample, TaskData
from decodery.evaluation.layouts.splits import Splits
from decodery.evaluation.layouts.tables import Row
from decodery.metrics.classification import f1, matthews
from decodery.metrics.correlation import pearson, spearman
from decodery.metrics.score import Score

Total = Callable[[Sequence[Sample]], Score]
# Other names of columns in the original files.
COLUMNS = {
    "sentence1": ("#1 String", "premise"),
    "sentence2": ("#2 String", "hypothesis"),
    "label": ("score", "gold_label", "Quality", "is_duplicate"),
}
FILES = {"validation": ("dev", "validation_matched", "dev_matched")}
COLA_HEADER = ("source", "label", "mark", "sentence")


def _task(
    name: str,
    folder: str,
    question: str,
    options: Sequence[str],
    labels: Sequence[str] = (),
    totals: Mapping[str, Total] | None = None,
    header: Sequence[str] | None = None,
) -> ChoiceTask:
    """Returns a task whose label is the place of an option, or in original files one of `labels`."""
    splits = Splits(
        f"glue_{name}",
        asked=("validation",),
        shots=("train",),
        document=partial(_document, labels),
        files=FILES,
        header=header,
    )
    return ChoiceTask(
        splits.task,
        partial(_read, splits, (name, folder)),
        partial(_row, question, tuple(options)),
        metrics=("acc",),
        totals=totals or {},
    )


def _read(splits: Splits, folders: Sequence[str], data: Path | None, split: str | None) -> TaskData:
    if data is not None:
        data = next((data / name for name in folders if (data / name).is_dir()), data)
    return splits.read(data, split)


def _document(labels: Sequence[str], row: Row, place: str, group: str) -> Document:
    fields = {name: row[name] for name in ("sentence", "question", "question1", "question2") if name in row}
    for name, others in COLUMNS.items():
        found = next((row[key] for key in (name, *others) if row.get(key) is not None), None)
        if found is not None:
            fields[name] = found
    if "label" not in fields:
        raise ParameterError(f"{place} has no label")
    label = fields["label"]
    fields["label"] = float(labels.index(label)) if label in labels else _number(label, place)
    return Document(place, fields, group)


def _number(label: object, place: str) -> float:
    try:
        return float(str(label))
    except ValueError as error:
        raise ParameterError(f"{place}: the label {label!r} is unknown") from error


def _row(question: str, options: tuple[str, ...], document: Document) -> ChoiceRow:
    label = document.fields["label"]
    if not 0 <= label <= len(options) - 1:
        raise ParameterError(f"the label is {label:g}: the split has no labels, or it is not this task's")
    fields = dict(document.fields)
    if "sentence2" in fields:
        statement = fields["sentence2"].strip()
        fields["statement"] = statement if statement.endswith(".") else f"{statement}."
    try:
        text = question.format(**fields)
    except KeyError as error:
        raise ParameterError(f"the row has no column {error}") from error
    # STS-B's labels are scores between the options.
    return ChoiceRow(text, options, (math.floor(label + 0.5),))


def _gold(samples: Sequence[Sample]) -> list[int]:
    return [sample.outcome.gold[0] for sample in samples]


def _predicted(samples: Sequence[Sample]) -> list[int | None]:
    return [sample.outcome.predicted for sample in samples]


def _matthews(samples: Sequence[Sample]) -> Score:
    return matthews(_gold(samples), _predicted(samples))


def _f1(samples: Sequence[Sample]) -> Score:
    return f1(_gold(samples), _predicted(samples), average="binary", positive=1)


def expected_place(logprobs: Sequence[float]) -> float | None:
    """Returns the mean place of the options by their probabilities, or None if all are impossible."""
    largest = max(logprobs)
    if largest == -math.inf:
        return None
    weights = [math.exp(value - largest) for value in logprobs]
    return math.fsum(place * weight for place, weight in enumerate(weights)) / math.fsum(weights)


def _correlation(measure: Callable[..., Score], samples: Sequence[Sample]) -> Score:
    found = [expected_place(sample.outcome.details["logprobs"]) for sample in samples]
    return measure([sample.document.fields["label"] for sample in samples], found)


COLA = _task(
    "cola",
    "CoLA",
    "{sentence}\nQuestion: Does this sentence make sense?",
    ("no", "yes"),
    totals={"mcc": _matthews},
    header=COLA_HEADER,
)
SST2 = _task(
    "sst2",
    "SST-2",
    "{sentence}\nQuestion: Is this sentence positive or negative?",
    ("negative", "positive"),
)
MRPC = _task(
    "mrpc",
    "MRPC",
    "Sentence 1: {sentence1}\nSentence 2: {sentence2}\nQuestion: Do both sentences mean the same thing?",
    ("no", "yes"),
    totals={"f1": _f1},
)
QQP = _task(
    "qqp",
    "QQP",
    "Question 1: {question1}\nQuestion 2: {question2}\nQuestion: Do both questions ask the same thing?",
    ("no", "yes"),
    totals={"f1": _f1},
)
STSB = _task(
    "stsb",
    "STS-B",
    "Sentence 1: {sentence1}\nSentence 2: {sentence2}\n"
    "Question: From 0 (unrelated) to 5 (the same), how similar in meaning are both sentences?",
    ("0", "1", "2", "3", "4", "5"),
    totals={"pearson": partial(_correlation, pearson), "spearman": partial(_correlation, spearman)},
)
MNLI = _task(
    "mnli",
    "MNLI",
    "{sentence1}\nQuestion: {statement} True, False or Neither?",
    ("True", "Neither", "False"),
    ("entailment", "neutral", "contradiction"),
)
QNLI = _task(
    "qnli",
    "QNLI",
    "{question}\n{sentence}\nQuestion: Does this response answer the question?",
    ("yes", "no"),
    ("entailment", "not_entailment"),
)
RTE = _task(
    "rte",
    "RTE",
    "{sentence1}\nQuestion: {sentence2} True or False?",
    ("True", "False"),
    ("entailment", "not_entailment"),
)
WNLI = _task("wnli", "WNLI", "{sentence1}\nQuestion: {sentence2} True or False?", ("False", "True"))
