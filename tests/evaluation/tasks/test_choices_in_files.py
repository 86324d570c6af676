"""Checks the tasks of choices on small files in their published layouts, counted by hand."""

from __future__ import annotations

import csv
import json
from pathlib import Path
from typing import Any

import pytest

from decodery.errors import ParameterError
from decodery.evaluation.contract import Continuation, Prompt, Sample, TaskData
from decodery.evaluation.tasks.registry import find_task
from decodery.evaluation.variant import Variant, varied
from tests.evaluation.tiny import scored


def write_lines(path: Path, rows: list[dict[str, Any]]) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows), encoding="utf-8")
    return path


def write_csv(path: Path, rows: list[list[Any]], delimiter: str = ",") -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("w", encoding="utf-8", newline="") as file:
        if delimiter == "\t":
            file.writelines("\t".join(map(str, row)) + "\n" for row in rows)
        else:
            csv.writer(file).writerows(rows)
    return path


def asked(task: Any, data: TaskData, place: int = 0, shots: int = 0) -> tuple[Prompt, list[str]]:
    """Returns the prompt of a document after the first shots of its pool, and the texts to compare."""
    document = data.documents[place]
    requests = task.requests(document, data.pool(document)[:shots], 1)
    assert all(isinstance(one, Continuation) for one in requests)
    return requests[0].prompt, [one.text for one in requests]


def text_of(prompt: Prompt) -> str:
    """Returns a prompt as a text, put together here."""
    shots = [f"{shot.question}{prompt.delimiter}{shot.answer}{prompt.separator}" for shot in prompt.shots]
    return prompt.description + "".join(shots) + prompt.question


# --- MMLU


def mmlu_archive(folder: Path) -> Path:
    for subject in ("abstract_algebra", "world_religions"):
        for split, rows in (("dev", 6), ("val", 1), ("test", 2)):
            write_csv(
                folder / split / f"{subject}_{split}.csv",
                [[f"{subject} {split} {i}?", "w", "x, y", "y", "z", "ABCD"[i % 4]] for i in range(rows)],
            )
    return folder


@pytest.mark.parametrize("given", ["data", "."])
def test_mmlu_reads_the_archive_with_subjects_as_groups_and_the_first_shots_of_dev(
    tmp_path: Path, given: str
) -> None:
    mmlu_archive(tmp_path / "data")
    task = find_task("mmlu")
    assert (task.shots, task.first_shots) == (5, True)
    data = task.read(tmp_path / given)
    assert [one.group for one in data.documents] == ["abstract_algebra"] * 2 + ["world_religions"] * 2
    assert [one.fields["gold"] for one in data.documents] == [0, 1, 0, 1]
    document = data.documents[2]
    assert {shot.group for shot in data.pool(document)} == {"world_religions"}
    prompt, texts = asked(task, data, 2, shots=1)
    assert texts == ["A", "B", "C", "D"]
    assert text_of(prompt) == (
        "The following are multiple choice questions (with answers) about world religions.\n\n"
        "world_religions dev 0?\nA. w\nB. x, y\nC. y\nD. z\nAnswer: A\n\n"
        "world_religions test 0?\nA. w\nB. x, y\nC. y\nD. z\nAnswer:"
    )
    assert len(varied(task, Variant(split="validation")).read(tmp_path / given).documents) == 2


def test_mmlu_reads_the_hubs_columns_in_one_file_or_in_a_folder_for_each_subject(tmp_path: Path) -> None:
    rows = [
        {"question": f"q{i}", "choices": ["1", "2", "3", "4"], "answer": 2 + i, "subject": subject}
        for i, subject in enumerate(("law", "art"))
    ]
    write_lines(tmp_path / "all" / "test.jsonl", rows)
    write_lines(tmp_path / "all" / "dev.jsonl", [{**row, "question": "d"} for row in rows])
    data = find_task("mmlu").read(tmp_path / "all")
    assert [(one.group, one.fields["gold"]) for one in data.documents] == [("law", 2), ("art", 3)]
    assert [[shot.group for shot in data.pool(one)] for one in data.documents] == [["law"], ["art"]]
    write_lines(tmp_path / "each" / "law" / "test-00000-of-00001.jsonl", rows[:1])
    write_lines(tmp_path / "each" / "art" / "test-00000-of-00001.jsonl", rows[1:])
    data = find_task("mmlu").read(tmp_path / "each")
    assert [one.group for one in data.documents] == ["art", "law"]
    assert len({one.id for one in data.documents}) == 2


