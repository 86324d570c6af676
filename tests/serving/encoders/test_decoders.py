"""Tests servers of decoders that read, and of models of sparse vectors."""

from __future__ import annotations

from pathlib import Path

import pytest

from decodery import LLM
from tests.encoding.colbert_folders import colbert_folder
from tests.encoding.folders import DECODER, LAST, NORMALIZE, encoder_folder, sentence_folder
from tests.encoding.tasks.prompted.test_yes_no import DOCUMENTS, PAIRS, log_score, reranker
from tests.serving.live import serving


def test_an_embedder_answers_the_routes_of_vectors(tmp_path: Path) -> None:
    path = sentence_folder(tmp_path, (LAST, NORMALIZE), architecture="Qwen3ForCausalLM", **DECODER)
    expected = LLM(path).embed(["the dog", "water"])
    with serving(LLM(path)) as server:
        data = server.post("/v1/embeddings", {"input": ["the dog", "water"]}).json()["data"]
        assert [one["embedding"] for one in data] == expected.vectors.tolist()
        assert server.post("/embed", {"inputs": ["the dog"]}).json() == [expected[0].tolist()]
        (listed,) = server.client.get("/v1/models").json()["data"]
        assert listed["kind"] == "encoder"
        assert listed["routes"] == ["/v1/embeddings", "/embed", "/embed_all"]


def test_a_reranker_answers_the_routes_of_scores(tmp_path: Path) -> None:
    path = reranker(tmp_path, PAIRS)
    log_score(path, true_token_id=7, false_token_id=8)
    expected = LLM(path).rerank("water", DOCUMENTS)
    with serving(LLM(path)) as server:
        found = server.post("/v1/rerank", {"query": "water", "documents": DOCUMENTS}).json()["results"]
        assert [(one["index"], one["relevance_score"]) for one in found] == [
            (one.index, one.score) for one in expected
        ]
        data = server.post("/v1/score", {"text_1": "water", "text_2": DOCUMENTS}).json()["data"]
        assert [one["score"] for one in data] == [
            one.score for one in sorted(expected, key=lambda one: one.index)
        ]
        raw = server.post("/rerank", {"query": "water", "texts": DOCUMENTS, "raw_scores": True}).json()
        assert [one["score"] for one in raw] == [one.logit for one in expected]
        refused = server.post("/v1/embeddings", {"input": "water"})
        assert refused.status_code == 400
        assert "gives no vectors" in refused.json()["error"]["message"]
        (listed,) = server.client.get("/v1/models").json()["data"]
        assert listed["routes"] == ["/v1/rerank", "/rerank", "/v1/score"]


@pytest.mark.parametrize(("labels", "routes"), [(1, 8), (3, 5)])
def test_a_decoder_with_classes_answers_their_routes(tmp_path: Path, labels: int, routes: int) -> None:
    path = encoder_folder(tmp_path, "LlamaForSequenceClassification", num_labels=labels, **DECODER)
    (expected,) = LLM(path).classify("the dog")
    with serving(LLM(path)) as server:
        (one,) = server.post("/v1/classify", {"input": "the dog"}).json()["data"]
        assert one["label"] == expected.label
        (listed,) = server.client.get("/v1/models").json()["data"]
        assert len(listed["routes"]) == routes


def test_a_model_of_masked_tokens_answers_the_route_of_sparse_vectors(tmp_path: Path) -> None:
    path = encoder_folder(tmp_path, "BertForMaskedLM")
    texts = ["the dog", "bank of the river"]
    expected = LLM(path).embed_sparse(texts)
    with serving(LLM(path)) as server:
        found = server.post("/embed_sparse", {"inputs": texts}).json()
        for ours, one in zip(found, expected, strict=True):
            assert [pair["index"] for pair in ours] == one.ids.tolist()
            assert [pair["value"] for pair in ours] == one.weights.tolist()
        assert len(server.post("/embed_sparse", {"inputs": "dog " * 90, "truncate": True}).json()) == 1
        refused = server.post("/embed_sparse", {"inputs": "dog " * 90})
        assert refused.status_code == 400
        (listed,) = server.client.get("/v1/models").json()["data"]
        assert listed["routes"] == ["/v1/embeddings", "/embed", "/embed_all", "/embed_sparse"]


def test_a_model_of_token_vectors_answers_the_routes_of_scores(tmp_path: Path) -> None:
    path = colbert_folder(tmp_path)
    query, texts = "what is the river", ["the dog, a cat.", "", "bank of the river"]
    expected = LLM(path).rerank(query, texts)
    scores = {one.index: one.score for one in expected}
    with serving(LLM(path)) as server:
        found = server.post("/v1/rerank", {"query": query, "documents": texts}).json()["results"]
        assert [(one["index"], one["relevance_score"]) for one in found] == [
            (one.index, one.score) for one in expected
        ]
        raw = server.post("/rerank", {"query": query, "texts": texts, "raw_scores": True}).json()
        assert [(one["index"], one["score"]) for one in raw] == [(one.index, one.logit) for one in expected]
        pairs = server.post("/v1/score", {"text_1": query, "text_2": texts}).json()
        assert [one["score"] for one in pairs["data"]] == [scores[index] for index in range(len(texts))]
        # The query is read once for all documents.
        llm = LLM(path)
        read = [*llm.embed_multi(query, query=True), *llm.embed_multi(texts)]
        assert pairs["usage"]["total_tokens"] == sum(one.tokens for one in read)
        long = {"query": query, "documents": ["dog", "cat " * 30]}
        refused = server.post("/v1/rerank", long)
        assert (refused.status_code, refused.json()["error"]["param"]) == (400, "documents[1]")
        cut = server.post("/v1/rerank", {**long, "truncate_prompt_tokens": -1})
        assert len(cut.json()["results"]) == 2
        refused = server.post("/v1/embeddings", {"input": "dog"})
        assert refused.status_code == 400
        assert "gives each token a vector" in refused.json()["error"]["message"]
        (listed,) = server.client.get("/v1/models").json()["data"]
        assert (listed["routes"], listed["max_model_len"]) == (["/v1/rerank", "/rerank", "/v1/score"], 20)
