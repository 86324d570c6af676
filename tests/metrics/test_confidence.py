"""Tests the expected calibration error and the Brier score."""

from __future__ import annotations

import math
import random
from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest

from decodery.errors import ParameterError
from decodery.metrics import brier, brier_multiclass, calibration


def drawn() -> Iterator[tuple[list[float], list[bool], int]]:
    """Yields 200 lists of confidences, also at the edges of bins, with outcomes and a number of bins."""
    for seed in range(200):
        draw = random.Random(seed)
        bins = draw.choice([1, 5, 10, 15])
        samples = draw.randint(1, 60)
        values = [draw.choice([draw.random(), draw.randint(0, bins) / bins]) for _ in range(samples)]
        yield values, [draw.random() < value for value in values], bins


@pytest.mark.parametrize(
    ("confidences", "right", "expected"),
    [
        ([0, 0, 1, 1], [True] * 4, 0.5),  # The first bin holds 0.
        ([0.95, 1.0], [True, False], 0.475),  # The last one holds 1, in no bin of its own.
        ([0.9] * 9 + [0.55], [True] * 9 + [False], 0.145),  # Weighted by the samples of a bin.
        ([1.0, 1.0], [True, True], 0.0),
        ([0.0], [True], 1.0),
    ],
)
def test_hand_counted_bins(confidences: list[float], right: list[bool], expected: float) -> None:
    score = calibration(confidences, right)
    assert score.value == pytest.approx(expected)
    assert score.settings == f"15 equal bins, norm l1, n={len(right)}"


def test_bins_equal_those_of_the_library() -> None:
    from sklearn.calibration import calibration_curve

    for values, right, bins in drawn():
        true, said = calibration_curve(right, values, n_bins=bins)
        edges = np.linspace(0, 1, bins + 1)[1:-1]
        counts = np.bincount(np.searchsorted(edges, values), minlength=bins)
        shares = counts[counts > 0] / len(values)
        gaps = abs(true - said)
        for norm, expected in (
            ("l1", (shares * gaps).sum()),
            ("l2", math.sqrt((shares * gaps**2).sum())),
            ("max", gaps.max()),
        ):
            score = calibration(values, right, bins, norm)  # type: ignore[arg-type]
            assert score.value == pytest.approx(expected, abs=1e-12)
            assert f"{bins} equal bins, norm {norm}" in score.settings


@pytest.mark.parametrize(
    ("edge", "bins"), [(edge, bins) for bins in (10, 15, 7) for edge in range(1, bins + 1)]
)
def test_a_confidence_at_an_edge_belongs_to_the_lower_bin(edge: int, bins: int) -> None:
    # One right sample at the edge, and one wrong in the middle of the bin below: together they have one gap.
    middle = (edge - 0.5) / bins
    score = calibration([edge / bins, middle], [True, False], bins)
    assert score.value == pytest.approx(abs(1 - edge / bins - middle) / 2)


def test_brier_of_two_classes_is_twice_the_binary_one() -> None:
    assert brier([0.7], [True]).value == pytest.approx(0.09)
    assert brier_multiclass([[0.3, 0.7]], [1]).value == pytest.approx(0.18)
    assert brier([0.7], [True]).settings != brier_multiclass([[0.3, 0.7]], [1]).settings


def test_brier_scores_equal_the_library() -> None:
    from sklearn.metrics import brier_score_loss

    for seed, (values, right, _) in enumerate(drawn()):
        assert brier(values, right).value == pytest.approx(brier_score_loss(right, values, pos_label=True))
        draw = np.random.default_rng(seed)
        rows, gold = draw.dirichlet([1, 1, 1], 20), draw.integers(0, 3, 20)
        theirs = brier_score_loss(gold, rows, labels=[0, 1, 2], scale_by_half=False)
        assert brier_multiclass(rows.tolist(), gold.tolist()).value == pytest.approx(theirs)


@pytest.mark.parametrize(
    ("confidences", "right", "message"),
    [
        ([1.2], [True], r"confidences\[0\] must be a probability"),
        ([-0.1], [True], r"confidences\[0\] must be a probability"),
        ([70], [True], r"confidences\[0\] must be a probability"),
        ([0.5], [2], r"(right|outcomes)\[0\] must be True or False"),
        ([0.5], ["yes"], r"(right|outcomes)\[0\] must be a finite number"),
        ([0.5], [0.5], r"(right|outcomes)\[0\] must be True or False"),
    ],
)
def test_what_is_no_probability_or_outcome_is_an_error(
    confidences: list[float], right: list[Any], message: str
) -> None:
    for measure in (calibration, brier):
        with pytest.raises(ParameterError, match=rf"^{message}"):
            measure(confidences, right)


@pytest.mark.parametrize(
    ("rows", "gold", "message"),
    [
        ([[0.5, 0.4]], [0], r"rows\[0\] must sum to 1"),
        ([[0.5, 0.5]], [2], r"gold\[0\] is 2, and there are 2 classes"),
        ([[0.5, 0.5]], [-1], r"gold\[0\] must be a whole number of at least 0"),
        ([[0.5, 0.5], [0.2, 0.3, 0.5]], [0, 0], "rows have different numbers of classes: 2, 3"),
        ([0.5], [0], r"rows\[0\] must be a list"),
    ],
)
def test_rows_that_are_no_distribution_are_errors(rows: Any, gold: Any, message: str) -> None:
    with pytest.raises(ParameterError, match=rf"^{message}"):
        brier_multiclass(rows, gold)


@pytest.mark.parametrize(
    ("options", "name"), [({"bins": 0}, "bins"), ({"bins": 1.5}, "bins"), ({"norm": "l3"}, "norm")]
)
def test_bins_and_norms_without_meaning_are_errors(options: dict[str, Any], name: str) -> None:
    with pytest.raises(ParameterError, match=rf"^{name} must be"):
        calibration([0.5], [True], **options)


def test_the_error_is_the_spread_over_samples_where_confidence_is_wrong() -> None:
    draw = np.random.default_rng(7)

    def sample() -> tuple[float, float]:
        values = draw.random(200)
        score = calibration(values.tolist(), (draw.random(200) < values / 2).tolist(), 5)
        assert score.value is not None
        assert score.error is not None
        return score.value, score.error

    scores = np.array([sample() for _ in range(300)])
    assert scores[:, 1].mean() == pytest.approx(scores[:, 0].std(ddof=1), rel=0.1)


def test_the_error_is_the_jackknife_over_groups() -> None:
    values, right, bins = next(one for one in drawn() if len(one[0]) > 20 and one[2] > 5)
    groups = [index % 7 for index in range(len(values))]
    without = [
        calibration(
            [value for value, group in zip(values, groups, strict=True) if group != name],
            [hit for hit, group in zip(right, groups, strict=True) if group != name],
            bins,
        ).value
        for name in range(7)
    ]
    expected = math.sqrt(6 * np.var(without))  # type: ignore[arg-type]
    assert calibration(values, right, bins, groups=groups).error == pytest.approx(expected)


def test_copies_of_samples_in_groups_leave_the_error_as_it_is() -> None:
    values, right, bins = next(one for one in drawn() if len(one[0]) > 20)
    plain = calibration(values, right, bins, "l2")
    grouped = calibration(values * 3, right * 3, bins, "l2", groups=[*range(len(values))] * 3)
    assert grouped.value == pytest.approx(plain.value)
    assert grouped.error == pytest.approx(plain.error)
    assert calibration(values, right, norm="max").error is None
