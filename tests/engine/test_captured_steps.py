"""Checks that a replayed step computes what a fresh run computes, and that a model for which it could not is
refused.
"""

from __future__ import annotations

import random
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from decodery.engine.batch import Batch, Chunk
from decodery.engine.captured_steps import CapturedSteps
from decodery.engine.request import Request, Sequence
from decodery.engine.runner import Runner
from decodery.errors import CaptureError, ModelError
from decodery.kernels.contract import Kernels
from decodery.kernels.native.native_kernels import NativeKernels
from decodery.models.decoders.llama import Llama
from decodery.models.layers.attention import Angles, Attend, Attention
from decodery.models.layers.embedding import Embedding
from decodery.models.load import load_for_inference
from decodery.weights.formats.opening import open_checkpoint
from decodery.weights.sources.locate import resolve
from tests.decoding.rows import make_row
from tests.kernels.native.fixtures import built
from tests.models.tiny import tiny_llama_folder

pytestmark = built

PAGES, SIZES = 200, (1, 3, 17, 64)
VARIANTS: dict[str, tuple[dict[str, Any], str | None]] = {
    "a tied head": ({}, None),
    "biases and an own head": (
        {"attention_bias": True, "mlp_bias": True, "tie_word_embeddings": False},
        None,
    ),
    "four bits": ({}, "int4"),
    "eight bits": ({"tie_word_embeddings": False}, "int8"),
}


def opened(path: Path, quantization: str | None = None) -> Llama:
    with open_checkpoint(path) as checkpoint:
        model = load_for_inference(
            checkpoint, dtype=torch.float32, kernels=NativeKernels(), quantization=quantization
        )
    assert isinstance(model, Llama)
    return model


@pytest.fixture(params=[*VARIANTS, "the default model"])
def model(request: pytest.FixtureRequest, tmp_path: Path) -> Llama:
    if request.param in VARIANTS:
        settings, quantization = VARIANTS[request.param]
        return opened(tiny_llama_folder(tmp_path, **settings), quantization)
    try:
        return opened(resolve(None))
    except ModelError as error:
        pytest.skip(f"the default model is not to be had: {error}")


