from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import pytest
import torch
from torch import Tensor

from decodery.decoding.request.params import GenerationParams
from decodery.decoding.request.strategy_params import ContrastiveDecoding
from decodery.decoding.rows import Needs, Row, Run, Scores
from decodery.decoding.strategies.contrastive_decoding import ContrastiveDecodingMethod
from decodery.decoding.strategies.sampling import SamplingMethod
from decodery.engine.engine import Engine
from decodery.models.contract import CausalModel
from tests.decoding.rows import make_row, make_scores
from tests.engine.runs import Job, make_engine
from tests.kernels.native.fixtures import built
from tests.models.tiny import default_model, tiny_model

METHOD = ContrastiveDecodingMethod()


def row_of(alpha: float = 0.1, beta: float = 0.5, **params: Any) -> Row:
    return make_row(strategy=ContrastiveDecoding(amateur="a model", alpha=alpha, beta=beta), **params)


def made(positions: int, vocab: int = 40, runs: Sequence[tuple[Run, ...]] = ()) -> Scores:
    generator = torch.Generator().manual_seed(0)
    expert = torch.randn(positions, vocab, generator=generator) * 2
    amateur = expert + torch.randn(positions, vocab, generator=generator)
    return Scores(expert, runs or [(Run((), i),) for i in range(positions)], amateur=amateur)


def reference(expert: Tensor, amateur: Tensor, alpha: float, beta: float) -> Tensor:
    """Returns the contrast in float64, of logits `[vocab]`."""
    p = expert.double().softmax(-1)
    contrast = (1 + beta) * expert.double() - beta * amateur.double()
    contrast[p < alpha * p.max()] = -torch.inf
    return contrast


def test_the_contrast_is_the_papers_formula() -> None:
    scores = made(12)
    assert scores.amateur is not None
    settings = [(0.1, 0.5), (0.3, 0.0), (0.01, 2.0), (0.9, 0.25)]
    rows = [row_of(*settings[i % 4]) for i in range(12)]
    logits = METHOD.logits(scores, range(12), rows)
    for i, contrasted in enumerate(logits):
        expected = reference(scores.logits[i], scores.amateur[i], *settings[i % 4])
        torch.testing.assert_close(contrasted.double(), expected, atol=1e-4, rtol=1e-4)
        # A position has the same bits alone.
        assert torch.equal(METHOD.logits(scores, [i], [rows[i]])[0], contrasted)


def test_plausible_tokens_that_the_amateur_finds_likely_are_avoided() -> None:
    expert = torch.log(torch.tensor([[0.5, 0.4, 0.09, 0.01]]))
    amateur = torch.log(torch.tensor([[0.9, 0.05, 0.049, 0.001]]))
    scores = Scores(expert, [(Run((), 0),)], amateur=amateur)
    (logits,) = METHOD.logits(scores, [0], [row_of(0.1, 1.0)])
    assert logits.tolist() == pytest.approx(
        [math.log(0.25 / 0.9), math.log(0.16 / 0.05), math.log(0.0081 / 0.049), -math.inf], abs=1e-5
    )
    (survivor,) = METHOD.judge([row_of(0.1, 1.0, temperature=0)], scores).survivors
    assert survivor.row.tokens[-1] == 1


def test_with_alpha_1_or_beta_0_it_is_greedy_and_logprobs_are_the_experts() -> None:
    scores = made(6)
    rows = [row_of(*s, temperature=0, logprobs=3) for s in ((1.0, 9.0), (0.1, 0.0)) for _ in range(3)]
    greedy = SamplingMethod().judge([make_row(temperature=0, logprobs=3)] * 6, make_scores(scores.logits))
    verdict = METHOD.judge(rows, scores)
    assert [s.row.tokens for s in verdict.survivors] == [s.row.tokens for s in greedy.survivors]
    assert [s.logprobs for s in verdict.survivors] == [s.logprobs for s in greedy.survivors]


def test_processors_and_draws_see_the_contrast() -> None:
    scores = made(1)
    row = row_of(0.05, 1.0, n=400, seed=3, temperature=0.8)
    contrasted = METHOD.logits(scores, [0], [row])
    drawn = [s.row.tokens[-1] for s in METHOD.judge([row], scores).survivors]
    plain = make_row(n=400, seed=3, temperature=0.8)
    assert drawn == [
        s.row.tokens[-1] for s in SamplingMethod().judge([plain], make_scores(contrasted)).survivors
    ]
    assert len(set(drawn)) > 1
    banned = row_of(0.05, 1.0, temperature=0, logit_bias={int(contrasted.argmax()): -100.0})
    (survivor,) = METHOD.judge([banned], scores).survivors
    assert survivor.row.tokens[-1] == int(contrasted[0].topk(2).indices[1])


def test_drafts_are_judged_by_the_contrast() -> None:
    best = [int(METHOD.logits(made(4), [i], [row_of()])[0].argmax()) for i in range(4)]
    scores = made(4, runs=[(Run((*best[:2], (best[2] + 1) % 40), 0),)])
    (survivor,) = METHOD.judge([row_of(temperature=0)], scores).survivors
    assert survivor.row.tokens.tolist()[1:] == best[:3]
    assert survivor.keep == 2


