"""Describes the bodies of requests of encoders: the fields that the readers of `serving.encoders` take."""

from __future__ import annotations

from collections.abc import Mapping

from decodery.serving.encoders.embeddings import DOCUMENTS, FORMATS, QUERIES
from decodery.serving.schemas.request_bodies import MODEL, NO_OTHERS, described
from decodery.serving.schemas.values import Schema
from decodery.serving.settings import ServerSettings

_TEXT: Schema = {"type": "string"}
_FLAG: Schema = {"type": "boolean"}
_COUNT: Schema = {"type": "integer", "minimum": 1}
_IDS: Schema = {"type": "array", "items": {"type": "integer", "minimum": 0}, "minItems": 1}


def _texts(item: Schema) -> Schema:
    return {"type": "array", "items": item, "minItems": 1}


_INPUT: Schema = {"anyOf": [_TEXT, _IDS, _texts({"anyOf": [_TEXT, _IDS]})]}
_TEXT_OR_TEXTS: Schema = {"anyOf": [_TEXT, _texts(_TEXT)]}
_CUT: tuple[Schema, str] = (
    {"enum": [-1]},
    "-1 cuts the end of a text that is too long, of a pair the second one's. Without it, that is an error.",
)
_TRUNCATE = {
    "truncate": (_FLAG, "Cuts the end of a text that is too long. Without it, such a text is an error."),
    "truncation_direction": ({"enum": ["Right", "right"]}, "The end of a text is cut."),
}
_VECTORS = {
    "dimensions": (_COUNT, "Keeps the first dimensions, and makes the length 1 again where it was 1."),
    "normalize": (_FLAG, "Makes vectors of length 1; without it, as the model's folder says."),
    "prompt_name": (_TEXT, "The name of one of the model's prompts, which stands before each text."),
}
EMBEDDING = {
    **MODEL,
    "input": (_INPUT, "A text or a list of texts; token ids only where the server has --token-arrays."),
    "encoding_format": (
        {"enum": list(FORMATS), "default": "float"},
        "How a vector is written: a list of numbers, or its float32 of little endian in base64.",
    ),
    **_VECTORS,
    "prompt": (_TEXT, "A text that stands before each text."),
    "input_type": (
        {"enum": [*QUERIES, *DOCUMENTS]},
        "Chooses the model's prompt for queries or for documents, if it has one.",
    ),
    "truncate_prompt_tokens": (
        {"type": "integer", "minimum": -1},
        "Cuts the end of a text of more tokens; -1: of more than fit, which is an error without it.",
    ),
    "user": ({}, "Has no effect."),
}
EMBED = {
    **MODEL,
    "inputs": (_INPUT, "A text or a list of texts; token ids only where the server has --token-arrays."),
    **_VECTORS,
    "normalize": ({**_FLAG, "default": True}, "Makes vectors of length 1."),
    **_TRUNCATE,
}
EMBED_ALL = {
    **MODEL,
    "inputs": EMBED["inputs"],
    "prompt_name": EMBED["prompt_name"],
    **_TRUNCATE,
}
EMBED_SPARSE = {**MODEL, "inputs": EMBED["inputs"], **_TRUNCATE}
_DOCUMENT: Schema = {
    "anyOf": [
        _TEXT,
        {
            "type": "object",
            "properties": {"text": _TEXT},
            "required": ["text"],
            "additionalProperties": NO_OTHERS,
        },
    ]
}
RERANK = {
    **MODEL,
    "query": (_TEXT, "The query."),
    "documents": (_texts(_DOCUMENT), "The documents: texts, or objects with a text."),
    "top_n": (_COUNT, "How many documents are returned; without it, all."),
    "return_documents": ({**_FLAG, "default": True}, "Puts the documents into the answer."),
    "truncate_prompt_tokens": _CUT,
}
TEI_RERANK = {
    **MODEL,
    "query": (_TEXT, "The query."),
    "texts": (_texts(_TEXT), "The documents."),
    "raw_scores": (_FLAG, "Returns the model's scores, without a sigmoid."),
    "return_text": (_FLAG, "Puts the documents into the answer."),
    **_TRUNCATE,
}
SCORE = {
    **MODEL,
    "text_1": (_TEXT_OR_TEXTS, "One text, or as many as text_2 has."),
    "text_2": (_TEXT_OR_TEXTS, "The texts that are scored with text_1."),
    "truncate_prompt_tokens": _CUT,
}
CLASSIFY = {
    **MODEL,
    "input": (_INPUT, "A text or a list of texts; token ids only where the server has --token-arrays."),
    "truncate_prompt_tokens": _CUT,
    "use_activation": ({**_FLAG, "default": True}, "False returns the model's scores as they are."),
    "user": ({}, "Has no effect."),
}
_SEQUENCE: Schema = {"type": "array", "items": _TEXT, "minItems": 1, "maxItems": 2}
PREDICT = {
    **MODEL,
    "inputs": (
        {"anyOf": [_TEXT, _SEQUENCE, _texts(_SEQUENCE)]},
        "A text, a pair of texts, or a list of lists of one text or two.",
    ),
    "raw_scores": (_FLAG, "Returns the model's scores, without a softmax or sigmoid."),
    **_TRUNCATE,
}


def reading_body(
    fields: Mapping[str, tuple[Schema, str]], settings: ServerSettings, *, required: tuple[str, ...]
) -> Schema:
    """Returns the schema of a body of a route of encoders."""
    return {**described(fields, required=required), "additionalProperties": settings.lenient or NO_OTHERS}
