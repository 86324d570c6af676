"""Checks vectors from the server with LangChain's and LlamaIndex' clients of OpenAI."""

from __future__ import annotations

from typing import Any

import httpx
import numpy as np
import pytest

from decodery import LLM

TEXTS = ["The river is wide.", "A broad stream.", "Naïve 😀 text, and a longer one after it.", "Bank"]


def close(found: Any, expected: Any) -> bool:
    """True if vectors are equal but for the float64 in which a client computes with them."""
    return bool(np.allclose(np.asarray(found), expected, rtol=0, atol=1e-6))


def test_langchain_embeds_documents_and_queries(encoder_url: str, encoder: LLM) -> None:
    openai = pytest.importorskip("langchain_openai")
    client = openai.OpenAIEmbeddings(
        model="minilm",
        base_url=f"{encoder_url}/v1",
        api_key="none",
        check_embedding_ctx_length=False,
        max_retries=0,
    )
    assert close(client.embed_documents(TEXTS), encoder.embed(TEXTS).vectors)
    assert close(client.embed_query(TEXTS[0]), encoder.embed(TEXTS[0])[0])
    short = openai.OpenAIEmbeddings(
        model="minilm",
        dimensions=64,
        base_url=f"{encoder_url}/v1",
        api_key="none",
        check_embedding_ctx_length=False,
    )
    assert close(short.embed_query("Bank"), encoder.embed("Bank", truncate_dim=64)[0])


def test_langchains_default_is_refused_with_the_option_that_helps(encoder_url: str) -> None:
    openai = pytest.importorskip("langchain_openai")
    client = openai.OpenAIEmbeddings(
        model="minilm", base_url=f"{encoder_url}/v1", api_key="none", max_retries=0
    )
    try:
        tokens = client._tokenize(TEXTS, 512)
    except Exception as error:  # tiktoken fetches its vocabulary.
        pytest.skip(f"tiktoken's vocabulary is not to be had: {type(error).__name__}")
    assert tokens
    with pytest.raises(Exception, match="check_embedding_ctx_length=False"):
        client.embed_documents(TEXTS)


def test_llama_index_embeds_texts_and_queries(encoder_url: str, encoder: LLM) -> None:
    found = pytest.importorskip("llama_index.embeddings.openai")
    client = found.OpenAIEmbedding(
        model_name="minilm", api_base=f"{encoder_url}/v1", api_key="none", max_retries=0
    )
    vectors = client.get_text_embedding_batch(TEXTS)
    assert close(vectors, encoder.embed(TEXTS).vectors)
    assert close(client.get_query_embedding(TEXTS[0]), encoder.embed(TEXTS[0])[0])


def test_the_requests_of_clients_of_text_embeddings_inference(encoder_url: str, encoder: LLM) -> None:
    # As LangChain's HuggingFaceEndpointEmbeddings and LlamaIndex' TextEmbeddingsInference send them.
    expected = encoder.embed(TEXTS, normalize=True).vectors
    for body in ({"inputs": TEXTS}, {"inputs": TEXTS, "truncate": True, "normalize": True}):
        answer = httpx.post(f"{encoder_url}/embed", json=body, timeout=60)
        assert answer.status_code == 200
        assert np.array_equal(np.array(answer.json(), np.float32), expected)
