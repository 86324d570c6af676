"""Describes the answers of a server."""

from __future__ import annotations

from decodery.serving.schemas.values import Schema, nullable

_TEXT: Schema = {"type": "string"}
_NUMBER: Schema = {"type": "number"}
_COUNT: Schema = {"type": "integer", "minimum": 0}
_IDS: Schema = {"type": "array", "items": _COUNT}
_OBJECT: Schema = {"type": "object"}


def _object(**properties: Schema) -> Schema:
    """Returns the schema of an object that has at least these properties."""
    return {"type": "object", "properties": properties, "required": list(properties)}


def _list(items: Schema) -> Schema:
    return {"type": "array", "items": items}


def _reference(name: str) -> Schema:
    return {"$ref": f"#/components/schemas/{name}"}


def _with(schema: Schema, **more: Schema) -> Schema:
    """Returns the schema with these properties, which may be absent."""
    return {**schema, "properties": {**schema["properties"], **more}}


ERROR = _object(
    error=_object(message=_TEXT, type=_TEXT, param=nullable(_TEXT), code=nullable(_TEXT)),
)
_PAIR: Schema = {"type": "array", "items": _COUNT, "minItems": 2, "maxItems": 2}
_PIECES: dict[str, Schema] = {
    "pieces": _list({"type": "array", "prefixItems": [_COUNT, _TEXT], "minItems": 2, "maxItems": 2}),
    "special": _IDS,
}
_MODEL = _with(
    _object(id=_TEXT, object={"const": "model"}, created=_COUNT, owned_by=_TEXT),
    kind={"enum": ["decoder", "encoder"]},
    max_model_len=_COUNT,
    routes=_list(_TEXT),
)
_USAGE = _object(
    prompt_tokens=_COUNT,
    completion_tokens=_COUNT,
    total_tokens=_COUNT,
    prompt_tokens_details=_object(cached_tokens=_COUNT),
)
_HEAD = {"id": _TEXT, "created": _COUNT, "model": _TEXT}
_READ_USAGE = _object(prompt_tokens=_COUNT, total_tokens=_COUNT)
_LISTED = {"object": {"const": "list"}, "model": _TEXT, "usage": _READ_USAGE}
_VECTOR = _list(_NUMBER)
_PREDICTED = _list(_object(score=_NUMBER, label=_TEXT))
_FINISH: Schema = {"enum": ["stop", "length", "tool_calls"]}
_STOP_REASON: Schema = {"type": ["string", "integer", "null"]}
_CHOICE = {"index": _COUNT, "finish_reason": _FINISH, "stop_reason": _STOP_REASON}
_TOOL_CALL = _object(id=_TEXT, type={"const": "function"}, function=_object(name=_TEXT, arguments=_TEXT))
_MESSAGE: Schema = {
    "type": "object",
    "properties": {
        "role": {"const": "assistant"},
        "content": nullable(_TEXT),
        "reasoning_content": nullable(_TEXT),
        "tool_calls": nullable(_list(_TOOL_CALL)),
    },
    "required": ["role", "content"],
}
# The schemas of answers, by name; `components` of the document.
ANSWERS: dict[str, Schema] = {
    "Error": ERROR,
    "Model": _MODEL,
    "ModelList": _object(object={"const": "list"}, data=_list(_reference("Model"))),
    "Usage": _USAGE,
    "TraceModel": _object(
        version={"const": 1},
        model=_TEXT,
        vocab_size=_COUNT,
        capacity=_COUNT,
        layers=_COUNT,
        has_chat_template={"type": "boolean"},
        can_infill={"type": "boolean"},
        default_params=_OBJECT,
        second_models=_list(_TEXT),
        arguments=_OBJECT,
    ),
    "Layers": _with(
        _object(
            model=_TEXT,
            layers=_COUNT,
            layer=_COUNT,
            tokens=_IDS,
            heads=_COUNT,
            attention=_TEXT,
            predicted=_list(
                _list({"type": "array", "prefixItems": [_COUNT, _NUMBER], "minItems": 2, "maxItems": 2})
            ),
        ),
        **_PIECES,
    ),
    "Completion": _object(
        **_HEAD,
        object={"const": "text_completion"},
        choices=_list(_object(**_CHOICE, text=_TEXT, logprobs=nullable(_OBJECT))),
        usage=_reference("Usage"),
    ),
    "ChatCompletion": _object(
        **_HEAD,
        object={"const": "chat.completion"},
        choices=_list(_object(**_CHOICE, message=_MESSAGE, logprobs=nullable(_OBJECT))),
        usage=_reference("Usage"),
    ),
    "Response": _object(
        id=_TEXT,
        object={"const": "response"},
        created_at=_COUNT,
        status={"enum": ["queued", "in_progress", "completed", "incomplete", "failed", "cancelled"]},
        output=_list(_OBJECT),
        usage=nullable(_OBJECT),
    ),
    "Deleted": _object(id=_TEXT, deleted={"type": "boolean"}),
    "Message": _object(
        id=_TEXT,
        type={"const": "message"},
        role={"const": "assistant"},
        model=_TEXT,
        content=_list(_object(type={"enum": ["text", "thinking", "tool_use"]})),
        stop_reason={"enum": ["end_turn", "max_tokens", "stop_sequence", "tool_use"]},
        stop_sequence=nullable(_TEXT),
        usage=_object(input_tokens=_COUNT, cache_read_input_tokens=_COUNT, output_tokens=_COUNT),
    ),
    "Embeddings": _object(
        **_LISTED,
        data=_list(
            _object(object={"const": "embedding"}, index=_COUNT, embedding={"anyOf": [_VECTOR, _TEXT]})
        ),
    ),
    "Vectors": _list(_VECTOR),
    "TokenVectors": _list(_list(_VECTOR)),
    "SparseVectors": _list(_list(_object(index=_COUNT, value=_NUMBER))),
    "Ranking": _object(
        id=_TEXT,
        **_LISTED,
        results=_list(_with(_object(index=_COUNT, relevance_score=_NUMBER), document=_object(text=_TEXT))),
    ),
    "RankedEither": {"anyOf": [_reference("Ranking"), _reference("RankedTexts")]},
    "RankedTexts": _list(_with(_object(index=_COUNT, score=_NUMBER), text=_TEXT)),
    "Scores": _object(
        id=_TEXT,
        created=_COUNT,
        **_LISTED,
        data=_list(_object(index=_COUNT, object={"const": "score"}, score=_NUMBER)),
    ),
    "Classes": _object(
        id=_TEXT,
        created=_COUNT,
        **_LISTED,
        data=_list(_object(index=_COUNT, label=_TEXT, probs=_VECTOR, num_classes=_COUNT)),
    ),
    "Predictions": {"anyOf": [_PREDICTED, _list(_PREDICTED)]},
    "TokenCount": _object(input_tokens=_COUNT),
    "AnthropicError": _object(type={"const": "error"}, error=_object(type=_TEXT, message=_TEXT)),
    "Tokens": _with(_object(count=_COUNT, max_model_len=_COUNT, tokens=_IDS), **_PIECES, spans=_list(_PAIR)),
    "TextTokens": _list(
        _list(
            _object(
                id=_COUNT,
                text=_TEXT,
                special={"type": "boolean"},
                start=nullable(_COUNT),
                stop=nullable(_COUNT),
            )
        )
    ),
    "TokensEither": {"anyOf": [_reference("Tokens"), _reference("TextTokens")]},
    "Text": _with(_object(prompt=_TEXT), **_PIECES),
    "TokenizerInfo": _object(
        tokenizer_class=_TEXT,
        vocab_size=_COUNT,
        model_max_length=_COUNT,
        chat_template=nullable(_TEXT),
        eos_token_ids=_IDS,
    ),
    "Status": _object(status=_TEXT),
}
