"""Steps the engines of all models in turn, on one thread."""

from __future__ import annotations

import asyncio
import logging
import threading
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from functools import partial
from queue import Empty, SimpleQueue
from typing import Any, TypeVar

from decodery.engine.engine import Engine
from decodery.engine.request import Event
from decodery.intake import Prepared
from decodery.serving.errors import ApiError
from decodery.serving.inbox import Inbox, Placed

T = TypeVar("T")
log = logging.getLogger("decodery.serving")


@dataclass(frozen=True, slots=True)
class Added:
    """Holds what an engine said of a request that it has queued."""

    request: int
    seed: int


class _Queue:
    """Holds an engine and where the events of its requests go."""

    def __init__(self, engine: Engine) -> None:
        self.engine = engine
        self.places: dict[int, tuple[Inbox, int]] = {}


class Worker:
    """Owns the engines: a thread of its own runs their steps, one engine after the other.

    Everything else reaches an engine as a command, which runs between two steps. The events of a step reach
    the event loop together. When a step fails, the requests of its engine end with an error and the engine
    goes on with the next ones.
    """

    def __init__(self) -> None:
        self._commands: SimpleQueue[Callable[[], None]] = SimpleQueue()
        self._queues: dict[int, _Queue] = {}
        self._loop: asyncio.AbstractEventLoop | None = None
        self._stopping = False
        self._thread = threading.Thread(target=self._run, name="decodery-worker", daemon=True)

    def start(self, loop: asyncio.AbstractEventLoop) -> None:
        """Starts the thread, which delivers events to this loop."""
        self._loop = loop
        self._thread.start()

    async def stop(self) -> None:
        """Ends the thread after the step that it runs. Requests that have not ended get no more events."""
        self._commands.put(self._stop)
        while self._thread.is_alive():
            await asyncio.sleep(0.005)

    def _stop(self) -> None:
        self._stopping = True

    async def add(
        self, engine: Engine, prepared: Prepared, inbox: Inbox, place: int, **options: Any
    ) -> Added:
        """Queues a request; its events go to the inbox, with this place.

        `options` are those of `Engine.add`. Raises what `Engine.add` raises.
        """
        return await self.call(partial(self._add, engine, prepared, inbox, place, options))

    def _add(
        self, engine: Engine, prepared: Prepared, inbox: Inbox, place: int, options: dict[str, Any]
    ) -> Added:
        queue = self._queues.setdefault(id(engine), _Queue(engine))
        request = prepared.add_with(partial(engine.add, **options))
        queue.places[request] = (inbox, place)
        return Added(request, engine.seed_of(request))

    def drop(self, inbox: Inbox) -> None:
        """Drops all requests of an inbox: their pages are free before the next step."""
        self._commands.put(partial(self._drop, inbox))

    def _drop(self, inbox: Inbox) -> None:
        for queue in self._queues.values():
            for request in [r for r, (owner, _) in queue.places.items() if owner is inbox]:
                del queue.places[request]
                queue.engine.abort(request)

    async def call(self, function: Callable[[], T]) -> T:
        """Returns the result of a function that the worker's thread calls between two steps."""
        assert self._loop is not None
        future: asyncio.Future[T] = self._loop.create_future()
        self._commands.put(partial(self._answer, future, function))
        # Whoever stops waiting does not stop the command.
        return await asyncio.shield(future)

    def _answer(self, future: asyncio.Future[Any], function: Callable[[], Any]) -> None:
        try:
            result = function()
        except BaseException as error:
            self._on_loop(_settle, future, None, error)
        else:
            self._on_loop(_settle, future, result, None)

    def _on_loop(self, function: Callable[..., None], *arguments: Any) -> None:
        assert self._loop is not None
        with suppress(RuntimeError):  # The loop is closed: nobody waits any more.
            self._loop.call_soon_threadsafe(function, *arguments)

    def _run(self) -> None:
        while not self._stopping:
            self._run_commands()
            for queue in list(self._queues.values()):
                if queue.engine.has_work():
                    self._step(queue)
                    self._run_commands()

    def _run_commands(self) -> None:
        """Runs the commands that have come; waits for one if no engine has work."""
        idle = not any(queue.engine.has_work() for queue in self._queues.values())
        with suppress(Empty):
            while not self._stopping:
                self._commands.get(block=idle)()
                idle = False

    def _step(self, queue: _Queue) -> None:
        events: list[Event] = []
        try:
            queue.engine.step_into(events)
        except Exception:
            log.exception("a step failed; the requests of its engine end")
            self._fail_all(queue)
        placed: list[tuple[Inbox, Placed]] = []
        for event in events:
            owner = queue.places.get(event.request)
            if owner is not None:
                placed.append((owner[0], (owner[1], event)))
        if placed:
            self._on_loop(_deliver, placed)

    def _fail_all(self, queue: _Queue) -> None:
        error = ApiError(500, "the server failed while it ran this request; its log says more")
        for request, (inbox, _) in queue.places.items():
            queue.engine.abort(request)
            self._on_loop(inbox.fail, error)
        queue.places.clear()


def _settle(future: asyncio.Future[Any], result: Any, error: BaseException | None) -> None:
    if future.cancelled():
        return
    if error is None:
        future.set_result(result)
    else:
        future.set_exception(error)


def _deliver(placed: Sequence[tuple[Inbox, Placed]]) -> None:
    for inbox, event in placed:
        inbox.put(event)
