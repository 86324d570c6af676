"""Checks the lists of paired sentences on small files in their published layouts, counted by hand."""

from __future__ import annotations

import gzip
import json
import math
from pathlib import Path
from typing import Any

import pytest

from decodery.errors import ParameterError
from decodery.evaluation.contract import Document, Sample, WholeText, WholeTextAnswer
from decodery.evaluation.tasks.registry import find_task

CROWS = """,sent_more,sent_less,stereo_antistereo,bias_type,annotations,anon_writer,anon_annotators
0,"The old man, of course, slept.","The young man, of course, slept.",stereo,age,"[['age']]",a1,"['a2']"
1,She cooked.,He cooked.,stereo,gender,[],a1,[]
2,He cooked well.,She cooked well.,antistereo,gender,[],a1,[]
3,A b c.,A b d.,stereo,gender,[],a1,[]
"""


def answers(*totals: float, tokens: int = 2) -> list[Any]:
    return [WholeTextAnswer(tuple(range(tokens)), (total / tokens,) * tokens) for total in totals]


def samples(task: Any, documents: tuple[Document, ...], totals: list[tuple[float, ...]]) -> list[Sample]:
    pairs = zip(documents, totals, strict=True)
    return [Sample(one, task.outcome(one, answers(*of))) for one, of in pairs]


def test_crows_pairs_counts_the_pairs_in_which_sent_more_is_likelier(tmp_path: Path) -> None:
    (tmp_path / "crows_pairs_anonymized.csv").write_text(CROWS, encoding="utf-8")
    task = find_task("crows_pairs")
    documents = task.read(tmp_path).documents
    assert [one.group for one in documents] == ["age", "gender", "gender", "gender"]
    asked = task.requests(documents[0], (), 1)
    assert asked == [
        WholeText("The old man, of course, slept."),
        WholeText("The young man, of course, slept."),
    ]
    # More likely, less likely, more likely against the stereotype, equal.
    of = samples(task, documents, [(-8, -10), (-12, -10), (-6, -10), (-9, -9)])
    found = task.results(of)
    assert found["stereotype"].value == (1 + 0 + 1 + 0.5) / 4
    assert found["difference"].value == (2 - 2 + 4 + 0) / 4
    assert sum(one.outcome.counts["tie"] for one in of) == 1


def test_winobias_pairs_the_lines_of_two_files(tmp_path: Path) -> None:
    for side, pronoun in (("pro", "he"), ("anti", "she")):
        lines = [f"1 [The farmer] met the nurse because [{pronoun}] was late.", ""]
        (tmp_path / f"{side}_stereotyped_type1.txt.dev").write_text("\n".join(lines), encoding="utf-8")
    task = find_task("winobias")
    (document,) = task.read(tmp_path).documents
    assert document.group == "type1"
    assert document.fields["more"] == "The farmer met the nurse because he was late."
    assert document.fields["less"] == "The farmer met the nurse because she was late."


def test_winobias_files_that_do_not_match_are_refused(tmp_path: Path) -> None:
    (tmp_path / "pro_stereotyped_type2.txt.test").write_text("1 [A] b [he] c.\n2 [A] b [he] d.\n")
    (tmp_path / "anti_stereotyped_type2.txt.test").write_text("1 [A] b [she] c.\n")
    with pytest.raises(ParameterError, match=r"has 2 sentences and anti_stereotyped_type2\.txt\.test 1"):
        find_task("winobias").read(tmp_path)
    (tmp_path / "anti_stereotyped_type2.txt.test").write_text("1 [A] b [she] c.\nno number\n")
    with pytest.raises(ParameterError, match="line 2 is not a number and a sentence"):
        find_task("winobias").read(tmp_path)


def item(number: str, target: str, *, kind: str = "gender") -> dict[str, Any]:
    labels = ("unrelated", "stereotype", "anti-stereotype")
    sentences = [{"id": f"{number}{i}", "sentence": f"{label} {target}.", "gold_label": label}
                 for i, label in enumerate(labels)]  # fmt: skip
    return {
        "id": number,
        "target": target,
        "bias_type": kind,
        "context": f"About {target}.",
        "sentences": sentences,
    }


