"""Makes a task of a TOML file: what kind it is, templates over columns, and how answers are judged."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import cast

from decodery.decoding.request.params import GenerationParams
from decodery.evaluation.choice_task import LETTERS, ChoiceRow, ChoiceStyle, ChoiceTask
from decodery.evaluation.contract import Document, Task, TaskData
from decodery.evaluation.generation_task import AnswerMetric, AnswerRow, GenerationTask
from decodery.evaluation.layouts.splits import Splits
from decodery.evaluation.layouts.tables import Row
from decodery.evaluation.own.keys import Keys
from decodery.evaluation.tasks.perplexity import PerplexityTask
from decodery.evaluation.variant import Method, Options
from decodery.evaluation.written_answers import first_line, normalised_match, same, shared_words, whole_text
from decodery.evaluation.written_numbers import last_number

COMMON = ("name", "kind", "data", "split", "shots_split", "id", "group", "shots", "first_shots", "version")
ASKED = (*COMMON, "question", "answer", "description", "delimiter", "separator", "max_tokens", "temperature")
CHOICE = (*ASKED, "options", "answer_is", "show", "method", "ending")
GENERATION = (*ASKED, "shown", "extract", "pattern", "metric", "stop")
TEXT = (*COMMON, "text")
# How the column with the right answer names an option: places count from 0, numbers from 1.
ANSWERS = ("text", "letter", "place", "number")


def read_task(path: Path) -> Task:
    """Returns the task that a TOML file describes. Raises `ParameterError` with file and key for a fault."""
    keys = Keys.of_file(path)
    kind = keys.chosen("kind", ("choice", "generation", "text"))
    if kind == "choice":
        return _choice(keys)
    return _generation(keys) if kind == "generation" else _text(keys)


def _reader(keys: Keys) -> Callable[[Path | None, str | None], TaskData]:
    """Returns the function that reads the data: what is given, or the file that the key `data` names."""
    own = keys.optional("data")
    splits = Splits(
        _name(keys),
        asked=(keys.text("split"),) if "split" in keys.values else ("test", "validation"),
        shots=(keys.text("shots_split", "train"),),
        document=partial(_document, keys),
    )

    def read(data: Path | None, split: str | None) -> TaskData:
        found = splits.read(keys.path.parent / own if data is None and own is not None else data, split)
        return replace(found, settings={"file": keys.digest})

    return read


def _document(keys: Keys, row: Row, place: str, group: str) -> Document:
    def named(key: str, default: str) -> str:
        column = keys.optional(key)
        return default if column is None else keys.column(key, column, row)

    return Document(named("id", place), dict(row), named("group", group))


def _name(keys: Keys) -> str:
    return keys.text("name", keys.path.stem)


def _choice(keys: Keys) -> ChoiceTask:
    keys.only(CHOICE)
    style = ChoiceStyle(
        options=cast(Options, keys.chosen("show", ("texts", "letters", "numbers"), "texts")),
        method=cast(Method, keys.chosen("method", ("compare", "parse"), "compare")),
        ending=keys.text("ending", "\nAnswer:"),
        delimiter=keys.text("delimiter", " "),
        separator=keys.text("separator", "\n\n"),
    )
    options = keys.values.get("options")
    if not isinstance(options, str) and not keys.texts("options"):
        keys.refuse("options", "is missing: a list of templates, or the name of a column with a list")
    keys.text("question")
    keys.text("answer")
    keys.text("description", "")
    keys.chosen("answer_is", ANSWERS)
    return ChoiceTask(
        _name(keys),
        _reader(keys),
        partial(_choice_row, keys),
        style,
        shots=keys.whole("shots", 0),
        first_shots=keys.switch("first_shots"),
        version=keys.whole("version", 1),
        description=lambda document: keys.filled(
            "description", keys.text("description", ""), document.fields
        ),
        temperature=keys.number("temperature", 0.8),
        max_tokens=keys.whole("max_tokens", 64, least=1),
    )


def _choice_row(keys: Keys, document: Document) -> ChoiceRow:
    row = document.fields
    options = _options(keys, row)
    question = keys.filled("question", keys.text("question"), row)
    return ChoiceRow(question, options, (_right_place(keys, row, options),))


def _options(keys: Keys, row: Row) -> tuple[str, ...]:
    given = keys.values["options"]
    if not isinstance(given, str):
        return tuple(keys.filled("options", template, row) for template in keys.texts("options"))
    listed = row.get(given)
    if not isinstance(listed, list):
        keys.refuse("options", f"names the column {given}, whose value is no list: {listed!r}")
    return tuple(map(str, listed))


def _right_place(keys: Keys, row: Row, options: Sequence[str]) -> int:
    answer = keys.column("answer", keys.text("answer"), row).strip()
    kind = keys.text("answer_is")
    found = -1
    if kind == "text":
        texts = [option.strip() for option in options]
        found = texts.index(answer) if texts.count(answer) == 1 else -1
    elif kind == "letter":
        found = LETTERS.find(answer.upper()) if len(answer) == 1 else -1
    elif re.fullmatch(r"[0-9]+(\.0)?", answer):
        found = int(float(answer)) - (kind == "number")
    if not 0 <= found < len(options):
        keys.refuse("answer", f"is {answer!r} in a row, which is no {kind} of the options {list(options)}")
    return found


def _generation(keys: Keys) -> GenerationTask:
    keys.only(GENERATION)
    keys.text("question")
    keys.text("answer")
    stop = keys.texts("stop")
    extract = _extraction(keys)
    metric = keys.chosen("metric", tuple(MEASURES), "exact_match")
    numeric = metric == "numeric"
    return GenerationTask(
        _name(keys),
        _reader(keys),
        partial(_answer_row, keys, numeric),
        {metric: AnswerMetric(partial(_number_in, extract) if numeric else extract, MEASURES[metric])},
        params=GenerationParams(max_tokens=keys.whole("max_tokens", 256, least=1), temperature=0, stop=stop),
        temperature=keys.number("temperature", 0.8),
        delimiter=keys.text("delimiter", " "),
        separator=keys.text("separator", "\n\n"),
        description=keys.text("description", ""),
        shots=keys.whole("shots", 0),
        first_shots=keys.switch("first_shots"),
        version=keys.whole("version", 1),
    )


def _answer_row(keys: Keys, numeric: bool, document: Document) -> AnswerRow:
    row, column = document.fields, keys.text("answer")
    listed = row.get(column)
    gold = tuple(map(str, listed)) if isinstance(listed, list) else (keys.column("answer", column, row),)
    if not gold:
        keys.refuse("answer", f"names the column {column}, whose list is empty in a row")
    if numeric:
        numbers = [last_number(one) for one in gold]
        if None in numbers:
            keys.refuse("answer", f"has no number in a row: {gold!r}")
        gold = tuple(number for number in numbers if number is not None)
    shown = keys.filled("shown", keys.text("shown"), row) if "shown" in keys.values else gold[0]
    return AnswerRow(keys.filled("question", keys.text("question"), row), gold, shown)


def _extraction(keys: Keys) -> Callable[[str], str | None]:
    if "pattern" not in keys.values:
        return EXTRACTIONS[keys.chosen("extract", tuple(EXTRACTIONS), "text")]
    if "extract" in keys.values:
        keys.refuse("extract", "and pattern are both given: leave one out")
    try:
        pattern = re.compile(keys.text("pattern"))
    except re.error as error:
        keys.refuse("pattern", f"is no regular expression: {error}")

    def last_match(text: str) -> str | None:
        found = list(pattern.finditer(text))
        return (found[-1][1 if pattern.groups else 0] or "").strip() or None if found else None

    return last_match


def _number_in(extract: Callable[[str], str | None], text: str) -> str | None:
    found = extract(text)
    return None if found is None else last_number(found)


EXTRACTIONS: Mapping[str, Callable[[str], str | None]] = {
    "text": whole_text,
    "line": first_line,
    "number": last_number,
}


def _contains(gold: Sequence[str], answer: str) -> float:
    lower = answer.casefold()
    return float(any(one.casefold() in lower for one in gold))


MEASURES: Mapping[str, Callable[[Sequence[str], str], float]] = {
    "exact_match": normalised_match,
    "exact_text": same,
    "contains": _contains,
    "numeric": same,
    "f1": shared_words,
}


def _text(keys: Keys) -> PerplexityTask:
    keys.only(TEXT)
    template = keys.text("text")
    read = _reader(keys)

    def texts(data: Path | None, split: str | None) -> TaskData:
        found = read(data, split)
        documents = [
            Document(one.id, {"text": keys.filled("text", template, one.fields)}, one.group)
            for one in found.documents
        ]
        return TaskData(tuple(documents), source=found.source, settings=found.settings)

    return PerplexityTask(_name(keys), keys.whole("version", 1), reader=texts)