@pytest.mark.parametrize("answer", ["E", "", "-1", "4", "AB"])
def test_mmlu_refuses_an_answer_that_is_no_option(tmp_path: Path, answer: str) -> None:
    write_csv(tmp_path / "test" / "law_test.csv", [["q", "w", "x", "y", "z", answer]])
    with pytest.raises(ParameterError, match=r"law_test.csv, row 1: the answer .* is not one of 4 options"):
        find_task("mmlu").read(tmp_path)


def test_mmlu_names_the_line_with_other_columns(tmp_path: Path) -> None:
    write_csv(tmp_path / "test" / "law_test.csv", [["q", "w", "x", "y", "z", "A"], ["q", "w", "x", "A"]])
    with pytest.raises(ParameterError, match=r"law_test.csv, line 2 has 4 columns in place of 6"):
        find_task("mmlu").read(tmp_path)


# --- ARC

ARC_ROW = {"id": "M1", "question": "Why?", "choices": {"text": ["a", "b", "c"], "label": ["1", "2", "3"]}}


def original(row: dict[str, Any], answer: str) -> dict[str, Any]:
    pairs = zip(row["choices"]["text"], row["choices"]["label"], strict=True)
    listed = [{"text": text, "label": label} for text, label in pairs]
    return {"id": row["id"], "question": {"stem": row["question"], "choices": listed}, "answerKey": answer}


def test_arc_reads_the_archive_and_the_hubs_columns_alike(tmp_path: Path) -> None:
    for part in ("Challenge", "Easy"):
        for split in ("Train", "Dev", "Test"):
            row = original({**ARC_ROW, "id": f"{part}{split}"}, "3")
            write_lines(tmp_path / f"ARC-{part}" / f"ARC-{part}-{split}.jsonl", [row])
    for name, folder, ids in (
        ("arc_challenge", tmp_path, ["ChallengeTest"]),
        ("arc_easy", tmp_path, ["EasyTest"]),
        ("arc_easy", tmp_path / "ARC-Easy", ["EasyTest"]),
        ("arc", tmp_path, ["ChallengeTest", "EasyTest"]),
    ):
        task = find_task(name)
        data = task.read(folder)
        assert [one.id for one in data.documents] == ids
        assert [shot.id for shot in data.pool(data.documents[-1])] == [f"{ids[-1][:-4]}Train"]
        prompt, texts = asked(task, data)
        assert (prompt.question, texts) == ("Question: Why?\nAnswer:", ["a", "b", "c"])
    hub = write_lines(tmp_path / "hub" / "test.jsonl", [{**ARC_ROW, "answerKey": "3"}])
    fields = find_task("arc").read(hub.parent).documents[0].fields
    assert fields == {"question": "Why?", "options": ["a", "b", "c"], "gold": 2}


def test_arc_options_with_numbers_are_lettered_again(tmp_path: Path) -> None:
    file = write_lines(tmp_path / "test.jsonl", [{**ARC_ROW, "answerKey": "2"}])
    task = varied(find_task("arc"), Variant(options="letters"))
    prompt, texts = asked(task, task.read(file))
    assert prompt.question == "Question: Why?\nA. a\nB. b\nC. c\nAnswer:"
    assert texts == ["A", "B", "C"]
    outcome = task.outcome(task.read(file).documents[0], scored(-2, -1, -3, ids=[[1], [2], [3]]))
    assert (outcome.gold, outcome.predicted) == ([1], 1)


@pytest.mark.parametrize("key", ["", "D", "4", None])
def test_arc_refuses_a_key_that_is_no_label(tmp_path: Path, key: str | None) -> None:
    file = write_lines(tmp_path / "test.jsonl", [{**ARC_ROW, "answerKey": key}])
    with pytest.raises(ParameterError, match=r"test.jsonl, row 1"):
        find_task("arc").read(file)


# --- HellaSwag

SWAG = {
    "ind": 4,
    "activity_label": "Baking",
    "ctx_a": "A man is in a kitchen.",
    "ctx_b": "he",
    "ctx": "A man is in a kitchen. he",
    "endings": ["bakes [substeps] a cake.", "sings [title] Loudly.", "runs.", "waits."],
    "label": 0,
    "source_id": "x",
}


