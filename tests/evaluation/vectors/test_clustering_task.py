from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from sklearn.metrics import v_measure_score

from decodery import ParameterError
from decodery.evaluation.tasks.vector_tasks import CLUSTERING
from tests.evaluation.vectors.fake_encoder import FakeEncoder, by_words, write_lines

SETS: list[dict[str, Any]] = [
    {"sentences": ["sun sun", "sun", "moon", "moon moon"], "labels": ["a", "a", "b", "b"]},
    {"sentences": ["sun", "sun rock", "moon rock", "moon rock"], "labels": ["a", "b", "a", "b"]},
    {"sentences": ["sun", "moon"], "labels": ["a", "a"]},
]


def encoder() -> FakeEncoder:
    return FakeEncoder(by_words("sun", "moon"))


def test_each_set_has_its_v_measure_and_one_with_a_single_label_has_none(tmp_path: Path) -> None:
    data = CLUSTERING.read(write_lines(tmp_path / "test.jsonl", SETS))
    found = CLUSTERING.evaluate(data, encoder(), seed=0)
    first, second, third = (one.outcome for one in found.samples)
    assert first.values["v_measure"] == 1
    expected = v_measure_score(SETS[1]["labels"], second.predicted)
    assert second.values["v_measure"] == pytest.approx(expected)
    assert third.values["v_measure"] is None
    score = found.results["v_measure"]
    assert (score.value, score.counted, score.undefined) == (pytest.approx((1 + expected) / 2), 2, 1)


def test_rows_of_one_text_are_one_set(tmp_path: Path) -> None:
    rows = [
        {"text": text, "label": number}
        for text, number in zip(SETS[0]["sentences"], (3, 3, 5, 5), strict=True)
    ]
    data = CLUSTERING.read(write_lines(tmp_path / "test.jsonl", rows))
    found = CLUSTERING.evaluate(data, encoder(), seed=0)
    assert len(found.samples) == 1
    assert found.results["v_measure"].value == 1


def test_the_same_seed_gives_the_same_groups(tmp_path: Path) -> None:
    texts = [f"{'sun ' * (i % 5)}{'moon ' * (i % 7)}" for i in range(40)]
    rows = [{"text": text, "label": i % 4} for i, text in enumerate(texts)]
    data = CLUSTERING.read(write_lines(tmp_path / "test.jsonl", rows))
    found = [CLUSTERING.evaluate(data, encoder(), seed=seed) for seed in (1, 1, 2)]
    assert found[0] == found[1] != found[2]


@pytest.mark.parametrize(
    ("rows", "message"),
    [
        ([{"text": "a", "label": -1}], "test.jsonl, line 1: labels is -1: the split has no labels"),
        (
            [{"sentences": ["a", "b"], "labels": ["a"]}],
            "line 1: labels must be a list with an entry for each",
        ),
        ([{"sentences": ["a"], "labels": ["a"]}, {"text": "a", "label": 1}], "line 2 is one text"),
        ([{"text": "a"}], "line 1 has no labels or label"),
        ([], "has no rows"),
    ],
)
def test_faulty_data_is_one_error(tmp_path: Path, rows: list[dict[str, Any]], message: str) -> None:
    with pytest.raises(ParameterError, match=message):
        CLUSTERING.read(write_lines(tmp_path / "test.jsonl", rows))
