"""Tests that a trace of one token tells all logits of its position, if it is asked for them."""

from __future__ import annotations

import base64
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from decodery.decoding.processors.pipeline import PROCESSORS
from tests.serving.live import LiveServer
from tests.serving.test_trace_route import lines_of, refused

VOCAB = 259
PROMPT = list(b"Once upon a time, upon")


def choice_of(server: LiveServer, prompt: Any = PROMPT, **params: Any) -> dict[str, Any]:
    """Returns the choice of one token, with all candidates and all logits."""
    asked = [{"prompt": prompt, "params": {"max_tokens": 1, **params}}]
    lines = lines_of(server, requests=asked, candidates=VOCAB, logits=True)
    [choice] = choices_of(lines)
    return choice


def choices_of(lines: list[dict[str, Any]]) -> list[dict[str, Any]]:
    return [c for line in lines if line["kind"] == "event" for c in line["event"].get("considered", ())]


def floats(text: str) -> NDArray[np.float32]:
    return np.frombuffer(base64.b64decode(text, validate=True), dtype="<f4")


def by_token(choice: dict[str, Any], values: list[Any]) -> NDArray[np.float64]:
    """Returns the candidates' values in the order of the vocabulary."""
    tokens = [c["token"] for c in choice["candidates"]]
    assert sorted(tokens) == list(range(VOCAB))
    return np.array([float(value) for value in values])[np.argsort(tokens)]


def shares(logits: NDArray[np.float32]) -> NDArray[np.float64]:
    exponentials = np.exp(logits.astype(np.float64) - logits.max())
    return np.asarray(exponentials / exponentials.sum(), dtype=np.float64)


PARAMS: dict[str, dict[str, Any]] = {
    "plain": {},
    "greedy": {"temperature": 0},
    "truncations": {"temperature": 0.7, "top_k": 9, "top_p": 0.8, "min_p": 0.01},
    "penalties": {"repetition_penalty": 1.7, "temperature": 0.7, "top_k": 9},
    "penalties, greedy": {"repetition_penalty": 1.7, "temperature": 0},
    "bans": {"suppress_tokens": [97, 98], "logit_bias": {"99": 3.5}, "top_p": 0.9},
    "a grammar": {"grammar": {"type": "choice", "options": ["alpha", "beta"]}, "temperature": 0.5},
    "guidance": {"guidance_scale": 2.0, "negative_prompt": "Never", "top_k": 5},
    "dola": {"strategy": {"type": "dola"}, "top_k": 5},
    "truncations first": {
        "min_p": 0.1,
        "repetition_penalty": 1.5,
        "processor_order": ["min_p", *(name for name in PROCESSORS if name != "min_p")],
    },
}


@pytest.mark.parametrize("params", PARAMS.values(), ids=PARAMS)
def test_the_logits_are_those_that_the_candidates_and_stages_come_from(
    server: LiveServer, params: dict[str, Any]
) -> None:
    choice = choice_of(server, seed=3, **params)
    logits = floats(choice["logits"])
    assert logits.tolist() == by_token(choice, [c["logit"] for c in choice["candidates"]]).tolist()
    order = params.get("processor_order", list(PROCESSORS))
    first = next(i for i, name in enumerate(order) if PROCESSORS[name].shapes)
    before = [s for s in choice.get("stages", ()) if order.index(s["name"]) < first]
    if not before:
        assert "adjusted_logits" not in choice
        return
    adjusted = floats(choice["adjusted_logits"])
    assert adjusted.tolist() != logits.tolist()
    expected = by_token(choice, before[-1]["probabilities"])
    assert shares(adjusted) == pytest.approx(expected, abs=1e-6)
    assert int((adjusted > -np.inf).sum()) == before[-1]["kept"]


RUNS: dict[str, dict[str, Any]] = {
    "plain": {},
    "penalties of the text alone": {"frequency_penalty": 0.7, "presence_penalty": 0.3, "top_k": 30},
    "a grammar": {"grammar": {"type": "regex", "pattern": "[a-h]{3}[0-9]{40}"}, "temperature": 0.6},
}


@pytest.mark.parametrize("params", RUNS.values(), ids=RUNS)
def test_the_logits_of_each_position_are_those_that_the_run_had(
    server: LiveServer, params: dict[str, Any]
) -> None:
    params = {"ignore_eos": True, "seed": 5, **params}
    asked = [{"prompt": PROMPT, "params": {"max_tokens": 12, **params}}]
    choices = choices_of(lines_of(server, requests=asked, candidates=4))
    tokens = [choice["token"] for choice in choices]
    assert len(tokens) == 12
    for i, choice in enumerate(choices):
        one = {"prompt": [*PROMPT, *tokens[:i]], "params": {"max_tokens": i + 1, **params}, "generated": i}
        [found] = choices_of(lines_of(server, requests=[one], candidates=4, logits=True))
        logits = floats(found["logits"])
        told = {c["token"]: c["logit"] for c in choice["candidates"]}
        assert {token: float(logits[token]) for token in told} == told
        for name in ("token", "draw_key", "stages", "candidates"):
            assert found.get(name) == choice.get(name)


def test_logits_cost_nothing_where_they_are_not_asked_for(server: LiveServer) -> None:
    one = {"prompt": PROMPT, "params": {"max_tokens": 1}}
    [choice] = choices_of(lines_of(server, requests=[one], candidates=2))
    assert not {"logits", "adjusted_logits"} & set(choice)


ONE = {"prompt": "Hi", "params": {"max_tokens": 1}}
BEAMS = {"max_tokens": 1, "strategy": {"type": "beam_search", "num_beams": 2}}
CONTRASTIVE = {"max_tokens": 1, "strategy": {"type": "contrastive_search", "top_k": 2}}
WRONG: dict[str, dict[str, Any]] = {
    "no candidates": {"requests": [ONE]},
    "0 candidates": {"requests": [ONE], "candidates": 0},
    "two requests": {"requests": [ONE, ONE], "candidates": 1},
    "two tokens": {"requests": [{"prompt": "Hi", "params": {"max_tokens": 2}}], "candidates": 1},
    "two streams": {"requests": [{"prompt": "Hi", "params": {"max_tokens": 1, "n": 2}}], "candidates": 1},
    "beams": {"requests": [{"prompt": "Hi", "params": BEAMS}], "candidates": 1},
    "forks": {"requests": [{"prompt": "Hi", "params": CONTRASTIVE}], "candidates": 1},
}


@pytest.mark.parametrize("body", WRONG.values(), ids=WRONG)
def test_logits_of_more_than_one_choice_are_refused(server: LiveServer, body: dict[str, Any]) -> None:
    assert refused(server, **body, logits=True)["param"] == "logits"


def test_logits_must_be_true_or_false(server: LiveServer) -> None:
    assert refused(server, requests=[ONE], candidates=1, logits="yes")["param"] == "logits"