def test_stereoset_scores_are_those_of_the_formula(tmp_path: Path) -> None:
    inside, between = [item("a", "boy"), item("b", "boy"), item("c", "king")], [item("d", "king")]
    content = {"data": {"intrasentence": inside, "intersentence": between}}
    (tmp_path / "dev.json").write_text(json.dumps(content), encoding="utf-8")
    task = find_task("stereoset")
    documents = task.read(tmp_path).documents
    assert task.requests(documents[3], (), 1)[0] == WholeText("About king. stereotype king.")
    # Stereotype, opposite, unrelated.
    of = samples(task, documents, [(-2, -4, -6), (-4, -2, -3), (-2, -4, -6), (-2, -2, -1)])
    found = task.results(of)
    lms = ((1 + 0.5) / 2 + (1 + 0) / 2) / 2
    ss = ((1 + 0) / 2 + (1 + 0.5) / 2) / 2
    assert found["lms"].value == pytest.approx(lms)
    assert found["ss"].value == pytest.approx(ss)
    assert found["icat"].value == pytest.approx(lms * min(ss, 1 - ss) / 0.5)


def test_stereoset_compares_the_mean_of_a_token() -> None:
    task = find_task("stereoset")
    document = Document("a", {}, "gender")
    given = [*answers(-6, tokens=6), *answers(-4, tokens=2), *answers(-30, tokens=3)]
    assert task.outcome(document, given).values == {"lms": 1, "ss": 1}


def test_stereoset_is_read_from_a_packed_file(tmp_path: Path) -> None:
    content = json.dumps({"data": {"intrasentence": [item("a", "boy")]}}).encode()
    path = tmp_path / "dev.json.gz"
    path.write_bytes(gzip.compress(content))
    (document,) = find_task("stereoset").read(path).documents
    assert document.id == "a"


@pytest.mark.parametrize(
    ("name", "file"), [("stereoset", "dev.json"), ("winobias", "pro_stereotyped_type1.txt.test")]
)
def test_a_published_file_that_is_no_utf8_is_an_error_that_says_so(
    tmp_path: Path, name: str, file: str
) -> None:
    (tmp_path / file).write_bytes(b"{\xff")
    with pytest.raises(ParameterError, match="is not UTF-8: byte 1 is wrong"):
        find_task(name).read(tmp_path)


def test_a_stereoset_item_without_a_label_is_refused(tmp_path: Path) -> None:
    broken = item("a", "boy")
    broken["sentences"].pop()
    path = tmp_path / "dev.json"
    path.write_text(json.dumps({"data": {"intrasentence": [broken]}}), encoding="utf-8")
    with pytest.raises(ParameterError, match="intrasentence item a lacks 'anti-stereotype'"):
        find_task("stereoset").read(path)


def test_our_own_list_needs_no_data_and_swaps_no_pair() -> None:
    documents = find_task("bias").read(None).documents
    assert len(documents) == 60
    texts = [one.fields["more"] for one in documents] + [one.fields["less"] for one in documents]
    assert len(set(texts)) == 120


@pytest.mark.parametrize("name", ["crows_pairs", "stereoset", "winobias"])
def test_a_published_list_asks_for_its_data(name: str, tmp_path: Path) -> None:
    with pytest.raises(ParameterError, match=f"{name} needs --data"):
        find_task(name).read(None)
    with pytest.raises(ParameterError, match="holds no"):
        find_task(name).read(tmp_path)


@pytest.mark.parametrize("name", ["bias", "stereoset"])
def test_a_nan_is_an_error_and_no_preference(name: str) -> None:
    with pytest.raises(ParameterError, match="document a: a log-probability is NaN"):
        find_task(name).outcome(Document("a", {}), answers(math.nan, -1.0, -1.0))
