"""Holds the parts of a server, and carries a request through them."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from time import monotonic, perf_counter
from types import TracebackType
from typing import Any, ClassVar, Self, TypeVar

from starlette.requests import Request
from starlette.responses import Response

from decodery.encoding.shared_batches import RanBatch, SharedBatches
from decodery.engine.pages import encode_salt
from decodery.engine.statistics import Statistics
from decodery.intake import Prepared
from decodery.serving.admission import Admission, Ticket
from decodery.serving.bodies import read_json
from decodery.serving.errors import ApiError, invalid
from decodery.serving.generation import Addition, ClientWatch, Generation, while_there
from decodery.serving.metrics import Metrics, Timeline
from decodery.serving.models import Kind, Models, ModelSource, ServedModel, Use
from decodery.serving.preparing import Preparation
from decodery.serving.response_store import ResponseStore
from decodery.serving.settings import RequestLimits, ServerSettings
from decodery.serving.sse import Chunks, EventStream, dumps
from decodery.serving.worker import Worker

T = TypeVar("T")
# Seconds of a step after which the server is not ready; or ten times its bound, if that is longer.
SLOWEST_STEP = 10.0
# Seconds of a batch of an encoder after which the server is not ready.
SLOWEST_BATCH = 60.0
# The number of requests of encoders whose texts may share a batch.
READERS = 64
# Seconds that a client has to read the error of its stream.
LAST_WORDS = 1.0


class Service:
    """Holds the parts of one server; the event loop's thread alone uses it."""

    def __init__(
        self, settings: ServerSettings, sources: Sequence[ModelSource], memory: int | None = None
    ) -> None:
        self.settings = settings
        self.worker = Worker()
        self.batches = SharedBatches(self._count_batch)
        # Threads that read the texts of one request each, and wait for its batches.
        self.readers = ThreadPoolExecutor(READERS, "decodery-readers")
        self.models = Models(sources, memory, self._forget)
        self.preparation = Preparation(settings.limits.preparing_seconds)
        self.admission = Admission(settings.limits.queued)
        self.metrics = Metrics(self._statistics, self._waiting)
        self.active: set[ActiveRequest] = set()
        self.responses = ResponseStore()
        # Held by the request whose pass over all layers the worker runs.
        self.layer_passes = asyncio.Lock()
        self._background: dict[str, asyncio.Task[None]] = {}

    def start(self, loop: asyncio.AbstractEventLoop) -> None:
        """Starts the threads that run the models; their results come to this loop."""
        self.worker.start(loop)
        self.batches.start()

    async def stop(self) -> None:
        """Ends all threads after what they run now."""
        self.models.close()
        self.preparation.close()
        self.batches.stop(ApiError(503, "the server is stopping", code="draining", retry_after=10))
        self.readers.shutdown(wait=False, cancel_futures=True)
        await self.worker.stop()
        while self.batches.is_alive:
            await asyncio.sleep(0.005)

    async def _forget(self, model: ServedModel) -> None:
        # Batches refer to no encoder between two of them.
        if model.kind == "decoder":
            await self.worker.forget(model.llm.engine)

    def _count_batch(self, batch: RanBatch) -> None:
        for model in self.models.opened:
            if model.llm.is_encoder and model.llm.encoder.runner is batch.runner:
                self.metrics.count_batch(model.name, batch)

    def in_background(self, name: str, work: Coroutine[Any, Any, None]) -> None:
        """Runs what nobody waits for, under a name by which it can be cancelled."""
        task = self._background[name] = asyncio.create_task(work)
        task.add_done_callback(lambda _: self._background.pop(name, None))

    def cancel_background(self, name: str) -> bool:
        """Cancels what runs under a name; returns False if nothing does."""
        task = self._background.get(name)
        return task is not None and task.cancel()

    async def read(self, request: Request) -> dict[str, Any]:
        """Returns the body of a request. Raises the errors of `read_json`."""
        body = await read_json(request.scope, request.receive, self.settings.limits)
        if self.settings.log_prompts:
            request.scope["record"]["body"] = body
        return body

    async def use(self, request: Request, name: object, kind: Kind | None = None) -> Use:
        """Returns the use of a model, as `Models.use`. Raises `ClientDisconnect` if the client leaves.

        Raises `ApiError` for a model of another kind, if one is given.
        """
        use = await while_there(request.receive, self.models.use(self.models.check(name, kind)))
        if kind is not None:
            try:
                use.model.check_kind(kind)
            except ApiError:
                use.release()
                raise
        return use

    async def prepare(
        self, request: Request, function: Callable[[], T], *, param: str, grammar: int = 0
    ) -> T:
        """Returns what a function of preparation returns; see `Preparation.run`.

        Raises `ClientDisconnect` if the client leaves meanwhile.
        """
        work = self.preparation.run(function, grammar=grammar, param=param)
        return await while_there(request.receive, work)

    def _statistics(self) -> Iterator[tuple[str, Statistics]]:
        for model in self.models.opened:
            if model.kind == "decoder":
                yield model.name, model.llm.engine.statistics()

    def _waiting(self) -> Iterator[tuple[str, int]]:
        for model in self.models.opened:
            if model.kind == "encoder":
                yield model.name, self.batches.waiting(model.llm.encoder.runner)

    def not_ready(self) -> str | None:
        """Returns why the server cannot serve requests now; None if it can."""
        if self.admission.draining:
            return "the server is stopping"
        if not self.models.opened:
            return "the model is being opened"
        began = self.batches.batch_since
        if began is not None and monotonic() - began > SLOWEST_BATCH:
            return "a batch takes too long"
        for model in self.models.opened:
            if model.kind == "encoder":
                continue
            engine = model.llm.engine
            began, bound = engine.statistics().step_since, engine.limits.max_step_ms or 0
            if began is not None and monotonic() - began > max(SLOWEST_STEP, bound / 100):
                return "a step takes too long"
        return None

    def salt(self, scope: Any, cache_salt: str | None) -> bytes:
        """Returns the salt of a request's pages: of its key and what the caller adds.

        So requests with different keys share no pages, and no time tells one what another has asked.
        """
        return encode_salt((scope["identity"], (cache_salt or "").encode("utf-8", "surrogatepass")))


