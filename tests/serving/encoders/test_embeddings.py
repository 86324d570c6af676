"""Tests the routes of vectors against what the library computes."""

from __future__ import annotations

import base64
import struct
from pathlib import Path
from typing import Any

import numpy as np
import openai
import pytest

from decodery import LLM
from tests.encoding.folders import sentence_folder
from tests.serving.live import NAME, LiveServer, serving

TEXTS = ["the dog sat on the mat", "", "bank", "angela merkel visited paris, naïve 😀"]
LONG = "dog cat " * 100


def vectors_of(answer: Any) -> list[list[float]]:
    """Returns the vectors of an answer in OpenAI's form, which must be 200."""
    assert answer.status_code == 200, answer.text
    data = answer.json()["data"]
    assert [entry["index"] for entry in data] == list(range(len(data)))
    return [entry["embedding"] for entry in data]


def refused(server: LiveServer, path: str = "/v1/embeddings", **body: Any) -> dict[str, Any]:
    answer = server.post(path, body)
    assert answer.status_code == 400, answer.text
    found: dict[str, Any] = answer.json()["error"]
    return found


def test_vectors_are_the_librarys_bit_for_bit(server: LiveServer, embedder: LLM) -> None:
    expected = embedder.embed(TEXTS)
    answer = server.post("/v1/embeddings", {"input": TEXTS, "model": NAME, "user": "me"})
    assert np.array_equal(np.array(vectors_of(answer), np.float32), expected.vectors)
    tokens = int(expected.tokens.sum())
    body = answer.json()
    assert body["usage"] == {"prompt_tokens": tokens, "total_tokens": tokens}
    assert (body["object"], body["model"], body["data"][0]["object"]) == ("list", NAME, "embedding")
    (one,) = vectors_of(server.post("/v1/embeddings", {"input": TEXTS[0]}))
    assert one == expected[0].tolist()


def test_base64_is_one_text_of_little_endian_float32_equal_to_the_floats(server: LiveServer) -> None:
    floats = vectors_of(server.post("/v1/embeddings", {"input": TEXTS, "encoding_format": "float"}))
    packed: list[Any] = vectors_of(
        server.post("/v1/embeddings", {"input": TEXTS, "encoding_format": "base64"})
    )
    for vector, text in zip(floats, packed, strict=True):
        assert isinstance(text, str)
        data = base64.b64decode(text, validate=True)
        assert len(data) == 4 * len(vector)
        assert list(struct.unpack(f"<{len(vector)}f", data)) == vector


@pytest.mark.parametrize("form", ["int8", "Base64", "", 3, ["float"]])
def test_another_format_is_refused(server: LiveServer, form: Any) -> None:
    error = refused(server, input="a", encoding_format=form)
    assert error["param"] == "encoding_format"


def test_a_vector_is_cut_and_then_has_the_length_1_again(server: LiveServer, embedder: LLM) -> None:
    found = vectors_of(server.post("/v1/embeddings", {"input": TEXTS, "dimensions": 4}))
    assert np.array_equal(np.array(found, np.float32), embedder.embed(TEXTS, truncate_dim=4).vectors)
    assert np.allclose(np.linalg.norm(found, axis=1), 1)
    for dimensions in (0, 25, -1, "4", 4.5, True):
        assert refused(server, input="a", dimensions=dimensions)["param"] == "dimensions"


def test_roles_and_prompts_are_those_of_the_folder(server: LiveServer, embedder: LLM) -> None:
    def one(**body: Any) -> list[float]:
        (found,) = vectors_of(server.post("/v1/embeddings", {"input": "bank", **body}))
        return found

    plain = embedder.embed("bank")[0].tolist()
    query = embedder.embed("bank", query=True)[0].tolist()
    document = embedder.embed("bank", document=True)[0].tolist()
    assert len({tuple(vector) for vector in (plain, query, document)}) == 3
    assert one() == plain
    assert one(input_type="query") == one(input_type="search_query") == query
    assert one(prompt_name="query") == query
    for role in ("document", "passage", "search_document"):
        assert one(input_type=role) == document
    assert one(prompt="word ") == one(prompt_name="other")
    assert refused(server, input="a", input_type="sentence")["param"] == "input_type"
    error = refused(server, input="a", prompt_name="querry")
    assert error["param"] == "prompt_name"
    assert "query" in error["message"]
    assert refused(server, input="a", prompt_name="query", input_type="query")["message"]
    for wrong in (["query"], 3, {"query": 1}):
        assert refused(server, input="a", prompt_name=wrong)["param"] == "prompt_name"
        assert refused(server, input="a", prompt=wrong)["param"] == "prompt"


