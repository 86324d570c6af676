"""Checks that steps in which requests decode keep their bound, on a clock that steps move by known costs."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, Phase, example, given, settings
from hypothesis import strategies as st

from decodery import LLM
from decodery.decoding.request.params import GenerationParams
from decodery.decoding.request.speculation_params import DraftModel, PromptLookup
from decodery.decoding.request.strategy_params import BeamSearch, ContrastiveDecoding, DoLa
from decodery.engine.batch import Batch, Chunk
from decodery.engine.captured_steps import States
from decodery.engine.engine import Engine
from decodery.engine.limits import Limits, page_bytes
from decodery.engine.second_model_runner import SecondModelRunner
from decodery.engine.step_bound import StepCost, Work, work_of
from decodery.errors import ParameterError
from decodery.kernels import PAGE_SIZE
from decodery.models.decoders.llama import Llama
from tests.cli.conftest import write_model
from tests.engine.runs import Job, make_engine, run
from tests.kernels.native.fixtures import built
from tests.models.tiny import default_model

# Seconds of a step, of a token, of a thousand pairs, of a draw, of a scored position and of a token of a
# second model.
COSTS = Work(0.004, 0.0003, 0.0003, 0.0004, 0.0005, 0.0001)
STREAM = GenerationParams(max_tokens=400, ignore_eos=True, seed=1)


@pytest.fixture(scope="module")
def model() -> Llama:
    return default_model(max_position_embeddings=1024)


class Timed:
    """Holds an engine whose clock goes on by the cost of each batch, and the batches with their seconds."""

    def __init__(
        self, model: Llama, bound: float | None, costs: Sequence[float] = COSTS, **limits: Any
    ) -> None:
        self.now = 0.0
        self.costs = costs
        self.steps: list[tuple[list[Chunk], list[int], float]] = []
        sizes = Limits(
            pages=700,
            page_bytes=page_bytes(model, None),
            context_length=model.context_length,
            max_step_ms=None if bound is None else bound * 1000,
        )
        self.engine = Engine(model, sizes, clock=lambda: self.now)
        hidden = self.engine._runner.hidden

        def timed(batch: Batch, layers: Iterable[int] = ()) -> States:
            seconds = sum(c * x for c, x in zip(self.costs, work_of(batch.chunks), strict=True))
            self.now += seconds
            self.steps.append((list(batch.chunks), [chunk.length for chunk in batch.chunks], seconds))
            return hidden(batch, layers)

        self.engine._runner.hidden = timed  # type: ignore[method-assign]

    def run(self, steps: int = 10_000) -> None:
        """Runs so many steps, or until all requests have ended."""
        for _ in range(steps):
            if not self.engine.has_work():
                break
            self.engine.step()
        self.engine.check_integrity()

    def prompts(self) -> list[int]:
        """Returns for each step in which requests decoded how many tokens of prompts ran in it."""
        return [
            sum(n for chunk, n in zip(chunks, lengths, strict=True) if chunk.prefill)
            for chunks, lengths, _ in self.steps
            if any(not chunk.prefill for chunk in chunks)
        ]

    def too_long(self, bound: float) -> list[tuple[int, float]]:
        """Returns tokens of prompts and seconds of each step that is longer than the bound and ran more than
        a page of them while others decoded."""
        found = []
        for chunks, lengths, seconds in self.steps:
            prompts = sum(n for chunk, n in zip(chunks, lengths, strict=True) if chunk.prefill)
            if any(not c.prefill for c in chunks) and prompts > PAGE_SIZE and seconds > bound * 1.0001:
                found.append((prompts, seconds))
        return found


def words(length: int, seed: int = 0) -> list[int]:
    return [(i * 7 + seed * 13 + i * i % 11) % 97 for i in range(length)]


KINDS: dict[str, Callable[[int], GenerationParams]] = {
    "plain": lambda tokens: GenerationParams(max_tokens=tokens, seed=1),
    "streams": lambda tokens: GenerationParams(max_tokens=tokens, seed=1, n=4),
    "scored": lambda tokens: GenerationParams(max_tokens=tokens, seed=1, prompt_logprobs=1),
    "beams": lambda tokens: GenerationParams(
        max_tokens=tokens, temperature=0, strategy=BeamSearch(num_beams=3)
    ),
    "guided": lambda tokens: GenerationParams(
        max_tokens=tokens, seed=1, guidance_scale=1.5, negative_prompt=words(70)
    ),
    "drafts": lambda tokens: GenerationParams(max_tokens=tokens, temperature=0, speculate=PromptLookup()),
    "layers": lambda tokens: GenerationParams(max_tokens=tokens, temperature=0, strategy=DoLa((0, 1))),
}


KIND_NAMES = sorted(KINDS)
FEW = settings(
    max_examples=20,
    derandomize=True,
    deadline=None,
    # Shrinking an example takes minutes.
    phases=[Phase.explicit, Phase.generate],
    suppress_health_check=[HealthCheck.function_scoped_fixture],
)


@FEW
@given(
    st.lists(
        st.tuples(
            st.integers(1, 800), st.integers(1, 60), st.sampled_from(sorted(KINDS)), st.integers(0, 12)
        ),
        min_size=2,
        max_size=8,
    ),
    st.tuples(*(st.floats(0, 1) for _ in range(6))),
    st.floats(0.02, 0.2),
)
@example([(127, 1, "scored", 0), (1, 1, "beams", 0)], (0.0, 0.0, 0.0, 0.0, 1.0, 0.0), 0.0625)
@example(
    [(250, 1, "beams", 10), (112, 60, "streams", 12), (182, 6, "scored", 0)],
    (0.0, 0.0, 0.0, 1.0, 1.0, 0.0),
    0.0625,
)
@example(
    [
        *[(211, 28, "plain", 5), (470, 16, "scored", 0), (270, 58, "drafts", 6), (211, 28, "plain", 5)],
        *[(176, 6, "beams", 10), (509, 46, "scored", 0), (304, 47, "plain", 11), (56, 43, "guided", 5)],
    ],
    (0.69, 0.0, 0.1, 0.037, 0.29, 0.0),
    0.02,
)
def test_no_step_in_which_requests_decode_is_longer_than_the_bound(
    model: Llama,
    arrivals: list[tuple[int, int, str, int]],
    scales: tuple[float, ...],
    bound: float,
) -> None:
    timed = Timed(model, bound, [c * s for c, s in zip(COSTS, scales, strict=True)])
    for i, (length, tokens, kind, wait) in enumerate(arrivals):
        timed.engine.add(words(length, i), KINDS[kind](tokens))
        timed.run(wait)
    timed.run()
    assert timed.too_long(bound) == []


def test_the_bound_is_used(model: Llama) -> None:
    timed = Timed(model, 0.03)
    timed.engine.add(words(20), STREAM)
    timed.run(10)
    for seed in range(6):
        timed.engine.add(words(900, seed), GenerationParams(max_tokens=1))
    timed.steps.clear()
    timed.run(120)
    assert not timed.too_long(0.03)
    mixed = [seconds for chunks, _, seconds in timed.steps if any(c.prefill for c in chunks)]
    # From when the costs are known.
    assert len(mixed) > 50
    assert sum(mixed[20:]) / len(mixed[20:]) > 0.8 * 0.03


def test_a_bound_that_is_too_short_for_a_page_gives_each_step_one_page(model: Llama) -> None:
    timed = Timed(model, 0.001)
    timed.engine.add(words(20), STREAM)
    timed.run(3)
    timed.engine.add(words(100, 1), GenerationParams(max_tokens=1))
    timed.engine.add(words(100, 2), GenerationParams(max_tokens=1))
    timed.steps.clear()
    timed.run(20)
    assert timed.prompts()[:14] == [*[PAGE_SIZE] * 6, 4] * 2


@pytest.mark.parametrize("bound", [0.001, None])
def test_with_nothing_decoding_a_step_has_the_whole_budget(model: Llama, bound: float | None) -> None:
    timed = Timed(model, bound)
    timed.engine.add(words(300), GenerationParams(max_tokens=1))
    timed.engine.add(words(300, 1), GenerationParams(max_tokens=1))
    timed.run()
    assert [sum(lengths) for _, lengths, _ in timed.steps] == [512, 88]


def test_without_a_bound_prompts_fill_the_budget_beside_requests_that_decode(model: Llama) -> None:
    timed = Timed(model, None)
    timed.engine.add(words(20), STREAM)
    timed.run(3)
    timed.engine.add(words(600), GenerationParams(max_tokens=1))
    timed.run(1)
    assert timed.prompts()[-1] == 511


def test_while_no_cost_is_known_a_step_runs_one_page_of_a_prompt(model: Llama) -> None:
    timed = Timed(model, 10.0, [0.0] * len(COSTS))
    timed.engine.add(words(1), STREAM)
    timed.run(3)
    timed.engine.add(words(100), GenerationParams(max_tokens=1))
    timed.engine.add(words(100, 1), GenerationParams(max_tokens=1))
    timed.run(2)
    assert timed.prompts()[-2:] == [PAGE_SIZE] * 2


def test_chunks_of_a_prompt_shrink_as_its_context_grows(model: Llama) -> None:
    timed = Timed(model, 0.06, COSTS._replace(pairs=0.002))
    timed.engine.add(words(20), STREAM)
    timed.run(3)
    for seed in range(4):
        timed.engine.add(words(1000, seed), GenerationParams(max_tokens=1))
    timed.run(300)
    assert timed.too_long(0.06) == []
    chunks = [
        n
        for chunks, lengths, _ in timed.steps
        for chunk, n in zip(chunks, lengths, strict=True)
        if chunk.request.id == 4 and chunk.prefill and not chunk.judged
    ]
    assert chunks[1] > 1.5 * chunks[-1]


def test_chunks_follow_a_machine_that_becomes_slower_and_fast_again(model: Llama) -> None:
    timed = Timed(model, 0.04)
    timed.engine.add(words(20), STREAM)
    timed.run(3)
    for seed in range(60):
        timed.engine.add(words(900, seed), GenerationParams(max_tokens=1))
    timed.run(60)
    fast = timed.prompts()[-20:]
    timed.costs = [3 * cost for cost in COSTS]
    timed.run(2)
    timed.steps.clear()
    timed.run(60)
    assert timed.too_long(1.2 * 0.04) == []
    slow = timed.prompts()[-20:]
    timed.costs = COSTS
    timed.run(80)
    assert 2 * sum(slow) < sum(fast) < 1.2 * sum(timed.prompts()[-20:])


def test_one_step_that_takes_long_does_not_slow_prompts_for_long(model: Llama) -> None:
    timed = Timed(model, 0.04)
    timed.engine.add(words(20), STREAM)
    timed.run(3)
    for seed in range(20):
        timed.engine.add(words(900, seed), GenerationParams(max_tokens=1))
    timed.run(60)
    before = sum(timed.prompts()[-20:])
    timed.costs = [50 * cost for cost in COSTS]
    timed.run(1)
    timed.costs = COSTS
    timed.run(40)
    assert sum(timed.prompts()[-20:]) > 0.7 * before


def test_the_time_that_proposals_take_counts(model: Llama) -> None:
    timed = Timed(model, 0.04)
    timed.engine.add(words(20), STREAM)
    timed.run(3)
    for seed in range(20):
        timed.engine.add(words(900, seed), GenerationParams(max_tokens=1))
    timed.run(60)
    before = sum(timed.prompts()[-10:])
    mark_expired = timed.engine._mark_expired

    def slow() -> None:
        timed.now += 0.02
        mark_expired()

    timed.engine._mark_expired = slow  # type: ignore[method-assign]
    timed.run(10)
    assert sum(timed.prompts()[-10:]) < 0.6 * before


@built
@FEW
@given(
    st.lists(
        st.tuples(st.integers(1, 300), st.integers(1, 20), st.sampled_from(KIND_NAMES), st.integers(0, 4)),
        min_size=2,
        max_size=6,
    ),
    st.lists(st.one_of(st.floats(-100, 100), st.sampled_from([0.0, 1e300, -1e300, 1e-300])), min_size=1),
    st.sampled_from([0.01, 1.0, 1000.0]),
    st.integers(0, 4),
)
def test_no_text_depends_on_the_clock(
    model: Llama,
    history: list[tuple[int, int, str, int]],
    jumps: list[float],
    bound: float,
    spare: int,
) -> None:
    jobs: list[Job] = [
        (words(length, i), KINDS[kind](most)) for i, (length, most, kind, _) in enumerate(history)
    ]
    fewest = max(make_engine(model, pages=2000).limits.pages_needed(len(p), params) for p, params in jobs)
    limits = Limits(
        fewest + spare, page_bytes(model, None), model.context_length, token_budget=128, max_step_ms=bound
    )
    readings = 0
    now = 0.0

    def clock() -> float:
        nonlocal readings, now
        now += jumps[readings % len(jumps)]
        readings += 1
        return now

    engine = Engine(model, limits, clock=clock)
    tokens: dict[tuple[int, int], list[int]] = {}
    for i, (job, (_, _, _, wait)) in enumerate(zip(jobs, history, strict=True)):
        request = engine.add(*job)
        tokens |= {(request, stream): [] for stream in range(job[1].streams)}
        for _ in range(wait if i < len(jobs) - 1 else 10_000):
            for event in engine.step() if engine.has_work() else ():
                if event.stream is not None:
                    tokens[event.request, event.stream] += event.tokens
            engine.check_integrity()
    assert not engine.has_work()
    alone = [run(make_engine(model, pages=2000), [job])[0] for job in jobs]
    assert list(tokens.values()) == [stream for streams in alone for stream in streams]


def test_costs_are_found_from_steps_of_different_work() -> None:
    cost = StepCost()
    for tokens in (1, 40, 90, 200, 17, 300, 64, 128, 1, 50, 100, 150, 200, 250, 70, 90, 110):
        work = Work(1.0, tokens, tokens * tokens / 2000, tokens % 7 + 1, tokens // 3 % 5, tokens % 3)
        cost.learn(work, sum(c * x for c, x in zip(COSTS, work, strict=True)), with_prompt=tokens > 1)
        assert cost.fit()
    work = Work(1.0, 150, 12, 3, 2, 1)
    seconds = sum(c * x for c, x in zip(COSTS, work, strict=True))
    assert seconds < cost.at_most(work) < 1.5 * seconds


@pytest.mark.parametrize("kind", ["drafts", "contrast"])
def test_a_second_model_runs_no_more_of_a_prompt_in_a_step_than_the_first(model: Llama, kind: str) -> None:
    small = default_model(seed=1, num_hidden_layers=1, max_position_embeddings=1024)
    params = STREAM.replace(temperature=0, seed=None)
    models: dict[str, Llama] = {}
    if kind == "drafts":
        params, models = params.replace(speculate=DraftModel("small")), {"draft_model": small}
    else:
        params, models = params.replace(strategy=ContrastiveDecoding("small")), {"contrast_model": small}
    timed = Timed(model, 0.001)
    timed.engine.add(words(20), params, **models)  # type: ignore[arg-type]
    timed.run(3)
    prompt = words(300, 1)
    timed.engine.add(prompt, params.replace(max_tokens=6), **models)  # type: ignore[arg-type]
    second = timed.engine._second_models[id(small)]
    assert isinstance(second, SecondModelRunner)
    hidden = second._runner.hidden
    counts: list[int] = []

    def counting(batch: Batch, layers: Iterable[int] = ()) -> States:
        counts.append(batch.length)
        return hidden(batch, layers)

    second._runner.hidden = counting  # type: ignore[method-assign]
    timed.run(40)
    assert sum(counts) >= len(prompt)
    # The first request's drafts, or its scored tokens, may run in the same step.
    assert max(counts) <= PAGE_SIZE + 12
    assert timed.engine.statistics().running == 1


@pytest.mark.parametrize("bound", [0, -1.0, float("inf"), float("nan"), True, "40"])
def test_a_bound_that_is_no_positive_number_is_refused(tmp_path: Path, bound: Any) -> None:
    with pytest.raises(ParameterError, match="max_step_ms"):
        LLM(write_model(tmp_path), max_step_ms=bound)


def test_an_llm_with_a_bound_gives_the_same_texts(tmp_path: Path) -> None:
    folder = write_model(tmp_path)
    prompts = ["the quick " * n for n in (1, 9, 3, 12)]
    params = GenerationParams(max_tokens=8, seed=3)
    texts = [
        [output.completions[0].text for output in LLM(folder, **options).generate(prompts, params)]
        for options in ({}, {"max_step_ms": 1}, {"max_step_ms": 0.01})
    ]
    assert texts[0] == texts[1] == texts[2]
