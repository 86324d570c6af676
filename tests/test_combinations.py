from __future__ import annotations

from typing import Any

import pytest

from decodery import LLM, GenerationParams
from decodery.outputs import RequestOutput
from tests.cli.conftest import write_model
from tests.combinations import PAGE, Feature, build, features, pairs, table
from tests.kernels.native.fixtures import built

# It has repetitions, for drafts, and ends in a part without them, which token healing generates again.
PROMPT = "abab cdcd abab ce"


@pytest.fixture(scope="module")
def second(tmp_path_factory: pytest.TempPathFactory) -> str:
    return write_model(tmp_path_factory.mktemp("second"))


@pytest.fixture(scope="module")
def llm(second: str) -> LLM:
    return LLM(second, dtype="float32", kv_memory="64MB")


@pytest.fixture(scope="module")
def jobs(second: str) -> list[tuple[Feature, Feature, GenerationParams]]:
    built = [(a, b, build(a, b)) for a, b in pairs(features(second))]
    return [(a, b, params) for a, b, params in built if isinstance(params, GenerationParams)]


def test_every_pair_of_features_runs_in_one_batch(
    llm: LLM, jobs: list[tuple[Feature, Feature, GenerationParams]]
) -> None:
    outputs = llm.generate([PROMPT] * len(jobs), [p for _, _, p in jobs], progress=False)
    wrong = {
        f"{a.name} × {b.name}": out.error for (a, b, _), out in zip(jobs, outputs, strict=True) if out.error
    }
    assert not wrong
    for (_, _, params), output in zip(jobs, outputs, strict=True):
        check(params, output)
    assert not llm.engine.has_work()


def check(params: GenerationParams, output: RequestOutput) -> None:
    assert 1 <= len(output.completions) <= params.streams
    for completion in output.completions:
        assert 1 <= len(completion.token_ids) <= 5
        assert completion.finish_reason in ("stop", "length")
        if getattr(params.strategy, "force_words", ()):
            ((phrase,),) = params.strategy.force_words  # type: ignore[union-attr]
            assert phrase in completion.token_ids
        if params.logprobs is not None:
            assert completion.logprobs is not None
            assert [entry.token for entry in completion.logprobs] == completion.token_ids
    wanted = params.prompt_logprobs is not None or (params.echo and params.logprobs is not None)
    assert (output.prompt_logprobs is not None) == wanted


def tokens(output: RequestOutput) -> list[Any]:
    return [completion.token_ids for completion in output.completions]


@built
def test_a_pair_in_the_batch_of_all_gives_what_it_gives_alone(
    llm: LLM, jobs: list[tuple[Feature, Feature, GenerationParams]]
) -> None:
    some = jobs[:: len(jobs) // 60]
    together = llm.generate([PROMPT] * len(some), [p for _, _, p in some], progress=False)
    for (a, b, params), output in zip(some, together, strict=True):
        (alone,) = llm.generate(PROMPT, params)
        assert tokens(alone) == tokens(output), f"{a.name} × {b.name}"


def test_the_documented_table_is_the_true_one(second: str) -> None:
    assert PAGE.read_text(encoding="utf-8") == table(features(second)), (
        "run python -m tests.combinations to write docs/combinations.md again"
    )
