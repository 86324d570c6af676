"""Checks summaries and translations on small files in their published layouts."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

from decodery import metrics
from decodery.errors import ParameterError
from decodery.evaluation import run
from decodery.evaluation.contract import Document, Generation, Sample, Task
from decodery.evaluation.runs.comparison import compare
from decodery.evaluation.runs.report_page import worst_samples
from decodery.evaluation.runs.run_folder import Effort, RunFolder
from decodery.evaluation.runs.stored_run import StoredRun
from decodery.evaluation.tasks.registry import find_task
from decodery.evaluation.variant import Variant, varied
from tests.evaluation.tasks.test_choices_in_files import write_csv, write_lines
from tests.evaluation.tiny import characters, written

PAIRS = [
    {"translation": {"en": "the cat sat on the mat", "de": "die Katze saß auf der Matte"}},
    {"translation": {"en": "a dog ran", "de": "ein Hund lief weg"}},
]


def translation(source: str | None = "en", target: str | None = "de", **more: Any) -> Task:
    task = find_task("translation")
    return varied(task, Variant(source_language=source, target_language=target, **more))  # type: ignore[arg-type]


def asked(task: Task, document: Document, shots: Sequence[Document] = ()) -> Generation:
    (request,) = task.requests(document, shots, 1)
    assert isinstance(request, Generation)
    return request


def samples_of(task: Task, documents: Sequence[Document], texts: Sequence[str]) -> list[Sample]:
    return [
        Sample(document, task.outcome(document, written(text)))
        for document, text in zip(documents, texts, strict=True)
    ]


@pytest.mark.parametrize(
    ("columns", "name"),
    [
        (("article", "highlights"), "test.jsonl"),
        (("document", "summary"), "test.jsonl"),
        (("article", "highlights"), "test.csv"),
    ],
)
def test_articles_are_read_by_their_published_columns(
    tmp_path: Path, columns: tuple[str, str], name: str
) -> None:
    values = ("A cat sat.\nIt slept.", "Cat sat .\nIt slept .")
    if name.endswith("csv"):
        path = write_csv(tmp_path / name, [["id", *columns], ["7", *values]])
    else:
        path = write_lines(tmp_path / name, [{"id": "7", **dict(zip(columns, values, strict=True))}])
    task = find_task("summarisation")
    (document,) = task.read(path).documents
    assert document.id == "7"
    request = asked(task, document)  # type: ignore[arg-type]
    assert request.prompt.question == f"Summarize the following article:\n\n{values[0]}\n\nSummary:"
    assert (request.params.stop, request.params.max_tokens) == (("\n\n",), 128)


def test_summaries_are_scored_by_rouge(tmp_path: Path) -> None:
    rows = [
        {"article": "x", "highlights": "the cat sat on the mat"},
        {"article": "y", "highlights": ["a dog ran", "the dog ran away"]},
        {"article": "z", "highlights": "nothing"},
    ]
    task: Any = find_task("summarisation")
    documents = task.read(write_lines(tmp_path / "test.jsonl", rows)).documents
    texts = [" the cat sat", "a dog ran away", ""]
    samples = samples_of(task, documents, texts)
    golds = [["the cat sat on the mat"], ["a dog ran", "the dog ran away"], ["nothing"]]
    expected = metrics.rouge([text.strip() for text in texts], golds)
    found = task.results(samples)
    assert list(found) == ["rouge1", "rouge2", "rougeL", "rougeLsum"]
    assert {name: (one.value, one.error) for name, one in found.items()} == {
        name: (one.value, pytest.approx(one.error)) for name, one in expected.items()
    }
    assert found["rouge2"].undefined == 1
    # Three words of six and of three: recall 1/2, precision 1.
    assert samples[0].outcome.values["rouge1"] == pytest.approx(2 / 3)
    assert (samples[2].outcome.values["rouge1"], samples[2].outcome.counts["empty"]) == (0, 1)


@pytest.mark.parametrize("flat", [False, True])
def test_a_translation_asks_as_lm_eval_and_goes_both_ways(tmp_path: Path, flat: bool) -> None:
    rows = [row["translation"] for row in PAIRS] if flat else PAIRS
    path = write_lines(tmp_path / "test.jsonl", rows)
    there, back = translation(), translation("de", "en=Broad English")
    documents = there.read(path).documents
    request = asked(there, documents[0])
    assert request.prompt.question == "English phrase: the cat sat on the mat\nGerman phrase:"
    assert request.params.stop == ("\n",)
    other = asked(back, back.read(path).documents[1])
    assert other.prompt.question == "German phrase: ein Hund lief weg\nBroad English phrase:"
    form = there.read(path).settings
    assert form["source language"] == "en=English"
    assert form["target language"] == "de=German"
    assert form["tokenize"] == "13a"


def test_translations_are_scored_as_a_corpus_and_each_alone(tmp_path: Path) -> None:
    task = translation()
    documents = task.read(write_lines(tmp_path / "test.jsonl", PAIRS)).documents
    texts = ["die Katze saß auf dem Sofa", "ein Hund lief weg"]
    samples = samples_of(task, documents, texts)
    golds = [[row["translation"]["de"]] for row in PAIRS]
    assert task.results(samples) == {"bleu": metrics.bleu(texts, golds), "chrf": metrics.chrf(texts, golds)}
    assert samples[1].outcome.values["bleu"] == pytest.approx(100)
    assert samples[0].outcome.values["bleu"] == metrics.sentence_bleu(texts[0], golds[0]).value


def test_several_samples_of_a_document_count_as_one_draw(tmp_path: Path) -> None:
    task = translation()
    documents = task.read(write_lines(tmp_path / "test.jsonl", PAIRS)).documents
    texts = [["die Katze", "ein Hund saß auf der Matte"], ["ein Hund lief", "Katze"]]
    samples = [
        Sample(document, task.outcome(document, [*written(two[0]), *written(two[1])]))
        for document, two in zip(documents, texts, strict=True)
    ]
    flat = [text for two in texts for text in two]
    golds = [[row["translation"]["de"]] for row in PAIRS for _ in range(2)]
    assert task.results(samples)["chrf"] == metrics.chrf(flat, golds, groups=[0, 0, 1, 1])


@pytest.mark.parametrize("code", ["zh", "zh-CN", "ZH_TW", "zho_Hans", "cmn"])
def test_languages_without_spaces_have_their_own_tokenizer(tmp_path: Path, code: str) -> None:
    rows = [{"translation": {"en": "I like cats", code: "我喜欢猫"}}]
    path = write_lines(tmp_path / "test.jsonl", rows)
    task = translation("en", f"{code}=Chinese")
    (document,) = task.read(path).documents
    (score,) = [task.results(samples_of(task, [document], ["我喜欢狗"]))["bleu"]]
    assert "tok:zh" in score.settings
    assert task.read(path).settings["tokenize"] == "zh"


@pytest.mark.parametrize(
    ("name", "row", "message"),
    [
        ("summarisation", {"article": "x"}, "row 1 needs a text .* and a summary .*; it has article"),
        ("summarisation", {"article": " ", "summary": "x"}, "row 1: what is summarised is empty"),
        ("translation", {"en": " ", "de": "x"}, "row 1: the text in en is empty"),
        ("summarisation", {"article": "x", "summary": " "}, "row 1: the summary is empty"),
        ("summarisation", {"article": "x", "summary": 3}, "the summary must be a text or a list of texts"),
        ("translation", {"translation": {"en": "a"}}, "row 1 has no text in de; it has en"),
        ("translation", {"translation": {"en": "a", "de": "\n"}}, "row 1: the text in de is empty"),
        ("translation", {"translation": "a"}, "translation must have texts by language, and is 'a'"),
        ("translation", {"en": ["a"], "de": "b"}, r"what is translated must be a text, and is \['a'\]"),
    ],
)
def test_a_row_that_cannot_be_asked_or_scored_is_an_error(
    tmp_path: Path, name: str, row: dict[str, Any], message: str
) -> None:
    path = write_lines(tmp_path / "test.jsonl", [row])
    task: Any = translation() if name == "translation" else find_task(name)
    with pytest.raises(ParameterError, match=message):
        task.read(path)


@pytest.mark.parametrize(
    ("source", "target", "message"),
    [
        ("en", None, "needs both --source-language and --target-language"),
        ("en", "deu_Latn", "there is no name for the language 'deu_Latn': write CODE=NAME"),
        (None, None, "needs --source-language and --target-language, such as en and de"),
    ],
)
def test_languages_that_are_not_said_are_an_error(
    tmp_path: Path, source: str | None, target: str | None, message: str
) -> None:
    with pytest.raises(ParameterError, match=message):
        translation(source, target).read(write_lines(tmp_path / "test.jsonl", PAIRS))


def test_languages_mean_nothing_to_other_tasks() -> None:
    task: Any = find_task("summarisation")
    with pytest.raises(ParameterError, match="summarisation takes no target_language"):
        varied(task, Variant(target_language="de"))


def test_a_run_writes_texts_and_scores_them_as_a_corpus(tmp_path: Path) -> None:
    letters = "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZß :\n"
    path = write_lines(tmp_path / "test.jsonl", PAIRS)
    model = characters(tmp_path / "model", letters)
    found = run(translation(max_tokens=6), model, data=path, out=tmp_path / "run")
    assert list(found.results) == ["bleu", "chrf"]
    assert "nrefs:1|case:mixed" in found.results["bleu"].settings
    line = json.loads((tmp_path / "run" / "samples.jsonl").read_text().splitlines()[0])
    assert line["gold"] == [PAIRS[0]["translation"]["de"]]
    assert line["details"]["texts"] == [line["predicted"]]


def stored(folder: Path, task: Task, documents: Sequence[Document], texts: Sequence[str]) -> StoredRun:
    """Writes the files of a run in which these texts were written."""
    form = {"tokenize": "13a"}
    said = {"task": task.name, "version": 1, "data": "d", "model": "m", "repeats": 1, "form": form}
    samples = samples_of(task, documents, texts)
    with RunFolder.opened(folder, said) as opened:
        assert opened is not None
        with opened.samples() as write:
            for one in samples:
                plain = {"values": dict(one.outcome.values), "gold": one.outcome.gold}
                names = {"id": one.document.id, "group": "", "predicted": one.outcome.predicted}
                write(json.dumps({**names, **plain}))
        opened.write_results(said, task.results(samples), {}, {}, Effort())
    return StoredRun.read(folder)


def test_runs_are_compared_by_scores_of_corpora(tmp_path: Path) -> None:
    rows = [*PAIRS, {"translation": {"en": "it rains", "de": "es regnet heute sehr stark"}}]
    task = translation()
    documents = task.read(write_lines(tmp_path / "test.jsonl", rows)).documents
    texts = (
        ["die Katze saß auf dem Sofa", "ein Hund lief weit weg", "es regnet heute stark"],
        ["die Katze saß auf der Matte", "ein Hund", "es regnet heute sehr"],
    )
    runs = [stored(tmp_path / name, task, documents, of) for name, of in zip("ab", texts, strict=True)]
    golds = [[row["translation"]["de"]] for row in rows]
    found = compare(*runs).metrics
    assert list(found) == ["bleu", "chrf"]
    assert found["bleu"].sampled == metrics.corpus_difference("bleu", *texts, golds)
    assert found["chrf"].sampled == metrics.corpus_difference("chrf", *texts, golds)


def test_the_worst_texts_of_a_report_have_the_least_values(tmp_path: Path) -> None:
    task = translation()
    documents = task.read(write_lines(tmp_path / "test.jsonl", PAIRS * 2)).documents
    texts = ["die Katze saß auf dem Sofa", "ein Hund lief weg", "die Katze", "ein Hund lief"]
    run_of = stored(tmp_path / "run", task, documents, texts)
    worst = [one.sample["predicted"] for one in worst_samples(run_of)]
    known = [row["translation"]["de"] for row in PAIRS * 2]
    values = [metrics.sentence_bleu(text, [one]).value or 0 for text, one in zip(texts, known, strict=True)]
    # The second text is its reference, and the last but one the shortest.
    assert worst == [texts[place] for place in sorted((0, 2, 3), key=values.__getitem__)]
    assert worst[0] == "die Katze"
