"""Tests perplexity and bits per byte."""

from __future__ import annotations

import math
import random

import numpy as np
import pytest

from decodery.errors import ParameterError
from decodery.metrics import bits_per_byte, perplexity


def test_every_token_counts_once() -> None:
    # Losses [2, 2] and [1] * 8: neither the mean over documents, 4.4817, nor that of perplexities, 5.0537.
    score = perplexity([-4, -8], [2, 8])
    assert score.value == pytest.approx(3.3201, abs=1e-4)
    assert score.unit == "perplexity per token"
    assert perplexity([-4, -8], [1, 3], unit="word").unit == "perplexity per word"


def test_bits_per_byte_count_the_bytes_of_the_original_text() -> None:
    score = bits_per_byte([-11 * math.log(2)], ["été été"])
    assert score.value == pytest.approx(1.0)
    assert score.unit == "bits per byte"
    assert bits_per_byte([-2.0], [11]) == bits_per_byte([-2.0], ["été été"])
    assert bits_per_byte([-1.0], ["\ud800"]).value == pytest.approx(1 / 3 / math.log(2))


def test_how_texts_are_divided_does_not_change_the_value() -> None:
    for seed in range(200):
        draw = random.Random(seed)
        losses = [[draw.random() * 5 for _ in range(draw.randint(1, 9))] for _ in range(draw.randint(1, 9))]
        together = perplexity([-math.fsum(map(math.fsum, losses))], [sum(map(len, losses))]).value
        apart = perplexity([-math.fsum(one) for one in losses], [len(one) for one in losses]).value
        assert apart == pytest.approx(together, rel=1e-12)
        tokens = [loss for one in losses for loss in one]
        assert apart == pytest.approx(float(np.exp(np.mean(tokens))), rel=1e-12)


def test_an_empty_text_is_undefined_and_counted() -> None:
    score = perplexity([-4, 0, -8], [2, 0, 8])
    assert (score.counted, score.undefined) == (2, 1)
    assert score.value == pytest.approx(3.3201, abs=1e-4)
    assert perplexity([0.0], [0]).value is None
    assert bits_per_byte([0.0], [""]).value is None
    assert bits_per_byte([0.0], [""]).unit == "bits per byte"


def test_a_token_that_cannot_be_gives_infinity_and_not_a_number_that_looks_right() -> None:
    assert perplexity([-math.inf, -1], [2, 2]).value == math.inf
    assert bits_per_byte([-math.inf, -1], [2, 2]).value == math.inf
    assert perplexity([-2000.0], [1]).value == math.inf


@pytest.mark.parametrize("measure", [perplexity, bits_per_byte])
@pytest.mark.parametrize(
    ("logprobs", "sizes", "message"),
    [
        ([4.0, 8.0], [2, 8], r"logprobs\[0\] is above 0"),
        ([math.inf], [2], r"logprobs\[0\] is above 0"),
        ([-1.0], [-2], r"(lengths|sources)\[0\] must be a whole number"),
        ([-1.0], [1.5], r"(lengths|sources)\[0\] must be a whole number"),
    ],
)
def test_losses_and_lengths_that_are_none_are_errors(
    measure: object, logprobs: list[float], sizes: list[int], message: str
) -> None:
    assert callable(measure)
    with pytest.raises(ParameterError, match=rf"^{message}"):
        measure(logprobs, sizes)


def test_rounding_above_0_is_no_error() -> None:
    assert perplexity([3e-7], [2]).value == pytest.approx(1.0)


def test_the_error_is_the_spread_over_samples_of_texts() -> None:
    draw = np.random.default_rng(2)

    def sample() -> tuple[float, float]:
        lengths = draw.integers(5, 60, 100)
        sums = [-float(draw.normal(1.0, 0.2) * length) for length in lengths]
        score = perplexity(sums, lengths.tolist())
        assert score.value is not None
        assert score.error is not None
        return score.value, score.error

    scores = np.array([sample() for _ in range(400)])
    assert scores[:, 1].mean() == pytest.approx(scores[:, 0].std(ddof=1), rel=0.1)
