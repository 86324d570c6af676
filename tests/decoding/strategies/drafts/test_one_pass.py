"""Checks that one pass over rows and drafts gives what choosing one token after the other gives."""

from __future__ import annotations

import random
from dataclasses import replace
from typing import Any

import pytest
import torch

from decodery.decoding.request.speculation_params import PromptLookup
from decodery.decoding.rows import Row, Run, Scores
from decodery.decoding.strategies.drafts import one_pass
from decodery.decoding.strategies.drafts.one_pass import judge_in_one_pass
from decodery.decoding.strategies.drafts.verification import verify_drafts
from decodery.decoding.strategies.sampling import SamplingMethod
from tests.decoding.records import assert_same_records
from tests.decoding.rows import make_row
from tests.decoding.strategies.test_sampling import Counting, Literal
from tests.kernels.native.fixtures import built

VOCAB = 12
logits_at = SamplingMethod().logits


def random_params(chance: random.Random) -> dict[str, Any]:
    options: list[dict[str, Any]] = [
        {"temperature": 0},
        {"temperature": 0, "repetition_penalty": 1.4},
        {"temperature": 0.3},
        {"temperature": 0.7, "top_p": 0.8},
        {"temperature": 0.7, "top_k": 3, "min_p": 0.05},
        {"temperature": 0.5, "presence_penalty": 0.4, "frequency_penalty": 0.2},
    ]
    asked = {
        **chance.choice(options),
        "seed": chance.randrange(1000),
        "max_tokens": chance.choice([1, 3, 50]),
    }
    if chance.random() < 0.3:
        asked["logprobs"] = chance.randrange(3)
    if chance.random() < 0.3:
        asked["speculate"] = PromptLookup()
    return asked


def explaining(row: Row, chance: random.Random) -> Row:
    """Returns the row, which explains in some cases, but not where a grammar may force tokens."""
    return replace(row, explain=chance.choice([0, 0, 3, 20])) if row.grammar is None else row


def random_row(chance: random.Random) -> tuple[Row, tuple[int, ...]]:
    """Returns a row and its drafts, the first of which its grammar may force."""
    row = make_row(**random_params(chance), end_ids=[chance.randrange(VOCAB)])
    drafts = tuple(chance.randrange(4) for _ in range(chance.randrange(6)))
    if chance.random() < 0.3:
        spelt = tuple(chance.randrange(4) for _ in range(chance.randrange(1, 4)))
        return replace(row, grammar=Literal(spelt)), (spelt + drafts)[: chance.randrange(6)]
    if chance.random() < 0.3:
        row = replace(row, watch=Counting(chance.randrange(1, 5)))
    return row, drafts


@built
@pytest.mark.parametrize("trial", range(60))
def test_one_pass_gives_what_token_after_token_gives(trial: int) -> None:
    chance = random.Random(trial)
    made = [random_row(chance) for _ in range(chance.randrange(1, 6))]
    made = [(explaining(row, chance), drafts) for row, drafts in made]
    runs = []
    start = 0
    for _, drafts in made:
        runs.append((Run(drafts, start),))
        start += len(drafts) + 1
    logits = torch.randn(start, VOCAB, generator=torch.Generator().manual_seed(trial)) * 3
    # Most drafts are right.
    for row_drafts, (run,) in zip((drafts for _, drafts in made), runs, strict=True):
        for j, draft in enumerate(row_drafts):
            if chance.random() < 0.8:
                logits[run.at(j), draft] += 12
    scores = Scores(logits, runs)
    rows = [row for row, _ in made]
    before = logits.clone()
    found, others = judge_in_one_pass(rows, scores, logits_at)
    assert not others
    assert torch.equal(before, logits)
    expected = verify_drafts(rows, scores, logits_at)
    for one, other in zip(found.survivors, expected.survivors, strict=True):
        assert one.row.tokens == other.row.tokens
        assert (one.parent, one.keep, one.finish, one.error, one.drafts) == (
            other.parent,
            other.keep,
            other.finish,
            other.error,
            other.drafts,
        )
        assert (one.row.watch, one.row.grammar, one.row.state) == (
            other.row.watch,
            other.row.grammar,
            other.row.state,
        )
        assert one.logprobs == other.logprobs
        assert_same_records(one.considered, other.considered)
        assert len(one.considered) == (len(one.row.tokens) - len(rows[one.parent].tokens)) * bool(
            one.row.explain
        )
    assert list(found.failures) == list(expected.failures)


