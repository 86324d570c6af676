from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

import pytest
import torch

from decodery.decoding.processors.mirostat import updated_mu
from decodery.decoding.processors.pipeline import PROCESSORS, process
from decodery.decoding.request.speculation_params import PromptLookup
from decodery.decoding.rows import Row, Run, Scores, Verdict
from decodery.decoding.strategies import sampling
from decodery.decoding.strategies.sampling import SamplingMethod
from decodery.engine.step_scores import JudgedGroup, judge_group
from tests.decoding.rows import make_row, make_scores


def judge(rows: list[Row], logits: torch.Tensor, explain: int = 0) -> Verdict:
    rows = [replace(row, explain=explain) for row in rows]
    return SamplingMethod().judge(rows, make_scores(logits))


def judge_none(rows: list[Row], *_: Any) -> tuple[Verdict, list[int]]:
    """Leaves all rows to `verify_drafts`."""
    return Verdict(()), list(range(len(rows)))


def random_logits(rows: int, vocab: int = 40) -> torch.Tensor:
    return torch.randn(rows, vocab, generator=torch.Generator().manual_seed(0)) * 2


def test_temperature_zero_takes_the_likeliest_token() -> None:
    logits = random_logits(3)
    verdict = judge([make_row(temperature=0)] * 3, logits)
    assert [s.row.tokens[-1] for s in verdict.survivors] == logits.argmax(-1).tolist()


def test_a_row_becomes_one_row_for_each_stream_and_their_draws_differ() -> None:
    row = make_row(n=16, seed=5)
    verdict = judge([row], torch.zeros(1, 1000))
    assert [s.row.streams for s in verdict.survivors] == [(i,) for i in range(16)]
    assert {s.parent for s in verdict.survivors} == {0}
    assert len({s.row.tokens[-1] for s in verdict.survivors}) > 8
    alone = judge([make_row(n=1, seed=5)], torch.zeros(1, 1000)).survivors[0]
    assert verdict.survivors[0].row.tokens == alone.row.tokens


def test_logprobs_are_of_the_models_own_distribution() -> None:
    logits = random_logits(2)
    rows = [make_row(temperature=0.2, top_k=1, logprobs=3, logit_bias={7: 50.0}), make_row(temperature=0)]
    verdict = judge(rows, logits)
    (logprob,) = verdict.survivors[0].logprobs
    reference = logits[0].double().log_softmax(-1)
    assert logprob.token == 7
    assert logprob.logprob == pytest.approx(float(reference[7]), abs=1e-5)
    assert logprob.rank == int((reference > reference[7]).sum()) + 1
    best = reference.topk(3)
    assert [t for t, _ in logprob.top] == best.indices.tolist()
    assert [p for _, p in logprob.top] == pytest.approx(best.values.tolist(), abs=1e-5)
    assert verdict.survivors[1].logprobs == ()


def test_an_end_token_stops_and_the_limit_ends_by_length() -> None:
    logits = torch.eye(4) * 50
    rows = [
        make_row(temperature=0, end_ids=[0]),
        make_row(temperature=0, max_tokens=1),
        make_row(temperature=0),
    ]
    verdict = judge(rows, logits[:3])
    assert [s.finish for s in verdict.survivors] == ["stop", "length", None]


def test_a_row_without_a_possible_token_fails_alone() -> None:
    logits = random_logits(3, 4)
    logits[1] = torch.nan
    banned = {i: -float("inf") for i in range(4)}
    rows = [make_row(), make_row(), make_row(logit_bias=banned)]
    verdict = judge(rows, logits)
    assert [s.finish for s in verdict.survivors] == [None, "error", "error"]
    assert "NaN" in str(verdict.survivors[1].error)
    assert "ban" in str(verdict.survivors[2].error)


@dataclass(frozen=True)
class Counting:
    left: int

    @property
    def stopped(self) -> str | None:
        return "enough" if self.left == 0 else None

    def after(self, token: int) -> Counting:
        return Counting(self.left - 1)


def test_a_watch_ends_its_row_and_forks_with_it() -> None:
    row = replace(make_row(n=2), watch=Counting(2))
    first = judge([row], random_logits(1)).survivors
    assert [s.finish for s in first] == [None, None]
    assert [s.row.watch for s in first] == [Counting(1), Counting(1)]
    row = replace(row, watch=Counting(1))
    assert [s.finish for s in judge([row], random_logits(1)).survivors] == ["stop", "stop"]


