"""Checks processed logits against tables worked by hand or in float64."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch

from decodery.decoding.processors.pipeline import process
from tests.decoding.rows import make_row

CUT = -math.inf


@dataclass(frozen=True)
class Case:
    """Holds a row's parameters, prompt and text, its logits, and the processed logits expected of them."""

    params: dict[str, Any]
    logits: Sequence[float]
    expected: Sequence[float]
    prompt: Sequence[int] = (0,)
    generated: Sequence[int] = ()
    ends: Sequence[int] = ()

    def __str__(self) -> str:
        # A function's text has its address, which differs from process to process.
        named = {k: "functions" if k == "logits_processors" else v for k, v in self.params.items()}
        return ",".join(f"{k}={v}" for k, v in named.items()) or "nothing"


def logs(*values: float) -> list[float]:
    """Returns logits of probabilities that are in these ratios."""
    return [math.log(value) if value else CUT for value in values]


def check(case: Case) -> None:
    """Asserts that the row's processed logits are the expected ones and that the model's are not changed."""
    row = make_row(case.prompt, case.generated, end_ids=case.ends, **case.params)
    given = torch.tensor([list(case.logits)], dtype=torch.float32)
    kept = given.clone()
    result = process(given, [row])
    expected = torch.tensor([list(case.expected)], dtype=torch.float32)
    torch.testing.assert_close(result, expected, rtol=1e-6, atol=1e-6)
    assert torch.equal(given, kept), "the model's logits were changed"