@built
def test_all_positions_are_chosen_by_one_call(monkeypatch: pytest.MonkeyPatch) -> None:
    calls = []
    choose = one_pass.choose_from_all
    monkeypatch.setattr(
        one_pass, "choose_from_all", lambda *asked: (calls.append(len(asked[1])), choose(*asked))[1]
    )
    rows = [make_row(temperature=0.8, seed=1), make_row(temperature=0)]
    scores = Scores(torch.randn(9, VOCAB), [(Run((1, 2, 3, 4, 5), 0),), (Run((1, 2), 6),)])
    assert judge_in_one_pass(rows, scores, logits_at)[1] == []
    assert calls == [9]


def test_a_row_without_a_possible_token_after_its_drafts_keeps_them() -> None:
    logits = torch.zeros(3, VOCAB)
    logits[0, 1] = logits[1, 2] = 9
    logits[2] = torch.nan
    row = make_row(temperature=0)
    verdict, _ = judge_in_one_pass([row], Scores(logits, [(Run((1, 2), 0),)]), logits_at)
    (survivor,) = verdict.survivors
    # It ends after them, as it does without drafts.
    assert survivor.row.tokens[-2:].tolist() == [1, 2]
    assert (survivor.keep, survivor.finish, list(verdict.failures)) == (2, "error", [])
    assert "NaN" in str(survivor.error)


@pytest.mark.parametrize(
    "asked",
    [
        {"n": 2},
        {"mirostat_mode": 2},
        {"typical_p": 0.9},
        {"speculate": PromptLookup(acceptance="rejection")},
    ],
)
def test_rows_that_one_call_cannot_judge_are_left_to_verification(asked: dict[str, Any]) -> None:
    scores = Scores(torch.randn(3, VOCAB), [(Run((1, 2), 0),)])
    verdict, others = judge_in_one_pass([make_row(**asked)], scores, logits_at)
    assert (list(verdict.survivors), others) == ([], [0])


def test_rows_that_explain_what_a_grammar_forces_are_left_to_verification() -> None:
    row = replace(make_row(), explain=3, grammar=Literal((1, 2)))
    _, others = judge_in_one_pass([row], Scores(torch.randn(1, VOCAB), [(Run((), 0),)]), logits_at)
    assert others == [0]


@built
def test_rows_of_both_kinds_in_one_step_get_what_they_get_alone() -> None:
    kinds: list[dict[str, Any]] = [
        {"temperature": 0},
        {"typical_p": 0.9},
        {"top_p": 0.8},
        {"n": 2},
        {"mirostat_mode": 2},
    ]
    rows = [make_row(**asked, seed=i) for i, asked in enumerate(kinds)]
    logits = torch.randn(8, VOCAB, generator=torch.Generator().manual_seed(0))
    runs = [(Run((int(logits[0].argmax()), 5), 0),), *((Run((), 3 + i),) for i in range(4))]
    method = SamplingMethod()
    together = method.judge(rows, Scores(logits.clone(), runs)).survivors
    alone = [
        s
        for row, run in zip(rows, runs, strict=True)
        for s in method.judge([row], Scores(logits.clone(), [run])).survivors
    ]
    assert [s.row.tokens for s in together] == [s.row.tokens for s in alone]
    assert [s.parent for s in together] == [0, 1, 2, 3, 3, 4]


@built
def test_a_choice_is_recorded_with_the_same_bits_whatever_rows_are_verified_beside_it() -> None:
    rows = [
        replace(make_row([3, 1], [3], temperature=0.8, top_p=0.5, presence_penalty=0.4, seed=i), explain=3)
        for i in range(40)
    ]
    rows.append(make_row(typical_p=0.9))
    logits = torch.randn(len(rows), 700, generator=torch.Generator().manual_seed(0)) * 3
    runs = [(Run((), i),) for i in range(len(rows))]
    together = verify_drafts(rows, Scores(logits.clone(), runs), logits_at).survivors
    for row, run, survivor in zip(rows, runs, together, strict=True):
        (alone,) = verify_drafts([row], Scores(logits.clone(), [run]), logits_at).survivors
        assert (survivor.row.tokens, survivor.considered) == (alone.row.tokens, alone.considered)