def test_a_trace_has_rank_entropy_and_the_tokens_that_were_cut() -> None:
    logits = torch.log(torch.tensor([[0.5, 0.25, 0.15, 0.1]]))
    (survivor,) = judge([make_row(top_k=2, logit_bias={1: 9.0})], logits, explain=3).survivors
    (seen,) = survivor.considered
    assert seen.token == survivor.row.tokens[-1] == 1
    assert seen.rank == 2
    assert seen.entropy == pytest.approx(1.74274, abs=1e-5)
    assert seen.kept == 2
    assert [c.token for c in seen.candidates] == [0, 1, 2]
    assert [c.before for c in seen.candidates] == pytest.approx([0.5, 0.25, 0.15])
    assert seen.candidates[2].after == 0
    assert sum(c.after for c in seen.candidates) == pytest.approx(1)


def test_there_is_no_trace_unless_asked() -> None:
    assert judge([make_row()], random_logits(1)).survivors[0].considered == ()


@dataclass(frozen=True)
class Literal:
    """Allows one text only."""

    left: tuple[int, ...]

    @property
    def unrestricted(self) -> bool:
        return False

    @property
    def accepting(self) -> bool:
        return not self.left

    @property
    def complete(self) -> bool:
        return not self.left

    @property
    def forced(self) -> tuple[int, ...]:
        return self.left

    def after(self, token: int) -> Literal:
        assert token == self.left[0]
        return Literal(self.left[1:])


def test_forced_tokens_are_taken_whatever_is_likelier_and_reported_like_choices() -> None:
    row = replace(make_row(n=2, logprobs=1), grammar=Literal((3, 1, 2)), explain=2)
    ((drafts,),) = SamplingMethod().propose([row]).branches
    assert drafts == (3, 1, 2)
    logits = random_logits(4, 6)
    verdict = SamplingMethod().judge([row], Scores(logits, [(Run(drafts, 0),)]))
    assert [s.row.streams for s in verdict.survivors] == [(0,), (1,)]
    for survivor in verdict.survivors:
        assert (survivor.row.tokens[1:].tolist(), survivor.finish) == ([3, 1, 2], "stop")
        assert survivor.keep == 3
        assert [c.forced for c in survivor.considered] == [True] * 3
        logprobs = [p.logprob for p in survivor.logprobs]
        assert logprobs == pytest.approx(
            [float(logits.log_softmax(-1)[i, t]) for i, t in enumerate((3, 1, 2))]
        )


@dataclass(frozen=True)
class Spelt(Literal):
    """Forces its tokens, but allows token 5 in place of the first."""

    def after(self, token: int) -> Literal:
        return Literal(self.left[1:]) if token in (5, self.left[0]) else Literal(())


def test_a_banned_forced_token_is_replaced_by_another_that_the_grammar_allows() -> None:
    row = make_row(temperature=0, suppress_tokens=(3,), allowed_token_ids=(3, 5, 1))
    row = replace(row, grammar=Spelt((3, 1)))
    logits = torch.zeros(3, 6)
    logits[0, 5] = 2.0
    # The bans that the grammar's own stage would apply; this state has no mask.
    logits[0, [0, 1, 2, 4]] = -torch.inf
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(PROCESSORS, "grammar", replace(PROCESSORS["grammar"], wants=lambda row: False))
        (survivor,) = SamplingMethod().judge([row], Scores(logits, [(Run((3, 1), 0),)])).survivors
    assert survivor.row.tokens[1:].tolist() == [5]
    assert survivor.keep == 0


def test_xtc_decides_for_each_stream_of_a_row_separately() -> None:
    row = make_row(n=40, xtc_probability=0.5, xtc_threshold=0.1, top_k=2)
    logits = torch.tensor([[3.0, 2.9, 0.0, 0.0]])
    taken = [s.row.tokens[-1] for s in judge([row], logits).survivors]
    alone = [judge([replace(row, streams=(i,))], logits).survivors[0].row.tokens[-1] for i in range(40)]
    assert taken == alone
    assert 4 < taken.count(0) < 20


def test_lookups_continue_what_the_grammar_forces() -> None:
    row = make_row([1, 2, 3, 4, 5], [1], speculate=PromptLookup(num_tokens=2), max_tokens=4)
    row = replace(row, grammar=Literal((2, 3)))
    assert SamplingMethod().propose([row]).branches == [((2, 3),)]
    assert SamplingMethod().propose([replace(row, limit=20)]).branches == [((2, 3, 4, 5),)]
    assert SamplingMethod().propose([replace(row, limit=8)]).branches == [((2,),)]


def test_mirostat_is_updated_by_each_draft_accepted() -> None:
    row = make_row(mirostat_mode=2, mirostat_tau=3.0, speculate=PromptLookup(acceptance="rejection"))
    # Only the drafted tokens are likely.
    logits = torch.full((3, 5), -3.0)
    logits[range(3), [1, 2, 3]] = 6.0
    (survivor,) = SamplingMethod().judge([row], Scores(logits, [(Run((1, 2), 0),)])).survivors
    assert survivor.keep == 2
    expected = row
    for position, token in enumerate(survivor.row.tokens[1:]):
        mu = updated_mu(expected, process(logits[position : position + 1], [expected])[0], token)
        expected = replace(expected.after(token), mu=mu)
    assert survivor.row.mu == expected.mu
    assert judge([make_row()], random_logits(1)).survivors[0].row.mu is None


