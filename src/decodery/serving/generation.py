"""Runs the prompts of one HTTP request in an engine, and hands on what each step adds."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from types import TracebackType
from typing import Any, TypeVar

from starlette.requests import ClientDisconnect
from starlette.types import Receive

from decodery.collector import Collector
from decodery.decoding.event import PromptProgress, Times
from decodery.decoding.trace import BeamCandidate
from decodery.errors import DecoderyError
from decodery.intake import Prepared
from decodery.llm import finished_output, whole_events
from decodery.outputs import Observer, RequestOutput, StreamEvent
from decodery.serving.errors import ApiError, api_error
from decodery.serving.inbox import Inbox
from decodery.serving.models import ServedModel
from decodery.serving.worker import Added, Worker

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Addition:
    """Holds what a step added to one completion of one of the request's prompts."""

    prompt: int
    event: StreamEvent


class Generation:
    """Runs prompts in the engine of a model; `close` drops what has not ended.

    `observer` returns the observer of the prompt at a place, which then gets `candidates` candidates of each
    choice, and with `shows_logits` all of its logits. `begun` is called when a prompt has been computed,
    perhaps more than once, and `heard` after each step that adds to a completion. With `tells_progress`,
    `progress` holds how much of each prompt is computed. With `tells_beams`, `beams` has those of each step,
    with their prompt. `times` has those of the prompts that have ended. With `apart`, a prompt that the
    engine refuses or fails has the error in its output, and the others go on; `refused` has the errors of
    those that it refused. `invalid` has the errors of texts that break their JSON schema, by prompt and
    index.
    """

    def __init__(
        self,
        worker: Worker,
        model: ServedModel,
        prepared: Sequence[Prepared],
        *,
        priority: int = 0,
        tells_progress: bool = False,
        tells_beams: bool = False,
        candidates: int = 0,
        shows_logits: bool = False,
        observer: Callable[[int], Observer] | None = None,
        apart: bool = False,
    ) -> None:
        self._worker = worker
        self._model = model
        self._prepared = prepared
        self._options: dict[str, Any] = {
            "explain": int(tells_beams) if observer is None else candidates,
            # Beams have no event before their end.
            "tells_progress": tells_progress or any(one.params.width > 1 for one in prepared),
            "apart": apart,
            "shows_logits": shows_logits,
        }
        self._apart = apart
        if priority:
            self._options["priority"] = priority
        self._observer = observer
        self.inbox = Inbox()
        self.collectors: list[Collector] = []
        self.begun: Callable[[], None] = lambda: None
        self.heard: Callable[[], None] = lambda: None
        self._tells_progress = tells_progress
        self.progress: dict[int, PromptProgress] = {}
        self.times: list[Times] = []
        self._tells_beams = tells_beams
        self.beams: list[tuple[int, Sequence[BeamCandidate]]] = []
        self.refused: dict[int, ApiError] = {}
        self.invalid: dict[tuple[int, int], str] = {}

    async def start(self) -> None:
        """Queues the prompts. Raises `ApiError`, and queues none, if one of them cannot run."""
        engine = self._model.llm.engine
        try:
            added = await self._worker.add(engine, self._prepared, self.inbox, **self._options)
        except BaseException as error:
            self.close()
            if isinstance(error, DecoderyError):
                raise api_error(error, "prompt") from None
            raise
        for place, (prepared, found) in enumerate(zip(self._prepared, added, strict=True)):
            seed = found.seed if isinstance(found, Added) else prepared.params.seed or 0
            output = RequestOutput(prepared.text, prepared.token_ids, [], seed, warnings=prepared.warnings)
            observer = None if self._observer is None else self._observer(place)
            collector = Collector(
                output,
                prepared.params,
                prepared.text_state,
                prepared.end_ids,
                observer,
                prepared.check,
                prepared.echoed,
            )
            if isinstance(found, DecoderyError):
                self.refused[place] = api_error(found, "prompt")
                output.error = self.refused[place].message
                collector.streams = []
            self.collectors.append(collector)

    def close(self) -> None:
        """Drops what has not ended."""
        self._worker.drop(self.inbox)

    @property
    def done(self) -> bool:
        """True if all completions have ended."""
        return all(collector.done for collector in self.collectors)

    async def additions(self, seconds: float | None = None) -> list[Addition] | None:
        """Returns what has been added since the last call, after waiting for an event, which may add nothing;
        None if `seconds` pass without an event.

        Raises `ApiError` when generation fails, and what `Inbox.fail` was given.
        """
        events = await self.inbox.take(seconds)
        if not events:
            return None
        found: list[Addition] = []
        for place, event in events:
            if isinstance(event, PromptProgress):
                self._take_progress(place, event)
                continue
            if event.tokens:
                self.begun()
            collector = self.collectors[place]
            if collector.checks(event):
                await asyncio.to_thread(collector.take, event)
            else:
                collector.take(event)
            if collector.observer is not None:
                collector.observer(event)
            if self._tells_beams and event.beams:
                self.beams.append((place, event.beams))
            if collector.output.error is not None and not self._apart:
                raise ApiError(400, f"no text is as asked: {collector.output.error}", code="impossible")
            if collector.done and event.times is not None:
                self.times.append(event.times)
            found += [Addition(place, self._valid(place, event)) for event in _released(collector)]
        if found:
            self.heard()
        return found

    def _take_progress(self, place: int, progress: PromptProgress) -> None:
        if progress.computed >= progress.prompt:
            self.begun()
        if self._tells_progress:
            self.progress[place] = progress

    def _valid(self, place: int, event: StreamEvent) -> StreamEvent:
        """Returns an event, without its end if the text is invalid; `invalid` then has the error."""
        if event.finish_reason != "invalid" or self._apart:
            return event
        self.invalid[place, event.index] = event.error or ""
        return replace(event, finish_reason=None, error=None)

    def check_valid(self, *, streamed: bool = False) -> None:
        """Raises `ApiError` if a prompt has no valid text, or if an invalid one has been `streamed`."""
        for place, collector in enumerate(self.collectors):
            errors = [error for (prompt, _), error in self.invalid.items() if prompt == place]
            if errors and (streamed or len(errors) == len(collector.streams)):
                raise ApiError(422, errors[0], code="invalid_output")

    def finished(self) -> list[RequestOutput]:
        """Returns the outputs as they are now."""
        return [finished_output(collector) for collector in self.collectors]


