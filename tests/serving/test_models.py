"""Checks that models are opened on demand within a bound of memory, and closed only when nobody uses them."""

from __future__ import annotations

import asyncio
import gc
import time
import weakref
from collections.abc import Callable, Coroutine
from typing import Any

import pytest

from decodery.errors import ModelError
from decodery.serving.errors import ApiError
from decodery.serving.models import Models, ModelSource, ServedModel


@pytest.fixture(autouse=True)
def collects_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    """Spares the collector: looking at all that other tests have loaded takes half a second each time."""
    monkeypatch.setattr("decodery.serving.models._collect", lambda: None)


class Fake:
    """Stands for an open model."""


class Opener:
    """Notes which models are opened and closed; opening takes `seconds`."""

    def __init__(self, seconds: float = 0.0) -> None:
        self.seconds = seconds
        self.log: list[str] = []
        self.alive: weakref.WeakSet[Fake] = weakref.WeakSet()

    def source(self, name: str, memory: int = 1, *, pinned: bool = False, fails: bool = False) -> ModelSource:
        def open_() -> Any:
            self.log.append(f"+{name}")
            time.sleep(self.seconds)
            if fails:
                raise ModelError("the file is broken")
            found = Fake()
            self.alive.add(found)
            return found

        return ModelSource(name, open_, lambda: memory, pinned)

    async def closed(self, model: ServedModel) -> None:
        self.log.append(f"-{model.name}")


def run(work: Callable[[], Coroutine[Any, Any, None]]) -> None:
    async def bounded() -> None:
        async with asyncio.timeout(20):
            await work()

    asyncio.run(bounded())


def test_a_model_in_use_is_not_closed_and_the_next_one_waits_for_its_end() -> None:
    async def work() -> None:
        opener = Opener()
        models = Models([opener.source("a"), opener.source("b")], 1, opener.closed)
        first = await models.use("a")
        second = asyncio.create_task(models.use("b"))
        await asyncio.sleep(0.05)
        assert opener.log == ["+a"]
        # Whoever comes later waits behind, also for the open model: else it would never be b's turn.
        third = asyncio.create_task(models.use("a"))
        await asyncio.sleep(0.05)
        assert not third.done()
        first.release()
        (await second).release()
        (await third).release()
        assert opener.log == ["+a", "-a", "+b", "-b", "+a"]
        models.close()

    run(work)


def test_models_that_alternate_each_answer_before_they_are_closed() -> None:
    async def work() -> None:
        opener = Opener()
        models = Models([opener.source("a"), opener.source("b")], 1, opener.closed)
        answered = []
        for turn in range(20):
            with await models.use("ab"[turn % 2]) as model:
                answered.append(model.name)
        assert answered == list("ab" * 10)
        assert [entry for entry in opener.log if entry[0] == "+"] == ["+a", "+b"] * 10
        del model
        gc.collect()
        assert len(opener.alive) == 1
        models.close()

    run(work)


def test_open_models_answer_while_another_one_is_opened() -> None:
    async def work() -> None:
        opener = Opener()
        models = Models([opener.source("a"), opener.source("b")], 2, opener.closed)
        (await models.use("a")).release()
        opener.seconds = 0.3
        loading = asyncio.create_task(models.use("b"))
        await asyncio.sleep(0.05)
        began = time.monotonic()
        (await models.use("a")).release()
        assert time.monotonic() - began < 0.2
        assert not loading.done()
        (await loading).release()
        models.close()

    run(work)


def test_a_request_at_the_start_does_not_open_a_pinned_model_again() -> None:
    async def work() -> None:
        opener = Opener(0.1)
        models = Models([opener.source("a", pinned=True)], None, opener.closed)
        opening = asyncio.create_task(models.open_pinned())
        await asyncio.sleep(0.02)
        uses = await asyncio.gather(*(models.use(None) for _ in range(5)))
        await opening
        assert opener.log == ["+a"]
        assert len({id(use.model) for use in uses}) == 1
        models.close()

    run(work)


def test_a_model_that_cannot_be_opened_is_a_503_and_the_others_work() -> None:
    async def work() -> None:
        opener = Opener()
        sources = [opener.source("a"), opener.source("bad", fails=True), opener.source("huge", 100)]
        models = Models(sources, 3, opener.closed)
        for name in ("bad", "huge", "bad"):
            with pytest.raises(ApiError) as caught:
                await models.use(name)
            assert caught.value.status == 503
            assert "broken" not in caught.value.message
        with await models.use("a") as model:
            assert model.name == "a"
        assert [model.name for model in models.opened] == ["a"]
        models.close()

    run(work)


def test_a_request_that_leaves_while_it_waits_leaves_nothing() -> None:
    async def work() -> None:
        opener = Opener()
        models = Models([opener.source("a"), opener.source("b")], 1, opener.closed)
        first = await models.use("a")
        gone = asyncio.create_task(models.use("b"))
        await asyncio.sleep(0.05)
        behind = asyncio.create_task(models.use("a"))
        await asyncio.sleep(0.05)
        gone.cancel()
        # Nobody wants b any more, so a stays open and the next one has it.
        (await behind).release()
        first.release()
        assert opener.log == ["+a"]
        models.close()

    run(work)


def test_a_pinned_model_stays_and_the_least_recently_used_one_goes() -> None:
    async def work() -> None:
        opener = Opener()
        sources = [opener.source("p", pinned=True), *(opener.source(name) for name in "abc")]
        models = Models(sources, 3, opener.closed)
        await models.open_pinned()
        for name in ("a", "b", "a", "c"):
            (await models.use(name)).release()
        assert opener.log == ["+p", "+a", "+b", "-b", "+c"]
        models.close()

    run(work)


def test_an_unknown_name_is_a_404_with_the_names_that_there_are() -> None:
    models = Models([Opener().source("a")])
    with pytest.raises(ApiError) as caught:
        models.check("b")
    assert (caught.value.status, caught.value.code) == (404, "model_not_found")
    assert "a" in caught.value.message
    assert models.check(None) == "a"