def test_a_text_that_is_too_long_is_an_error_or_is_cut_as_asked(server: LiveServer, embedder: LLM) -> None:
    error = refused(server, input=["a", LONG])
    assert error["param"] == "input[1]"
    assert error["code"] == "context_length_exceeded"
    assert "200 tokens" in error["message"]
    assert "62 fit" in error["message"]
    assert refused(server, input=LONG)["param"] == "input"
    answer = server.post("/v1/embeddings", {"input": ["a", LONG], "truncate_prompt_tokens": -1})
    cut = embedder.embed(["a", LONG], long="cut")
    assert np.array_equal(np.array(vectors_of(answer), np.float32), cut.vectors)
    assert answer.headers["x-decodery-warning"] == "texts were cut: 138 tokens were left out"
    answer = server.post("/v1/embeddings", {"input": LONG, "truncate_prompt_tokens": 5})
    assert vectors_of(answer) == [embedder.embed("dog cat dog")[0].tolist()]
    assert answer.json()["usage"]["prompt_tokens"] == 5
    for most in (0, -2, "5", 2.0):
        assert refused(server, input="a", truncate_prompt_tokens=most)["param"] == "truncate_prompt_tokens"


def test_a_limit_below_the_special_tokens_is_an_error_that_counts_them(server: LiveServer) -> None:
    error = refused(server, input="bank", truncate_prompt_tokens=1)
    assert error["message"] == "2 special tokens stand around a text, and 1 fit"
    assert error["param"] == "input"
    error = refused(server, input="bank", truncate_prompt_tokens=2, prompt="question: ")
    assert "the 2 special tokens and" in error["message"]
    assert "of the prompt" in error["message"]


def test_the_limit_is_that_of_the_folder_and_the_list_of_models_tells_it(tmp_path: Path) -> None:
    folder = sentence_folder(tmp_path, sentence_bert={"max_seq_length": 20})
    with serving(LLM(folder)) as server:
        assert server.client.get("/v1/models").json()["data"][0]["max_model_len"] == 20
        assert vectors_of(server.post("/v1/embeddings", {"input": "dog " * 18}))
        assert "18 fit" in refused(server, input="dog " * 19)["message"]


@pytest.mark.parametrize(
    ("given", "param"),
    [
        (None, "input"),
        ([], "input"),
        ({"text": "a"}, "input"),
        (3, "input"),
        (["a", 3], "input[1]"),
        (["a", ["b"]], "input[1]"),
        (["a", None], "input[1]"),
        ([[]], "input[0]"),
        ([["a"]], "input[0]"),
        ([True], "input[0]"),
    ],
)
def test_an_input_that_is_none_is_refused_with_its_place(server: LiveServer, given: Any, param: str) -> None:
    assert refused(server, input=given)["param"] == param


def test_an_unknown_field_is_refused_with_the_nearest_name(server: LiveServer) -> None:
    error = refused(server, input="a", dimension=4)
    assert error["param"] == "dimension"
    assert "dimensions" in error["message"]


def test_more_texts_than_the_server_takes_are_refused(server: LiveServer) -> None:
    error = refused(server, input=["a"] * 2049)
    assert error["param"] == "input"
    assert "2048" in error["message"]
    assert len(vectors_of(server.post("/v1/embeddings", {"input": ["a"] * 2048}))) == 2048


def test_openais_client_gets_the_vectors(server: LiveServer, embedder: LLM) -> None:
    with openai.OpenAI(base_url=f"{server.url}/v1", api_key="none", max_retries=0) as client:
        expected = embedder.embed(TEXTS)
        # It asks for base64 unless it is told otherwise, and decodes it.
        for options in ({}, {"encoding_format": "float"}):
            found = client.embeddings.create(model=NAME, input=TEXTS, **options)  # type: ignore[call-overload]
            vectors = np.array([entry.embedding for entry in found.data], np.float32)
            assert np.array_equal(vectors, expected.vectors)
        assert found.usage.total_tokens == int(expected.tokens.sum())
        short = client.embeddings.create(model=NAME, input="bank", dimensions=3)
        assert len(short.data[0].embedding) == 3
        with pytest.raises(openai.BadRequestError, match="check_embedding_ctx_length=False"):
            client.embeddings.create(model=NAME, input=[[1, 2, 3]])


