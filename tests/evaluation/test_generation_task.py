"""Checks how written answers are asked for, taken from texts, judged and counted."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from decodery.errors import ParameterError
from decodery.evaluation.contract import Document, Generation, Sample, TaskData
from decodery.evaluation.generation_task import AnswerMetric, AnswerRow, GenerationTask
from decodery.evaluation.variant import Variant, varied
from decodery.evaluation.written_answers import cut_before
from tests.evaluation.tiny import written


def reader(data: Path | None, split: str | None) -> TaskData:
    return TaskData((DOCUMENT,))


def row(document: Document) -> AnswerRow:
    return AnswerRow(document.fields["q"], tuple(document.fields["a"]), document.fields["a"][0])


DOCUMENT = Document("3", {"q": "Q: one?\nA:", "a": ["yes", "aye"]})
METRIC = AnswerMetric(lambda text: text.strip() or None, lambda gold, answer: float(answer in gold))


def task(**more: Any) -> GenerationTask:
    return GenerationTask("g", reader, row, {"exact": METRIC}, **more)


def test_no_answer_is_wrong_and_counted_apart() -> None:
    outcome = task().outcome(DOCUMENT, written("yes", "no", "  ", "aye"))
    assert outcome.values == {"exact": 0.5}
    assert outcome.counts["unparsed"] == outcome.counts["empty"] == 1
    assert outcome.details["extracted"] == {"exact": ["yes", "no", None, "aye"]}


def test_how_texts_end_is_counted() -> None:
    answers = [*written("a", finish="length"), *written("b", stop="Q:"), *written("c")]
    counts = task().outcome(DOCUMENT, answers).counts
    assert (counts["cut by length"], counts["ended by a stop string"], counts["empty"]) == (1, 1, 0)


def test_a_text_is_cut_before_the_next_question() -> None:
    asked = task(cut=("\nQ:",))
    assert asked.outcome(DOCUMENT, written("yes\nQ: two?\nA: no")).values == {"exact": 1.0}
    assert cut_before("a;b,c", (",", ";")) == "a"
    assert cut_before("abc", ()) == cut_before("abc", ("x",)) == "abc"


def test_shots_are_shown_with_the_first_right_answer() -> None:
    (request,) = task().requests(DOCUMENT, [Document("4", {"q": "Q: two?\nA:", "a": ["no"]})], 1)
    assert isinstance(request, Generation)
    assert [(shot.question, shot.answer) for shot in request.prompt.shots] == [("Q: two?\nA:", "no")]
    assert request.params.temperature == 0


def test_several_samples_are_drawn_and_the_vote_of_most_is_reported() -> None:
    requests = task(temperature=0.6).requests(DOCUMENT, (), 3)
    assert [one.params.temperature for one in requests if isinstance(one, Generation)] == [0.6] * 3
    outcome = task().outcome(DOCUMENT, written("no", "yes", "yes"))
    results = task().results([Sample(DOCUMENT, outcome)])
    assert results["exact"].value == pytest.approx(2 / 3)
    assert results["maj@3"].value == 1.0
    single = task().outcome(DOCUMENT, written("no"))
    assert list(task().results([Sample(DOCUMENT, single)])) == ["exact"]


def test_a_document_without_a_right_answer_is_an_error_before_anything_is_asked() -> None:
    empty = Document("9", {"q": "Q", "a": []})
    broken = GenerationTask(
        "g", lambda data, split: TaskData((empty,)), lambda d: AnswerRow("Q", (), ""), {"exact": METRIC}
    )
    with pytest.raises(ParameterError, match="g: document 9 has no right answer"):
        broken.read(None)


def test_another_length_is_among_the_settings_and_options_are_an_error() -> None:
    longer = varied(task(), Variant(max_tokens=900))
    assert longer.read(None).settings["max_tokens"] == 900
    with pytest.raises(ParameterError, match="g takes no options, ending"):
        varied(task(), Variant(options="letters", ending="x"))