@pytest.mark.parametrize(("file", "label"), [("hellaswag_val.jsonl", 1), ("validation.jsonl", "1")])
def test_hellaswag_reads_both_layouts_without_the_marks_of_wikihow(
    tmp_path: Path, file: str, label: Any
) -> None:
    write_lines(tmp_path / file, [{**SWAG, "label": label}])
    write_lines(tmp_path / file.replace("val.", "train.").replace("validation", "train"), [SWAG])
    task = find_task("hellaswag")
    data = task.read(tmp_path)
    prompt, texts = asked(task, data, shots=1)
    question = "Baking: A man is in a kitchen. He"
    assert text_of(prompt) == f"{question} bakes a cake.\n\n{question}"
    assert texts == ["bakes a cake.", "sings. Loudly.", "runs.", "waits."]
    outcome = task.outcome(data.documents[0], scored(-14, -14, -9, -9.5))
    # By characters: -14 / 13, -14 / 14, -9 / 5, -9.5 / 6.
    assert (outcome.values["acc"], outcome.values["acc_norm"], outcome.gold) == (0.0, 1.0, [1])
    results = task.results([Sample(data.documents[0], outcome)])
    assert next(iter(results)) == "acc_norm"


def test_hellaswag_without_labels_is_an_error(tmp_path: Path) -> None:
    file = write_lines(tmp_path / "hellaswag_test.jsonl", [{**SWAG, "label": ""}])
    with pytest.raises(ParameterError, match="row 1: the label is '': the split has no labels"):
        find_task("hellaswag").read(file)


# --- WinoGrande

GRANDE = {
    "qID": "A1-1",
    "sentence": "Ann thanked Bea because _ was kind.",
    "option1": "Ann",
    "option2": "Bea",
}


def test_winogrande_scores_the_rest_of_the_sentence_after_each_name(tmp_path: Path) -> None:
    write_lines(tmp_path / "dev.jsonl", [{**GRANDE, "answer": "2"}])
    write_lines(tmp_path / "train_xl.jsonl", [{**GRANDE, "sentence": "_'s dog", "answer": "1", "qID": "B"}])
    task = find_task("winogrande")
    data = task.read(tmp_path)
    requests = task.requests(data.documents[0], data.pool(data.documents[0]), 1)
    assert [(text_of(one.prompt), one.text) for one in requests if isinstance(one, Continuation)] == [
        ("Ann's dog\n\nAnn thanked Bea because Ann", " was kind."),
        ("Ann's dog\n\nAnn thanked Bea because Bea", " was kind."),
    ]
    outcome = task.outcome(data.documents[0], scored(-5, -4))
    assert (outcome.values, outcome.predicted, outcome.gold) == ({"acc": 1.0}, 1, [1])


def test_winogrande_with_letters_shows_the_names(tmp_path: Path) -> None:
    file = write_lines(tmp_path / "dev.jsonl", [{**GRANDE, "answer": "2"}])
    task = varied(find_task("winogrande"), Variant(options="letters"))
    prompt, texts = asked(task, task.read(file))
    assert (prompt.question, texts) == (GRANDE["sentence"] + "\nA. Ann\nB. Bea\nAnswer:", ["A", "B"])


@pytest.mark.parametrize(
    ("changed", "said"),
    [
        ({"answer": ""}, "no labels"),
        ({"answer": "3"}, "not 1 or 2"),
        ({"answer": "1", "sentence": "No gap."}, "has no gap"),
        ({"answer": "1", "sentence": "The end is _"}, "has no gap _ with text after it"),
    ],
)
def test_winogrande_refuses_rows_that_cannot_be_scored(
    tmp_path: Path, changed: dict[str, Any], said: str
) -> None:
    file = write_lines(tmp_path / "dev.jsonl", [{**GRANDE, **changed}])
    with pytest.raises(ParameterError, match=f"document A1-1: .*{said}"):
        find_task("winogrande").read(file)


# --- GLUE

GLUE = {
    "cola": ({"sentence": "s"}, "s\nQuestion: Does this sentence make sense?\nAnswer:", ["no", "yes"]),
    "sst2": (
        {"sentence": "s"},
        "s\nQuestion: Is this sentence positive or negative?\nAnswer:",
        ["negative", "positive"],
    ),
    "mrpc": (
        {"sentence1": "s", "sentence2": "t"},
        "Sentence 1: s\nSentence 2: t\nQuestion: Do both sentences mean the same thing?\nAnswer:",
        ["no", "yes"],
    ),
    "qqp": (
        {"question1": "s", "question2": "t"},
        "Question 1: s\nQuestion 2: t\nQuestion: Do both questions ask the same thing?\nAnswer:",
        ["no", "yes"],
    ),
    "mnli": (
        {"premise": "s", "hypothesis": "t"},
        "s\nQuestion: t. True, False or Neither?\nAnswer:",
        ["True", "Neither", "False"],
    ),
    "qnli": (
        {"question": "s", "sentence": "t"},
        "s\nt\nQuestion: Does this response answer the question?\nAnswer:",
        ["yes", "no"],
    ),
    "rte": (
        {"sentence1": "s", "sentence2": "t"},
        "s\nQuestion: t True or False?\nAnswer:",
        ["True", "False"],
    ),
    "wnli": (
        {"sentence1": "s", "sentence2": "t"},
        "s\nQuestion: t True or False?\nAnswer:",
        ["False", "True"],
    ),
}


