from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch

from decodery.decoding.processors.pipeline import process
from tests.decoding.processors.tables import Case, check
from tests.decoding.rows import make_row

DRY: dict[str, Any] = {"dry_multiplier": 0.5, "dry_base": 2.0, "dry_sequence_breakers": ()}

TABLE = [
    # 1 2 3 was followed by 4: one more than two tokens repeat.
    Case(DRY, [0] * 6, [0, 0, 0, 0, -1, 0], [1, 2, 3, 4, 1, 2], [3]),
    Case({**DRY, "dry_allowed_length": 3}, [0] * 6, [0, 0, 0, 0, -0.5, 0], [1, 2, 3, 4, 1, 2], [3]),
    Case({**DRY, "dry_allowed_length": 4}, [0] * 6, [0] * 6, [1, 2, 3, 4, 1, 2], [3]),
    Case({**DRY, "dry_range": 6}, [0] * 6, [0, 0, 0, 0, -0.5, 0], [1, 2, 3, 4, 1, 2], [3]),
    Case({**DRY, "dry_range": 4}, [0] * 6, [0] * 6, [1, 2, 3, 4, 1, 2], [3]),
    Case({**DRY, "dry_sequence_breakers": (1,)}, [0] * 6, [0, 0, 0, 0, -0.5, 0], [1, 2, 3, 4, 1, 2], [3]),
    Case({**DRY, "dry_sequence_breakers": (2,)}, [0] * 6, [0] * 6, [1, 2, 3, 4, 1, 2], [3]),
    Case({**DRY, "dry_sequence_breakers": (3,)}, [0] * 6, [0] * 6, [1, 2, 3, 4, 1, 2], [3]),
    # 2 3 was followed by 4 and by 5, the latter after 1: lengths 2 and 3.
    Case(DRY, [0] * 6, [0, 0, 0, 0, -0.5, -1], [2, 3, 4, 1, 2, 3, 5, 1, 2, 3]),
    # The token occurs five times: a suffix of four was followed by it.
    Case(DRY, [0] * 3, [0, -2, 0], [1] * 5),
    Case({**DRY, "temperature": 0.0}, [0] * 3, [0, -2, 0], [1] * 5),
]


@pytest.mark.parametrize("case", TABLE, ids=str)
def test_dry_is_as_worked_by_hand(case: Case) -> None:
    check(case)


def _defined(
    tokens: list[int], breakers: tuple[int, ...], allowed: int, multiplier: float, base: float
) -> Any:
    """Returns each token's penalty by definition: by the longest suffix that the token followed before."""
    free = next((i for i, token in enumerate(reversed(tokens)) if token in breakers), len(tokens))
    longest: dict[int, int] = {}
    for end in range(len(tokens) - 1):
        length = 0
        while length < free and length <= end and tokens[end - length] == tokens[-1 - length]:
            length += 1
        longest[tokens[end + 1]] = max(longest.get(tokens[end + 1], 0), length)
    return {t: min(multiplier * base ** (n - allowed), 1e30) for t, n in longest.items() if n >= allowed}


def test_dry_is_its_definition_on_random_texts() -> None:
    random = np.random.default_rng(3)
    penalised = 0
    for _ in range(300):
        tokens = random.integers(0, random.integers(1, 5), random.integers(1, 60)).tolist()
        breakers = tuple(random.integers(0, 6, random.integers(0, 2)).tolist())
        allowed, base = int(random.integers(1, 5)), float(random.choice([1.0, 1.2, 1.75, 60.0]))
        row = make_row(
            tokens,
            dry_multiplier=0.8,
            dry_base=base,
            dry_allowed_length=allowed,
            dry_sequence_breakers=breakers,
            temperature=0.0,
        )
        result = process(torch.zeros(1, 6), [row])
        expected = torch.zeros(1, 6)
        for token, penalty in _defined(tokens, breakers, allowed, 0.8, base).items():
            expected[0, token] -= penalty
            penalised += 1
        torch.testing.assert_close(result, expected, rtol=1e-5, atol=1e-6)
    assert penalised > 200