def test_embed_gives_plain_lists_of_length_1_unless_told_otherwise(server: LiveServer, embedder: LLM) -> None:
    def embed(**body: Any) -> Any:
        answer = server.post("/embed", body)
        assert answer.status_code == 200, answer.text
        return answer.json()

    assert embed(inputs="bank") == embedder.embed("bank", normalize=True).vectors.tolist()
    assert embed(inputs=TEXTS) == embedder.embed(TEXTS, normalize=True).vectors.tolist()
    long = embedder.embed(TEXTS, normalize=False).vectors
    assert embed(inputs=TEXTS, normalize=False) == long.tolist()
    assert not np.allclose(np.linalg.norm(long, axis=1), 1)
    assert embed(inputs="bank", prompt_name="query") == embedder.embed("bank", query=True).vectors.tolist()
    assert embed(inputs=LONG, truncate=True) == embedder.embed(LONG, long="cut").vectors.tolist()
    assert embed(inputs="bank", dimensions=4) == embedder.embed("bank", truncate_dim=4).vectors.tolist()
    error = refused(server, "/embed", inputs=["a", LONG])
    assert error["param"] == "inputs[1]"
    assert "200 tokens" in error["message"]
    error = refused(server, "/embed", inputs="a", truncation_direction="Left")
    assert error["param"] == "truncation_direction"
    assert refused(server, "/embed", input="a")["param"] == "inputs"


def test_embed_all_gives_the_vectors_of_all_tokens(server: LiveServer, embedder: LLM) -> None:
    answer = server.post("/embed_all", {"inputs": [*TEXTS, LONG], "truncate": True})
    assert answer.status_code == 200, answer.text
    found = answer.json()
    for text, states in zip(TEXTS, found, strict=False):
        assert len(states) == len(embedder.tokenizer.encode(text))
        # The vector of a text is their mean.
        mean = np.mean(np.array(states, np.float32), axis=0)
        expected = embedder.embed(text, normalize=False)[0]
        np.testing.assert_allclose(mean, expected, rtol=1e-5, atol=1e-6)
    assert len(found[-1]) == 64
    prompted = server.post("/embed_all", {"inputs": "bank", "prompt_name": "query"}).json()[0]
    [expected_states] = embedder.embed_tokens("bank", prompt_name="query")
    assert np.array_equal(np.array(prompted, np.float32), expected_states.vectors)
    assert refused(server, "/embed_all", inputs=["a", LONG])["param"] == "inputs[1]"
    assert refused(server, "/embed_all", inputs=[[3]])["code"] == "token_arrays"


@pytest.mark.parametrize("given", [[[9906, 1917]], [9906, 1917], ["a", [5]]])
def test_token_ids_are_refused_with_the_option_of_the_client(server: LiveServer, given: Any) -> None:
    error = refused(server, input=given)
    assert "check_embedding_ctx_length=False" in error["message"]
    assert "--token-arrays" in error["message"]
    assert error["param"] == ("input[1]" if given[0] == "a" else "input[0]" if given[0] != 9906 else "input")


def test_ids_of_the_models_own_are_taken_as_they_are_and_checked(served_embedder: LLM, embedder: LLM) -> None:
    size = embedder.encoder.model.vocab_size
    with serving(served_embedder, token_arrays="own") as server:
        expected = embedder.embed([[5, 6, 7], [8]])
        answer = server.post("/v1/embeddings", {"input": [[5, 6, 7], [8]]})
        assert np.array_equal(np.array(vectors_of(answer), np.float32), expected.vectors)
        assert answer.json()["usage"]["prompt_tokens"] == 4
        assert vectors_of(server.post("/v1/embeddings", {"input": [8]})) == [expected[1].tolist()]
        for ids, param in (([[5], [size]], "input[1]"), ([size], "input"), ([[5], [-1]], "input[1]")):
            error = refused(server, input=ids)
            assert error["param"] == param
            assert str(size) in error["message"]
        mixed = server.post("/v1/embeddings", {"input": ["bank", [8]]})
        assert vectors_of(mixed) == [embedder.embed("bank")[0].tolist(), expected[1].tolist()]
        assert refused(server, input=[[5] * 65])["code"] == "context_length_exceeded"


class FakeEncoding:
    """Decodes ids below 256 as bytes, as a stand-in for tiktoken's encoding."""

    def decode_bytes(self, ids: list[int]) -> bytes:
        if any(token > 255 for token in ids):
            raise KeyError("no such token")
        return bytes(ids)


def test_ids_of_cl100k_are_decoded_to_text_first(
    served_embedder: LLM, embedder: LLM, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("decodery.serving.encoders.token_arrays.cl100k", FakeEncoding)
    with serving(served_embedder, token_arrays="cl100k") as server:
        ids = list("the naïve dog".encode())
        found = vectors_of(server.post("/v1/embeddings", {"input": [ids, list(b"bank")]}))
        assert found == embedder.embed(["the naïve dog", "bank"]).vectors.tolist()
        # A client that cuts texts between tokens may cut a character.
        cut = vectors_of(server.post("/v1/embeddings", {"input": ids[:7]}))
        assert cut == embedder.embed("the na").vectors.tolist()
        assert refused(server, input=[[300]])["param"] == "input[0]"