@pytest.mark.parametrize("name", GLUE)
def test_glue_asks_each_task_as_a_question_and_refuses_unlabelled_splits(tmp_path: Path, name: str) -> None:
    columns, question, options = GLUE[name]
    write_lines(tmp_path / name / "validation.jsonl", [{"idx": 0, "label": 1, **columns}])
    write_lines(tmp_path / name / "test.jsonl", [{"idx": 0, "label": -1, **columns}])
    task = find_task(f"glue_{name}")
    for folder in (tmp_path, tmp_path / name):
        data = task.read(folder)
        prompt, texts = asked(task, data)
        assert (prompt.question, texts) == (question, options)
    with pytest.raises(ParameterError, match=r"test.jsonl, row 1: the label is -1: the split has no labels"):
        varied(task, Variant(split="test")).read(tmp_path)


def test_glue_reads_the_original_tables(tmp_path: Path) -> None:
    write_csv(
        tmp_path / "CoLA" / "dev.tsv", [["gj04", 1, "", "It's \"here."], ["gj04", 0, "*", "Here it"]], "\t"
    )
    write_csv(
        tmp_path / "RTE" / "dev.tsv",
        [["index", "sentence1", "sentence2", "label"], [0, "s", "t", "not_entailment"]],
        "\t",
    )
    write_csv(
        tmp_path / "MRPC" / "dev.tsv",
        [["Quality", "#1 ID", "#2 ID", "#1 String", "#2 String"], [1, 2, 3, "s", "t"]],
        "\t",
    )
    cola = find_task("glue_cola").read(tmp_path).documents
    assert [(one.fields["sentence"], one.fields["label"]) for one in cola] == [
        ("It's \"here.", 1),
        ("Here it", 0),
    ]
    rte = find_task("glue_rte")
    assert rte.outcome(rte.read(tmp_path).documents[0], scored(-1, -2)).gold == [1]
    mrpc = find_task("glue_mrpc")
    assert asked(mrpc, mrpc.read(tmp_path))[0].question.startswith("Sentence 1: s\nSentence 2: t\n")


def glue_samples(
    tmp_path: Path, name: str, labels: list[Any], answers: list[Any]
) -> tuple[Any, list[Sample]]:
    columns = {"sentence": "s", "sentence1": "s", "sentence2": "t"}
    file = write_lines(tmp_path / "v.jsonl", [{"label": label, **columns} for label in labels])
    task = find_task(f"glue_{name}")
    documents = task.read(file).documents
    return task, [
        Sample(one, task.outcome(one, given)) for one, given in zip(documents, answers, strict=True)
    ]


NO, YES = scored(-1, -2), scored(-2, -1)


def test_cola_is_measured_by_matthews_and_mrpc_by_f1_of_the_same(tmp_path: Path) -> None:
    task, samples = glue_samples(tmp_path, "cola", [1, 1, 1, 0], [YES, YES, NO, NO])
    results = task.results(samples)
    # TP 2, TN 1, FN 1, FP 0: 2 / sqrt(2 * 3 * 1 * 2).
    assert results["mcc"].value == pytest.approx(2 / 12**0.5)
    assert results["acc"].value == 0.75
    assert next(iter(results)) == "mcc"
    task, samples = glue_samples(tmp_path, "mrpc", [1, 1, 1, 0], [YES, YES, NO, NO])
    assert task.results(samples)["f1"].value == pytest.approx(4 / 5)
    task, samples = glue_samples(tmp_path, "cola", [1, 0], [YES, YES])
    assert task.results(samples)["mcc"].value is None


