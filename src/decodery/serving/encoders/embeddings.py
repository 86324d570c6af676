"""Answers `/v1/embeddings`, and `/embed` and `/embed_all` of text-embeddings-inference."""

from __future__ import annotations

import base64
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray
from starlette.requests import Request
from starlette.responses import Response

from decodery.serving.encoders.inputs import long_of, take_inputs, take_limit, take_truncate
from decodery.serving.encoders.reading_request import Reader, ReadingRequest
from decodery.serving.errors import invalid
from decodery.serving.openai.fields import Fields
from decodery.serving.service import Service
from decodery.serving.settings import ServerSettings

FORMATS = ("float", "base64")
# What different servers call the two roles of a text in a search.
QUERIES = ("query", "search_query")
DOCUMENTS = ("document", "passage", "search_document")


@dataclass(frozen=True, slots=True)
class VectorRequest:
    """Holds what a client asks of a route of vectors.

    `options` are arguments of `LLM.embed`. `most` is the number of tokens that are kept of a text (-1: as
    many as fit); None is an error for a text that is too long.
    """

    texts: Sequence[str | list[int]]
    most: int | None = None
    packed: bool = False
    options: Mapping[str, Any] = field(default_factory=dict)

    def vectors(self, reader: Reader) -> NDArray[np.float32]:
        """Returns the vectors [texts, width]. Raises the errors of `LLM.embed`."""
        found = reader.embed(list(self.texts), long=long_of(self.most), progress=False, **self.options)
        vectors: NDArray[np.float32] = found.vectors
        return vectors

    def sparse_vectors(self, reader: Reader) -> list[list[dict[str, Any]]]:
        """Returns the weights of the tokens of each text, those above 0."""
        return [
            [
                {"index": index, "value": value}
                for index, value in zip(one.ids.tolist(), one.weights.tolist(), strict=True)
            ]
            for one in reader.embed_sparse(list(self.texts), long=long_of(self.most))
        ]

    def token_vectors(self, reader: Reader) -> list[list[list[float]]]:
        """Returns the last states of the tokens of each text, special tokens among them."""
        found = reader.embed_tokens(list(self.texts), long=long_of(self.most), **self.options)
        return [text.vectors.tolist() for text in found]


def read_embedding_request(body: Mapping[str, Any], settings: ServerSettings) -> VectorRequest:
    """Returns what a body of `/v1/embeddings` asks for. Raises `ApiError`."""
    fields = Fields(body)
    fields.raw("model")
    texts = take_inputs(fields, "input", settings)
    form = fields.take("encoding_format", str, "float")
    if form not in FORMATS:
        raise invalid(f"encoding_format must be {' or '.join(FORMATS)}", "encoding_format")
    options = _take_options(fields, "dimensions", "normalize", "prompt_name", "prompt")
    role = fields.raw("input_type")
    if role is not None:
        if role not in (*QUERIES, *DOCUMENTS):
            raise invalid(f"input_type must be one of {', '.join((*QUERIES, *DOCUMENTS))}", "input_type")
        options["query" if role in QUERIES else "document"] = True
    most = take_limit(fields)
    fields.raw("user")
    fields.close(lenient=settings.lenient)
    return VectorRequest(texts, most, form == "base64", options)


def read_embed_request(body: Mapping[str, Any], settings: ServerSettings) -> VectorRequest:
    """Returns what a body of `/embed` asks for. Raises `ApiError`."""
    fields = Fields(body)
    fields.raw("model")
    texts = take_inputs(fields, "inputs", settings)
    options = {"normalize": True, **_take_options(fields, "dimensions", "normalize", "prompt_name")}
    most = take_truncate(fields)
    fields.close(lenient=settings.lenient)
    return VectorRequest(texts, most, options=options)


def read_embed_all_request(body: Mapping[str, Any], settings: ServerSettings) -> VectorRequest:
    """Returns what a body of `/embed_all` asks for. Raises `ApiError`."""
    fields = Fields(body)
    fields.raw("model")
    texts = take_inputs(fields, "inputs", settings)
    options = _take_options(fields, "prompt_name")
    most = take_truncate(fields)
    fields.close(lenient=settings.lenient)
    return VectorRequest(texts, most, options=options)


def read_embed_sparse_request(body: Mapping[str, Any], settings: ServerSettings) -> VectorRequest:
    """Returns what a body of `/embed_sparse` asks for. Raises `ApiError`."""
    fields = Fields(body)
    fields.raw("model")
    texts = take_inputs(fields, "inputs", settings)
    most = take_truncate(fields)
    fields.close(lenient=settings.lenient)
    return VectorRequest(texts, most)


def _take_options(fields: Fields, *names: str) -> dict[str, Any]:
    """Takes these options of vectors, under the names of `LLM.embed`."""
    kinds: dict[str, tuple[str, type]] = {
        "dimensions": ("truncate_dim", int),
        "normalize": ("normalize", bool),
        "prompt_name": ("prompt_name", str),
        "prompt": ("prompt", str),
    }
    given = {ours: fields.take(name, kind, None) for name, (ours, kind) in kinds.items() if name in names}
    return {name: value for name, value in given.items() if value is not None}


def in_base64(vector: NDArray[np.float32]) -> str:
    """Returns a vector's numbers as float32 of little endian in base64."""
    return base64.b64encode(np.asarray(vector, "<f4").tobytes()).decode("ascii")


async def embeddings(service: Service, request: Request) -> Response:
    """Answers a request of `/v1/embeddings`."""
    body = await service.read(request)
    with ReadingRequest(service, request, body.get("model")) as active:
        asked = read_embedding_request(body, service.settings)
        model = await active.open()

        def write(reader: Reader) -> Any:
            vectors = asked.vectors(reader)
            data = [
                {
                    "object": "embedding",
                    "index": place,
                    "embedding": in_base64(vector) if asked.packed else vector.tolist(),
                }
                for place, vector in enumerate(vectors)
            ]
            return {"object": "list", "data": data, "model": model.name, "usage": reader.usage}

        places = {"texts": "input", "truncate_dim": "dimensions"}
        return await active.answer(model, write, places, asked.most)


async def embed(service: Service, request: Request) -> Response:
    """Answers a request of `/embed`: a list of vectors."""
    body = await service.read(request)
    with ReadingRequest(service, request, body.get("model")) as active:
        asked = read_embed_request(body, service.settings)
        model = await active.open()
        places = {"texts": "inputs", "truncate_dim": "dimensions"}
        return await active.answer(model, lambda reader: asked.vectors(reader).tolist(), places)


async def embed_sparse(service: Service, request: Request) -> Response:
    """Answers a request of `/embed_sparse`: the weights of tokens for each text."""
    body = await service.read(request)
    with ReadingRequest(service, request, body.get("model")) as active:
        asked = read_embed_sparse_request(body, service.settings)
        model = await active.open()
        return await active.answer(model, asked.sparse_vectors, {"texts": "inputs"})


async def embed_all(service: Service, request: Request) -> Response:
    """Answers a request of `/embed_all`: the vectors of the tokens of each text."""
    body = await service.read(request)
    with ReadingRequest(service, request, body.get("model")) as active:
        asked = read_embed_all_request(body, service.settings)
        model = await active.open()
        places = {"texts": "inputs"}
        return await active.answer(model, asked.token_vectors, places)
