"""Carries the requests of encoders: their texts run in batches that they share."""

from __future__ import annotations

import asyncio
import dataclasses
import secrets
import time
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import Future
from dataclasses import dataclass, replace
from typing import Any, ClassVar, TypeVar

from starlette.requests import Request
from starlette.responses import Response

from decodery.encoding.encoder_parts import EncoderParts
from decodery.encoding.shared_batches import SharedRunner
from decodery.encoding.text_batches import TokenText
from decodery.encoding.vectors.multi_vector_settings import MultiVectorSettings
from decodery.encoding.vectors.sentence_folder import TextRules
from decodery.encoding.vectors.vector_settings import VectorSettings
from decodery.encoding_calls import EncodingCalls
from decodery.errors import DecoderyError
from decodery.serving.errors import ApiError, api_error, invalid
from decodery.serving.generation import while_there
from decodery.serving.models import Kind, ServedModel
from decodery.serving.openai.origins import renamed
from decodery.serving.service import ActiveRequest, Service
from decodery.serving.sse import dumps
from decodery.text.chat.marked_encoder import MarkedEncoder

T = TypeVar("T")


@dataclass(frozen=True)
class _SharedParts(EncoderParts):
    """Is `whole` with another runner, and with a limit of tokens for texts whose vectors are made."""

    whole: EncoderParts
    limit: int | None = None

    @property
    def vectors(self) -> VectorSettings:
        """Returns those of the whole, which are read once."""
        found = self.whole.vectors
        return found if self.limit is None else replace(found, limit=min(found.limit, self.limit))

    @property
    def multi_vectors(self) -> MultiVectorSettings | None:
        """Returns those of the whole, which are read once."""
        return self.whole.multi_vectors

    @property
    def marked(self) -> MarkedEncoder:
        """Returns the encoder of the whole, which is made once."""
        return self.whole.marked

    @property
    def rules(self) -> TextRules:
        """Returns those of the whole, which are read once."""
        return self.whole.rules


class Reader(EncodingCalls):
    """Offers what an encoder computes to one request, whose texts run in batches with those of others.

    `ran` counts the texts and tokens of the request.
    """

    def __init__(self, parts: EncoderParts, ran: SharedRunner, limit: int | None = None) -> None:
        fields = {**vars(parts), "runner": ran}
        names = [field.name for field in dataclasses.fields(EncoderParts)]
        self._encoder: EncoderParts = _SharedParts(
            **{name: fields[name] for name in names}, whole=parts, limit=limit
        )
        self.ran = ran

    @property
    def usage(self) -> dict[str, int]:
        """Returns the tokens that were read, with special tokens and prompts, in OpenAI's form."""
        return {"prompt_tokens": self.ran.tokens, "total_tokens": self.ran.tokens}


def listing(kind: str, model: ServedModel, reader: Reader, data: Sequence[Any]) -> dict[str, Any]:
    """Returns an answer of vLLM's form with a list of results of a kind, such as "score"."""
    return {
        "id": f"{kind}-{secrets.token_hex(12)}",
        "object": "list",
        "created": int(time.time()),
        "model": model.name,
        "data": data,
        "usage": reader.usage,
    }


class ReadingRequest(ActiveRequest):
    """Carries one request of an encoder from its arrival to its end."""

    kind: ClassVar[Kind] = "encoder"

    def __init__(self, service: Service, request: Request, name: object) -> None:
        super().__init__(service, request, name)
        self._ran: SharedRunner | None = None
        self._failed: asyncio.Future[None] | None = None

    async def answer(
        self,
        model: ServedModel,
        write: Callable[[Reader], Any],
        places: Mapping[str, str],
        most: int | None = None,
    ) -> Response:
        """Returns the answer with the JSON value that `write` makes, in a thread.

        `most` bounds the tokens of a text whose vector is made; with None and -1 the model's limit does.
        `places` are the request's fields by what the library calls them, such as "texts"; the first one is
        that of an error which names none. Raises `ApiError`, and `ClientDisconnect` if the client leaves.
        """
        loop = asyncio.get_running_loop()

        def begun() -> None:
            loop.call_soon_threadsafe(self._begin)

        parts = model.llm.encoder
        self._ran = ran = self._service.batches.caller(parts.runner, begun, self._check)
        self._failed = loop.create_future()
        self._failed.add_done_callback(_ignore)
        self._set_timer()
        reader = Reader(parts, ran, None if most == -1 else most)
        job = self._service.readers.submit(lambda: dumps(write(reader)).encode())
        try:
            with renamed(places):
                result = self._result(job, model, next(iter(places)))
                body = await while_there(self._request.receive, result)
        finally:
            job.cancel()
        if ran.lost:
            self._request.scope["warnings"].append(f"texts were cut: {ran.lost} tokens were left out")
        return Response(body, media_type="application/json")

    async def _result(self, job: Future[bytes], model: ServedModel, param: str) -> bytes:
        assert self._failed is not None
        future = asyncio.wrap_future(job)
        future.add_done_callback(_ignore)
        either: set[asyncio.Future[Any]] = {future, self._failed}
        await asyncio.wait(either, return_when=asyncio.FIRST_COMPLETED)
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
