"""Runs a model whose layers differ in their attention through the engine."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import pytest
import torch

from decodery.decoding.request.params import GenerationParams
from decodery.engine.engine import Engine
from decodery.kernels.attention_layer import AttentionLayer
from decodery.kernels.contract import Kernels
from decodery.kernels.native.library import available
from decodery.kernels.native.native_kernels import NativeKernels
from decodery.kernels.reference import torch_kernels
from decodery.models.decoders.llama import Llama
from decodery.models.layers.blocks import PreNormBlock
from tests.engine.runs import Job, make_engine
from tests.models.tiny import default_model, tiny_model

VOCAB = 97
BACKENDS: list[Kernels] = [torch_kernels, *([NativeKernels()] if available() else [])]
backends = pytest.mark.parametrize("kernels", BACKENDS, ids=["torch", "native"][: len(BACKENDS)])


def altered(layer: AttentionLayer) -> AttentionLayer:
    """Returns the layer with features; the last one reads the keys and values of the first."""
    features: list[dict[str, Any]] = [
        {"window": 19},
        {"chunk": 23, "softcap": 1.5, "sinks": torch.tensor([0.5, -1.0, 2.0, 0.0])},
        {"scale": 0.4},
        {"window": 19, "softcap": 2.0},
        {"kv_source": 0},
    ]
    return replace(layer, **features[layer.index])


def layered_model(kernels: Kernels) -> Llama:
    model = (
        tiny_model(num_hidden_layers=5) if kernels is torch_kernels else default_model(num_hidden_layers=5)
    )
    for block in model.layers:
        assert isinstance(block, PreNormBlock)
        block.attn.layer = altered(block.attn.layer)
    return model


def jobs() -> list[Job]:
    generator = torch.Generator().manual_seed(0)
    lengths = [1, 18, 19, 20, 40, 75, 130, 22]
    prompts = [torch.randint(VOCAB, (n,), generator=generator).tolist() for n in lengths]
    sampling: list[dict[str, Any]] = [{"temperature": 0}, {"temperature": 0.9, "seed": 3}]
    return [
        (prompt, GenerationParams(max_tokens=30 + i, logprobs=1, **sampling[i % 2]))
        for i, prompt in enumerate(prompts)
    ]


def run(engine: Engine, requests: Sequence[Job]) -> list[list[tuple[int, float]]]:
    """Returns the tokens of each request with their log-probabilities."""
    ids = [engine.add(prompt, params) for prompt, params in requests]
    found: dict[int, list[tuple[int, float]]] = {i: [] for i in ids}
    while engine.has_work():
        for event in engine.step():
            found[event.request] += [(one.token, one.logprob) for one in event.logprobs]
        engine.check_integrity()
    return [found[i] for i in ids]


@backends
@pytest.mark.parametrize("budget", [512, 48])
def test_layers_of_several_kinds_give_the_text_of_dense_attention(kernels: Kernels, budget: int) -> None:
    model, plain = layered_model(kernels), layered_model(torch_kernels)
    together = run(make_engine(model, token_budget=budget, kv_dtype=torch.float32), jobs())
    for (prompt, params), texts in zip(jobs(), together, strict=True):
        tokens = [token for token, _ in texts]
        assert len(tokens) == params.max_tokens
        with torch.no_grad():
            logits = plain(torch.tensor([[*prompt, *tokens]]))[0, len(prompt) - 1 : -1]
        expected = logits.log_softmax(-1).gather(1, torch.tensor(tokens)[:, None])[:, 0]
        torch.testing.assert_close(torch.tensor([x for _, x in texts]), expected, atol=1e-3, rtol=0)


@pytest.mark.skipif(len(BACKENDS) == 1, reason="the native kernels are not built here")
@pytest.mark.parametrize("budget", [512, 48])
def test_layers_of_several_kinds_give_the_same_bits_alone_and_together(budget: int) -> None:
    model = layered_model(BACKENDS[1])
    engine = make_engine(model, token_budget=budget)
    together, again = run(engine, jobs()), run(engine, jobs())
    alone = [run(make_engine(model), [job])[0] for job in jobs()]
    assert together == alone
    # All these steps are replayed: each kind's plan must be that of the step.
    assert again == alone


def test_layers_that_share_keys_and_values_cache_them_once() -> None:
    shape = layered_model(torch_kernels).kv_shape
    assert [kv.layer for kv in shape.layers] == [0, 1, 2, 3]
