"""Checks the tasks of written answers and of whole texts on small files, counted by hand."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import pytest

from decodery import LLM
from decodery.errors import ParameterError
from decodery.evaluation import Subject, run
from decodery.evaluation.contract import (
    Continuation,
    ContinuationAnswer,
    Generation,
    Sample,
    WholeText,
    WholeTextAnswer,
)
from decodery.evaluation.tasks.registry import find_task
from decodery.evaluation.tasks.truthfulqa import EXAMPLES, true_mass
from tests.evaluation.tasks.test_choices_in_files import write_csv, write_lines
from tests.evaluation.tiny import TEMPLATE, characters, scored, written

# --- GSM8k

STEPS = "He sold 48/2 = <<48/2=24>>24 clips.\n#### 72"


@pytest.mark.parametrize(
    ("text", "strict", "flexible"),
    [
        ("is $29.00.", None, "29"),
        ("72 clips...", None, "72"),
        ("72, in total.", None, "72"),
        ("$70,000", None, "70000"),
        ("9{,}500", None, "9500"),
        (r"\boxed{8,000}", None, "8000"),
        ("10 000", None, "10000"),
        ("\u22125", None, "-5"),
        ("72.0", None, "72"),
        ("#### 18\n\nQuestion: .. #### 5", "18", "18"),
        ("#### $1,800.00", "1800", "1800"),
        ("####72 clips, not 80", "72", "72"),
        ("So 5.\n####\n7", None, "7"),
        ("no number", None, None),
        ("Question: again?\nAnswer: 3", None, "3"),
    ],
)
def test_gsm8k_reads_strict_and_flexible_answers(
    tmp_path: Path, text: str, strict: str | None, flexible: str | None
) -> None:
    task = find_task("gsm8k")
    file = write_lines(tmp_path / "test.jsonl", [{"question": "q", "answer": f"#### {flexible or 1}"}])
    outcome = task.outcome(task.read(file).documents[0], written(text))
    assert outcome.details["extracted"] == {"exact_match": [strict], "exact_match_flexible": [flexible]}
    assert outcome.values["exact_match_flexible"] == float(flexible is not None)
    assert outcome.values["exact_match"] == float(strict is not None)
    assert outcome.counts["unparsed (exact_match)"] == int(strict is None)


def test_gsm8k_shows_the_steps_and_stops_at_the_next_question(tmp_path: Path) -> None:
    rows = [{"question": "How many?", "answer": STEPS}]
    write_lines(tmp_path / "train.jsonl", [{"question": "And now?", "answer": STEPS}])
    write_lines(tmp_path / "test.jsonl", rows)
    task = find_task("gsm8k")
    data = task.read(tmp_path)
    (asked,) = task.requests(data.documents[0], data.pool(data.documents[0]), 1)
    assert isinstance(asked, Generation)
    assert asked.prompt.question == "Question: How many?\nAnswer:"
    assert asked.prompt.shots[0].answer == STEPS
    assert (asked.params.stop, asked.chat_stop, task.shots) == (("Question:",), (), 5)
    assert task.outcome(data.documents[0], written("#### 72.00")).values["exact_match"] == 1.0


# --- TruthfulQA

HUB = {
    "question": "What is it?",
    "mc1_targets": {"choices": ["True.", "False.", "Wrong."], "labels": [1, 0, 0]},
    "mc2_targets": {"choices": ["True.", "Right.", "False.", "Wrong."], "labels": [1, 1, 0, 0]},
}
PUBLISHED = {
    "question": "What is it?",
    "mc1_targets": {"True.": 1, "False.": 0, "Wrong.": 0},
    "mc2_targets": {"True.": 1, "Right.": 1, "False.": 0, "Wrong.": 0},
}
TABLE = [
    ["Type", "Category", "Question", "Best Answer", "Correct Answers", "Incorrect Answers", "Source"],
    ["Adversarial", "Misc", "What is it?", "True", "True; Right.", "False; Wrong; ", "https://x"],
]


def truth_files(tmp_path: Path) -> list[Path]:
    (tmp_path / "mc_task.json").write_text(json.dumps([PUBLISHED]), encoding="utf-8")
    return [
        write_lines(tmp_path / "hub" / "validation.jsonl", [HUB]),
        tmp_path / "mc_task.json",
        write_csv(tmp_path / "TruthfulQA.csv", TABLE),
    ]


@pytest.mark.parametrize("place", [0, 1, 2])
def test_truthfulqa_reads_three_layouts_alike(tmp_path: Path, place: int) -> None:
    task = find_task("truthfulqa")
    (document,) = task.read(truth_files(tmp_path)[place]).documents
    requests = task.requests(document, (), 1)
    asked = [one for one in requests if isinstance(one, Continuation)]
    assert [one.text for one in asked] == ["True.", "False.", "Wrong.", "Right."]
    prompt = asked[0].prompt
    assert (prompt.question, len(prompt.shots)) == ("Q: What is it?\nA:", len(EXAMPLES))
    # True 0.4, False 0.1, Wrong 0.2, Right 0.3.
    outcome = task.outcome(document, scored(*map(math.log, (0.4, 0.1, 0.2, 0.3))))
    assert outcome.values == {"mc1": 1.0, "mc2": pytest.approx(0.7)}
    # Right is the likeliest of all, and False that of MC1.
    outcome = task.outcome(document, scored(*map(math.log, (0.1, 0.2, 0.1, 0.6))))
    assert outcome.values == {"mc1": 0.0, "mc2": pytest.approx(0.7)}
    tie = task.outcome(document, scored(-1, -1, -2, -3))
    assert (tie.values["mc1"], tie.counts["tie"]) == (0.5, 1)
    assert next(iter(task.results([Sample(document, outcome)]))) == "mc2"


def test_mc2_of_very_unlikely_answers_is_computed_from_the_largest_on() -> None:
    assert true_mass([-800, -801], [1, 0]) == pytest.approx(0.7311, abs=1e-4)
    assert true_mass([-1, -1, -1, -1], [1, 1, 0, 0]) == pytest.approx(0.5)
    assert true_mass([-math.inf, -3], [1, 0]) == 0.0
    assert true_mass([-math.inf, -math.inf], [1, 0]) is None


def test_a_repeated_answer_counts_once(tmp_path: Path) -> None:
    twice = {"choices": ["True.", "True.", "False."], "labels": [1, 1, 0]}
    file = write_lines(tmp_path / "v.jsonl", [{**HUB, "mc2_targets": twice}])
    task = find_task("truthfulqa")
    (document,) = task.read(file).documents
    outcome = task.outcome(document, scored(*map(math.log, (0.5, 0.5, 0.1))))
    assert outcome.values["mc2"] == pytest.approx(0.5)


def test_in_the_letters_prompt_the_true_answer_has_no_fixed_place(tmp_path: Path) -> None:
    rows = [{**HUB, "question": f"What is {i}?"} for i in range(30)]
    task = find_task("truthfulqa_letters")
    data = task.read(write_lines(tmp_path / "v.jsonl", rows))
    golds = [task.outcome(one, scored(-1, -2, -3, ids=[[1], [2], [3]])).gold for one in data.documents]
    assert {gold[0] for gold in golds} == {0, 1, 2}
    again = task.read(tmp_path / "v.jsonl").documents
    assert [task.outcome(one, scored(-1, -2, -3, ids=[[1], [2], [3]])).gold for one in again] == golds


@pytest.mark.parametrize("labels", [[0, 0, 0], [1, 1, 1], [1, 0], [2, 0, 0], []])
def test_truthfulqa_refuses_labels_without_a_true_and_a_false_answer(
    tmp_path: Path, labels: list[int]
) -> None:
    targets = {"choices": ["a", "b", "c"], "labels": labels}
    file = write_lines(tmp_path / "v.jsonl", [{**HUB, "mc1_targets": targets}])
    with pytest.raises(ParameterError, match=r"v.jsonl, row 1: mc1_targets"):
        find_task("truthfulqa").read(file)


# --- LAMBADA


def test_lambada_scores_the_last_word_and_takes_the_likeliest_tokens_as_right(tmp_path: Path) -> None:
    file = write_lines(tmp_path / "test.jsonl", [{"text": "He said the last word"}, {"text": "one two\n"}])
    task = find_task("lambada")
    documents = task.read(file).documents
    (request,) = task.requests(documents[0], (), 1)
    assert isinstance(request, Continuation)
    assert (request.prompt.question, request.text) == ("He said the last", "word")
    answers = [
        ContinuationAnswer((1,), (2, 3), (-1.0, -1.0), True),
        ContinuationAnswer((1,), (2,), (-4.0,), False),
    ]
    samples = [Sample(d, task.outcome(d, [a])) for d, a in zip(documents, answers, strict=True)]
    results = task.results(samples)
    assert results["acc"].value == 0.5
    assert results["perplexity"].value == pytest.approx(math.exp(3))
    assert results["perplexity"].unit == "perplexity per last word"


def test_lambada_refuses_a_text_of_one_word(tmp_path: Path) -> None:
    with pytest.raises(ParameterError, match=r"row 1: the text has fewer than two words"):
        find_task("lambada").read(write_lines(tmp_path / "t.jsonl", [{"text": "word"}]))


# --- perplexity


def test_each_token_counts_once_and_bits_are_over_the_bytes_of_the_text(tmp_path: Path) -> None:
    for name, text in (("a.txt", "été là"), ("b.txt", "eight ok")):
        (tmp_path / name).write_text(text, encoding="utf-8")
    task = find_task("perplexity")
    documents = task.read(tmp_path).documents
    assert task.requests(documents[0], (), 1) == [WholeText("été là")]
    answers = [WholeTextAnswer((1, 2), (-2.0, -2.0)), WholeTextAnswer(tuple(range(8)), (-1.0,) * 8)]
    samples = [Sample(d, task.outcome(d, [a])) for d, a in zip(documents, answers, strict=True)]
    results = task.results(samples)
    # Nats 12 over 10 tokens, 4 words and 9 + 8 bytes.
    assert results["token_perplexity"].value == pytest.approx(3.3201, abs=1e-4)
    assert results["word_perplexity"].value == pytest.approx(math.exp(12 / 4))
    assert results["bits_per_byte"].value == pytest.approx(12 / 17 / math.log(2))
    assert next(iter(results)) == "bits_per_byte"


def test_a_text_file_is_scored_as_it_stands(tmp_path: Path) -> None:
    file = tmp_path / "a.txt"
    file.write_bytes(b"  two\r\n\r\nlines \n")
    (document,) = find_task("perplexity").read(file).documents
    assert document.fields["text"] == "  two\r\n\r\nlines \n"
    file.write_text("", encoding="utf-8")
    with pytest.raises(ParameterError, match=r"document a.txt: the text is empty"):
        find_task("perplexity").read(file)


def test_perplexity_of_a_file_does_not_depend_on_how_it_is_cut_into_files(tmp_path: Path) -> None:
    llm = characters(tmp_path / "model", "abcdefgh ", context=32)
    (tmp_path / "x.txt").write_text("abc def gh" * 12, encoding="utf-8")
    found = run("perplexity", llm, data=tmp_path / "x.txt")
    details = found.samples[0].outcome.details
    assert (details["tokens"], details["bytes"], details["words"]) == (120, 120, 25)
    bits, tokens = found.results["bits_per_byte"].value, found.results["token_perplexity"].value
    assert bits is not None
    assert tokens == pytest.approx(2**bits)
    with pytest.raises(ParameterError, match="shots"):
        run("perplexity", llm, data=tmp_path / "x.txt", shots=1)


# --- SQuAD


def test_squad_reads_the_published_file_and_the_hubs_columns(tmp_path: Path) -> None:
    asked = [
        {"id": "1", "question": "Who?", "answers": [{"text": "Ann Lee", "answer_start": 0}, {"text": "Ann"}]},
        {"id": "2", "question": "When?", "answers": [], "is_impossible": True},
    ]
    published = {
        "version": "2",
        "data": [{"title": "t", "paragraphs": [{"context": "Ann Lee ran.", "qas": asked}]}],
    }
    (tmp_path / "dev-v2.0.json").write_text(json.dumps(published), encoding="utf-8")
    hub = [
        {"id": one["id"], "context": "Ann Lee ran.", "question": one["question"], "answers": {"text": texts}}
        for one, texts in zip(asked, (["Ann Lee", "Ann"], []), strict=True)
    ]
    task = find_task("squad")
    documents = task.read(tmp_path / "dev-v2.0.json").documents
    assert documents == task.read(write_lines(tmp_path / "hub" / "validation.jsonl", hub)).documents
    outcome = task.outcome(documents[0], written(" the Ann.\nQuestion"))
    assert outcome.values == {"exact_match": 1.0, "f1": 1.0}
    half = task.outcome(documents[0], written("Lee Ann Smith"))
    assert half.values == {"exact_match": 0.0, "f1": pytest.approx(0.8)}
    assert task.outcome(documents[1], written("Unanswerable")).values["exact_match"] == 1.0


@pytest.mark.parametrize("content", [{}, {"data": [{}]}, {"data": 3}])
def test_squad_refuses_other_json(tmp_path: Path, content: Any) -> None:
    (tmp_path / "dev.json").write_text(json.dumps(content), encoding="utf-8")
    with pytest.raises(ParameterError, match=r"dev.json lacks"):
        find_task("squad").read(tmp_path / "dev.json")


# --- whole runs


@pytest.fixture(scope="module")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> LLM:
    alphabet = "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789 \n?:.,'()#<>=/+-*"
    return characters(tmp_path_factory.mktemp("tiny"), alphabet, template=TEMPLATE, context=2048)


@pytest.mark.parametrize("chat", [False, True])
def test_a_run_of_written_answers_reports_them(tiny: LLM, tmp_path: Path, chat: bool) -> None:
    rows = [{"question": f"What is {i}?", "answer": f"So.\n#### {i}"} for i in range(4)]
    file = write_lines(tmp_path / "test.jsonl", rows)
    found = run("gsm8k", Subject(tiny, chat=chat), data=file, shots=1, out=tmp_path / "run")
    assert list(found.results) == ["exact_match", "exact_match_flexible"]
    assert found.counts["unparsed (exact_match)"] <= 4
    lines = (tmp_path / "run" / "samples.jsonl").read_text(encoding="utf-8").splitlines()
    assert [json.loads(line)["gold"] for line in lines] == [["0"], ["1"], ["2"], ["3"]]
    assert found.settings["chat"] is chat
