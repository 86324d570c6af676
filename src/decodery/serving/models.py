"""Holds the models of a server, opens them on demand within a bound of memory, and closes idle ones."""

from __future__ import annotations

import asyncio
import gc
import logging
from collections import deque
from collections.abc import Awaitable, Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from time import monotonic, time
from types import TracebackType
from typing import Any, Literal

from decodery.errors import DecoderyError, ModelError
from decodery.llm import LLM
from decodery.serving.errors import ApiError

log = logging.getLogger("decodery.serving")
Kind = Literal["decoder", "encoder"]
"""What a model does: it continues texts, or reads them."""
VECTOR_ROUTES = ("/v1/embeddings", "/embed", "/embed_all")
SPARSE_ROUTES = ("/embed_sparse",)
"""The routes that need a head of masked tokens."""
CLASS_ROUTES = ("/v1/classify", "/predict")
"""The routes that need a head of classes."""
SCORE_ROUTES = ("/v1/rerank", "/rerank", "/v1/score")
"""The routes that need a head of one class."""


@dataclass(frozen=True, slots=True)
class ServedModel:
    """Holds an open model, its name for clients, and when it was opened (seconds since 1970).

    `arguments` are those of its source.
    """

    name: str
    llm: LLM
    created: int
    arguments: Mapping[str, Any] = field(default_factory=dict)

    @property
    def kind(self) -> Kind:
        """Returns what the model does."""
        return "encoder" if self.llm.is_encoder else "decoder"

    @property
    def context_length(self) -> int:
        """Returns how many tokens the model can read, an encoder those of one text."""
        if not self.llm.is_encoder:
            return self.llm.model.context_length
        try:
            return self.llm.text_limit
        except ModelError:  # A file that says so is damaged.
            return self.llm.encoder.model.context_length

    @property
    def reading_routes(self) -> tuple[str, ...]:
        """Returns the routes of encoders that the model can answer."""
        if not self.llm.is_encoder:
            return ()
        heads = self.llm.encoder.model.heads
        if "next_token" in heads or self._compares_tokens:
            return SCORE_ROUTES
        if "masked_lm" in heads:
            return (*VECTOR_ROUTES, *SPARSE_ROUTES)
        if "classes" not in heads:
            return VECTOR_ROUTES
        return (*VECTOR_ROUTES, *CLASS_ROUTES, *(SCORE_ROUTES if heads["classes"].labels == 1 else ()))

    @property
    def _compares_tokens(self) -> bool:
        """True if the model gives each token a vector and a text none."""
        try:
            return self.llm.encoder.multi_vectors is not None
        except ModelError:  # A file that says so is damaged.
            return True

    def check_kind(self, kind: Kind) -> None:
        """Raises `ApiError` for a model of another kind, which says what fits."""
        if self.kind == kind:
            return
        if kind == "decoder":
            routes = ", ".join(self.reading_routes)
            message = f"this model is an encoder, which reads texts and writes none: it answers {routes}"
        else:
            message = (
                "this model continues texts, and this route needs an encoder: name one that /v1/models lists,"
                " or start the server with one (decodery serve -m ENCODER)"
            )
        raise ApiError(400, message, param="model", code="wrong_kind_of_model")


@dataclass(frozen=True, slots=True)
class ModelSource:
    """Holds a model's name for clients, and how it is opened.

    `memory` returns the bytes that it takes; it is called in the loader's thread before `open`. A `pinned`
    model is opened at the start and never closed. `arguments` are those of `LLM` that clients are told, so
    that they can open the same model. `kind` is None where it is not known before the model is open.
    """

    name: str
    open: Callable[[], LLM]
    memory: Callable[[], int] = lambda: 0
    pinned: bool = True
    arguments: Mapping[str, Any] = field(default_factory=dict)
    kind: Kind | None = None


@dataclass(slots=True)
class _Entry:
    source: ModelSource
    model: ServedModel | None = None
    memory: int = 0
    users: int = 0
    used: float = field(default_factory=monotonic)

    @property
    def kind(self) -> Kind | None:
        return self.source.kind if self.model is None else self.model.kind


class Use:
    """Keeps a model open until it is released: a context, or `release` alone."""

    def __init__(self, models: Models, entry: _Entry) -> None:
        assert entry.model is not None
        self.model = entry.model
        self._models = models
        self._entry: _Entry | None = entry

    def release(self) -> None:
        """Lets the model be closed when others need its memory; may be called again."""
        if self._entry is not None:
            self._entry.users -= 1
            self._entry.used = monotonic()
            self._entry = None
            self._models.wake()

    def __enter__(self) -> ServedModel:
        return self.model

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.release()