def test_a_trace_has_the_stages_that_changed_the_choice() -> None:
    row = make_row(temperature=0.5, top_k=3)
    (survivor,) = judge([row, make_row()], random_logits(2), explain=3).survivors[:1]
    (seen,) = survivor.considered
    assert [(s.name, s.kept) for s in seen.stages] == [("temperature", 40), ("top_k", 3)]
    assert not seen.forced


def test_a_judgement_made_again_begins_from_the_same_logits() -> None:
    def broken(token_ids: list[int]) -> bool:
        raise ValueError

    plain = make_row([0], temperature=0, repetition_penalty=2.0)
    failing = replace(make_row([0], temperature=0, stop_when=broken), request=1)
    logits = torch.tensor([[4.0, 1.5, 0.0], [0.0, 1.0, 0.0]])
    group = JudgedGroup(SamplingMethod(), [plain, failing])
    verdict = judge_group(group, make_scores(logits))
    # Penalised only once, token 0 is still the likeliest.
    assert [s.row.tokens[-1] for s in verdict.survivors] == [0]
    assert [index for index, _ in verdict.failures] == [1]


def test_judging_tokens_only_gives_what_verification_gives(monkeypatch: pytest.MonkeyPatch) -> None:
    logits = random_logits(5)
    logits[3] = -torch.inf
    rows = [
        make_row(temperature=0, end_ids=[int(logits[0].argmax())]),
        make_row(temperature=0.8, top_k=5, seed=3, max_tokens=1),
        make_row(repetition_penalty=1.3, min_p=0.1, seed=4),
        make_row(temperature=0),
        make_row(temperature=0, min_tokens=2, end_ids=[int(logits[4].argmax())]),
    ]
    for some in (rows, rows[:4], rows[:1]):
        found = judge(some, logits[: len(some)])
        with monkeypatch.context() as patch:
            patch.setattr(
                sampling, "judge_in_one_pass", lambda rows, *_: (Verdict(()), list(range(len(rows))))
            )
            expected = judge(some, logits[: len(some)])
        assert [(s.parent, s.row.tokens, s.finish, s.keep) for s in found.survivors] == [
            (s.parent, s.row.tokens, s.finish, s.keep) for s in expected.survivors
        ]
        assert list(found.failures) == list(expected.failures)


def test_judging_forced_tokens_only_gives_what_verification_gives(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    logits = random_logits(12)
    rows = [
        replace(make_row(temperature=0), grammar=Spelt((3, 1, 2))),
        make_row(temperature=0.8, seed=3),
        replace(make_row(temperature=0, max_tokens=3), grammar=Literal((3, 1, 2, 4))),
        replace(make_row(temperature=0, end_ids=[3]), grammar=Literal((3, 1, 2))),
        replace(make_row(temperature=0.9), grammar=Literal((5, 6))),
    ]
    drafts = [(3, 1, 2), (), (3, 1), (3, 1, 2), (5,)]
    for given in (0, 1):
        runs = []
        start = 0
        for own in drafts:
            skipped = len(own) * given
            runs.append((Run(own, start - skipped),))
            start += len(own) + 1 - skipped
        scores = Scores(logits[:start], runs)
        found = SamplingMethod().judge(rows, scores)
        with monkeypatch.context() as patch:
            patch.setattr(
                sampling, "judge_in_one_pass", lambda rows, *_: (Verdict(()), list(range(len(rows))))
            )
            expected = SamplingMethod().judge(rows, scores)
        assert [(s.parent, s.row.tokens, s.finish, s.keep, s.drafts) for s in found.survivors] == [
            (s.parent, s.row.tokens, s.finish, s.keep, s.drafts) for s in expected.survivors
        ]
        assert [s.finish for s in found.survivors] == ["stop", None, "length", "stop", "stop"]


def test_forced_tokens_are_given_unless_their_likelihood_is_needed_or_a_ban_is_possible() -> None:
    asked: list[dict[str, Any]] = [
        {},
        {"temperature": 0.5, "top_k": 3},
        {"logprobs": 0},
        {"mirostat_mode": 2},
        {"bad_words": ("x",)},
        {"min_tokens": 2},
        {"forced_eos_token_id": 3},
    ]
    rows = [replace(make_row(**params), grammar=Literal((3, 1))) for params in asked]
    rows += [replace(rows[0], explain=1), make_row()]
    assert SamplingMethod().propose(rows).given == [2, 2, 0, 0, 0, 0, 0, 0, 0]
