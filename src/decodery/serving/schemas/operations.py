"""Lists the operations of a server for its document: what each takes and answers, and its errors."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import partial
from typing import Any

from decodery.serving.schemas.anthropic_bodies import message_body
from decodery.serving.schemas.encoder_bodies import (
    CLASSIFY,
    EMBED,
    EMBED_ALL,
    EMBED_SPARSE,
    EMBEDDING,
    PREDICT,
    RERANK,
    SCORE,
    TEI_RERANK,
    reading_body,
)
from decodery.serving.schemas.request_bodies import (
    CHAT,
    COMPLETION,
    MESSAGES,
    MODEL,
    NO_OTHERS,
    RESPONSE,
    TEMPLATE,
    described,
    generation_body,
)
from decodery.serving.schemas.values import Schema, any_of
from decodery.serving.settings import ServerSettings

# The statuses of errors, and when they come.
ERRORS: Mapping[int, str] = {
    400: "The request is wrong; `param` names the place.",
    401: "A valid key is missing.",
    403: "The Host or Origin is not allowed.",
    404: "There is no such model or path.",
    408: "The body came too slowly.",
    413: "The body is too large.",
    415: "The content type or encoding is not supported.",
    422: "The text does not satisfy its JSON schema.",
    429: "Too many requests wait; Retry-After says when to try again.",
    503: "The model is being opened, the server is stopping, or it is too busy to read the prompt.",
    504: "The request took longer than the server allows.",
}
_ALWAYS = (401, 403)
_BODY = (*_ALWAYS, 400, 404, 408, 413, 415, 503)
_GENERATES = (*_BODY, 429, 504)
_ANSWERS = (*_GENERATES, 422)


@dataclass(frozen=True, slots=True)
class Operation:
    """Describes one method of one path.

    `answer` is the name of the answer's schema, or a content type. `body` returns the schema of the request's
    body for the settings of a server; `example` is such a body.
    """

    summary: str
    answer: str
    errors: tuple[int, ...] = _ALWAYS
    open: bool = False
    body: Any = None
    example: Mapping[str, Any] = field(default_factory=dict)
    streams: bool = False
    parameters: tuple[Schema, ...] = ()


def _completion(settings: ServerSettings) -> Schema:
    return generation_body(COMPLETION, "prompt", settings.limits, lenient=settings.lenient)


def _chat(settings: ServerSettings) -> Schema:
    return generation_body(CHAT, "messages", settings.limits, lenient=settings.lenient)


_TEXT: Schema = {"type": "string"}
_FLAG: Schema = {"type": "boolean"}
TOKENIZE = {
    **MODEL,
    **TEMPLATE,
    "prompt": (_TEXT, "A text; give this or messages."),
    "content": (_TEXT, "Another name of prompt, as in llama.cpp."),
    "messages": (MESSAGES, "A conversation, which the model's chat template renders."),
    "add_special_tokens": (_FLAG, "Whether tokens such as BOS are added to a text."),
    "return_token_strs": (_FLAG, "Adds the text of each token."),
    "return_pieces": (
        _FLAG,
        "Adds the bytes of the tokens, and for a text each one's span in the bytes of its UTF-8.",
    ),
}
TOKENIZE_INPUTS = {
    **MODEL,
    "inputs": (
        any_of([_TEXT, {"type": "array", "items": _TEXT, "minItems": 1}]),
        "A text or a list of texts.",
    ),
    "add_special_tokens": (_FLAG, "Whether tokens such as [CLS] are added to a text."),
}
_TEXT_OR_MESSAGES = [
    {"properties": {name: {"type": kind}}, "required": [name]}
    for name, kind in (("prompt", "string"), ("content", "string"), ("messages", "array"))
]
DETOKENIZE = {
    **MODEL,
    "tokens": ({"type": "array", "items": {"type": "integer", "minimum": 0}}, "The token ids."),
    "return_pieces": (_FLAG, "Adds the bytes of the tokens."),
}
APPLY_TEMPLATE = {**MODEL, **TEMPLATE, "messages": (MESSAGES, "The conversation.")}
_TRACED = described(
    {
        "prompt": (any_of([_TEXT, {"type": "array", "items": {"type": "integer"}}]), "A text or token ids."),
        "params": (
            {"type": "object"},
            "Parameters by their own names; those that are missing have the model's defaults.",
        ),
        "generated": (
            {"type": "integer", "minimum": 0},
            "How many ids at the end of the prompt are text that this request generated before.",
        ),
        "stream": (
            {"type": "integer", "minimum": 0},
            "The completion of n that is continued, alone; without it, all run.",
        ),
        "suffix": (_TEXT, "A text after the prompt: what stands between them is generated."),
    },
    required=("prompt",),
)
TRACE = {
    **MODEL,
    "requests": ({"type": "array", "items": _TRACED, "minItems": 1}, "The prompts, which run in one batch."),
    "candidates": (
        {"type": "integer", "minimum": 0},
        "How many candidates each choice reports; without it, no events are sent.",
    ),
    "texts": (_FLAG, "Sends texts as they grow, in place of whole outputs."),
    "logits": (_FLAG, "Adds all logits to the choice of a single request for one token."),
    "progress": (_FLAG, "Tells how much of each prompt is computed."),
    "cache_salt": (_TEXT, "Prompts share cached prefixes only with those of the same salt."),
    "priority": ({"type": "integer"}, "Lower numbers run first."),
}

LAYERS = {
    **MODEL,
    "prompt": (
        any_of([_TEXT, {"type": "array", "items": {"type": "integer"}}]),
        "A text or token ids, whose last token is looked at.",
    ),
    "layer": ({"type": "integer", "minimum": 1}, "The layer whose attention is told; without it, the last."),
    "candidates": (
        {"type": "integer", "minimum": 1, "maximum": 20, "default": 5},
        "How many next tokens are told that each layer predicts.",
    ),
}
RUN_PAGE = {"run": ({"type": "object"}, "A run as the page exports it; see docs/page.md.")}
EXAMPLE_RUN: Schema = {
    "format": "decodery-run",
    "version": 1,
    "title": "Hi",
    "lines": [
        {
            "kind": "trace",
            "version": 1,
            "model": "default",
            "vocab_size": 1,
            "requests": [{"prompt": "Hi", "prompt_token_ids": [0], "seed": 7, "params": {}}],
        },
        {"kind": "end"},
    ],
}


def _trace(settings: ServerSettings) -> Schema:
    return _closed(TRACE, settings, "requests")


def _tokenize(settings: ServerSettings) -> Schema:
    ours = {**_closed(TOKENIZE, settings), "oneOf": _TEXT_OR_MESSAGES}
    return {"anyOf": [ours, _closed(TOKENIZE_INPUTS, settings, "inputs")]}


_HI = {"messages": [{"role": "user", "content": "Hi"}]}
_NAME: Schema = {
    "name": "name",
    "in": "path",
    "required": True,
    "schema": {"type": "string", "minLength": 1},
    "example": "default",
}
_QUERY: Schema = {"name": "model", "in": "query", "schema": {"type": "string"}}


def _reading(
    summary: str, answer: str, fields: dict[str, tuple[Schema, str]], example: Mapping[str, Any]
) -> Operation:
    """Returns the operation of a route of encoders; the fields of the example are required."""
    body = partial(reading_body, fields, required=tuple(example))
    return Operation(summary, answer, _GENERATES, body=body, example=example)


def _either_ranking(settings: ServerSettings) -> Schema:
    return {
        "anyOf": [
            reading_body(RERANK, settings, required=("query", "documents")),
            reading_body(TEI_RERANK, settings, required=("query", "texts")),
        ]
    }


_RANKED = {"query": "Who?", "documents": ["She.", "It rains."]}
READING: Mapping[tuple[str, str], Operation] = {
    ("POST", "/v1/embeddings"): _reading(
        "Returns the vectors of texts.", "Embeddings", EMBEDDING, {"input": "Hi"}
    ),
    ("POST", "/v1/rerank"): _reading("Orders documents for a query.", "Ranking", RERANK, _RANKED),
    ("POST", "/v2/rerank"): _reading("Orders documents for a query.", "Ranking", RERANK, _RANKED),
    ("POST", "/v1/score"): _reading(
        "Scores pairs of texts.", "Scores", SCORE, {"text_1": "Who?", "text_2": ["She.", "It rains."]}
    ),
    ("POST", "/v1/classify"): _reading("Returns the classes of texts.", "Classes", CLASSIFY, {"input": "Hi"}),
    ("POST", "/embed"): _reading(
        "Returns the vectors of texts, as lists.", "Vectors", EMBED, {"inputs": "Hi"}
    ),
    ("POST", "/embed_all"): _reading(
        "Returns the vectors of the tokens of texts.", "TokenVectors", EMBED_ALL, {"inputs": "Hi"}
    ),
    ("POST", "/embed_sparse"): _reading(
        "Returns the sparse vectors of texts: weights of tokens.",
        "SparseVectors",
        EMBED_SPARSE,
        {"inputs": "Hi"},
    ),
    ("POST", "/rerank"): Operation(
        "Orders documents for a query, in the form of Jina or of text-embeddings-inference.",
        "RankedEither",
        _GENERATES,
        body=_either_ranking,
        example={"query": "Who?", "texts": ["She.", "It rains."]},
    ),
    ("POST", "/predict"): _reading(
        "Returns the labels of texts or pairs with their scores.", "Predictions", PREDICT, {"inputs": "Hi"}
    ),
}
OPERATIONS: Mapping[tuple[str, str], Operation] = {
    **READING,
    ("GET", "/v1/models"): Operation("Lists the models.", "ModelList"),
    ("GET", "/v1/models/{name}"): Operation(
        "Describes a model.", "Model", (*_ALWAYS, 404, 503), parameters=(_NAME,)
    ),
    ("POST", "/v1/chat/completions"): Operation(
        "Answers a conversation.",
        "ChatCompletion",
        _ANSWERS,
        body=_chat,
        example={**_HI, "max_tokens": 8},
        streams=True,
    ),
    ("POST", "/v1/completions"): Operation(
        "Continues a text.",
        "Completion",
        _ANSWERS,
        body=_completion,
        example={"prompt": "Once upon a time", "max_tokens": 8},
        streams=True,
    ),
    ("POST", "/v1/responses"): Operation(
        "Answers a conversation, and keeps the response.",
        "Response",
        _ANSWERS,
        body=lambda settings: generation_body(RESPONSE, "input", settings.limits, lenient=settings.lenient),
        example={"input": "Hi", "max_output_tokens": 8},
        streams=True,
    ),
    ("GET", "/v1/responses/{name}"): Operation(
        "Returns a stored response.", "Response", (*_ALWAYS, 404), parameters=(_NAME,)
    ),
    ("DELETE", "/v1/responses/{name}"): Operation(
        "Forgets a stored response.", "Deleted", (*_ALWAYS, 404), parameters=(_NAME,)
    ),
    ("POST", "/v1/responses/{name}/cancel"): Operation(
        "Ends a response that is generated in the background.",
        "Response",
        (*_ALWAYS, 400, 404),
        parameters=(_NAME,),
    ),
    ("POST", "/v1/messages"): Operation(
        "Answers a conversation, as Anthropic does.",
        "Message",
        _ANSWERS,
        body=lambda settings: message_body(settings, "max_tokens"),
        example={**_HI, "max_tokens": 8},
        streams=True,
    ),
    ("POST", "/v1/messages/count_tokens"): Operation(
        "Counts the tokens of a conversation's prompt.",
        "TokenCount",
        _BODY,
        body=message_body,
        example=_HI,
    ),
    ("POST", "/tokenize"): Operation(
        "Returns the token ids of a text or a conversation.",
        "TokensEither",
        _BODY,
        body=_tokenize,
        example={"prompt": "Hi"},
    ),
    ("POST", "/detokenize"): Operation(
        "Returns the text of token ids.",
        "Text",
        _BODY,
        body=lambda settings: _closed(DETOKENIZE, settings),
        example={"tokens": [1, 2, 3]},
    ),
    ("GET", "/tokenizer_info"): Operation(
        "Describes the tokenizer.", "TokenizerInfo", (*_ALWAYS, 404, 503), parameters=(_QUERY,)
    ),
    ("POST", "/apply-template"): Operation(
        "Renders a conversation with the chat template.",
        "Text",
        _BODY,
        body=lambda settings: _closed(APPLY_TEMPLATE, settings, "messages"),
        example=_HI,
    ),
    ("GET", "/trace"): Operation(
        "Describes a model as a client needs it.", "TraceModel", (*_ALWAYS, 404, 503), parameters=(_QUERY,)
    ),
    ("POST", "/trace"): Operation(
        "Streams what the library returns, and each step's own numbers.",
        "text/event-stream",
        _GENERATES,
        body=_trace,
        example={"requests": [{"prompt": "Hi", "params": {"max_tokens": 4}}], "candidates": 3},
    ),
    ("POST", "/trace/layers"): Operation(
        "Returns where a token's attention goes, and what each layer predicts.",
        "Layers",
        _GENERATES,
        body=lambda settings: _closed(LAYERS, settings, "prompt"),
        example={"prompt": "Hi"},
    ),
    ("POST", "/trace/page"): Operation(
        "Draws a run as a page that opens without a server.",
        "text/html",
        _BODY,
        body=lambda settings: _closed(RUN_PAGE, settings, "run"),
        example={"run": EXAMPLE_RUN},
    ),
    ("GET", "/health"): Operation("Answers while the process lives.", "Status", (403,), open=True),
    ("GET", "/ready"): Operation("Answers while requests can be served.", "Status", (403, 503), open=True),
    ("GET", "/metrics"): Operation("Returns metrics for Prometheus.", "text/plain"),
    ("GET", "/openapi.json"): Operation("Returns this document.", "application/json"),
}


def _closed(fields: Mapping[str, tuple[Schema, str]], settings: ServerSettings, *required: str) -> Schema:
    return {**described(fields, required=required), "additionalProperties": settings.lenient or NO_OTHERS}
