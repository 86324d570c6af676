"""Checks that ids of tiktoken's cl100k_base become text, with a small vocabulary of the same form."""

from __future__ import annotations

import base64
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from decodery import LLM, ParameterError
from decodery.serving.encoders.token_arrays import checked_token_arrays, cl100k
from tests.encoding.folders import sentence_folder
from tests.serving.live import serving

tiktoken = pytest.importorskip("tiktoken")
public = pytest.importorskip("tiktoken_ext.openai_public")

MERGES = (b"th", b"the", b" d", b" do", b" dog", b"ba", b"nk")
TEXTS = ["the naïve dog", "bank", "a dog \U0001f600 sat"]


@pytest.fixture(autouse=True)
def _fresh(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Forgets the encodings of other tests."""
    monkeypatch.setattr(tiktoken.registry, "ENCODINGS", {})
    cl100k.cache_clear()
    yield
    cl100k.cache_clear()


@pytest.fixture
def encoding(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Any:
    """Returns cl100k_base with all bytes and some merges, read from a stored file."""
    tokens = [*(bytes([byte]) for byte in range(256)), *MERGES]
    file = tmp_path / "small.tiktoken"
    file.write_text("".join(f"{base64.b64encode(t).decode()} {rank}\n" for rank, t in enumerate(tokens)))
    ranks = tiktoken.load.load_tiktoken_bpe(str(file))
    monkeypatch.setattr(public, "load_tiktoken_bpe", lambda *given, **options: ranks)
    return tiktoken.get_encoding("cl100k_base")


def test_ids_of_tiktoken_have_the_vectors_of_their_text(tmp_path: Path, encoding: Any) -> None:
    llm = LLM(sentence_folder(tmp_path / "folder"))
    expected = llm.embed(TEXTS).vectors.tolist()
    ids = [encoding.encode(text) for text in TEXTS]
    assert len(ids[0]) < len(TEXTS[0].encode()), "tokens of several bytes"
    with serving(llm, token_arrays=checked_token_arrays("cl100k")) as server:

        def vectors(given: Any) -> Any:
            answer = server.post("/v1/embeddings", {"input": given})
            assert answer.status_code == 200, answer.text
            return [entry["embedding"] for entry in answer.json()["data"]]

        assert vectors(ids) == expected
        assert vectors(ids[0]) == expected[:1]
        assert vectors([ids[1], TEXTS[2]]) == expected[1:]
        # A client that cuts texts between tokens may cut a character.
        cut = encoding.encode("the na")
        assert vectors([*cut, encoding.encode("ï")[0]]) == llm.embed("the na").vectors.tolist()
        assert vectors([100257]) == llm.embed("<|endoftext|>").vectors.tolist()
        for wrong in (len(MERGES) + 256, 99999, -1, 1 << 70):
            answer = server.post("/v1/embeddings", {"input": [ids[1], [wrong]]})
            assert answer.status_code == 400
            assert answer.json()["error"]["message"] == "a token id is none of cl100k_base"
            assert answer.json()["error"]["param"] == "input[1]"


def test_without_a_network_the_error_names_the_folder_that_helps(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import requests

    def offline(*given: Any, **options: Any) -> Any:
        raise requests.ConnectionError("offline")

    monkeypatch.setattr(requests, "get", offline)
    monkeypatch.setenv("TIKTOKEN_CACHE_DIR", str(tmp_path))
    with pytest.raises(ParameterError, match="set TIKTOKEN_CACHE_DIR to a folder that has it") as caught:
        checked_token_arrays("cl100k")
    assert "\n" not in str(caught.value)
    assert "ConnectionError" in str(caught.value)
