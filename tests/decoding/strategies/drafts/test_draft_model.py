from __future__ import annotations

from array import array
from collections.abc import Iterator
from dataclasses import replace
from itertools import product
from typing import Any

import numpy as np
import pytest
import torch
from scipy.stats import chisquare

from decodery.decoding.request.speculation_params import DraftModel, PromptLookup
from decodery.decoding.rows import Row, Run, Scores
from decodery.decoding.strategies.drafts.acceptance import accept_or_replace
from decodery.decoding.strategies.drafts.draft_model import draft_tokens, draw_drafts
from decodery.decoding.strategies.drafts.pace import Pace, draft_length, paced
from decodery.decoding.strategies.drafts.prompt_lookup import lookup_draft
from decodery.decoding.strategies.sampling import SamplingMethod
from tests.decoding.rows import make_row


@pytest.mark.parametrize(
    ("tokens", "max_ngram", "count", "expected"),
    [
        ([1, 2, 3, 9, 1, 2], 3, 2, (3, 9)),
        ([7], 3, 2, ()),
        ([1, 2, 3], 3, 2, ()),
        # The longest n-gram decides, although a shorter one occurs later.
        ([1, 2, 5, 4, 2, 6, 6, 1, 2], 2, 2, (5, 4)),
        ([1, 2, 5, 4, 2, 6, 6, 1, 2], 1, 2, (6, 6)),
        # The latest occurrence with enough tokens after it, or else the first occurrence.
        ([1, 5, 5, 1, 6, 6, 1], 3, 2, (6, 6)),
        ([1, 5, 5, 1, 6, 6, 1], 3, 5, (5, 5, 1, 6, 6)),
        ([3, 3, 3], 3, 5, (3,)),
        ([3, 3, 3], 1, 5, (3, 3)),
        ([4, 1, 2, 3], 10, 5, ()),
    ],
)
def test_a_lookup_gives_what_followed(
    tokens: list[int], max_ngram: int, count: int, expected: tuple[int, ...]
) -> None:
    assert lookup_draft(array("q", tokens), max_ngram, count) == expected


def slow_lookup(tokens: list[int], max_ngram: int, count: int) -> tuple[int, ...]:
    for n in range(min(max_ngram, len(tokens) - 1), 0, -1):
        starts = [i + n for i in range(len(tokens) - n) if tokens[i : i + n] == tokens[-n:]]
        if starts:
            enough = [s for s in starts if s + count <= len(tokens)]
            start = enough[-1] if enough else starts[0]
            return tuple(tokens[start : start + count])
    return ()


def test_a_lookup_equals_its_definition_on_random_texts() -> None:
    rng = np.random.default_rng(0)
    for _ in range(500):
        tokens = rng.integers(0, rng.integers(2, 6), rng.integers(1, 30)).tolist()
        n, count = int(rng.integers(1, 6)), int(rng.integers(1, 8))
        assert lookup_draft(array("q", tokens), n, count) == slow_lookup(tokens, n, count)


def test_drafts_grow_while_they_are_right_and_rest_when_they_fail() -> None:
    assert Pace(2).after(2, 2, 10) == Pace(8)
    assert Pace(4).after(4, 4, 10) == Pace(10)
    assert Pace(10).after(1, 1, 10) == Pace(10)
    assert Pace(10).after(10, 3, 10) == Pace(9)
    assert Pace(3).after(3, 2, 10) == Pace(3)
    assert Pace(10).after(10, 0, 10) == Pace(5)
    pace = Pace(1).after(1, 0, 10)
    assert pace == Pace(0, rest=4, pause=8)
    assert pace.rested(3) == Pace(0, rest=1, pause=8)
    assert pace.rested(3).rested(1) == Pace(1, pause=8)
    assert Pace(1, pause=8).after(1, 0, 10) == Pace(0, rest=8, pause=16)
    assert Pace(1, pause=8).after(1, 1, 10) == Pace(4)
    for _ in range(20):
        pace = pace.rested(pace.rest).after(1, 0, 10)
    assert pace.rest == 64