class Models:
    """Hands out models by name; for the event loop's thread, beside which one thread opens models.

    All open models together take at most `memory` bytes (None: no bound). To open another one, those that
    nobody uses are closed, the one that was used least recently first. While one waits for memory, all
    requests wait behind it in one queue: so a model that is asked for is opened after the answers that run
    now, and each opened model gives an answer before it is closed again. `closed` is awaited with each model
    that is closed, so that others drop it too.
    """

    def __init__(
        self,
        sources: Sequence[ModelSource],
        memory: int | None = None,
        closed: Callable[[ServedModel], Awaitable[None]] | None = None,
    ) -> None:
        self._entries = {source.name: _Entry(source) for source in sources}
        self._memory = memory
        self._closed = closed
        self._waiting: deque[tuple[_Entry, asyncio.Future[Use]]] = deque()
        self._freed = asyncio.Event()
        # True while the first of the queue waits for memory.
        self._short = False
        self._task: asyncio.Task[None] | None = None
        self._loader = ThreadPoolExecutor(1, "decodery-loader")

    async def open_pinned(self) -> None:
        """Opens the pinned models, or the first one if none is. Raises the error of one that fails."""
        pinned = [entry for entry in self._entries.values() if entry.source.pinned]
        for entry in pinned or list(self._entries.values())[:1]:
            (await self._use(entry)).release()

    def close(self) -> None:
        """Ends the loader's thread once it is idle."""
        self._loader.shutdown(wait=False, cancel_futures=True)

    @property
    def names(self) -> list[str]:
        """Returns the names of all models, open or not."""
        return list(self._entries)

    @property
    def opened(self) -> list[ServedModel]:
        """Returns the models that are open."""
        return [entry.model for entry in self._entries.values() if entry.model is not None]

    def kind(self, name: str) -> Kind | None:
        """Returns the kind of a model, None if it is not known before the model is open."""
        return self._entries[name].kind

    def check(self, name: object, kind: Kind | None = None) -> str:
        """Returns a request's name of a model. If it gives none, that of the first model of the kind.

        Raises `ApiError` for an unknown one.
        """
        if name is None:
            fitting = self._entries if kind is None else [n for n in self._entries if self.kind(n) == kind]
            return next(iter(fitting or self._entries))
        if not isinstance(name, str):
            raise ApiError(400, "model must be a text", param="model")
        if name not in self._entries:
            known = ", ".join(self._entries)
            raise ApiError(
                404, f"there is no such model here; there is {known}", param="model", code="model_not_found"
            )
        return name

    async def use(self, name: object) -> Use:
        """Returns the use of a model, after it has been opened if need be. Raises `ApiError`."""
        entry = self._entries[self.check(name)]
        try:
            return await self._use(entry)
        except Exception as error:
            raise _open_error(error) from None

    async def _use(self, entry: _Entry) -> Use:
        if entry.model is not None and not self._short:
            return self._used(entry)
        future: asyncio.Future[Use] = asyncio.get_running_loop().create_future()
        self._waiting.append((entry, future))
        if self._task is None:
            self._task = asyncio.create_task(self._serve_queue())
        try:
            return await future
        except asyncio.CancelledError:
            if future.done() and not future.cancelled() and future.exception() is None:
                future.result().release()
            self.wake()
            raise

    def _used(self, entry: _Entry) -> Use:
        entry.users += 1
        return Use(self, entry)

    def wake(self) -> None:
        """Lets the queue look again: a model may have become idle."""
        self._freed.set()

    async def _serve_queue(self) -> None:
        try:
            while self._waiting:
                entry, future = self._waiting[0]
                try:
                    if entry.model is None and not future.cancelled():
                        await self._open(entry, future)
                except Exception as error:
                    if not future.cancelled():
                        future.set_exception(error)
                else:
                    self._grant(entry, future)
                self._waiting.popleft()
        finally:
            self._task = None

    def _grant(self, entry: _Entry, future: asyncio.Future[Use]) -> None:
        if not future.cancelled():
            future.set_result(self._used(entry))

    async def _open(self, entry: _Entry, future: asyncio.Future[Use]) -> None:
        """Opens a model, unless its request goes away while it waits for memory."""
        loop = asyncio.get_running_loop()
        source = entry.source
        if self._memory is not None:
            entry.memory = await loop.run_in_executor(self._loader, source.memory)
            await self._free_memory(entry, future)
            self._grant_opened()
            if future.cancelled():
                return
        llm = await loop.run_in_executor(self._loader, source.open)
        entry.model = ServedModel(source.name, llm, int(time()), source.arguments)
        entry.used = monotonic()

    def _grant_opened(self) -> None:
        """Lets those out of the queue whose models are open: they waited for memory alone."""
        waiting, self._waiting = self._waiting, deque()
        for entry, future in waiting:
            if entry.model is None:
                self._waiting.append((entry, future))
            else:
                self._grant(entry, future)

    async def _free_memory(self, entry: _Entry, future: asyncio.Future[Use]) -> None:
        """Closes idle models until this one fits; waits for those in use while the request is there."""
        assert self._memory is not None
        pinned = sum(e.memory for e in self._opened_entries() if e.source.pinned)
        if pinned + entry.memory > self._memory:
            raise ApiError(503, "the model needs more memory than the server may use", code="model_too_large")
        while self._taken() + entry.memory > self._memory and not future.cancelled():
            idle = [e for e in self._opened_entries() if not e.source.pinned and not e.users]
            if idle:
                await self._close(min(idle, key=lambda e: e.used))
                continue
            self._freed.clear()
            self._short = True
            try:
                await self._freed.wait()
            finally:
                self._short = False

    def _opened_entries(self) -> list[_Entry]:
        return [entry for entry in self._entries.values() if entry.model is not None]

    def _taken(self) -> int:
        return sum(entry.memory for entry in self._opened_entries())

    async def _close(self, entry: _Entry) -> None:
        assert entry.model is not None
        log.info('{"event": "close", "model": "%s"}', entry.source.name)
        model, entry.model = entry.model, None
        if self._closed is not None:
            await self._closed(model)
        del model
        await asyncio.get_running_loop().run_in_executor(self._loader, _collect)


def _collect() -> None:
    """Frees what nothing refers to from outside: the parts of a model refer to each other."""
    frozen = gc.get_freeze_count() > 0
    gc.unfreeze()
    gc.collect()
    if frozen:
        gc.freeze()


def _open_error(error: Exception) -> ApiError:
    """Returns what a client is told when its model cannot be opened; the reason is logged."""
    if isinstance(error, ApiError):
        return error
    if isinstance(error, DecoderyError):
        log.error("a model cannot be opened: %s", error)
    else:
        log.error("a model cannot be opened", exc_info=error)
    return ApiError(503, "the model cannot be opened", code="model_failed")