def _released(collector: Collector) -> list[StreamEvent]:
    """Returns the events that may go out, and removes them from the collector.

    The best of several completions are known at the end. A grammar that allows few texts gives fewer beams
    than were asked for; the others end with "error", and are left out.
    """
    events = list(collector.pending)
    collector.pending.clear()
    if collector.params.best_of is None:
        return [event for event in events if event.finish_reason != "error"]
    if not collector.done:
        return []
    return whole_events(finished_output(collector))


async def while_there(receive: Receive, work: Coroutine[Any, Any, T]) -> T:
    """Returns what the work returns; cancels it and raises `ClientDisconnect` if the client goes away first.

    The body of the request must have been read.
    """
    working = asyncio.ensure_future(work)
    await asyncio.sleep(0)
    if working.done():
        return working.result()
    leaving = asyncio.ensure_future(_left(receive))
    try:
        await asyncio.wait({working, leaving}, return_when=asyncio.FIRST_COMPLETED)
        if not working.done():
            raise ClientDisconnect
        return working.result()
    finally:
        for task in (working, leaving):
            task.cancel()
        await asyncio.gather(working, leaving, return_exceptions=True)


async def _left(receive: Receive) -> None:
    while (await receive())["type"] != "http.disconnect":
        pass


class ClientWatch:
    """Fails an inbox when its client goes away: a context that stops watching when it is left."""

    def __init__(self, receive: Receive, inbox: Inbox) -> None:
        self._receive = receive
        self._inbox = inbox
        self._task: asyncio.Task[None] | None = None

    async def __aenter__(self) -> ClientWatch:
        self._task = asyncio.create_task(self._watch())
        return self

    async def _watch(self) -> None:
        await _left(self._receive)
        self._inbox.fail(ClientDisconnect())

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        assert self._task is not None
        self._task.cancel()
        with suppress(asyncio.CancelledError):
            await self._task
