"""Checks on the native backend that a request has the same bits whatever runs in its batch."""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Any

import pytest

from decodery import LLM, DecoderyError, DraftModel, GenerationParams, PromptLookup
from decodery.kernels.native import library
from decodery.outputs import RequestOutput
from decodery.weights.sources.locate import resolve
from tests.cli.conftest import write_model
from tests.combinations import features
from tests.kernels.native.fixtures import built
from tests.mixed import random_request

pytestmark = built


@dataclass
class Result:
    """Holds the results of a request; floats are not rounded, so equal means equal in every bit."""

    completions: list[Any]
    prompt: Any
    error: str | None


def result_of(output: RequestOutput) -> Result:
    completions = [(c.token_ids, c.logprobs, c.finish_reason, c.score, c.text) for c in output.completions]
    return Result(completions, output.prompt_logprobs, output.error)


@dataclass(frozen=True)
class Jobs:
    """Holds requests, the results of each alone, and a function that opens an LLM over the same model."""

    open: Callable[..., LLM]
    prompts: list[str]
    params: list[GenerationParams]
    alone: list[Result]

    def check(self, found: list[Result]) -> None:
        """Raises `AssertionError` unless each request has the results that it has alone."""
        for prompt, params, one, other in zip(self.prompts, self.params, found, self.alone, strict=True):
            assert one == other, (prompt, params)

    def check_together(self, llm: LLM) -> None:
        outputs = llm.generate(self.prompts, self.params, progress=False)
        self.check([result_of(output) for output in outputs])
        llm.engine.check_integrity()

    def check_alone(self, llm: LLM) -> None:
        each = zip(self.prompts, self.params, strict=True)
        self.check([result_of(llm.generate(prompt, params)[0]) for prompt, params in each])

    def backwards(self) -> Jobs:
        return Jobs(self.open, self.prompts[::-1], self.params[::-1], self.alone[::-1])


def drawn(opened: Callable[..., LLM], second: str, count: int, seed: int) -> Jobs:
    """Returns so many random requests over a model."""
    llm, source = opened(prefix_cache=False), random.Random(seed)
    # Excluded: what rejection sampling draws may depend on which drafts run, as its documentation says.
    listed = [f for f in features(second) if not f.name.endswith("rejection")]
    turns = [f for f in listed if f.kind in ("strategy", "grammar", "speculate", "guidance", "mirostat")]
    found = Jobs(opened, [], [], [])
    while len(found.prompts) < count:
        prompt, params = random_request(source, listed, turns[len(found.prompts) % len(turns)])
        try:
            (output,) = llm.generate(prompt, params)
        except DecoderyError:
            continue
        if output.error is not None:
            continue  # A forced token or phrase may not fit the grammar.
        found.prompts.append(prompt)
        found.params.append(params)
        found.alone.append(result_of(output))
    return found


@pytest.fixture(scope="module")
def jobs(tmp_path_factory: pytest.TempPathFactory) -> Jobs:
    folder = write_model(tmp_path_factory.mktemp("tiny"))
    return drawn(partial(LLM, folder, dtype="float32", backend="native"), folder, 64, seed=7)


@pytest.fixture(scope="module")
def llm(jobs: Jobs) -> LLM:
    return jobs.open(prefix_cache=False)


def test_the_requests_are_of_every_kind(jobs: Jobs) -> None:
    strategies = Counter(type(params.strategy).__name__ for params in jobs.params)
    assert len(strategies) == 6, strategies
    wanted: dict[str, Callable[[GenerationParams], bool]] = {
        "grammar": lambda p: p.grammar is not None,
        "lookup": lambda p: isinstance(p.speculate, PromptLookup),
        "draft model": lambda p: isinstance(p.speculate, DraftModel),
        "guidance": lambda p: p.guidance_scale != 1,
        "n": lambda p: p.n > 1,
        "logprobs": lambda p: bool(p.logprobs),
        "prompt_logprobs": lambda p: p.prompt_logprobs is not None,
        "greedy": lambda p: p.temperature == 0,
        "mirostat": lambda p: p.mirostat_mode > 0,
        "penalties": lambda p: p.repetition_penalty != 1 or p.presence_penalty != 0,
    }
    for name, holds in wanted.items():
        assert sum(map(holds, jobs.params)) >= 2, name
    assert sum(len(ids) for one in jobs.alone for ids, *_ in one.completions) > 8 * len(jobs.params)


def test_company_changes_nothing(jobs: Jobs, llm: LLM) -> None:
    jobs.check_together(llm)


@pytest.mark.parametrize("threads", [1, 3])
def test_the_number_of_threads_changes_nothing(jobs: Jobs, llm: LLM, threads: int) -> None:
    library.set_threads(threads)
    try:
        jobs.backwards().check_together(llm)
    finally:
        library.set_threads(2)


@pytest.mark.parametrize(("pages", "prefix_cache"), [(20, True), (20, False)])
def test_small_steps_and_scarce_pages_change_nothing(jobs: Jobs, pages: int, prefix_cache: bool) -> None:
    # The second model takes half of it.
    memory = 2 * pages * jobs.open().engine.limits.page_bytes
    scarce = jobs.open(kv_memory=memory, token_budget=16, prefix_cache=prefix_cache)
    jobs.check_together(scarce)
    assert scarce.engine.preemptions > 0


def test_prefix_hits_change_nothing(jobs: Jobs) -> None:
    warm = jobs.open()
    jobs.check_alone(warm)
    jobs.backwards().check_together(warm)


def test_drafts_change_nothing(jobs: Jobs, llm: LLM) -> None:
    drafting = [i for i, params in enumerate(jobs.params) if params.speculate is not None]
    jobs_undrafted = Jobs(
        jobs.open,
        [jobs.prompts[i] for i in drafting],
        [jobs.params[i].replace(speculate=None) for i in drafting],
        [jobs.alone[i] for i in drafting],
    )
    jobs_undrafted.check_together(llm)


@pytest.mark.slow
def test_the_default_model_gives_the_same_bits_in_any_company(default_llm: LLM) -> None:
    # The second models are the model itself.
    opened = partial(LLM, backend="native", context_length=256, kv_memory="256MB")
    jobs = drawn(opened, str(resolve(None)), 64, seed=8)
    llm = opened()
    jobs.check_together(llm)
    library.set_threads(1)
    jobs.backwards().check_together(llm)
    library.set_threads(2)
    # The limits now count the pages of the second model too.
    scarce = opened(kv_memory=16 * llm.engine.limits.page_bytes, token_budget=16)
    jobs.check_together(scarce)
    assert scarce.engine.preemptions > 0
