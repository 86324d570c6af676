"""Checks that replayed passes give the states of passes that run."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch

from decodery import LLM
from decodery.encoding.text_batches import BatchRunner, TokenText
from tests.encoding.folders import encoder_folder
from tests.kernels.native.fixtures import built


def text(*ids: int) -> TokenText:
    return TokenText(ids, (0,) * len(ids))


def states(runner: BatchRunner, *texts: TokenText) -> list[torch.Tensor]:
    """Returns the states of each text."""
    found: dict[int, torch.Tensor] = {}
    for batch in runner.run(texts):
        found |= {index: batch.of(place) for place, index in enumerate(batch.indices)}
    return [found[index] for index in range(len(texts))]


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Any:
    folder: Path = encoder_folder(tmp_path_factory.mktemp("encoder"))
    return LLM(folder, backend="native").encoder.model


@built
def test_replayed_states_are_those_of_a_fresh_run_bit_for_bit(model: Any) -> None:
    kept = BatchRunner(model)
    # Of two texts of one length the second is replayed, also after larger batches have moved the pages.
    for texts in (
        [text(5, 6, 7)],
        [text(9, 8, 7)],
        [text(*range(20, 5, -1)), text(4), text(3, 3)],
        [text(*range(5, 20)), text(1, 2, 3)],
        [text(9, 8, 7)],
        [text(9, 8), text(7)],
        [text(*[11] * 60)] * 8,
        [text(5, 6, 7)],
    ):
        alone = [states(BatchRunner(model), one)[0] for one in texts]
        for found, expected in zip(states(kept, *texts), alone, strict=True):
            assert torch.equal(found, expected)


@built
def test_states_stay_when_the_next_text_runs(model: Any) -> None:
    runner = BatchRunner(model)
    states(runner, text(5, 6, 7))
    (first,) = states(runner, text(5, 6, 8))
    kept = first.clone()
    states(runner, text(9, 9, 9))
    assert torch.equal(first, kept)


@built
def test_a_small_text_makes_no_calls_from_python_the_second_time(
    model: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    runner = BatchRunner(model)
    states(runner, text(5, 6, 7))

    def refuse(*_: Any, **__: Any) -> None:
        raise AssertionError("computed by Python")

    monkeypatch.setattr(type(model), "hidden", refuse)
    states(runner, text(7, 6, 5))
