"""Checks that what comes before an engine delays nobody else, and does not run for nobody."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable, Coroutine
from typing import Any

import pytest

from decodery.serving.errors import ApiError
from decodery.serving.preparing import LARGE, Preparation


class Held:
    """Is a function that waits until `go` is set, and notes who calls it."""

    def __init__(self) -> None:
        self.go = threading.Event()
        self.ran: list[str] = []

    def named(self, name: str) -> Callable[[], str]:
        def work() -> str:
            self.ran.append(name)
            assert self.go.wait(20)
            return name

        return work


def run(work: Callable[[Preparation, Held], Coroutine[Any, Any, None]], seconds: float = 20.0) -> None:
    async def whole() -> None:
        preparation, held = Preparation(seconds), Held()
        try:
            async with asyncio.timeout(20):
                await work(preparation, held)
        finally:
            held.go.set()
            preparation.close()

    asyncio.run(whole())


def test_large_grammars_delay_neither_small_ones_nor_texts() -> None:
    async def work(preparation: Preparation, held: Held) -> None:
        large = [asyncio.create_task(preparation.run(held.named("large"), grammar=LARGE)) for _ in range(6)]
        await asyncio.sleep(0.05)
        for size in (0, 1, LARGE - 1):
            assert await preparation.run(lambda: "done", grammar=size) == "done"
        held.go.set()
        assert await asyncio.gather(*large) == ["large"] * 6

    run(work)


def test_what_never_ran_is_a_503_and_what_was_slow_a_400() -> None:
    async def work(preparation: Preparation, held: Held) -> None:
        asked = [preparation.run(held.named(str(k)), grammar=LARGE) for k in range(4)]
        found = await asyncio.gather(*asked, return_exceptions=True)
        assert all(isinstance(one, ApiError) for one in found)
        assert [one.status for one in found if isinstance(one, ApiError)] == [400, 400, 503, 503]
        with pytest.raises(ApiError) as caught:
            await preparation.run(held.named("text"))
        assert caught.value.status == 503
        held.go.set()
        assert await preparation.run(lambda: "next", grammar=LARGE) == "next"
        assert sorted(held.ran) == ["0", "1", "text"]

    run(work, seconds=0.1)


def test_what_nobody_waits_for_any_more_does_not_run() -> None:
    async def work(preparation: Preparation, held: Held) -> None:
        asked = [asyncio.create_task(preparation.run(held.named(str(k)), grammar=1)) for k in range(3)]
        await asyncio.sleep(0.05)
        asked[2].cancel()
        await asyncio.sleep(0)
        held.go.set()
        assert await asyncio.gather(*asked[:2]) == ["0", "1"]
        assert await preparation.run(lambda: "next", grammar=1) == "next"
        assert held.ran == ["0", "1"]

    run(work)
