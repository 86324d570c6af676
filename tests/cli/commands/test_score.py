from __future__ import annotations

import math

import pytest

from decodery.llm import LLM
from tests.cli.conftest import Run


def test_the_table_shows_the_scores_of_the_model(decodery: Run, model: str) -> None:
    [scored] = LLM(model).score(["a bé"])
    ran = decodery("score", "a bé", "-m", model)
    *table, blank, summary = ran.out.splitlines()
    assert ran.status == 0
    assert table[0].split() == ["logprob", "id", "token"]
    assert [line.split()[0] for line in table[1:]] == ["-", *(f"{x:.4f}" for x in scored.logprobs[1:] if x)]
    assert [line.split()[1] for line in table[1:]] == [str(token) for token in scored.token_ids]
    assert [line.split()[2] for line in table[1:]] == ["a", "␣", "b", "\\xc3", "\\xa9"]
    assert blank == ""
    assert summary == f"total {scored.total:.4f} over 4 tokens, perplexity {scored.perplexity:.4f}"


def test_json_holds_the_same(decodery: Run, model: str) -> None:
    [scored] = LLM(model).score(["abc"])
    found = decodery("score", "--json", "-m", model, stdin=b"abc\n").json
    assert found["text"] == "abc"
    assert [token["logprob"] for token in found["tokens"]] == scored.logprobs
    assert found["total"] == pytest.approx(sum(x for x in scored.logprobs if x is not None))
    assert found["perplexity"] == pytest.approx(math.exp(-found["total"] / 2))


def test_a_text_is_scored_as_it_follows_a_prefix(decodery: Run, model: str) -> None:
    [scored] = LLM(model).score(["bé"], prefix="a ")
    ran = decodery("score", "bé", "--prefix", "a ", "-m", model)
    *table, _, summary = ran.out.splitlines()
    assert [line.split()[2] for line in table[1:]] == ["b", "\\xc3", "\\xa9"]
    assert [line.split()[0] for line in table[1:]] == [f"{x:.4f}" for x in scored.logprobs if x]
    assert summary == f"total {scored.total:.4f} over 3 tokens, perplexity {scored.perplexity:.4f}"
    found = decodery("score", "bé", "--prefix", "a ", "--json", "-m", model).json
    assert (found["prefix"], found["text"], found["total"]) == ("a ", "bé", scored.total)


def test_a_single_token_has_no_perplexity(decodery: Run, model: str) -> None:
    assert decodery("score", "a", "--json", "-m", model).json["perplexity"] is None
    assert "total 0.0000 over 0 tokens, perplexity inf" in decodery("score", "a", "-m", model).out
