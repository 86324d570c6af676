"""Checks that the engine runs, forks and rewinds what a method proposes, and applies its verdict."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import pytest

from decodery.decoding.chosen import FinishReason
from decodery.decoding.request.params import GenerationParams
from decodery.decoding.rows import Method, Needs, Proposal, Row, Scores, Survivor, Verdict
from decodery.engine.engine import Engine
from decodery.models.decoders.llama import Llama
from tests.engine.runs import Job, make_engine, run
from tests.kernels.native.fixtures import built
from tests.models.tiny import default_model

pytestmark = built

VOCAB = 97


@pytest.fixture(scope="module")
def model() -> Llama:
    return default_model(max_position_embeddings=1024)


class Drafting:
    """Drafts the next tokens of a known text, right or wrong, and keeps those that greedy decoding
    chooses."""

    def __init__(self, truth: Sequence[int], wrong_from: int) -> None:
        self.truth = truth
        self.wrong_from = wrong_from
        self.kept: list[int] = []

    def needs(self, params: GenerationParams) -> Needs:
        return Needs()

    def propose(self, rows: Sequence[Row]) -> Proposal:
        branches = []
        for row in rows:
            ahead = list(self.truth[row.generated : row.generated + 5])
            draft = tuple(t if i < self.wrong_from else (t + 1) % VOCAB for i, t in enumerate(ahead))
            branches.append((draft,))
        return Proposal(branches)

    def judge(self, rows: Sequence[Row], scores: Scores) -> Verdict:
        survivors = []
        for i, (row, (branch,)) in enumerate(zip(rows, scores.runs, strict=True)):
            best = scores.logits[branch.at(0) : branch.at(len(branch.tokens)) + 1].argmax(-1).tolist()
            keep = next((k for k, d in enumerate(branch.tokens) if d != best[k]), len(branch.tokens))
            self.kept.append(keep)
            survivors.append(grown(i, row, best[: keep + 1], keep))
        return Verdict(survivors)


def grown(parent: int, row: Row, tokens: Sequence[int], keep: int = 0) -> Survivor:
    for token in tokens[: row.limit - len(row.tokens)]:
        row = row.after(token)
    finish: FinishReason | None = "length" if len(row.tokens) >= row.limit else None
    return Survivor(parent, row, min(keep, len(tokens)), finish=finish)


def run_with(engine: Engine, method: Method, job: Job) -> list[int]:
    engine.add(*job)
    (request,) = engine._requests.values()
    request.method = method
    request.needs = method.needs(job[1])
    if request.needs.context:
        request.context = []
    tokens: list[int] = []
    while engine.has_work():
        for event in engine.step():
            tokens += event.tokens
        engine.check_integrity()
    return tokens


@pytest.mark.parametrize("wrong_from", [0, 2, 5])
def test_drafts_are_run_judged_and_rewound_without_a_trace(model: Llama, wrong_from: int) -> None:
    job: Job = ([7, 8, 9] * 9, GenerationParams(max_tokens=40, temperature=0))
    expected = run(make_engine(model), [job])[0][0]
    method = Drafting(expected, wrong_from)
    assert run_with(make_engine(model), method, job) == expected
    assert max(method.kept) == wrong_from


class Giving:
    """Proposes the next tokens of a known text as given, and appends the likeliest token after them."""

    def __init__(self, truth: Sequence[int]) -> None:
        self.truth = truth
        self.scored: list[int] = []

    def needs(self, params: GenerationParams) -> Needs:
        return Needs()

    def propose(self, rows: Sequence[Row]) -> Proposal:
        ahead = [tuple(self.truth[row.generated : row.generated + 3]) for row in rows]
        return Proposal([(own,) for own in ahead], given=[len(own) for own in ahead])

    def judge(self, rows: Sequence[Row], scores: Scores) -> Verdict:
        self.scored.append(len(scores.logits) - len(rows))
        survivors = []
        for i, (row, (branch,)) in enumerate(zip(rows, scores.runs, strict=True)):
            keep = len(branch.tokens)
            best = int(scores.logits[branch.at(keep)].argmax())
            survivors.append(grown(i, row, [*branch.tokens, best], keep))
        return Verdict(survivors)


@pytest.mark.parametrize("pages", [400, 5])
def test_scores_before_given_drafts_are_not_found(model: Llama, pages: int) -> None:
    job: Job = ([7, 8, 9] * 9, GenerationParams(max_tokens=20, temperature=0))
    expected = run(make_engine(model), [job])[0][0]
    method = Giving(expected)
    assert run_with(make_engine(model, pages=pages, token_budget=16), method, job) == expected
    assert set(method.scored) == {0}
    # Given drafts that exceed the token budget lose no token.
    engine = make_engine(model, token_budget=5)
    others = [engine.add([5 + i] * 4, job[1].replace(max_tokens=50)) for i in range(3)]
    request = engine._requests[engine.add(*job)]
    request.method = Giving(expected)
    tokens: dict[int, list[int]] = {}
    while engine.has_work():
        for event in engine.step():
            tokens.setdefault(event.request, []).extend(event.tokens)
    assert tokens.pop(request.id) == expected
    assert tokens.keys() == set(others)
    # Rows with a companion have scores at every position.
    guided = (job[0], job[1].replace(guidance_scale=1.5, negative_prompt=[3, 1]))
    method = Giving(expected)
    assert run_with(make_engine(model), method, guided) == expected
    assert max(method.scored) == 3


class Reshuffling:
    """Decodes greedily; each step forks every row once and keeps the last two rows."""

    def needs(self, params: GenerationParams) -> Needs:
        return Needs()

    def propose(self, rows: Sequence[Row]) -> Proposal:
        return Proposal([((),)] * len(rows))

    def judge(self, rows: Sequence[Row], scores: Scores) -> Verdict:
        survivors = []
        for i, (row, (branch,)) in enumerate(zip(rows, scores.runs, strict=True)):
            survivors += [grown(i, row, [int(scores.logits[branch.at(0)].argmax())])] * 2
        return Verdict(survivors[-2:])


class LookingAhead:
    """Decodes greedily by forks: runs the two likeliest tokens and keeps the fork of the likelier."""

    def needs(self, params: GenerationParams) -> Needs:
        return Needs(hidden=True, context=True)

    def propose(self, rows: Sequence[Row]) -> Proposal:
        states = [row.state for row in rows]
        return Proposal([tuple((t,) for t in s) if isinstance(s, tuple) else ((),) for s in states])

    def judge(self, rows: Sequence[Row], scores: Scores) -> Verdict:
        survivors = []
        assert scores.hidden is not None
        assert len(scores.hidden) == len(scores.logits)
        for i, (row, branches) in enumerate(zip(rows, scores.runs, strict=True)):
            if row.state is None:
                assert scores.context is not None
                assert len(scores.context[i]) == row.prompt_length - 1
            if not branches[0].tokens:
                best = scores.logits[branches[0].at(0)].topk(2).indices.tolist()
                survivors.append(Survivor(i, replace(row, state=(best[1], best[0]))))
                continue
            best = scores.logits[branches[1].at(1)].topk(2).indices.tolist()
            survivor = grown(i, row, branches[1].tokens, keep=1)
            after = replace(survivor.row, state=(best[1], best[0]))
            survivors.append(replace(survivor, row=after, branch=1))
        return Verdict(survivors)


@pytest.mark.parametrize("pages", [400, 5])
def test_forks_of_one_step_are_judged_side_by_side_and_leave_no_trace(model: Llama, pages: int) -> None:
    job: Job = ([7, 8, 9] * 9, GenerationParams(max_tokens=20, temperature=0))
    expected = run(make_engine(model), [job])[0][0]
    engine = make_engine(model, pages=pages, token_budget=16)
    assert run_with(engine, LookingAhead(), job) == expected


class Guided:
    """Decodes greedily by the companion's scores alone."""

    def needs(self, params: GenerationParams) -> Needs:
        return Needs()

    def propose(self, rows: Sequence[Row]) -> Proposal:
        return Proposal([((1, 2),)] * len(rows))

    def judge(self, rows: Sequence[Row], scores: Scores) -> Verdict:
        survivors = []
        assert scores.companion is not None
        assert scores.companion_at is not None
        for i, (row, (branch,)) in enumerate(zip(rows, scores.runs, strict=True)):
            place = scores.companion_at[branch.at(0)]
            survivors.append(grown(i, row, [int(scores.companion[place].argmax())]))
        return Verdict(survivors)


@pytest.mark.parametrize("budget", [512, 8])
def test_a_companion_scores_the_text_after_the_negative_prompt(model: Llama, budget: int) -> None:
    negative = [3, 1, 4] * 9
    plain = GenerationParams(max_tokens=20, temperature=0)
    expected = run(make_engine(model), [(negative, plain)])[0][0]
    guided = plain.replace(guidance_scale=1.5, negative_prompt=negative)
    assert run_with(make_engine(model, token_budget=budget), Guided(), ([7, 8] * 20, guided)) == expected


def test_forked_and_dropped_rows_compute_what_one_would(model: Llama) -> None:
    job: Job = ([7, 8, 9] * 9, GenerationParams(max_tokens=40, temperature=0))
    expected = run(make_engine(model), [job])[0][0]
    tokens = run_with(make_engine(model), Reshuffling(), job)
    assert tokens[::2] == tokens[1::2] == expected