def test_guidance_comes_after_the_contrast() -> None:
    scores = made(2)
    row = row_of(0.01, 0.5, guidance_scale=2.0, negative_prompt=(1,))
    guided = Scores(scores.logits[:1], [(Run((), 0),)], scores.logits[1:], {0: 0}, amateur=made(2).amateur)
    (contrasted,) = METHOD.logits(scores, [0], [row_of(0.01, 0.5)])
    own, companion = contrasted.log_softmax(-1), scores.logits[1].log_softmax(-1)
    (logits,) = METHOD.logits(guided, [0], [row])
    torch.testing.assert_close(logits, companion + 2 * (own - companion))


def test_if_all_plausible_tokens_are_banned_plausibility_is_judged_among_the_others() -> None:
    expert = torch.log(torch.tensor([[0.9, 0.05, 0.04, 0.009, 0.001]])).repeat(3, 1)
    amateur = torch.log(torch.tensor([[0.9, 0.09, 0.007, 0.001, 0.002]])).repeat(3, 1)
    scores = Scores(expert, [(Run((), i),) for i in range(3)], amateur=amateur)
    free = row_of(0.1, 1.0, temperature=0)
    banned = row_of(0.1, 1.0, temperature=0, min_tokens=1, end_ids=[0])
    none = row_of(0.1, 1.0, logit_bias=dict.fromkeys(range(5), -math.inf))
    logits = METHOD.logits(scores, [0, 1, 2], [free, banned, none])
    assert (logits[0] > -math.inf).tolist() == [True, False, False, False, False]
    assert (logits[1] > -math.inf).tolist() == [True, True, True, True, False]
    verdict = METHOD.judge([free, banned, none], scores)
    # Of tokens 1, 2 and 3, token 2 has the largest ratio to the amateur's probability.
    assert [s.row.tokens[-1] for s in verdict.survivors[:2]] == [0, 2]
    assert [s.finish for s in verdict.survivors] == [None, None, "error"]
    assert "ban" in str(verdict.survivors[2].error)


def test_damaged_weights_are_reported_as_such() -> None:
    for damaged in ("logits", "amateur"):
        scores = made(2)
        getattr(scores, damaged)[0] = torch.nan
        verdict = METHOD.judge([row_of(), row_of()], scores)
        assert [s.finish for s in verdict.survivors] == ["error", None]
        assert "NaN" in str(verdict.survivors[0].error)


def test_it_needs_the_amateurs_logits_and_nothing_else() -> None:
    strategy = ContrastiveDecoding(amateur="a model")
    assert METHOD.needs(GenerationParams(strategy=strategy)) == Needs(amateur=True)


def test_a_greedy_text_is_that_of_the_two_models() -> None:
    model, amateur = tiny_model(), tiny_model(seed=1, num_hidden_layers=2)
    exact = tiny_model(torch.float64), tiny_model(torch.float64, seed=1, num_hidden_layers=2)
    strategy = ContrastiveDecoding(amateur="a model", alpha=0.05, beta=0.7)
    params = GenerationParams(strategy=strategy, temperature=0, max_tokens=20)
    for prompt in ([5], [7, 9, 7, 9, 11]):
        tokens = list(prompt)
        for _ in range(20):
            own, other = (m(torch.tensor([tokens]))[0, -1] for m in exact)
            tokens.append(int(reference(own, other, 0.05, 0.7).argmax()))
        assert generated(make_engine(model), amateur, [(prompt, params)]) == [tokens[len(prompt) :]]


@built
def test_batched_and_preempted_equal_alone() -> None:
    model, amateur = default_model(), default_model(seed=1, num_hidden_layers=2)
    variants: list[dict[str, Any]] = [{"temperature": 0}, {"temperature": 0.8}, {"repetition_penalty": 1.3}]
    jobs: list[Job] = [
        (
            [(i * j) % 97 for j in range(1, 20 + 7 * i)],
            GenerationParams(
                strategy=ContrastiveDecoding(amateur="a model", alpha=0.05 * i + 0.02, beta=0.2 * i),
                max_tokens=40,
                seed=i,
                **variants[i % 3],
            ),
        )
        for i in range(6)
    ]
    alone = [generated(make_engine(model), amateur, [job])[0] for job in jobs]
    assert generated(make_engine(model), amateur, jobs) == alone
    assert generated(make_engine(model, token_budget=16), amateur, jobs) == alone
    scarce = make_engine(model, pages=18)  # Half of them are the amateur's.
    assert generated(scarce, amateur, jobs) == alone
    assert scarce.preemptions > 0, "the test needs scarcer pages"


def generated(engine: Engine, amateur: CausalModel, jobs: Sequence[Job]) -> list[list[int]]:
    """Returns the tokens of each job, of one stream, with this amateur."""
    ids = [engine.add(prompt, params, contrast_model=amateur) for prompt, params in jobs]
    tokens: dict[int, list[int]] = {i: [] for i in ids}
    while engine.has_work():
        for event in engine.step():
            tokens[event.request] += event.tokens
        engine.check_integrity()
    return [tokens[i] for i in ids]
