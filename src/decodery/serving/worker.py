"""Steps the engines of all models in turn, on one thread."""

from __future__ import annotations

import asyncio
import logging
import threading
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from functools import partial
from queue import Empty, SimpleQueue
from typing import Any, TypeVar

from decodery.decoding.event import Event, PromptProgress
from decodery.engine.engine import Engine
from decodery.errors import DecoderyError
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


@dataclass(slots=True)
class _Place:
    """Holds where the events of a request go, and the last progress of its prompt, None if it wants none."""

    inbox: Inbox
    place: int
    progress: PromptProgress | None


class _Queue:
    """Holds an engine and where the events of its requests go."""

    def __init__(self, engine: Engine) -> None:
        self.engine = engine
        self.places: dict[int, _Place] = {}


class Worker:
    """Owns the engines: a thread of its own runs their steps, one engine after the other.

    Everything else reaches an engine as a command, which runs between two steps. The events of a step reach
    the event loop together. When a step fails, the requests of its engine end with an error and the engine
    goes on with the next ones.
    """

    def __init__(self) -> None:
        self._commands: SimpleQueue[Callable[[], object]] = SimpleQueue()
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
        self,
        engine: Engine,
        prepared: Sequence[Prepared],
        inbox: Inbox,
        *,
        tells_progress: bool = False,
        apart: bool = False,
        **options: Any,
    ) -> list[Added | DecoderyError]:
        """Queues requests; their events go to the inbox, with their places in `prepared`.

        `options` are those of `Engine.add`. Raises what `Engine.add` raises, and then queues none. With
        `apart`, a request that the engine refuses has its error in the result, and the others are queued.
        """
        return await self.call(partial(self._add, engine, prepared, inbox, tells_progress, apart, options))

    def _add(
        self,
        engine: Engine,
        prepared: Sequence[Prepared],
        inbox: Inbox,
        tells_progress: bool,
        apart: bool,
        options: dict[str, Any],
    ) -> list[Added | DecoderyError]:
        queue = self._queues.setdefault(id(engine), _Queue(engine))
        found: list[Added | DecoderyError] = []
        try:
            for place, one in enumerate(prepared):
                explain = options.get("explain", 0)
                others = {name: value for name, value in options.items() if name != "explain"}
                try:
                    request = one.add_with(partial(engine.add, **others), explain)
                except DecoderyError as error:
                    if not apart:
                        raise
                    found.append(error)
                    continue
                progress = engine.progress(request) if tells_progress else None
                queue.places[request] = _Place(inbox, place, progress)
                found.append(Added(request, engine.seed_of(request)))
        except BaseException:
            self._drop(inbox)
            raise
        return found

    def drop(self, inbox: Inbox) -> None:
        """Drops all requests of an inbox: their pages are free before the next step."""
        self._commands.put(partial(self._drop, inbox))

    def _drop(self, inbox: Inbox) -> None:
        for queue in self._queues.values():
            for request in [r for r, place in queue.places.items() if place.inbox is inbox]:
                del queue.places[request]
                queue.engine.abort(request)

    async def forget(self, engine: Engine) -> None:
        """Drops an engine, whose requests have ended: nothing of the worker refers to it afterwards."""
        await self.call(partial(self._forget, id(engine)))

    def _forget(self, key: int) -> None:
        self._queues.pop(key, None)

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
            self._run_commands(wait=not any(map(self._has_work, self._queues)))
            # By their keys: a variable with an engine would keep it, after it is forgotten.
            for key in list(self._queues):
                if self._has_work(key):
                    self._step(self._queues[key])
                    self._run_commands(wait=False)

    def _has_work(self, key: int) -> bool:
        queue = self._queues.get(key)
        return queue is not None and queue.engine.has_work()

    def _run_commands(self, *, wait: bool) -> None:
        """Runs the commands that have come; can wait for the first one. One that fails is logged."""
        with suppress(Empty):
            while not self._stopping:
                command = self._commands.get(block=wait)
                wait = False
                try:
                    command()
                except Exception:
                    log.exception("a command of the worker failed")

    def _step(self, queue: _Queue) -> None:
        events: list[Event] = []
        try:
            queue.engine.step_into(events)
        except Exception:
            log.exception("a step failed; the requests of its engine end")
            self._fail_all(queue)
        placed: list[tuple[Inbox, Placed]] = []
        for event in events:
            place = queue.places.get(event.request)
            if place is not None:
                placed.append((place.inbox, (place.place, event)))
                if place.progress is not None:
                    last = replace(place.progress, cached=event.cached_tokens)
                    place.progress = None if event.finish == "error" else last
        for request, place in queue.places.items():
            if place.progress is not None and (progress := _new_progress(queue.engine, request, place)):
                placed.append((place.inbox, (place.place, progress)))
        if placed:
            self._on_loop(_deliver, placed)

    def _fail_all(self, queue: _Queue) -> None:
        error = ApiError(500, "the server failed while it ran this request; its log says more")
        for request, place in queue.places.items():
            queue.engine.abort(request)
            self._on_loop(place.inbox.fail, error)
        queue.places.clear()


def _new_progress(engine: Engine, request: int, place: _Place) -> PromptProgress | None:
    """Returns how much of a prompt is computed if that has changed; updates the place, to None at the end."""
    last = place.progress
    assert last is not None
    try:
        progress = engine.progress(request)
    except KeyError:  # The text has ended in the step that computed the rest of its prompt.
        progress = replace(last, computed=last.prompt, running=True)
    place.progress = None if progress.computed == progress.prompt else progress
    return progress if progress.running and progress != last else None


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