def test_stsb_correlates_the_expected_score_with_the_label(tmp_path: Path) -> None:
    places = [0, 2, 5]
    answers = [scored(*[0.0 if i == place else -50 for i in range(6)]) for place in places]
    task, samples = glue_samples(tmp_path, "stsb", [0.2, 2.5, 4.8], answers)
    results = task.results(samples)
    assert results["spearman"].value == pytest.approx(1.0)
    assert results["pearson"].value == pytest.approx(11.5 / (10.58 * 38 / 3) ** 0.5)
    task, samples = glue_samples(tmp_path, "stsb", [0.2, 2.5, 4.8], [answers[0]] * 3)
    assert task.results(samples)["pearson"].value is None


# --- faults that all have


ROWS: dict[str, dict[str, Any]] = {
    "arc": {**ARC_ROW, "answerKey": "1"},
    "hellaswag": SWAG,
    "winogrande": {**GRANDE, "answer": "1"},
    "mmlu": {"question": "q", "choices": ["a", "b"], "answer": 0},
    "glue_sst2": {"sentence": "s", "label": 1},
    "gsm8k": {"question": "q", "answer": "#### 1"},
    "truthfulqa": {
        "question": "q",
        "mc1_targets": {"choices": ["a", "b"], "labels": [1, 0]},
        "mc2_targets": {"choices": ["a", "b"], "labels": [1, 0]},
    },
    "lambada": {"text": "one two"},
    "squad": {"context": "c", "question": "q", "answers": {"text": ["a"]}},
    "perplexity": {"text": "one two"},
}
NEEDED = {
    "arc": ["question", "choices", "answerKey"],
    "hellaswag": ["ctx_a", "ctx_b", "endings", "label"],
    "winogrande": ["sentence", "option1", "answer"],
    "mmlu": ["question", "choices", "answer"],
    "glue_sst2": ["sentence", "label"],
    "gsm8k": ["question", "answer"],
    "truthfulqa": ["question", "mc1_targets", "mc2_targets"],
    "lambada": ["text"],
    "squad": ["context", "question", "answers"],
    "perplexity": ["text"],
}


@pytest.mark.parametrize(("name", "column"), [(name, one) for name in NEEDED for one in NEEDED[name]])
def test_a_missing_column_is_an_error_with_file_and_row(tmp_path: Path, name: str, column: str) -> None:
    row = ROWS[name]
    file = write_lines(tmp_path / "rows.jsonl", [row, {k: v for k, v in row.items() if k != column}])
    with pytest.raises(ParameterError, match=r"rows.jsonl, row 2"):
        find_task(name).read(file)


@pytest.mark.parametrize("name", ROWS)
def test_an_empty_file_a_broken_line_and_no_file_are_errors_that_name_it(tmp_path: Path, name: str) -> None:
    task = find_task(name)
    file = tmp_path / "rows.jsonl"
    file.write_text("", encoding="utf-8")
    with pytest.raises(ParameterError, match=r"rows.jsonl has no rows"):
        task.read(file)
    file.write_text(json.dumps(ROWS[name]) + '\n{"a": \n', encoding="utf-8")
    with pytest.raises(ParameterError, match=r"rows.jsonl, line 2 is not JSON"):
        task.read(file)
    file.write_bytes(b"\xff\xfe\xfd")
    with pytest.raises(ParameterError, match=r"rows.jsonl is not UTF-8"):
        task.read(file)
    with pytest.raises(ParameterError, match="does not exist"):
        task.read(tmp_path / "nothing")
    (tmp_path / "empty").mkdir()
    with pytest.raises(ParameterError, match="empty has no file"):
        task.read(tmp_path / "empty")
    with pytest.raises(ParameterError, match="--data"):
        task.read(None)


@pytest.mark.parametrize("name", ROWS)
def test_a_split_is_read_where_it_is_asked_for(tmp_path: Path, name: str) -> None:
    write_lines(tmp_path / "special.jsonl", [ROWS[name], ROWS[name]])
    write_lines(tmp_path / "validation.jsonl", [ROWS[name]])
    task = varied(find_task(name), Variant(split="special"))
    assert len(task.read(tmp_path).documents) == 2
    with pytest.raises(ParameterError, match=r"is a file: --split special needs a folder"):
        task.read(tmp_path / "special.jsonl")


@pytest.mark.parametrize("name", ROWS)
def test_documents_of_one_file_have_different_ids(tmp_path: Path, name: str) -> None:
    rows = [{k: v for k, v in ROWS[name].items() if k not in ("id", "qID")}] * 3
    data = find_task(name).read(write_lines(tmp_path / "rows.jsonl", rows))
    assert len({one.id for one in data.documents}) == 3
