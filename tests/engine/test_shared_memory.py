"""Checks that the caches of a model and its second models never take more than the memory given."""

from __future__ import annotations

from typing import Any

import pytest

from decodery import (
    LLM,
    BeamSearch,
    ContrastiveDecoding,
    DraftModel,
    GenerationParams,
    RequestError,
)
from decodery.engine import engine as engine_module
from decodery.engine.engine import Engine
from decodery.kernels.native.library import available
from decodery.loading.open_model import open_model
from decodery.models.contract import CausalModel
from tests.cli.conftest import write_model
from tests.engine.runs import make_engine

DRAFTED = GenerationParams(max_tokens=8, temperature=0, speculate=DraftModel("small"))
PLAIN = DRAFTED.replace(speculate=None)
PROMPT = [i % 97 for i in range(40)]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> str:
    return write_model(tmp_path_factory.mktemp("tiny"))


@pytest.fixture(scope="module")
def models(folder: str) -> list[CausalModel]:
    return [open_model(folder, dtype="float32", backend="auto").model for _ in range(3)]


def cache_bytes(engine: Engine) -> int:
    """Returns the bytes of keys and values that the caches of all models can hold."""
    caches = [engine._runner._cache, *(s._runner._cache for s in engine._second_models.values())]  # type: ignore[attr-defined]
    parts = [part for cache in caches for pair in cache.layers.values() for part in pair]
    return sum(part.numel() * part.element_size() for part in parts)


def finish(engine: Engine) -> None:
    while engine.has_work():
        engine.step()
        engine.check_integrity()


@pytest.mark.parametrize("pages", [60, 61, 100, 400])
def test_all_caches_together_stay_within_the_memory_and_have_as_many_pages(
    models: list[CausalModel], pages: int
) -> None:
    first, *others = models
    engine = make_engine(first, pages=pages)
    memory = cache_bytes(engine)
    for count, second in enumerate(others, 2):
        for _ in range(2):
            engine.add(PROMPT, DRAFTED, draft_model=second)
            assert engine.limits.pages == pages // count
            assert cache_bytes(engine) <= memory
            assert engine.limits.pages == engine._scheduler.pages.count
            for opened in engine._second_models.values():
                assert opened._pages.count == engine.limits.pages  # type: ignore[attr-defined]
            engine.step()
    assert len(engine._second_models) == 2
    finish(engine)


def test_one_model_in_two_roles_has_one_cache(models: list[CausalModel]) -> None:
    engine = make_engine(models[0], pages=100)
    params = GenerationParams(max_tokens=4, strategy=ContrastiveDecoding("small"))
    engine.add(PROMPT, params, contrast_model=models[1])
    engine.add(PROMPT, DRAFTED, draft_model=models[1])
    finish(engine)
    assert engine.limits.pages == 50


def test_requests_that_run_go_on_when_a_second_model_is_opened(folder: str) -> None:
    def opened() -> LLM:
        return LLM(folder, dtype="float32", kv_memory="1MB")

    asked = [
        GenerationParams(max_tokens=30, seed=2, n=2, logprobs=1, ignore_eos=True),
        GenerationParams(max_tokens=30, strategy=BeamSearch(3), ignore_eos=True),
        GenerationParams(max_tokens=30, guidance_scale=1.5, seed=4, ignore_eos=True),
    ]
    expected = [[c.text for c in opened().generate("hello there", p)[0].completions] for p in asked]
    for steps in (0, 1, 7):
        llm = opened()
        streams = [llm.stream("hello there", params) for params in asked]
        texts: list[dict[int, str]] = [{} for _ in asked]

        def take(number: int, event: Any, texts: list[dict[int, str]] = texts) -> None:
            texts[number][event.index] = texts[number].get(event.index, "") + event.text

        for _ in range(steps):
            take(0, next(streams[0]))
        before = llm.engine.limits.pages
        llm.generate("abc", DRAFTED.replace(speculate=DraftModel(folder)))
        assert llm.engine.limits.pages == before // 2
        llm.engine.check_integrity()
        for number, stream in enumerate(streams):
            for event in stream:
                take(number, event)
        assert not available() or [[text[i] for i in sorted(text)] for text in texts] == expected