def test_a_lookup_rests_until_a_guess_would_have_been_right() -> None:
    row = replace(make_row([1, 2, 3, 1], [2], speculate=PromptLookup()), state=Pace(0, 4))
    assert draft_length(row, 10) == 0
    assert paced(row, row.after(9), 0, 0).state == Pace(0, 4)
    assert paced(row, row.after(3), 0, 0).state == Pace(2)


def test_drafts_stay_within_the_limit_and_begin_with_the_second_token() -> None:
    row = make_row([1, 2], speculate=PromptLookup(num_tokens=8, adaptive=False))
    assert draft_length(row, 10) == 0
    assert draft_length(row.after(3), 10) == 8
    assert draft_length(row.after(3), 2) == 2
    assert draft_length(make_row([1, 2], [3]), 10) == 0
    (branch,) = SamplingMethod().propose([replace(row.after(1), limit=5)]).branches
    assert branch == ((2,),)


def test_a_short_pace_changes_nothing_without_adaptive() -> None:
    row = make_row([1], [2], speculate=DraftModel("m", num_tokens=5, adaptive=False))
    after = row.after(3)
    assert paced(row, after, 5, 0) is after


# Logits `[5, 5]` of a token after each token, of the model and of the draft model.
MODEL = torch.tensor(np.random.default_rng(1).dirichlet([1.5] * 5, 5)).log().float()
DRAFT_MODEL = torch.tensor(np.random.default_rng(2).dirichlet([1.5] * 5, 5)).log().float()
TEXT = 3


def texts(speculate: Any, count: int, **params: Any) -> list[tuple[int, ...]]:
    """Returns texts of three tokens by `propose` and `judge`, without an engine."""
    method = SamplingMethod()
    prompt = [0, 1, 2, 3, 4, 2, 0, 3, 1, 1, 0]
    rows = [make_row(prompt, seed=i, max_tokens=TEXT, speculate=speculate, **params) for i in range(count)]
    done = []
    while rows:
        proposal = method.propose(rows)
        runs: list[tuple[Run, ...]] = []
        positions: list[int] = []
        for row, (drafts,), more in zip(
            rows,
            proposal.branches,
            proposal.extension.counts if proposal.extension else [0] * len(rows),
            strict=True,
        ):
            ahead, drafted = row, []
            for _ in range(more):
                (token,), logits = draw_drafts([ahead], DRAFT_MODEL[ahead.tokens[-1]][None])
                ahead = ahead.after(token)
                drafts += (token,)
                drafted.append(logits[0])
            runs.append((Run(drafts, len(positions), torch.stack(drafted) if drafted else None),))
            positions += [row.tokens[-1], *drafts]
        survivors = method.judge(rows, Scores(MODEL[torch.tensor(positions)], runs)).survivors
        done += [s.row for s in survivors if s.finish]
        rows = [s.row for s in survivors if not s.finish]
    return [tuple(row.tokens[row.prompt_length :]) for row in done]


def expected(temperature: float = 1.0) -> Iterator[float]:
    chance = (MODEL.double() / temperature).softmax(-1)
    for text in product(range(5), repeat=TEXT):
        yield float(np.prod([chance[a, b] for a, b in zip((0, *text), text, strict=False)]))


SPECULATIONS = [
    PromptLookup(acceptance="rejection"),
    DraftModel("m", acceptance="rejection"),
    PromptLookup(),
    DraftModel("m"),
]


