"""Answers `/v1/rerank`, `/rerank` and `/v1/score`: how well documents answer a query."""

from __future__ import annotations

import secrets
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from starlette.requests import Request
from starlette.responses import Response

from decodery.encoding.tasks.classify import scores_of
from decodery.encoding.tasks.labels import pair_scoring
from decodery.encoding.tasks.rerank import pair_logits
from decodery.encoding.texts import Long
from decodery.serving.encoders.inputs import (
    check_count,
    long_of,
    places,
    take_cut,
    take_text,
    take_truncate,
    texts_in,
)
from decodery.serving.encoders.reading_request import Reader, ReadingRequest, listing
from decodery.serving.errors import invalid
from decodery.serving.openai.fields import Fields
from decodery.serving.service import Service
from decodery.serving.settings import RequestLimits, ServerSettings


@dataclass(frozen=True, slots=True)
class RankRequest:
    """Holds a query and the documents that are to be ordered.

    `shows` puts the documents into the answer. `raw`: scores are those of the model, without a sigmoid.
    """

    query: str
    documents: Sequence[str]
    long: Long
    top_n: int | None = None
    shows: bool = False
    raw: bool = False


def read_rerank_request(body: Mapping[str, Any], settings: ServerSettings) -> RankRequest:
    """Returns what a body of `/v1/rerank` asks for, in the form of Jina and Cohere. Raises `ApiError`."""
    fields = Fields(body)
    fields.raw("model")
    query = take_text(fields, "query")
    documents = _documents(fields.raw("documents"), settings.limits)
    top_n = fields.raw("top_n")
    if top_n is not None and (type(top_n) is not int or top_n < 1):
        raise invalid("top_n must be a whole number from 1 on", "top_n")
    shows = fields.take("return_documents", bool, True)
    long = take_cut(fields)
    fields.close(lenient=settings.lenient)
    return RankRequest(query, documents, long, top_n, shows)


def _documents(given: Any, limits: RequestLimits) -> list[str]:
    """Returns the texts of a list of texts and of objects with a text."""
    if not isinstance(given, list) or not given:
        raise invalid("documents must be a list of texts, or of objects with a text", "documents")
    check_count(given, "documents", limits)
    found = []
    for place, document in enumerate(given):
        name = f"documents[{place}]"
        if isinstance(document, dict):
            fields = Fields(document, f"{name}.")
            document = fields.raw("text")
            fields.close(lenient=False)
        if not isinstance(document, str):
            raise invalid(f"{name} must be a text, or an object with a text", name)
        found.append(document)
    return found


def read_tei_rerank_request(body: Mapping[str, Any], settings: ServerSettings) -> RankRequest:
    """Returns what a body of `/rerank` asks for, in the form of text-embeddings-inference."""
    fields = Fields(body)
    fields.raw("model")
    query = take_text(fields, "query")
    texts = texts_in(fields.raw("texts"), "texts", settings.limits)
    raw = fields.take("raw_scores", bool, False)
    shows = fields.take("return_text", bool, False)
    long = long_of(take_truncate(fields))
    fields.close(lenient=settings.lenient)
    return RankRequest(query, texts, long, None, shows, raw)


@dataclass(frozen=True, slots=True)
class ScoreRequest:
    """Holds the pairs of texts that are to be scored."""

    pairs: Sequence[tuple[str, str]]
    long: Long

    def scores(self, reader: Reader) -> list[float]:
        """Returns the score of each pair. Raises `ModelError` for a model without a head of one score."""
        logits, _ = pair_logits(reader.encoder, self.pairs, long=self.long)
        found: list[float] = scores_of(np.array(logits), pair_scoring(reader.encoder)).tolist()
        return found


def read_score_request(body: Mapping[str, Any], settings: ServerSettings) -> ScoreRequest:
    """Returns what a body of `/v1/score` asks for: one text with each of several, or pairs."""
    fields = Fields(body)
    fields.raw("model")
    first, second = (_side(fields.raw(name), name, settings.limits) for name in ("text_1", "text_2"))
    long = take_cut(fields)
    fields.close(lenient=settings.lenient)
    if len(first) == 1:
        first = first * len(second)
    if len(first) != len(second):
        raise invalid(
            f"text_1 has {len(first)} texts and text_2 has {len(second)}: give one and several, or as many",
            "text_2",
        )
    return ScoreRequest(list(zip(first, second, strict=True)), long)


def _side(given: Any, name: str, limits: RequestLimits) -> list[str]:
    return [given] if isinstance(given, str) else texts_in(given, name, limits)


async def rerank(service: Service, request: Request) -> Response:
    """Answers a request of `/v1/rerank`, or of `/rerank` in the form of Jina and Cohere."""
    return await _rerank(service, request, await service.read(request))


async def _rerank(service: Service, request: Request, body: Mapping[str, Any]) -> Response:
    with ReadingRequest(service, request, body.get("model")) as active:
        asked = read_rerank_request(body, service.settings)
        model = await active.open()

        def write(reader: Reader) -> Any:
            found = reader.rerank(asked.query, asked.documents, top_n=asked.top_n, long=asked.long)
            results = []
            for ranked in found:
                result: dict[str, Any] = {"index": ranked.index, "relevance_score": ranked.score}
                if asked.shows:
                    result["document"] = {"text": asked.documents[ranked.index]}
                results.append(result)
            return {
                "id": f"rerank-{secrets.token_hex(12)}",
                "object": "list",
                "model": model.name,
                "usage": reader.usage,
                "results": results,
            }

        return await active.answer(model, write, {"texts": "documents"})


async def rerank_either(service: Service, request: Request) -> Response:
    """Answers a request of `/rerank`, whose form its fields tell: `texts` is text-embeddings-inference's."""
    body = await service.read(request)
    if "texts" not in body:
        return await _rerank(service, request, body)
    with ReadingRequest(service, request, body.get("model")) as active:
        asked = read_tei_rerank_request(body, service.settings)
        model = await active.open()

        def write(reader: Reader) -> Any:
            found = reader.rerank(asked.query, asked.documents, long=asked.long)
            shown = [(r.index, r.logit if asked.raw else r.score) for r in found]
            return [
                {"index": index, "score": score, **({"text": asked.documents[index]} if asked.shows else {})}
                for index, score in shown
            ]

        return await active.answer(model, write, {"texts": "texts"})


async def score(service: Service, request: Request) -> Response:
    """Answers a request of `/v1/score`."""
    body = await service.read(request)
    with ReadingRequest(service, request, body.get("model")) as active:
        asked = read_score_request(body, service.settings)
        model = await active.open()

        def write(reader: Reader) -> Any:
            data = [
                {"index": place, "object": "score", "score": value}
                for place, value in enumerate(asked.scores(reader))
            ]
            return listing("score", model, reader, data)

        return await active.answer(model, write, places("text_2", body["text_2"]))
