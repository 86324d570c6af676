from __future__ import annotations

import json
import random
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from decodery.decoding.event import Event
from decodery.decoding.request.params import GenerationParams
from decodery.decoding.request.strategy_params import ContrastiveSearch
from decodery.decoding.rows import Row, Run, Scores, Survivor
from decodery.decoding.strategies.contrastive_search import ContrastiveMethod, _grown
from decodery.errors import RequestError
from decodery.models.decoders.llama import Llama
from decodery.models.layers.attention import DenseAttend
from tests.decoding.rows import make_row
from tests.engine.runs import Job, make_engine, run
from tests.kernels.native.fixtures import built
from tests.models.tiny import default_model, tiny_model

ORACLE = json.loads(
    (Path(__file__).parents[2] / "data" / "decoding-smollm2.json").read_text(encoding="utf-8")
)
CASES = [case for case in ORACLE["cases"] if case["name"].startswith("contrastive")]
VOCAB = 97


@pytest.fixture(scope="module")
def model() -> Llama:
    return tiny_model()


@pytest.fixture(scope="module")
def default() -> Llama:
    return default_model()


def search(top_k: int = 4, penalty_alpha: float = 0.6, **params: Any) -> GenerationParams:
    strategy = ContrastiveSearch(top_k=top_k, penalty_alpha=penalty_alpha)
    return GenerationParams(strategy=strategy, **{"max_tokens": 20, **params})


def test_the_oracles_texts_token_for_token(default_llm: Any) -> None:
    params = [search(case["args"]["top_k"], case["args"]["penalty_alpha"], max_tokens=40) for case in CASES]
    outputs = default_llm.generate([case["prompt"] for case in CASES], params)
    assert len(CASES) == 4
    assert [o.completions[0].token_ids for o in outputs] == [case["sequences"][0] for case in CASES]


def hidden_of(model: Llama, tokens: Sequence[int]) -> Tensor:
    positions = torch.arange(len(tokens))[None]
    return model.hidden(torch.tensor([list(tokens)]), positions, DenseAttend(model.kernels))[0]


def reference(model: Llama, prompt: Sequence[int], params: GenerationParams) -> list[int]:
    """Returns the text by the paper's equation over whole sequences in float64, with a repetition penalty."""
    strategy = params.strategy
    assert isinstance(strategy, ContrastiveSearch)
    tokens = list(prompt)
    for _ in range(params.max_tokens or 0):
        logits = model.logits(hidden_of(model, tokens)[-1:])[0].double()
        for token in set(tokens):
            logits[token] *= params.repetition_penalty ** (1 if logits[token] < 0 else -1)
        top = logits.softmax(-1).topk(strategy.top_k)
        scores = []
        for probability, token in zip(top.values.tolist(), top.indices.tolist(), strict=True):
            *before, last = hidden_of(model, [*tokens, token])
            similarity = max(float(torch.cosine_similarity(last, h, dim=0)) for h in before)
            scores.append(
                ((1 - strategy.penalty_alpha) * probability - strategy.penalty_alpha * similarity, token)
            )
        tokens.append(max(scores)[1])
    return tokens[len(prompt) :]


@pytest.mark.parametrize(
    "params",
    [
        search(1),
        search(4, 0.6),
        search(2, 0.9, repetition_penalty=1.4),
        search(7, 0.4, temperature=0, repetition_penalty=0.8),
        search(5, 1.0),
        search(5, 0.0),
    ],
    ids=lambda p: f"{p.strategy.top_k}-{p.strategy.penalty_alpha}",
)
def test_the_text_is_that_of_the_papers_equation(model: Llama, params: GenerationParams) -> None:
    double = tiny_model(torch.float64)
    for prompt in ([3], [5, 9, 5, 9, 5, 9, 40, 41]):
        assert run(make_engine(model), [(prompt, params)]) == [[reference(double, prompt, params)]]


@built
def test_without_a_penalty_or_with_one_candidate_it_is_greedy(default: Llama) -> None:
    greedy = GenerationParams(max_tokens=20, temperature=0)
    jobs: list[Job] = [([1, 2, 3], p) for p in (greedy, search(1, 1.0), search(6, 0.0))]
    texts = run(make_engine(default), jobs)
    assert texts[0] == texts[1] == texts[2]
    assert run(make_engine(default), [([1, 2, 3], search(6, 0.9))]) != texts[:1]


