"""Tests that /openapi.json says what the readers of the routes of encoders accept."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import jsonschema
import pytest

from decodery.decoding.request.params import GenerationParams
from decodery.serving.encoders.classes import read_classify_request, read_predict_request
from decodery.serving.encoders.embeddings import (
    read_embed_all_request,
    read_embed_request,
    read_embed_sparse_request,
    read_embedding_request,
)
from decodery.serving.encoders.ranking import (
    read_rerank_request,
    read_score_request,
    read_tei_rerank_request,
)
from decodery.serving.errors import ApiError
from decodery.serving.schemas.encoder_bodies import TEI_RERANK
from decodery.serving.settings import ServerSettings
from tests.serving.test_openapi import body_of, document, known_fields

Reader = Callable[[Mapping[str, Any], ServerSettings], Any]
READERS: Mapping[str, tuple[Reader, dict[str, Any]]] = {
    "/v1/embeddings": (read_embedding_request, {"input": "a"}),
    "/embed": (read_embed_request, {"inputs": "a"}),
    "/embed_all": (read_embed_all_request, {"inputs": "a"}),
    "/embed_sparse": (read_embed_sparse_request, {"inputs": "a"}),
    "/v1/rerank": (read_rerank_request, {"query": "a", "documents": ["b", {"text": "c"}]}),
    "/v2/rerank": (read_rerank_request, {"query": "a", "documents": ["b"]}),
    "/v1/score": (read_score_request, {"text_1": "a", "text_2": ["b"]}),
    "/v1/classify": (read_classify_request, {"input": ["a"]}),
    "/predict": (read_predict_request, {"inputs": [["a"], ["a", "b"]]}),
}


def read(reader: Reader) -> Callable[..., Any]:
    """Returns a reader as `known_fields` calls it."""

    def reading(body: Mapping[str, Any], defaults: GenerationParams, settings: ServerSettings) -> Any:
        return reader(body, settings)

    return reading


@pytest.mark.parametrize("path", READERS)
def test_the_fields_of_a_body_are_those_that_its_reader_knows(
    path: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    reader, body = READERS[path]
    assert set(body_of(path)["properties"]) == known_fields(monkeypatch, read(reader), body)[""]


def test_the_two_forms_of_a_ranking_have_the_fields_of_their_readers(monkeypatch: pytest.MonkeyPatch) -> None:
    ours, theirs = body_of("/rerank")["anyOf"]
    assert set(ours["properties"]) == set(body_of("/v1/rerank")["properties"])
    known = known_fields(monkeypatch, read(read_tei_rerank_request), {"query": "a", "texts": ["b"]})
    assert set(theirs["properties"]) == known[""] == set(TEI_RERANK)


@pytest.mark.parametrize("path", READERS)
def test_other_fields_are_refused_as_the_document_says(path: str) -> None:
    reader, body = READERS[path]
    schema = body_of(path, ServerSettings())
    jsonschema.validate(body, schema)
    reader({**body, "modell": None}, ServerSettings())
    wrong = {**body, "modell": "x"}
    with pytest.raises(ApiError, match="did you mean model"):
        reader(wrong, ServerSettings())
    with pytest.raises(jsonschema.ValidationError):
        jsonschema.validate(wrong, schema)
    lenient = ServerSettings(lenient=True)
    reader(wrong, lenient)
    jsonschema.validate(wrong, body_of(path, lenient))


@pytest.mark.parametrize(
    ("path", "field", "values"),
    [
        ("/v1/embeddings", "encoding_format", ["int8", 3]),
        ("/v1/embeddings", "input", [[], [[]], {}, 3]),
        ("/v1/embeddings", "input_type", ["sentence", 3]),
        ("/v1/embeddings", "truncate_prompt_tokens", [-2, "3"]),
        ("/v1/rerank", "truncate_prompt_tokens", [-2, 5, "3"]),
        ("/v1/rerank", "top_n", [0, "3"]),
        ("/v1/rerank", "documents", [[], "a", [3], [{}], [{"text": 3}], [{"text": "a", "b": 1}]]),
        ("/v1/rerank", "return_documents", [3]),
        ("/v1/score", "text_1", [[], 3, [3]]),
        ("/v1/classify", "use_activation", ["yes"]),
        ("/embed", "truncate", [1]),
        ("/embed", "truncation_direction", ["Left"]),
        ("/predict", "inputs", [[], ["a", "b", "c"], [["a", "b", "c"]], [[]], 3, [["a"], "b"]]),
        ("/predict", "raw_scores", [0]),
    ],
)
def test_values_that_the_document_refuses_are_refused(path: str, field: str, values: list[Any]) -> None:
    reader, body = READERS[path]
    schema = body_of(path, ServerSettings())
    for value in values:
        with pytest.raises(jsonschema.ValidationError):
            jsonschema.validate({**body, field: value}, schema)
        with pytest.raises(ApiError) as error:
            reader({**body, field: value}, ServerSettings())
        assert (error.value.param or "").startswith(field)


def test_the_errors_of_a_queue_and_of_time_are_listed() -> None:
    paths = document()["paths"]
    for path in (*READERS, "/rerank"):
        assert {"400", "429", "503", "504"} <= set(paths[path]["post"]["responses"])
