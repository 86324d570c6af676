"""Checks the memory of models that take turns: with stand-ins for models, and with two that are served."""

from __future__ import annotations

import asyncio
import json
import threading
import weakref
from collections.abc import Awaitable, Callable, Iterator
from typing import Any, cast

import pytest

from decodery import LLM
from decodery.engine.engine import Engine
from decodery.serving.errors import ApiError
from decodery.serving.models import Models, ModelSource, ServedModel, Use
from decodery.serving.settings import ServerSettings
from tests.serving.conftest import open_tiny
from tests.serving.live import LiveServer, begin_request, until
from tests.serving.test_load import leave


@pytest.fixture(autouse=True)
def collects_little(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """Spares the collector, which looks at all that tests have loaded, but where freeing is tested."""
    if "freed" not in request.node.name:
        monkeypatch.setattr("decodery.serving.models._collect", lambda: None)


class Shelf:
    """Holds sources of models that are opened when they may be, and notes what happens to them."""

    def __init__(self, memory: int | None, sizes: dict[str, int], pinned: str = "") -> None:
        self.events: list[str] = []
        # A model whose gate is cleared loads until it is set.
        self.gates = {name: threading.Event() for name in sizes}
        for gate in self.gates.values():
            gate.set()
        sources = [self._source(name, size, name in pinned) for name, size in sizes.items()]
        self.models = Models(sources, memory, self._closed)

    def _source(self, name: str, size: int, pinned: bool) -> ModelSource:
        def opens() -> LLM:
            assert self.gates[name].wait(10)
            self.events.append(f"open {name}")
            return cast(LLM, object())

        return ModelSource(name, opens, lambda: size, pinned)

    async def _closed(self, model: ServedModel) -> None:
        self.events.append(f"close {model.name}")

    @property
    def opened(self) -> set[str]:
        return {model.name for model in self.models.opened}

    async def use(self, name: str) -> Use:
        return await asyncio.wait_for(self.models.use(name), 10)

    async def answer(self, name: str) -> None:
        with await self.use(name):
            self.events.append(f"answer {name}")

    async def refusal(self, name: str) -> ApiError:
        with pytest.raises(ApiError) as found:
            await self.use(name)
        return found.value


async def rest() -> None:
    """Lets everything run that can."""
    for _ in range(10):
        await asyncio.sleep(0.002)


def run(work: Awaitable[None]) -> None:
    async def whole() -> None:
        await work

    asyncio.run(whole())


def law(memory: int | None, pinned: str = "", **sizes: int) -> Callable[[Any], Callable[[], None]]:
    """Makes a test of a coroutine function that takes a shelf of these models."""

    def decorate(function: Callable[[Shelf], Awaitable[None]]) -> Callable[[], None]:
        def test() -> None:
            shelf = Shelf(memory, sizes, pinned)
            try:
                run(function(shelf))
            finally:
                shelf.models.close()

        test.__name__ = function.__name__
        return test

    return decorate


@law(2, a=1, b=1, c=1)
async def test_who_waited_behind_the_wait_for_memory_does_not_wait_for_the_loading(shelf: Shelf) -> None:
    one, other = await shelf.use("a"), await shelf.use("b")
    shelf.gates["c"].clear()
    loading = asyncio.create_task(shelf.answer("c"))
    await rest()
    behind = asyncio.create_task(shelf.answer("b"))
    await rest()
    assert not behind.done()
    one.release()
    await asyncio.wait_for(behind, 5)
    assert not loading.done()
    shelf.gates["c"].set()
    await loading
    other.release()


@law(2, a=1, b=1, c=2)
async def test_models_in_use_or_loading_are_never_closed(shelf: Shelf) -> None:
    shelf.gates["b"].clear()
    streaming = await shelf.use("a")
    loading = asyncio.create_task(shelf.use("b"))
    await rest()
    large = asyncio.create_task(shelf.answer("c"))
    await rest()
    shelf.gates["b"].set()
    loaded = await loading
    await rest()
    assert shelf.opened == {"a", "b"}
    streaming.release()
    await rest()
    # The first one that became idle is closed, the other one is still there.
    assert shelf.opened == {"b"}
    loaded.release()
    await large
    assert shelf.opened == {"c"}


@law(1, a=1, b=1)
async def test_a_request_cancelled_while_its_model_loads_lets_it_be_closed(shelf: Shelf) -> None:
    shelf.gates["b"].clear()
    waiting = asyncio.create_task(shelf.use("b"))
    await rest()
    waiting.cancel()
    await rest()
    shelf.gates["b"].set()
    await shelf.answer("a")
    assert shelf.opened == {"a"}


@law(1, a=1, b=1)
async def test_a_request_cancelled_as_its_model_is_handed_out_lets_it_be_closed(shelf: Shelf) -> None:
    streaming = await shelf.use("a")
    waiting = asyncio.create_task(shelf.models.use("b"))
    await rest()
    streaming.release()
    while not shelf.models._entries["b"].users:
        await asyncio.sleep(0)
    assert not waiting.done()
    waiting.cancel()
    await asyncio.gather(waiting, return_exceptions=True)
    await shelf.answer("a")
    assert shelf.opened == {"a"}


@law(3, pinned="a", a=1, b=2, c=3)
async def test_a_model_larger_than_the_memory_is_a_503_at_once_and_closes_nothing(shelf: Shelf) -> None:
    await shelf.models.open_pinned()
    streaming = await shelf.use("b")
    error = await asyncio.wait_for(shelf.refusal("c"), 1)
    assert (error.status, error.code) == (503, "model_too_large")
    streaming.release()
    await shelf.refusal("c")
    assert shelf.opened == {"a", "b"}


@law(None, a=1, b=1)
async def test_without_pinned_models_the_first_is_opened_at_the_start(shelf: Shelf) -> None:
    await shelf.models.open_pinned()
    assert shelf.opened == {"a"}


@law(None, a=1)
async def test_a_use_is_released_once(shelf: Shelf) -> None:
    first, second = await shelf.use("a"), await shelf.use("a")
    first.release()
    first.release()
    assert shelf.models._entries["a"].users == 1
    second.release()


class Swapping(LiveServer):
    """Serves two models of which the memory holds one; `opened` has each that was opened."""

    def __init__(self, folder: str) -> None:
        self.opened: list[weakref.ref[Engine]] = []
        self.alive: list[int] = []

        def opens() -> LLM:
            self.alive.append(sum(one() is not None for one in self.opened))
            llm = open_tiny(folder)
            self.opened.append(weakref.ref(llm.engine))
            return llm

        sources = [ModelSource(name, opens, lambda: 1, pinned=False) for name in ("a", "b")]
        super().__init__(cast(LLM, None), ServerSettings(), sources, memory=1)


@pytest.fixture
def swapping(folder: str) -> Iterator[Swapping]:
    server = Swapping(folder)
    yield server
    server.close()


def test_a_closed_model_is_freed_before_the_next_one_is_opened(swapping: Swapping) -> None:
    texts = {
        (name, swapping.complete(model=name, prompt="Hi", max_tokens=4, seed=1)["choices"][0]["text"])
        for name in "abab"
    }
    assert {text for name, text in texts if name == "a"} == {text for name, text in texts if name == "b"}
    assert len(swapping.opened) == 4
    assert len(swapping.awaited(_engines, swapping)) == 1
    # An answer that is still being sent may keep its model; it is never two.
    assert max(swapping.alive) <= 1


ROUTES: dict[str, dict[str, Any]] = {
    "/v1/completions": {"prompt": "Hi"},
    "/v1/chat/completions": {"messages": [{"role": "user", "content": "Hi"}], "stream": True},
    "/tokenize": {"prompt": "Hi"},
    "/apply-template": {"messages": [{"role": "user", "content": "Hi"}]},
    "/v1/messages/count_tokens": {"messages": [{"role": "user", "content": "Hi"}]},
    "/trace": {"requests": [{"prompt": "Hi"}]},
}


def test_a_client_that_leaves_while_its_model_waits_opens_and_closes_none(swapping: Swapping) -> None:
    body = {"model": "a", "prompt": "Hi", "max_tokens": 900, "ignore_eos": True, "stream": True}
    models = swapping.service.models
    with swapping.client.stream("POST", "/v1/completions", json=body) as answer:
        lines = answer.iter_lines()
        next(lines)
        for path, asked in ROUTES.items():
            connection = begin_request(swapping.port, {**asked, "model": "b"}, path)
            until(lambda: len(models._waiting) == 1)
            leave(connection)
            until(lambda: not models._waiting)
        list(lines)
    assert [model.name for model in models.opened] == ["a"]
    assert len(swapping.opened) == 1
    assert swapping.complete(model="b", prompt="Hi", max_tokens=1)["choices"]


async def _engines(server: LiveServer) -> Any:
    return await server.service.worker.call(lambda: list(server.service.worker._queues))


def test_a_stream_goes_on_while_another_model_is_asked_for(swapping: Swapping) -> None:
    body = {"model": "a", "prompt": "Hi", "max_tokens": 200, "seed": 1, "ignore_eos": True, "stream": True}
    alone = swapping.complete(**{**body, "stream": False})["choices"][0]["text"]
    with swapping.client.stream("POST", "/v1/completions", json=body) as answer:
        lines = answer.iter_lines()
        first = next(lines)
        asked = threading.Thread(target=swapping.complete, kwargs={"model": "b", "prompt": "Hi"})
        asked.start()
        rest_of_it = list(lines)
    asked.join(30)
    chunks = [json.loads(line[6:]) for line in [first, *rest_of_it] if line.startswith("data: {")]
    assert "".join(choice["text"] for chunk in chunks for choice in chunk["choices"]) == alone
    assert [model.name for model in swapping.service.models.opened] == ["b"]