@pytest.mark.slow
@pytest.mark.parametrize("speculate", SPECULATIONS, ids=repr)
def test_speculation_leaves_the_distribution_of_whole_texts(speculate: Any) -> None:
    count = 4000
    found = texts(speculate, count, temperature=0.8)
    frequency = dict.fromkeys(product(range(5), repeat=TEXT), 0)
    for text in found:
        frequency[text] += 1
    wanted = np.array(list(expected(0.8))) * count
    seen = np.array(list(frequency.values()), dtype=float)
    # Rare texts are counted together.
    rare = wanted < 5
    seen, wanted = np.append(seen[~rare], seen[rare].sum()), np.append(wanted[~rare], wanted[rare].sum())
    assert chisquare(seen, wanted).pvalue > 1e-3


def choices(count: int, drafted: bool, row: Row) -> np.ndarray[Any, Any]:
    """Returns tokens after token 0, each from a draft that rejection sampling judged."""
    found = []
    for seed in range(count):
        seeded = replace(row, seed=seed)
        draft = draft_tokens(DRAFT_MODEL[:1], [seeded])[0] if drafted else 3
        found.append(accept_or_replace(seeded, MODEL[0], draft, DRAFT_MODEL[0] if drafted else None))
    return np.array(found)


@pytest.mark.parametrize("drafted", [False, True], ids=["certain", "drawn"])
def test_the_distance_to_the_true_distribution_shrinks_with_the_root_of_the_number(drafted: bool) -> None:
    row = make_row([0], speculate=PromptLookup(acceptance="rejection"))
    found = choices(6400, drafted, row)
    true = MODEL[0].double().softmax(-1).numpy()
    for count in (100, 400, 1600, 6400):
        frequency = np.bincount(found[:count], minlength=5) / count
        distance = np.abs(frequency - true).sum() / 2
        # Its mean is below sum(sqrt(p (1 - p))) / sqrt(2 pi n), about 0.7 / sqrt(n).
        assert distance * np.sqrt(count) < 1.6


def test_the_better_the_draft_the_more_often_it_is_accepted() -> None:
    row = make_row([0], speculate=PromptLookup(acceptance="rejection"))
    p, q = MODEL[0].double().softmax(-1), DRAFT_MODEL[0].double().softmax(-1)
    accepted = []
    for seed in range(2000):
        seeded = replace(row, seed=seed)
        draft = draft_tokens(DRAFT_MODEL[:1], [seeded])[0]
        accepted.append(accept_or_replace(seeded, MODEL[0], draft, DRAFT_MODEL[0]) == draft)
        assert accept_or_replace(seeded, DRAFT_MODEL[0], draft, DRAFT_MODEL[0]) == draft
    # Leviathan et al. 2023, corollary 3.6.
    assert np.mean(accepted) == pytest.approx(float(torch.minimum(p, q).sum()), abs=0.03)


def test_an_impossible_draft_is_replaced_and_a_row_without_a_possible_token_fails() -> None:
    row = make_row([0], speculate=PromptLookup(acceptance="rejection"), temperature=0.7)
    logits = torch.tensor([0.0, -torch.inf, 1.0])
    assert {accept_or_replace(replace(row, seed=s), logits, 1, None) for s in range(50)} == {0, 2}
    row = replace(row.after(0), limit=10)
    for bad in (torch.full((2, 3), -torch.inf), torch.full((2, 3), torch.nan)):
        verdict = SamplingMethod().judge([row], Scores(bad, [(Run((1,), 0),)]))
        assert [(s.row.tokens, s.finish) for s in verdict.survivors] == [(row.tokens, "error")]


def test_matching_drafts_are_drawn_with_the_rows_own_noise() -> None:
    rows = [make_row([0], seed=s, speculate=DraftModel("m")) for s in range(200)]
    logits = torch.randn(200, 50, generator=torch.Generator().manual_seed(0))
    plain = SamplingMethod().judge(rows, Scores(logits, [(Run((), i),) for i in range(200)]))
    assert draft_tokens(logits, rows) == [s.row.tokens[-1] for s in plain.survivors]
    apart = [make_row([0], seed=s, speculate=DraftModel("m", acceptance="rejection")) for s in range(200)]
    assert draft_tokens(logits, apart) != draft_tokens(logits, rows)