class ActiveRequest:
    """Carries one request from its arrival to its end: admission, model, deadline, times, log.

    A context that ends the request when it is left, unless the request was handed over: to a stream, or with
    `hand_over` to whoever calls `leave`.
    """

    kind: ClassVar[Kind] = "decoder"

    def __init__(self, service: Service, request: Request, name: object) -> None:
        self._service = service
        self._request = request
        self._name = service.models.check(name, self.kind)
        self._ticket: Ticket = service.admission.enter()
        self._timeline = Timeline(service.metrics, self._name)
        self._deadline = perf_counter() + service.settings.limits.seconds
        self._use: Use | None = None
        self._timer: asyncio.TimerHandle | None = None
        self._generation: Generation | None = None
        self._stream: EventStream | None = None
        self._handed_over = False
        service.active.add(self)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if error is not None or not self._handed_over:
            self.leave(error)

    def hand_over(self) -> None:
        """Leaves the end of the request to somebody else."""
        self._handed_over = True

    async def open(self) -> ServedModel:
        """Returns the request's model, which stays open until the end. Raises `ApiError` for another kind."""
        try:
            async with asyncio.timeout(max(self._deadline - perf_counter(), 0)):
                await while_there(self._request.receive, self._hold_model())
        except TimeoutError:
            raise self._too_late() from None
        assert self._use is not None
        self._use.model.check_kind(self.kind)
        return self._use.model

    async def _hold_model(self) -> None:
        # At once, so that the model is released whenever the request ends.
        self._use = await self._service.models.use(self._name)

    async def prepare(self, function: Callable[[], T], *, param: str, grammar: int = 0) -> T:
        """Returns what a function of preparation returns; see `Service.prepare`."""
        return await self._service.prepare(self._request, function, param=param, grammar=grammar)

    async def start(self, prepared: Sequence[Prepared], *, fits: bool = True, **options: Any) -> Generation:
        """Queues the prompts. Raises `ApiError` if one of them cannot run.

        With `fits`, it also raises if the context cannot hold `max_tokens` after a prompt; else such a text
        ends where the context is full, as in the library.
        """
        assert self._use is not None
        for one in prepared if fits else ():
            _check_length(one, self._use.model, self._service.settings.limits)
        generation = Generation(self._service.worker, self._use.model, prepared, **options)
        generation.begun = self._ticket.begin
        generation.heard = self._timeline.token
        self._generation = generation
        self._request.scope["warnings"] += dict.fromkeys(w for one in prepared for w in one.warnings)
        await generation.start()
        self._set_timer()
        return generation

    def _set_timer(self) -> None:
        loop = asyncio.get_running_loop()
        self._timer = loop.call_later(max(self._deadline - perf_counter(), 0), self._expire)

    def _expire(self) -> None:
        self.fail(self._too_late())

    def _too_late(self) -> ApiError:
        seconds = self._service.settings.limits.seconds
        return ApiError(504, f"a request may run for {seconds:g} seconds here", code="timeout")

    def fail(self, error: ApiError) -> None:
        """Ends the request with an error; cuts an answer whose client does not read it."""
        if self._generation is not None:
            self._generation.inbox.fail(error)
            self._generation.close()
        if self._stream is not None:
            asyncio.get_running_loop().call_later(LAST_WORDS, self._stream.cut)

    async def run(self, generation: Generation, take: Callable[[Sequence[Addition]], object]) -> None:
        """Hands all that is added to `take`; raises `ClientDisconnect` if the client goes away."""
        async with ClientWatch(self._request.receive, generation.inbox):
            while not generation.done:
                take(await generation.additions() or ())
        generation.check_valid()

    def stream(self, generation: Generation, chunks: Chunks) -> EventStream:
        """Returns an answer that streams the generation and ends this request."""
        self._stream = EventStream(generation, chunks, self._service.settings.pings, self.leave)
        self.hand_over()
        return self._stream

    def leave(self, error: BaseException | None = None) -> None:
        """Drops what runs, and notes the end; may be called again."""
        if self not in self._service.active:
            return
        self._service.active.discard(self)
        if self._timer is not None:
            self._timer.cancel()
        self._end(error)
        if self._use is not None:
            self._use.release()
        self._ticket.leave()

    def _end(self, error: BaseException | None) -> None:
        """Drops what runs, and counts it."""
        if self._generation is not None:
            self._generation.close()
            self._count(self._generation, error)

    def _count(self, generation: Generation, error: BaseException | None) -> None:
        metrics, name = self._service.metrics, self._name
        prompt = sum(len(c.output.prompt_token_ids) for c in generation.collectors)
        text = sum(len(s.tokens) for c in generation.collectors for s in c.streams)
        self._timeline.end(generation.times)
        for collector in generation.collectors:
            for stream in collector.streams:
                reason = stream.finish or ("abort" if error is None else "error")
                metrics.finished.labels(name, reason).inc()
        self._log({"model": name, "prompt_tokens": prompt, "completion_tokens": text}, error)

    def _log(self, counts: dict[str, Any], error: BaseException | None) -> None:
        record: dict[str, Any] = self._request.scope["record"]
        record.update(counts)
        if error is not None:
            record["error"] = getattr(error, "code", None) or type(error).__name__


def _check_length(prepared: Prepared, model: ServedModel, limits: RequestLimits) -> None:
    """Raises `ApiError` if a prompt is too long, alone or with the tokens that are asked for after it."""
    prompt, wanted = len(prepared.token_ids), prepared.params.max_tokens
    if limits.prompt_tokens is not None and prompt > limits.prompt_tokens:
        message = f"a prompt has at most {limits.prompt_tokens} tokens here"
        raise invalid(message, "prompt", "context_length_exceeded")
    context = model.llm.engine.limits.context_length
    # The last token need not be computed. The server's own bound is no wish of the client's.
    if wanted not in (None, limits.max_tokens) and prompt + wanted > context + 1:
        message = f"the prompt has {prompt} tokens and max_tokens is {wanted}: the context holds {context}"
        raise invalid(message, "max_tokens", "context_length_exceeded")


def json_response(value: Any, status: int = 200) -> Response:
    """Returns an answer with a JSON body."""
    return Response(dumps(value).encode(), status, media_type="application/json")
