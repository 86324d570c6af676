from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from scipy import stats

from decodery import ParameterError
from decodery.evaluation.tasks.vector_tasks import STSB
from decodery.evaluation.vectors.similarity_task import cosines_of_pairs
from tests.evaluation.vectors.fake_encoder import FakeEncoder, by_words, write_lines

ROWS: list[dict[str, Any]] = [
    {"sentence1": "sun sun", "sentence2": "sun", "score": 5},
    {"sentence1": "sun moon", "sentence2": "sun", "score": 3.2},
    {"sentence1": "sun", "sentence2": "moon", "score": 0},
    {"sentence1": "moon moon sun", "sentence2": "moon...", "score": 1.5},
]


def test_results_are_the_correlations_of_cosines_and_scores(tmp_path: Path) -> None:
    data = STSB.read(write_lines(tmp_path / "test.jsonl", ROWS))
    encoder = FakeEncoder(by_words("sun", "moon"))
    found = STSB.evaluate(data, encoder, seed=0)
    # The last second sentence has neither of the words, so that its vector is zero.
    cosines = [1.0, 2**-0.5, 0.0]
    assert [one.outcome.values["cosine"] for one in found.samples] == [*map(pytest.approx, cosines), None]
    scores = [5, 3.2, 0]
    assert list(found.results) == ["cosine_spearman", "cosine_pearson"]
    assert found.results["cosine_spearman"].value == pytest.approx(stats.spearmanr(cosines, scores)[0])
    assert found.results["cosine_pearson"].value == pytest.approx(stats.pearsonr(cosines, scores)[0])
    assert found.results["cosine_pearson"].undefined == 1
    assert found.samples[3].outcome.why == "a vector is zero"
    assert [one.outcome.counts["cut"] for one in found.samples] == [0, 0, 0, 1]
    assert {role for _, role in encoder.asked} == {"text"}


def test_equal_cosines_have_no_correlation(tmp_path: Path) -> None:
    data = STSB.read(write_lines(tmp_path / "test.jsonl", ROWS))
    found = STSB.evaluate(data, FakeEncoder(lambda text, role: [1, 2]), seed=0)
    assert [score.value for score in found.results.values()] == [None, None]


def test_every_published_layout_gives_the_same_pairs(tmp_path: Path) -> None:
    expected = [(row["sentence1"], row["sentence2"], float(row["score"])) for row in ROWS]
    lines = [f"{a}\t{b}\t{c}" for a, b, c in expected]
    glue = tmp_path / "glue"
    glue.mkdir()
    (glue / "dev.tsv").write_text("sentence1\tsentence2\tscore\n" + "\n".join(lines) + "\n")
    original = tmp_path / "original"
    original.mkdir()
    more = [f"news\tfile\t2012\t{i}\t{c}\t{a}\t{b}\tlicence" for i, (a, b, c) in enumerate(expected)]
    (original / "sts-test.csv").write_text("\n".join(more) + "\n")
    hub = write_lines(tmp_path / "hub" / "test-00000.jsonl", ROWS).parent
    labelled = [{**row, "label": row["score"], "score": None} for row in ROWS]
    label = write_lines(tmp_path / "label" / "validation.jsonl", labelled).parent
    for folder in (glue, original, hub, label):
        documents = STSB.read(folder).documents
        assert [(*one.fields["sentences"], one.fields["score"]) for one in documents] == expected, folder


@pytest.mark.parametrize(
    ("row", "message"),
    [
        (
            {"sentence1": "a", "sentence2": "b", "score": -1},
            "test.jsonl, row 2: the score -1.0 is not .* no scores",
        ),
        ({"sentence1": "a", "sentence2": "b", "score": 5.5}, "row 2: the score 5.5 is not from 0 to 5$"),
        ({"sentence1": "a", "sentence2": "b", "score": "high"}, "row 2: score is no number: 'high'"),
        ({"sentence1": "a", "sentence2": "b", "score": float("nan")}, "row 2: score is no number"),
        ({"sentence1": "a", "sentence2": "b"}, "row 2 has no score or label; it has sentence1, sentence2"),
        ({"sentence1": "a", "score": 1}, "row 2 has no sentence2"),
        ({"sentence1": "a", "sentence2": 3, "score": 1}, "row 2: sentence2 is no text"),
    ],
)
def test_a_faulty_row_is_one_error_with_its_place(tmp_path: Path, row: dict[str, Any], message: str) -> None:
    path = write_lines(tmp_path / "test.jsonl", [ROWS[0], row])
    with pytest.raises(ParameterError, match=message):
        STSB.read(path)


def test_a_published_table_that_is_no_utf8_is_an_error(tmp_path: Path) -> None:
    (tmp_path / "sts-test.csv").write_bytes(b"a\xff")
    with pytest.raises(ParameterError, match="is not UTF-8: byte 1 is wrong"):
        STSB.read(tmp_path / "sts-test.csv")


def test_missing_data_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(ParameterError, match="stsb needs --data"):
        STSB.read(None)
    with pytest.raises(ParameterError, match="does not exist"):
        STSB.read(tmp_path / "missing")
    with pytest.raises(ParameterError, match="has no file test, dev or validation"):
        STSB.read(tmp_path)
    with pytest.raises(ParameterError, match="has no rows"):
        STSB.read(write_lines(tmp_path / "test.jsonl", []))


def test_a_cosine_does_not_depend_on_lengths() -> None:
    rng = np.random.default_rng(0)
    one, other = rng.normal(size=(2, 5, 8)).astype(np.float32)
    expected = cosines_of_pairs(one, other)
    assert cosines_of_pairs(one * 1e-18, other * 1e15) == pytest.approx(expected, rel=1e-5)