def test_a_request_that_runs_keeps_the_pages_it_can_need(models: list[CausalModel]) -> None:
    engine = make_engine(models[0], pages=10)
    running = engine.add(PROMPT, PLAIN.replace(max_tokens=80))
    engine.step()
    with pytest.raises(RequestError, match="wait for its end, or give kv_memory of at least") as error:
        engine.add(PROMPT, DRAFTED, draft_model=models[1])
    assert "\n" not in str(error.value)
    assert engine.limits.pages == 10
    assert not engine._second_models
    engine.abort(running)
    engine.add(PROMPT, DRAFTED, draft_model=models[1])
    finish(engine)
    assert engine.limits.pages == 5


def test_a_request_that_is_refused_opens_no_second_model(models: list[CausalModel]) -> None:
    engine = make_engine(models[0], pages=10)
    with pytest.raises(RequestError, match="kv_memory of at least"):
        engine.add(PROMPT, DRAFTED.replace(max_tokens=80), draft_model=models[1])
    assert engine.limits.pages == 10
    assert not engine._second_models


def test_memory_for_a_single_page_holds_no_second_model(models: list[CausalModel]) -> None:
    engine = make_engine(models[0], pages=1)
    with pytest.raises(RequestError, match="too small for a second model: give kv_memory of at least"):
        engine.add([1], DRAFTED.replace(max_tokens=1), draft_model=models[1])


def test_a_second_model_is_not_opened_within_a_step(models: list[CausalModel]) -> None:
    engine = make_engine(models[0])
    errors: list[str] = []

    def opening(ids: list[int]) -> bool:
        try:
            engine.add(PROMPT, DRAFTED, draft_model=models[1])
        except RequestError as error:
            errors.append(str(error))
        return False

    engine.add(PROMPT, PLAIN.replace(stop_when=opening, max_tokens=3))
    finish(engine)
    assert errors
    assert all("in the middle of a step" in error for error in errors)
    assert not engine._second_models


@pytest.mark.parametrize("place", ["table", "first cache", "second cache", "new model"])
def test_an_interrupt_while_a_second_model_is_opened_does_no_harm(
    models: list[CausalModel], place: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    engine = make_engine(models[0], pages=90)
    engine.add(PROMPT, DRAFTED, draft_model=models[1])
    engine.step()
    memory = cache_bytes(engine)

    def interrupted(*arguments: Any) -> None:
        raise KeyboardInterrupt

    (second,) = engine._second_models.values()
    targets = {
        "table": (engine._scheduler.pages, "resize"),
        "first cache": (engine._runner, "resize"),
        "second cache": (second, "resize"),
        "new model": (engine_module, "SecondModelRunner"),
    }
    with monkeypatch.context() as patch:
        patch.setattr(*targets[place], interrupted)
        with pytest.raises(KeyboardInterrupt):
            engine.add(PROMPT, DRAFTED, draft_model=models[2])
    engine.check_integrity()
    finish(engine)
    engine.add(PROMPT, DRAFTED, draft_model=models[2])
    finish(engine)
    # The first one is closed by then, since no request uses it.
    assert engine.limits.pages == 45
    assert cache_bytes(engine) <= memory


def test_a_request_does_not_depend_on_second_models_of_earlier_requests(models: list[CausalModel]) -> None:
    engine = make_engine(models[0], pages=10)
    bounded_by_memory = PLAIN.replace(max_tokens=None, ignore_eos=True)
    unbounded = [PLAIN.replace(max_tokens=80), bounded_by_memory]
    before = [len(generated(engine, params)) for params in unbounded]
    engine.add(PROMPT, DRAFTED, draft_model=models[1])
    finish(engine)
    assert engine.limits.pages == 5
    for params, length in zip(unbounded, before, strict=True):
        assert len(generated(engine, params)) == length
    assert engine.limits.pages == 10
    engine.check_integrity()


def test_second_models_do_not_accumulate(models: list[CausalModel]) -> None:
    engine = make_engine(models[0], pages=12)
    for second in (models[1], models[2], models[1], models[2]):
        engine.add(PROMPT, DRAFTED, draft_model=second)
        finish(engine)
        assert engine.limits.pages == 6
    engine.check_integrity()


def generated(engine: Engine, params: GenerationParams) -> list[int]:
    """Returns the tokens of a request that runs alone."""
    engine.add(PROMPT, params)
    tokens: list[int] = []
    while engine.has_work():
        for event in engine.step():
            tokens += event.tokens
    return tokens
