from __future__ import annotations

import json
import random
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from decodery import ParameterError
from decodery.evaluation.tasks.vector_tasks import BANKING77, CLASSIFICATION
from decodery.evaluation.vectors.classification_task import drawn_examples
from tests.evaluation.vectors.fake_encoder import FakeEncoder, by_words, write_lines

LABELS = ("sun", "moon", "rock")


def rows(count: int, seed: int, noise: float = 0.0) -> list[dict[str, Any]]:
    """Returns texts that name their label, but for a share of `noise`."""
    rng = random.Random(seed)
    found = []
    for number in range(count):
        label = LABELS[number % 3]
        shown = rng.choice(LABELS) if rng.random() < noise else label
        found.append({"text": f"{shown} {rng.choice(LABELS)} {shown} {number}", "label": label})
    return found


def written(folder: Path, train: list[dict[str, Any]], test: list[dict[str, Any]]) -> Path:
    write_lines(folder / "train.jsonl", train)
    write_lines(folder / "test.jsonl", test)
    return folder


def test_texts_that_differ_are_told_apart_and_results_have_their_spread(tmp_path: Path) -> None:
    folder = written(tmp_path, rows(300, 0), rows(30, 1, noise=0.5))
    encoder = FakeEncoder(by_words(*LABELS))
    found = CLASSIFICATION.evaluate(CLASSIFICATION.read(folder), encoder, seed=0)
    values = [one.outcome.values["accuracy"] for one in found.samples]
    assert found.results["accuracy"].value == pytest.approx(np.mean(values))  # type: ignore[arg-type]
    assert 0.4 < np.mean(values) < 0.9  # type: ignore[arg-type]
    draws = np.array([one.outcome.details["draws"] for one in found.samples])
    gold = np.array([one.outcome.gold for one in found.samples])
    accuracies = (draws == gold[:, None]).mean(0)
    assert draws.shape == (30, 10)
    assert found.results["spread"].value == pytest.approx(accuracies.std(ddof=1))
    assert next(iter(found.results)) == "accuracy"
    # Only the examples that a draw needs are asked, each once: 10 draws have at most 240.
    assert len(encoder.asked) <= 240 + 30


def test_draws_have_eight_examples_of_each_label_and_differ() -> None:
    labels = [LABELS[number % 3] for number in range(60)] + ["rare"] * 3
    draws = drawn_examples(labels, 42)
    assert len(draws) == 10
    assert len({tuple(sorted(draw)) for draw in draws}) > 1
    for draw in draws:
        assert Counter(labels[place] for place in draw) == {**dict.fromkeys(LABELS, 8), "rare": 3}
    assert drawn_examples(labels, 42) == draws
    assert drawn_examples(labels, 43) != draws


def test_a_label_with_few_examples_is_named(tmp_path: Path) -> None:
    folder = written(tmp_path, [*rows(60, 0), {"text": "few", "label": "rare"}], rows(6, 1))
    found = CLASSIFICATION.evaluate(
        CLASSIFICATION.read(folder), FakeEncoder(by_words(*LABELS, "few")), seed=0
    )
    assert "fewer examples: rare" in found.results["accuracy"].settings


def test_the_original_archive_of_banking77_is_read(tmp_path: Path) -> None:
    folder = tmp_path / "banking_data"
    folder.mkdir()
    names = [f"intent_{number}" for number in range(77)]
    (folder / "categories.json").write_text(json.dumps(names))
    for split in ("train", "test"):
        lines = [f'"{name}, in {split}",{name}' for name in names]
        (folder / f"{split}.csv").write_text("text,category\n" + "\n".join(lines) + "\n")
    data = BANKING77.read(tmp_path)
    assert len(data.documents) == 77
    assert data.documents[3].fields == {"text": "intent_3, in test", "label": "intent_3"}
    (folder / "test.csv").write_text("text,category\nwhat,unknown\n")
    with pytest.raises(ParameterError, match=r"test.csv, row 1: the label unknown is not in categories.json"):
        BANKING77.read(tmp_path)


@pytest.mark.parametrize(
    ("train", "test", "message"),
    [
        (rows(9, 0), [{"text": "a", "label": -1}], "test.jsonl, row 1: label is -1: the split has no labels"),
        (rows(9, 0), [{"text": "a", "label": "new"}], "test.jsonl, row 1: the label new is not one of train"),
        (rows(9, 0), [{"text": "a"}], "row 1 has no label or category"),
        (rows(1, 0), rows(1, 0), "train has 1 label: two or more"),
        (rows(9, 0), [], "has no rows"),
    ],
)
def test_faulty_data_is_one_error(
    tmp_path: Path, train: list[dict[str, Any]], test: list[dict[str, Any]], message: str
) -> None:
    with pytest.raises(ParameterError, match=message):
        CLASSIFICATION.read(written(tmp_path, train, test))


def test_banking77_with_other_labels_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(ParameterError, match="train has 3 labels, and banking77 has 77"):
        BANKING77.read(written(tmp_path, rows(30, 0), rows(9, 1)))