def mixed_jobs() -> list[Job]:
    """Returns requests of 1 to 200 tokens, most of contrastive search; some are guided or penalised."""
    rng = random.Random(0)
    shared = [rng.randrange(VOCAB) for _ in range(120)]
    params = [
        search(4, 0.6, logprobs=2),
        search(8, 0.4, repetition_penalty=1.3),
        GenerationParams(max_tokens=20, seed=1, n=2),
        search(3, 0.8, guidance_scale=1.5, negative_prompt=(7, 8, 9)),
        search(5, 0.5, min_tokens=6, stop_token_ids=[4], frequency_penalty=0.3),
        GenerationParams(max_tokens=25, temperature=0),
        search(1, 0.6),
        search(6, 0.7, max_tokens=33),
    ]
    lengths = [1, 33, 60, 16, 200, 17, 2, 120]
    own = [[rng.randrange(VOCAB) for _ in range(length)] for length in lengths]
    return [([*shared[: len(o) // 2], *o[len(o) // 2 :]], p) for o, p in zip(own, params, strict=True)]


@pytest.fixture(scope="module")
def alone(default: Llama) -> list[list[list[int]]]:
    return [run(make_engine(default), [job])[0] for job in mixed_jobs()]


@built
@pytest.mark.parametrize("limits", [{}, {"prefix_cache": False}, {"token_budget": 16}], ids=str)
def test_batched_equals_alone(default: Llama, alone: list[list[list[int]]], limits: dict[str, Any]) -> None:
    engine = make_engine(default, **limits)
    assert run(engine, mixed_jobs()) == alone
    # The second time prompts may come from the prefix cache, but their hidden states cannot.
    assert run(engine, mixed_jobs()[::-1]) == alone[::-1]


@built
@pytest.mark.parametrize("prefix_cache", [True, False])
@pytest.mark.parametrize("token_budget", [16, 512])
def test_preemption_equals_alone(default: Llama, prefix_cache: bool, token_budget: int) -> None:
    variants: list[dict[str, Any]] = [
        {},
        {"repetition_penalty": 1.3},
        {"guidance_scale": 1.5},
        {"frequency_penalty": 0.4},
    ]
    jobs: list[Job] = [
        (
            [(i + j * j) % VOCAB for j in range(40 + i)],
            search(2, 0.4 + 0.05 * i, max_tokens=50, **variants[i % 4]),
        )
        for i in range(8)
    ]
    limits: dict[str, Any] = {"prefix_cache": prefix_cache, "token_budget": token_budget}
    ample = make_engine(default, **limits)
    expected = [run(ample, [job])[0] for job in jobs]
    fewest = max(ample.limits.pages_needed(len(prompt), params) for prompt, params in jobs)
    engine = make_engine(default, pages=fewest, **limits)
    assert run(engine, jobs) == expected
    assert engine.preemptions > 0, "the test needs scarcer pages"


def test_reported_logprobs_and_steps_are_those_of_the_tokens_taken(model: Llama) -> None:
    prompt = [4, 5, 6, 7]
    engine = make_engine(model)
    engine.add(prompt, search(4, 0.7, logprobs=2, logit_bias={3: 4.0}), explain=3)
    events: list[Event] = []
    while engine.has_work():
        events += engine.step()
    tokens = [t for e in events for t in e.tokens]
    logprobs = [entry for e in events for entry in e.logprobs]
    considered = [entry for e in events for entry in e.considered]
    assert [entry.token for entry in logprobs] == [entry.token for entry in considered] == tokens
    assert len(tokens) == 20
    own = model(torch.tensor([[*prompt, *tokens]]))[0].double().log_softmax(-1)[len(prompt) - 1 : -1]
    for row, logprob, seen in zip(own, logprobs, considered, strict=True):
        assert logprob.logprob == pytest.approx(float(row[logprob.token]), abs=1e-4)
        assert logprob.rank == seen.rank == int((row > row[logprob.token]).sum()) + 1
        assert [token for token, _ in logprob.top] == row.topk(2).indices.tolist()
        assert seen.before == pytest.approx(float(row[seen.token].exp()), abs=1e-4)
        biased = row.clone()
        biased[3] += 4
        assert seen.after == pytest.approx(float(biased.softmax(-1)[seen.token]), abs=1e-4)


@built
def test_a_text_ends_where_the_context_does(default: Llama) -> None:
    short = default_model(max_position_embeddings=40)
    for params in (search(max_tokens=None), search(guidance_scale=1.5, max_tokens=None)):
        (((*tokens,),),) = run(make_engine(short), [([1, 2, 3], params)])
        assert tokens == run(make_engine(default), [([1, 2, 3], params.replace(max_tokens=37))])[0][0]
    with pytest.raises(RequestError, match="no token can follow"):
        make_engine(short).add([1] * 40, search())


# The method without an engine, over scores made by hand.

CONTEXT = torch.tensor([[1.0, 0.0, 0.0], [0.0, 2.0, 0.0]])
LOGITS = torch.log(torch.tensor([0.1, 0.4, 0.3, 0.2]))
NAN = torch.tensor([torch.nan, 1.0, 2.0, 3.0])


def begun(row: Row, logits: Tensor = LOGITS) -> Survivor:
    """Returns the survivor of a first step of a row of three tokens."""
    scores = Scores(
        logits[None], [(Run((), 0),)], hidden=torch.tensor([[0.0, 0.0, 3.0]]), context={0: CONTEXT}
    )
    (survivor,) = ContrastiveMethod().judge([row], scores).survivors
    return survivor


def branched(
    branches: Sequence[tuple[int, ...]], hidden: Sequence[Sequence[float]], logits: Tensor
) -> Scores:
    """Returns the scores of branches of one draft, where the last known token was computed before."""
    runs = tuple(Run(tokens, i - 1) for i, tokens in enumerate(branches))
    return Scores(logits, [runs], hidden=torch.tensor(hidden))


def three(**params: Any) -> Row:
    return make_row([0, 1, 2], strategy=ContrastiveSearch(top_k=3, penalty_alpha=0.5), **params)


def test_the_first_judgement_only_finds_the_candidates() -> None:
    method = ContrastiveMethod()
    row = three()
    assert method.propose([row]).branches == [((),)]
    survivor = begun(row)
    assert survivor.row.tokens == row.tokens
    assert (survivor.keep, survivor.finish, survivor.logprobs) == (0, None, ())
    assert method.propose([survivor.row]).branches == [((1,), (2,), (3,))]


def test_a_candidate_is_compared_with_every_token_before_it() -> None:
    row = begun(three()).row
    free, seen = [-1.0, -1.0, -1.0], [[1.0, 0, 0], [0, 1.0, 0], [0, 0, 1.0]]
    for place, (state, expected) in enumerate(zip(seen, [2, 2, 2], strict=True)):
        # The likeliest candidate repeats one of the three states of the prompt.
        scores = branched([(1,), (2,), (3,)], [state, free, free], LOGITS.expand(3, -1))
        (survivor,) = ContrastiveMethod().judge([row], scores).survivors
        assert survivor.row.tokens[-1] == expected, place
        assert (survivor.branch, survivor.keep) == (1, 1)
    scores = branched([(1,), (2,), (3,)], [free, free, free], LOGITS.expand(3, -1))
    assert ContrastiveMethod().judge([row], scores).survivors[0].row.tokens[-1] == 1


def test_the_next_candidates_follow_the_branch_that_was_taken() -> None:
    row = begun(three()).row
    logits = torch.eye(4)[[3, 0, 1]] * 9
    scores = branched([(1,), (2,), (3,)], [[1.0, 0, 0], [-1.0, -1, -1], [0, 0, 1.0]], logits)
    (survivor,) = ContrastiveMethod().judge([row], scores).survivors
    assert ContrastiveMethod().propose([survivor.row]).branches[0][0] == (0,)


def test_a_row_that_ran_no_candidate_keeps_its_candidates() -> None:
    row = begun(three()).row
    # This is so after a preemption: the last token is scored again, and its hidden state is already known.
    scores = Scores(LOGITS[None], [(Run((), 0),)], hidden=torch.ones(1, 3))
    (again,) = ContrastiveMethod().judge([row], scores).survivors
    assert (again.keep, again.row.tokens) == (0, row.tokens)
    assert ContrastiveMethod().propose([again.row]).branches == [((1,), (2,), (3,))]
    # Candidate 1 has the state (1, 1, 1): it would lose if that had been added to the history again.
    hidden = [[1.0, 1.0, 1.0], [-1.0, 0.9, 0.9], [-1.0, 0.9, 0.9]]
    for state in (row, again.row):
        (survivor,) = (
            ContrastiveMethod()
            .judge([state], branched([(1,), (2,), (3,)], hidden, LOGITS.expand(3, -1)))
            .survivors
        )
        assert survivor.row.tokens[-1] == 1


def test_fewer_candidates_than_k_are_proposed_when_fewer_are_possible() -> None:
    row = begun(three(logit_bias={1: -float("inf"), 3: -float("inf")})).row
    assert ContrastiveMethod().propose([row]).branches == [((2,), (0,))]


@pytest.mark.parametrize(("logits", "bias", "why"), [(LOGITS, -float("inf"), "ban"), (NAN, 0.0, "NaN")])
def test_a_row_without_a_possible_token_fails_alone(logits: Tensor, bias: float, why: str) -> None:
    bad, good = three(logit_bias=dict.fromkeys(range(4), bias)), three()
    scores = Scores(
        torch.stack([logits, LOGITS]),
        [(Run((), 0),), (Run((), 1),)],
        hidden=torch.ones(2, 3),
        context={0: CONTEXT, 1: CONTEXT},
    )
    verdict = ContrastiveMethod().judge([bad, good], scores)
    assert [s.parent for s in verdict.survivors] == [1]
    ((parent, reason),) = verdict.failures
    assert parent == 0
    assert why in reason


def test_a_token_is_reported_before_its_row_fails_because_none_can_follow() -> None:
    method = ContrastiveMethod()
    row = begun(three()).row
    free = [[-1.0, -1.0, -1.0]] * 3
    dead = torch.full((3, 4), -torch.inf)
    (survivor,) = method.judge([row], branched([(1,), (2,), (3,)], free, dead)).survivors
    assert (survivor.row.tokens[-1], survivor.keep) == (1, 0)
    assert method.propose([survivor.row]).branches == [((),)]
    scores = Scores(dead[:1], [(Run((), 0),)], hidden=torch.ones(1, 3))
    verdict = method.judge([survivor.row], scores)
    assert not verdict.survivors
    assert "ban" in dict(verdict.failures)[0]


def test_a_row_ends_as_all_rows_do() -> None:
    ended = three(max_tokens=1)
    stopped = replace(three(), end_ids=frozenset([1]))
    free = [[-1.0, -1.0, -1.0]] * 3
    for row, finish in ((ended, "length"), (stopped, "stop"), (three(), None)):
        scores = branched([(1,), (2,), (3,)], free, LOGITS.expand(3, -1))
        (survivor,) = ContrastiveMethod().judge([begun(row).row], scores).survivors
        assert survivor.finish == finish


def test_a_history_grows_in_few_chunks_and_does_not_change_the_old_one() -> None:
    states = torch.randn(301, 5, generator=torch.Generator().manual_seed(0))
    versions: list[tuple[Tensor, ...]] = [(states[:100],)]
    for state in states[100:]:
        versions.append(_grown(versions[-1], state))
        assert len(versions[-1]) <= 8
    # A second successor of an older version changes neither the first one nor that version.
    _grown(versions[50], torch.zeros(5))
    for length, version in enumerate(versions, 100):
        assert torch.equal(torch.cat(version), states[:length])


def test_the_token_taken_has_the_best_of_the_weighed_scores(model: Llama) -> None:
    engine = make_engine(model)
    params = GenerationParams(max_tokens=6, strategy=ContrastiveSearch(3, 0.5))
    engine.add([5, 6, 7], params, explain=3)
    choices = []
    while engine.has_work():
        choices += [c for event in engine.step() for c in event.considered]
    assert len(choices) == 6
    for choice in choices:
        assert len(choice.weighed) == 3
        for w in choice.weighed:
            assert w.score == pytest.approx(0.5 * w.probability - 0.5 * w.similarity, abs=1e-6)
        assert max(choice.weighed, key=lambda w: w.score).token == choice.token