def random_batch(count: int, vocab_size: int, seed: int) -> Batch:
    """Returns a step of so many tokens: chunks of several lengths at several positions, in random pages."""
    source, free = random.Random(seed), list(range(PAGES))
    source.shuffle(free)
    batch = Batch()
    while (left := count - batch.length) > 0:
        length = min(source.choice((1, 1, 2, 9, 40)), left)
        start = source.randrange(30)
        pages = [free.pop() for _ in range(-(-(start + length) // 16))]
        row = make_row([source.randrange(vocab_size) for _ in range(start + length)])
        sequence = Sequence(row, pages, computed=start)
        request = Request(0, row.tokens, row.params, row.seed, [sequence])
        batch.add(Chunk(request, sequence, length))
    return batch


@dataclass
class Found:
    """Holds the states of a step, and the cache after it."""

    final: Tensor
    layer: Tensor
    cache: Tensor


def ran(runner: Runner, batch: Batch) -> Found:
    with torch.inference_mode():
        states = runner.hidden(batch, layers=(1,))
        cut = slice(batch.length)
        (cache,) = runner._cache.blocks
        return Found(states.final[cut].clone(), states.layers[1][cut].clone(), cache.clone())


def fresh(runner: Runner, batch: Batch) -> Found:
    """Returns the result of a step that Python runs."""
    runner._steps = CapturedSteps()
    return ran(runner, batch)


def check_replays(model: Llama, sizes: tuple[int, ...] = SIZES, kv_dtype: torch.dtype | None = None) -> None:
    """Raises `AssertionError` unless replays give the bits of fresh runs, in all sizes in turn."""
    replaying, computing = (Runner(model, PAGES, kv_dtype) for _ in range(2))
    batches = {count: random_batch(count, model.vocab_size, seed=count) for count in sizes}
    for batch in batches.values():
        ran(replaying, batch)
        fresh(computing, batch)
    forward = model.hidden
    for seed in (1000, 2000):
        for count in sizes:
            batch = random_batch(count, model.vocab_size, seed + count)
            setattr(model, "hidden", None)  # noqa: B010 (a replay must not call it)
            found = ran(replaying, batch)
            setattr(model, "hidden", forward)  # noqa: B010
            expected = fresh(computing, batch)
            for name, values in vars(expected).items():
                assert torch.equal(getattr(found, name), values), (count, name)


def test_a_replay_has_the_bits_of_a_fresh_run_with_other_tokens_positions_and_pages(model: Llama) -> None:
    check_replays(model)


@pytest.mark.parametrize("kv_dtype", [torch.float32, torch.int8])
def test_so_it_has_with_other_caches(tmp_path: Path, kv_dtype: torch.dtype) -> None:
    check_replays(opened(tiny_llama_folder(tmp_path)), kv_dtype=kv_dtype)


Embed = Callable[[Embedding, Tensor], Tensor]
Heads = Callable[[Kernels, Tensor, Tensor], Tensor]


class HeadNorms(nn.Module):
    """Computes attention of queries and keys whose heads are normalised before they are rotated."""

    def __init__(self, plain: Attention, norm: Heads) -> None:
        super().__init__()
        self.plain, self.norm, self.layer = plain, norm, plain.layer
        self.scale = torch.linspace(0.5, 1.5, plain.layer.k_width)

    def forward(self, x: Tensor, angles: Angles, attend: Attend, residual: Tensor | None = None) -> Tensor:
        plain, kernels = self.plain, self.plain.kernels
        layer = self.layer
        counts = (layer.heads, layer.kv_heads, layer.kv_heads)
        qkv = plain.qkv(x).view(len(x), sum(counts), layer.k_width)
        q, k, v = qkv.split_with_sizes(counts, -2)
        q, k = (
            kernels.rotary(self.norm(kernels, part, self.scale), angles.cos, angles.sin) for part in (q, k)
        )
        out: Tensor = plain.out(attend(layer, q, k, v), residual)
        return out


def family(path: Path, embed: Embed, norm: Heads) -> Llama:
    """Returns a model with another embedding, and norms of heads in all layers."""
    model = opened(tiny_llama_folder(path))
    plain = model.embedding
    setattr(plain, "forward", lambda tokens: embed(plain, tokens))  # noqa: B010
    for block in model.layers:
        setattr(block, "attn", HeadNorms(block.attn, norm))  # noqa: B010
    return model


def embed(module: Embedding, ids: Tensor) -> Tensor:
    return module.kernels.embedding(ids, module.weight, 7.0)


def embed_times(module: Embedding, ids: Tensor) -> Tensor:
    return module.kernels.embedding(ids, module.weight) * 7.0


def norm(kernels: Kernels, heads: Tensor, scale: Tensor) -> Tensor:
    return kernels.rms_norm(heads, scale, 1e-5)


def norm_of_copy(kernels: Kernels, heads: Tensor, scale: Tensor) -> Tensor:
    return kernels.rms_norm(heads.reshape(-1, heads.shape[-1]), scale, 1e-5).view(heads.shape)


def norm_of_cast(kernels: Kernels, heads: Tensor, scale: Tensor) -> Tensor:
    return kernels.rms_norm(heads.double(), scale, 1e-5)


def norm_of_transposed(kernels: Kernels, heads: Tensor, scale: Tensor) -> Tensor:
    return kernels.rms_norm(heads.transpose(0, 1).contiguous(), scale, 1e-5).transpose(0, 1)


# Functions that use torch, and the operator that the error names.
LOST: dict[str, tuple[Embed, Heads, str]] = {
    "an embedding times a constant": (embed_times, norm, "aten.mul.Tensor in embed_times"),
    "a norm through a copy": (embed, norm_of_copy, "aten.reshape.default in norm_of_copy"),
    "a cast": (embed, norm_of_cast, "aten.to.dtype in norm_of_cast"),
    "a transposed copy": (embed, norm_of_transposed, "aten.contiguous.default in norm_of_transposed"),
}


@pytest.fixture
def good(tmp_path: Path) -> Llama:
    return family(tmp_path, embed, norm)


@pytest.mark.parametrize("name", LOST)
def test_a_model_that_computes_with_torch_is_refused_at_its_first_step(name: str, tmp_path: Path) -> None:
    *functions, operator = LOST[name]
    model = family(tmp_path, *functions)  # type: ignore[arg-type]
    for count in (17, 3):
        with pytest.raises(CaptureError, match=rf"{operator} \(engine/test_captured_steps.py:\d+\)"):
            ran(Runner(model, PAGES), random_batch(count, model.vocab_size, 0))


def test_the_same_model_by_the_arguments_of_kernels_is_replayed(good: Llama) -> None:
    check_replays(good)


@pytest.mark.parametrize("name", LOST)
def test_both_compute_the_same(name: str, good: Llama, tmp_path: Path) -> None:
    *functions, _ = LOST[name]
    lost = family(tmp_path, *functions)  # type: ignore[arg-type]
    setattr(lost.kernels, "capture", lambda run, *rest, **settings: (run(), None))  # noqa: B010
    batch = random_batch(17, good.vocab_size, 0)
    expected, found = (ran(Runner(model, PAGES), batch) for model in (good, lost))
    torch.testing.assert_close(found.final, expected.final, atol=1e-5, rtol=1e-5)


def test_every_size_that_is_kept_is_guarded(tmp_path: Path) -> None:
    def of_many(module: Embedding, ids: Tensor) -> Tensor:
        return (embed if len(ids) < 10 else embed_times)(module, ids)

    runner = Runner(family(tmp_path, of_many, norm), PAGES)
    for count in (1, 8, 9):
        ran(runner, random_batch(count, 97, 0))
    with pytest.raises(CaptureError, match=r"aten\.mul\.Tensor"):
        ran(runner, random_batch(10, 97, 0))
