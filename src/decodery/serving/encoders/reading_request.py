"""Carries the requests of encoders: their texts run in batches that they share."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import Future
from dataclasses import replace
from functools import partial
from typing import Any, ClassVar, TypeVar

from starlette.requests import Request
from starlette.responses import Response

from decodery.encoding.encoder_parts import EncoderParts
from decodery.encoding.shared_batches import SharedRunner
from decodery.encoding.text_batches import TokenText
from decodery.encoding_calls import EncodingCalls
from decodery.errors import DecoderyError
from decodery.serving.errors import ApiError, api_error, invalid
from decodery.serving.generation import while_there
from decodery.serving.models import Kind, ServedModel
from decodery.serving.openai.origins import renamed
from decodery.serving.service import ActiveRequest, Service
from decodery.serving.sse import dumps

T = TypeVar("T")


class Reader(EncodingCalls):
    """Offers what an encoder computes to one request, whose texts run in batches with those of others.

    `ran` counts the texts and tokens of the request.
    """

    def __init__(self, parts: EncoderParts, ran: SharedRunner) -> None:
        self._encoder: EncoderParts = replace(parts, runner=ran)
        self.ran = ran

    @property
    def usage(self) -> dict[str, int]:
        """Returns the tokens that were read, with special tokens and prompts, in OpenAI's form."""
        return {"prompt_tokens": self.ran.tokens, "total_tokens": self.ran.tokens}

    def limited(self, tokens: int) -> Reader:
        """Returns a reader that reads at most so many tokens of a text whose vector it makes."""
        settings = self._encoder.vectors
        settings = replace(settings, limit=min(settings.limit, tokens))
        return Reader(replace(self._encoder, vectors=settings), self.ran)


class ReadingRequest(ActiveRequest):
    """Carries one request of an encoder from its arrival to its end."""

    kind: ClassVar[Kind] = "encoder"

    def __init__(self, service: Service, request: Request, name: object) -> None:
        super().__init__(service, request, name)
        self._ran: SharedRunner | None = None
        self._failed: asyncio.Future[None] | None = None

    async def answer(
        self, model: ServedModel, write: Callable[[Reader], Any], places: Mapping[str, str]
    ) -> Response:
        """Returns the answer with the JSON value that `write` makes, in a thread.

        `places` are the request's fields by what the library calls them, such as "texts"; the first one is
        that of an error which names none. Raises `ApiError`, and `ClientDisconnect` if the client leaves.
        """
        loop = asyncio.get_running_loop()
        begun = partial(loop.call_soon_threadsafe, self._begin)
        parts = model.llm.encoder
        self._ran = ran = self._service.batches.caller(parts.runner, begun, self._check)
        self._failed = loop.create_future()
        self._failed.add_done_callback(_ignore)
        self._set_timer()
        job = self._service.readers.submit(lambda: dumps(write(Reader(parts, ran))).encode())
        try:
            with renamed(places):
                body = await while_there(self._request.receive, self._result(job, model, [*places][0]))
        finally:
            job.cancel()
        if ran.lost:
            self._request.scope["warnings"].append(f"texts were cut: {ran.lost} tokens were left out")
        return Response(body, media_type="application/json")

    async def _result(self, job: Future[bytes], model: ServedModel, param: str) -> bytes:
        assert self._failed is not None
        future = asyncio.wrap_future(job)
        future.add_done_callback(_ignore)
        await asyncio.wait({future, self._failed}, return_when=asyncio.FIRST_COMPLETED)
        if self._failed.done():
            self._failed.result()
        try:
            return future.result()
        except DecoderyError as error:
            found = api_error(error, param)
            # A message may name the folder, which a client need not know.
            found.message = found.message.replace(str(model.llm.encoder.folder), model.name)
            raise found from None

    def _check(self, texts: Sequence[TokenText]) -> None:
        most = self._service.settings.limits.prompt_tokens
        if most is not None and any(len(text.ids) > most for text in texts):
            raise invalid(f"a text has at most {most} tokens here", "texts", "context_length_exceeded")

    def _begin(self) -> None:
        self._ticket.begin()
        self._timeline.begin()

    def fail(self, error: ApiError) -> None:
        """Ends the request with an error."""
        if self._failed is not None and not self._failed.done():
            self._failed.set_exception(error)

    def _end(self, error: BaseException | None) -> None:
        if self._ran is None:
            return
        self._ran.fail(error if isinstance(error, Exception) else ApiError(499, "the request has ended"))
        self._timeline.end()
        reason = "stop" if error is None else "error" if isinstance(error, ApiError) else "abort"
        self._service.metrics.read.labels(self._name, reason).inc()
        self._log({"model": self._name, "texts": self._ran.texts, "prompt_tokens": self._ran.tokens}, error)


def _ignore(future: asyncio.Future[Any]) -> None:
    if not future.cancelled():
        future.exception()
