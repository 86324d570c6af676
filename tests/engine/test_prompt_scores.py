from __future__ import annotations

import random
from collections.abc import Sequence

import pytest

from decodery.decoding.chosen import TokenLogprobs
from decodery.decoding.request.params import GenerationParams
from decodery.decoding.request.strategy_params import ContrastiveSearch
from decodery.engine.engine import Engine
from decodery.kernels import PAGE_SIZE
from decodery.models.decoders.llama import Llama
from tests.engine.runs import make_engine
from tests.kernels.native.fixtures import built
from tests.models.tiny import default_model

VOCAB = 97

SCORED = GenerationParams(max_tokens=1, temperature=0, prompt_logprobs=1)


@pytest.fixture(scope="module")
def model() -> Llama:
    return default_model(max_position_embeddings=1024)


Scored = tuple[Sequence[TokenLogprobs | None], int]


def scored(engine: Engine) -> dict[int, Scored]:
    """Returns, of each request that runs, its prompt's log-probabilities and its number of cached tokens."""
    found: dict[int, Scored] = {}
    while engine.has_work():
        for event in engine.step():
            found[event.request] = (event.prompt_logprobs or (), event.cached_tokens)
        engine.check_integrity()
    return found


def scored_alone(engine: Engine, prompt: Sequence[int], params: GenerationParams) -> Scored:
    request = engine.add(prompt, params)
    return scored(engine)[request]


@built
@pytest.mark.parametrize("start", [0, 1, 16, 17, 18, 33, 100, 150])
def test_from_a_token_on_a_prompt_has_the_same_scores_and_reuses_the_pages_before_it(
    model: Llama, start: int
) -> None:
    prompt = [i * 7 % VOCAB for i in range(150)]
    engine = make_engine(model)
    whole, _ = scored_alone(engine, prompt, SCORED)
    part, cached = scored_alone(engine, prompt, SCORED.replace(prompt_logprobs_start=start))
    skipped = max(start, 1)
    assert part == [None] * skipped + list(whole[skipped:])
    assert cached == (skipped - 1) // PAGE_SIZE * PAGE_SIZE


@built
def test_preempted_prompts_have_the_same_scores_from_any_token_on(model: Llama) -> None:
    rng = random.Random(0)
    preemptions = 0
    for _ in range(6):
        jobs = [
            (
                [rng.randrange(VOCAB) for _ in range(rng.randint(100, 200))],
                SCORED.replace(prompt_logprobs_start=rng.randint(0, 100)),
            )
            for _ in range(3)
        ]
        engine = make_engine(model, pages=17, token_budget=rng.choice([8, 30]))
        engine.add([3] * 50, GenerationParams(max_tokens=150, seed=1))
        ids = [engine.add(*job) for job in jobs]
        found = scored(engine)
        for i, job in zip(ids, jobs, strict=True):
            assert found[i][0] == scored_alone(make_engine(model), *job)[0]
        preemptions += engine.preemptions
    assert preemptions


def test_a_prompt_whose_states_are_collected_reuses_nothing(model: Llama) -> None:
    engine = make_engine(model)
    params = GenerationParams(max_tokens=2, strategy=ContrastiveSearch(2, 0.5))
    for _ in range(2):
        assert scored_alone(engine, [5] * 40, params)[1] == 0
