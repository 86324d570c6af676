"""Tests the views of layers against transformers and against the engine, for every family."""

from __future__ import annotations

import math
from functools import cache
from typing import Any

import pytest
import torch
import transformers
from torch import Tensor

from decodery import LLM, GenerationParams, ParameterError, RequestError
from decodery.lens.layer_views import layer_views
from tests.kernels.native.fixtures import built
from tests.models.decoders.families import write_folder
from tests.models.decoders.test_every_family import (
    FAMILIES,
    InPages,
    every_family,
    opened,
    served,
    some_tokens,
)

LENGTH = 24
# Its plain attention in transformers differs from its other one by 0.9 in logits.
OTHERWISE_IN_TRANSFORMERS = ("falcon rw",)


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> Any:
    root = tmp_path_factory.mktemp("views")
    return cache(lambda name: write_folder(FAMILIES[name], root / name.replace(" ", "-").replace(",", "")))


def oracle(name: str, folder: Any) -> Any:
    """Returns what transformers computes, with attention in plain products."""
    architecture = getattr(transformers, FAMILIES[name].architecture)
    eager = {"experts_implementation": "eager"} if FAMILIES[name].routed else {}
    return architecture.from_pretrained(folder, attn_implementation="eager", **eager).eval()


def shares_of(views: Any) -> list[Tensor]:
    return [torch.from_numpy(layer.attention) for layer in views.layers]


@every_family
def test_each_head_divides_its_attention_as_that_of_transformers(name: str, folders: Any) -> None:
    if name in OTHERWISE_IN_TRANSFORMERS:
        pytest.skip("transformers has two forms of it that differ")
    ids = some_tokens(LENGTH).tolist()
    views = layer_views(opened(folders(name)), ids)
    with torch.no_grad():
        expected = oracle(name, folders(name))(torch.tensor([ids]), output_attentions=True).attentions
    assert len(views.layers) == len(expected)
    for found, theirs in zip(shares_of(views), expected, strict=True):
        torch.testing.assert_close(found, theirs[0, :, -1], rtol=0, atol=1e-5)
        assert bool((found >= 0).all())
        assert bool((found.sum(-1) <= 1 + 1e-5).all())


@every_family
@pytest.mark.parametrize("opens", [opened, pytest.param(served, marks=built)])
def test_the_last_layer_predicts_what_the_model_does(name: str, folders: Any, opens: Any) -> None:
    model = opens(folders(name))
    ids = some_tokens(LENGTH, seed=1).tolist()
    views = layer_views(model, ids, candidates=97)
    logprobs = InPages(model).logits(torch.tensor(ids))[-1].double().log_softmax(-1)
    assert len(views.layers) == model.depth
    for token, share in views.layers[-1].predicted:
        assert math.log(share) == pytest.approx(logprobs[token].item(), abs=2e-5)
    for predicted in (views.embedding, *(layer.predicted for layer in views.layers)):
        assert sum(share for _, share in predicted) == pytest.approx(1, abs=1e-5)
        assert [share for _, share in predicted] == sorted((s for _, s in predicted), reverse=True)


@pytest.mark.parametrize("name", ["llama", "qwen2", "gpt2"])
def test_each_layer_predicts_what_the_last_norm_and_the_head_make_of_its_states(
    name: str, folders: Any
) -> None:
    ids = some_tokens(LENGTH, seed=2).tolist()
    views = layer_views(opened(folders(name)), ids, candidates=97)
    theirs = oracle(name, folders(name))
    norm = theirs.transformer.ln_f if name == "gpt2" else theirs.model.norm
    with torch.no_grad():
        states = theirs(torch.tensor([ids]), output_hidden_states=True).hidden_states
        # The last states have been normalised.
        logits = [theirs.lm_head(norm(one[0, -1])) for one in states[:-1]] + [
            theirs.lm_head(states[-1][0, -1])
        ]
    found = [views.embedding, *(layer.predicted for layer in views.layers)]
    for predicted, expected in zip(found, logits, strict=True):
        shares = expected.softmax(-1)
        for token, share in predicted:
            assert share == pytest.approx(shares[token].item(), abs=1e-5)


@pytest.mark.parametrize("ids", [[5], [5, 6], list(range(17))])
def test_a_text_of_any_length_is_viewed_and_one_token_sees_itself_alone(folders: Any, ids: list[int]) -> None:
    views = layer_views(opened(folders("llama")), ids)
    for shares in shares_of(views):
        assert shares.shape == (4, len(ids))
        torch.testing.assert_close(shares.sum(-1), torch.ones(4))


def test_a_window_hides_the_tokens_before_it(folders: Any) -> None:
    views = layer_views(opened(folders("ministral")), some_tokens(LENGTH).tolist())
    seen = [int((shares > 0).any(0).sum()) for shares in shares_of(views)]
    assert seen == [9, LENGTH, 9]


@built
def test_predictions_have_the_bits_of_the_engine_whatever_it_has_cached(model_folder: str) -> None:
    llm = LLM(model_folder, kv_memory="16MB")
    ids = llm.tokenizer.encode("The trophy did not fit into the suitcase because it")
    params = GenerationParams(max_tokens=1, temperature=0, logprobs=5)
    [before] = llm.generate([ids], params)
    views = llm.layer_views(ids, candidates=5)
    [after] = llm.generate([ids], params)
    for output in (before, after):
        assert output.completions[0].logprobs is not None
        [chosen] = output.completions[0].logprobs
        told = tuple((token, math.exp(logprob)) for token, logprob in chosen.top)
        assert views.layers[-1].predicted == told


@pytest.fixture(scope="module")
def model_folder(tmp_path_factory: pytest.TempPathFactory) -> str:
    from tests.cli.conftest import write_model

    return write_model(tmp_path_factory.mktemp("tiny"))


def test_the_library_views_texts_and_ids_alike(model_folder: str) -> None:
    llm = LLM(model_folder, kv_memory="16MB")
    ids = llm.tokenizer.encode("abc")
    by_text, by_ids = llm.layer_views("abc"), llm.layer_views(ids)
    assert by_text.token_ids == by_ids.token_ids == tuple(ids)
    assert by_text.embedding == by_ids.embedding
    assert [len(layer.predicted) for layer in by_text.layers] == [5] * llm.model.depth


def test_what_cannot_be_viewed_is_refused(model_folder: str) -> None:
    llm = LLM(model_folder, kv_memory="16MB", context_length=64)
    for prompt, candidates, error, words in (
        ("", 5, RequestError, "at least one"),
        ([], 5, RequestError, "at least one"),
        ([65] * 65, 5, RequestError, "at most 64"),
        ([65, 100_000], 5, RequestError, "token 100000"),
        ([65, -1], 5, RequestError, "token -1"),
        ([1.5], 5, RequestError, "whole numbers"),
        (None, 5, RequestError, "prompt"),
        ("a", 0, ParameterError, "candidates"),
        ("a", True, ParameterError, "candidates"),
        ("a", 100_000, ParameterError, "candidates"),
    ):
        with pytest.raises(error, match=words):
            llm.layer_views(prompt, candidates=candidates)  # type: ignore[arg-type]
