"""Tests the commands for the heads of encoders."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path
from typing import Any

import pytest

from decodery import LLM
from tests.cli.conftest import Run
from tests.encoding.colbert_folders import colbert_folder
from tests.encoding.folders import encoder_folder
from tests.encoding.tasks.prompted.test_yes_no import reranker

BIO = ("O", "B-PER", "I-PER", "B-LOC", "I-LOC")
TEXTS = ["the dog sat", "angela merkel visited paris", "bank of the river, and money"]
FOLDERS: dict[str, tuple[str, dict[str, Any]]] = {
    "plain": ("BertModel", {}),
    "classes": ("BertForSequenceClassification", {"id2label": {0: "bad", 1: "good"}}),
    "score": ("BertForSequenceClassification", {"num_labels": 1}),
    "masked": ("BertForMaskedLM", {}),
    "tags": ("BertForTokenClassification", {"id2label": dict(enumerate(BIO))}),
    "spans": ("BertForQuestionAnswering", {}),
}


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    return {
        name: str(encoder_folder(tmp_path_factory.mktemp(name), architecture, **settings))
        for name, (architecture, settings) in FOLDERS.items()
    }


def read(out: str) -> list[dict[str, Any]]:
    return [json.loads(line) for line in out.splitlines()]


def stdin_of(*values: Any) -> bytes:
    """Returns lines of JSON, or lines of text."""
    lines = [value if isinstance(value, str) else json.dumps(value) for value in values]
    return "".join(line + "\n" for line in lines).encode()


def plain(result: Any) -> Any:
    return json.loads(json.dumps(dataclasses.asdict(result)))


def test_each_line_has_its_class(decodery: Run, folders: dict[str, str]) -> None:
    ran = decodery("classify", "-m", folders["classes"], stdin=stdin_of(*TEXTS))
    assert (ran.status, ran.err) == (0, "")
    for line, one in zip(read(ran.out), LLM(folders["classes"]).classify(TEXTS), strict=True):
        assert line == {name: value for name, value in plain(one).items() if name != "accuracy"}
    ran = decodery("classify", "-m", folders["classes"], "--top-k", "1", "--multi-label", "yes", stdin=b"dog")
    (line,) = read(ran.out)
    assert list(line["scores"]) == [line["label"]]


def test_lines_of_json_are_pairs(decodery: Run, folders: dict[str, str]) -> None:
    values = [["the dog", "a cat"], {"id": 3, "text": "the dog", "text_pair": "a cat"}, {"text": "the dog"}]
    ran = decodery("classify", "-m", folders["classes"], "--jsonl", stdin=stdin_of(*map(json.dumps, values)))
    llm = LLM(folders["classes"])
    found = read(ran.out)
    (pair,), (text,) = llm.classify(("the dog", "a cat")), llm.classify("the dog")
    assert [one["score"] for one in found] == [pair.score, pair.score, text.score]
    assert [one.get("id") for one in found] == [None, 3, None]


def test_labels_are_those_of_the_flag_or_of_examples(
    decodery: Run, folders: dict[str, str], tmp_path: Path
) -> None:
    pytest.importorskip("sklearn")
    ran = decodery("classify", "-m", folders["plain"], "--labels", "dog, city", stdin=stdin_of(*TEXTS))
    assert ran.status == 0
    right = LLM(folders["plain"]).classify(TEXTS, labels=["dog", "city"])
    assert [line["scores"] for line in read(ran.out)] == [dict(one.scores) for one in right]
    examples = tmp_path / "labelled.jsonl"
    pairs = [("the dog", "animal"), ("a dog sat", "animal"), ("paris", "city"), ("seattle", "city")]
    examples.write_bytes(stdin_of(*({"text": text, "label": label} for text, label in pairs)))
    ran = decodery("classify", "-m", folders["plain"], "--examples", str(examples), stdin=stdin_of(*TEXTS))
    learned = LLM(folders["plain"]).learn_labels(pairs)
    assert (
        ran.err == f"decodery: accuracy {learned.accuracy:.3f} in 2-fold cross-validation over 4 examples\n"
    )
    right = LLM(folders["plain"]).classify(TEXTS, examples=pairs)
    assert [line["label"] for line in read(ran.out)] == [one.label for one in right]
    examples.write_text('{"text": "the dog", "label": "animal"}\n{"text": "paris"}\n')
    ran = decodery("classify", "-m", folders["plain"], "--examples", str(examples), stdin=b"a")
    assert ran.status != 0
    assert f"line 2 of {examples}: there is no field 'label'" in ran.err


def test_masks_are_filled(decodery: Run, folders: dict[str, str]) -> None:
    ran = decodery(
        "fill-mask", "-m", folders["masked"], "--top-k", "2", stdin=b"the [MASK]\na [MASK] of [MASK]\n"
    )
    assert (ran.status, ran.err) == (0, "")
    right = LLM(folders["masked"]).fill_mask(["the [MASK]", "a [MASK] of [MASK]"], top_k=2)
    assert [line["masks"] for line in read(ran.out)] == [
        [[plain(fill) for fill in mask] for mask in masks] for masks in right
    ]
    ran = decodery("fill-mask", "-m", folders["masked"], "--targets", "dog,cat", stdin=b"the [MASK]")
    assert {fill["token"] for fill in read(ran.out)[0]["masks"][0]} == {"dog", "cat"}
    ran = decodery("fill-mask", "-m", folders["masked"], "--targets", "zzqx", stdin=b"the [MASK]\na [MASK]")
    assert ran.status == 2
    assert ran.err.startswith("decodery: target 'zzqx' has 4 tokens")


def test_spans_are_tagged(decodery: Run, folders: dict[str, str]) -> None:
    ran = decodery("tag", "-m", folders["tags"], stdin=stdin_of(*TEXTS))
    right = LLM(folders["tags"]).tag(TEXTS)
    assert [len(line["spans"]) for line in read(ran.out)] == [len(spans) for spans in right]
    for line, spans in zip(read(ran.out), right, strict=True):
        for one, span in zip(line["spans"], spans, strict=True):
            assert one == {name: value for name, value in plain(span).items() if value is not None}
    words = {"id": 1, "text": ["angela", "merkel"]}
    ran = decodery("tag", "-m", folders["tags"], "--jsonl", "--ignore", "", stdin=stdin_of(words))
    assert read(ran.out)[0]["spans"][0]["words"][0] == 0


def test_questions_are_answered(decodery: Run, folders: dict[str, str]) -> None:
    question = "who visited paris"
    ran = decodery(
        "answer", "-m", folders["spans"], "--question", question, "--top-k", "2", stdin=stdin_of(*TEXTS)
    )
    llm = LLM(folders["spans"])
    right = [[plain(one) for one in llm.answer(question, text, top_k=2)] for text in TEXTS]
    assert [line["answers"] for line in read(ran.out)] == right
    asked = [{"question": question, "context": text} for text in TEXTS]
    ran = decodery("answer", "-m", folders["spans"], "--top-k", "2", "--jsonl", stdin=stdin_of(*asked))
    assert [line["answers"] for line in read(ran.out)] == right
    ran = decodery(
        "answer", "-m", folders["spans"], "--no-answer", "-99", "--question", "who", stdin=b"paris"
    )
    assert read(ran.out)[0]["answers"][0]["text"] == ""


def test_documents_are_ordered(decodery: Run, folders: dict[str, str], tmp_path: Path) -> None:
    llm = LLM(folders["score"])
    right = [plain(one) for one in llm.rerank("who", TEXTS)]
    ran = decodery("rerank", "-m", folders["score"], "--query", "who", stdin=stdin_of(*TEXTS))
    assert read(ran.out) == right
    out = tmp_path / "out.jsonl"
    ran = decodery(
        *("rerank", "-m", folders["score"], "--query", "who", "--top-n", "2", "--out", str(out)),
        stdin=stdin_of(*TEXTS),
    )
    assert (ran.status, ran.out, read(out.read_text())) == (0, "", right[:2])
    lines = stdin_of({"query": "who", "documents": TEXTS}, {"query": "who", "documents": []})
    ran = decodery("rerank", "-m", folders["score"], "--jsonl", stdin=lines)
    assert read(ran.out) == [{"ranking": right}, {"ranking": []}]


def test_a_model_of_token_vectors_orders_documents(decodery: Run, tmp_path: Path) -> None:
    folder = str(colbert_folder(tmp_path / "colbert"))
    right = [plain(one) for one in LLM(folder).rerank("who", TEXTS)]
    ran = decodery("rerank", "-m", folder, "--query", "who", stdin=stdin_of(*TEXTS))
    assert read(ran.out) == right
    ran = decodery("rerank", "-m", folder, "--query", "who", stdin=stdin_of("dog", "cat " * 30))
    assert (ran.status, ran.out) == (1, "")
    assert "line 2 of the standard input: the text has 30 tokens, and 17 fit beside 3 others" in ran.err
    ran = decodery(
        "rerank", "-m", folder, "--query", "who", "--long", "cut", stdin=stdin_of("dog", "cat " * 30)
    )
    assert sorted(one["lost"] for one in read(ran.out)) == [0, 13]


WRONG: list[tuple[str, tuple[str, ...], bytes, str]] = [
    (
        "classify",
        ("classes",),
        b"dog\n" + b"dog " * 90,
        "line 2 of the standard input: the text has 90 tokens",
    ),
    ("classify", ("plain",), b"dog", "has no head of classes: give labels= or examples="),
    ("classify", ("plain", "--labels", "a,a"), b"dog\ncat", "decodery: labels must be one text or more"),
    ("classify", ("classes", "--multi-label", "maybe"), b"dog", "multi_label must be yes or no, not 'maybe'"),
    ("classify", ("classes", "--labels", "a,b"), b"dog", "names its classes bad, good: say which one"),
    ("fill-mask", ("masked",), b"the [MASK]\nthe dog", "line 2 of the standard input: the text has no mask"),
    ("fill-mask", ("tags",), b"the [MASK]", "has no head 'masked_lm'; it has token_classes"),
    ("tag", ("tags", "--merge", "best"), b"dog", "decodery: merge must be one of first"),
    ("answer", ("spans",), b"the dog", "a line must be JSON with question and context, or give --question"),
    (
        "answer",
        ("spans", "--question", "who"),
        b"dog\n\n",
        "line 2 of the standard input: the context has no word",
    ),
    ("answer", ("spans", "--no-answer", "x"), b"dog", "no_answer must be yes, no or a number, not 'x'"),
    ("rerank", ("score",), b"dog", "a line must be JSON with query and documents, or give --query"),
    ("rerank", ("classes", "--query", "who"), b"dog", "a head of 2 classes"),
    (
        "rerank",
        ("score", "--query", "who"),
        b"dog\n" + b"cat " * 90,
        "line 2 of the standard input: the text has 90",
    ),
]


@pytest.mark.parametrize(("command", "flags", "stdin", "message"), WRONG)
def test_an_error_is_one_line_that_names_its_place(
    decodery: Run, folders: dict[str, str], command: str, flags: tuple[str, ...], stdin: bytes, message: str
) -> None:
    ran = decodery(command, "-m", folders[flags[0]], *flags[1:], stdin=stdin)
    assert ran.status in (1, 2)
    assert message in ran.err
    assert ran.err.count("\n") == 1


def test_a_command_that_was_stopped_goes_on_where_it_was(
    decodery: Run, folders: dict[str, str], tmp_path: Path
) -> None:
    source, out = tmp_path / "in.txt", tmp_path / "out.jsonl"
    lines = [f"the dog sat {number}" for number in range(600)]
    source.write_text("\n".join([*lines, "dog " * 90]))
    arguments = ("classify", str(source), "-m", folders["classes"], "--out", str(out))
    ran = decodery(*arguments)
    assert ran.status == 1
    assert f"line 601 of {source}" in ran.err
    state = json.loads((tmp_path / "out.jsonl.part.json").read_text())
    assert state["done"] == 512
    source.write_text("\n".join(lines))
    assert decodery(*arguments, "--top-k", "1").status == 2
    assert decodery(*arguments).status == 0
    assert len(read(out.read_text())) == 600


@pytest.fixture(scope="module")
def judge(tmp_path_factory: pytest.TempPathFactory) -> str:
    return str(reranker(tmp_path_factory.mktemp("judge")))


def test_a_model_that_continues_texts_orders_lines(decodery: Run, judge: str) -> None:
    flags = ("--instruction", "Find", "--answers", "good,bad")
    ran = decodery("rerank", "-m", judge, "--query", "water", *flags, stdin=stdin_of(*TEXTS))
    assert (ran.status, ran.err) == (0, "")
    found = LLM(judge).rerank("water", TEXTS, instruction="Find", answers=("good", "bad"))
    assert read(ran.out) == [plain(one) for one in found]
    ran = decodery(
        "rerank", "-m", judge, "--jsonl", *flags, stdin=stdin_of({"query": "water", "documents": TEXTS})
    )
    assert read(ran.out) == [{"ranking": [plain(one) for one in found]}]


def test_a_model_that_continues_texts_classifies_lines(decodery: Run, judge: str) -> None:
    prompt = "{text} is {labels}?"
    ran = decodery(
        "classify", "-m", judge, "--labels", "good,bad", "--prompt", prompt, stdin=stdin_of(*TEXTS)
    )
    assert (ran.status, ran.err) == (0, "")
    found = LLM(judge).classify(TEXTS, labels=["good", "bad"], prompt=prompt)
    assert [line["logits"] for line in read(ran.out)] == [plain(one)["logits"] for one in found]


def test_a_model_that_continues_texts_embeds_lines_if_asked_how(decodery: Run, judge: str) -> None:
    ran = decodery("embed", "-m", judge, "--pooling", "last", stdin=stdin_of(*TEXTS))
    assert (ran.status, ran.err) == (0, "")
    assert len(read(ran.out)) == len(TEXTS)
    ran = decodery("embed", "-m", judge, stdin=stdin_of(*TEXTS))
    assert ran.status == 2
    assert 'pooling="last"' in ran.err
