"""Tests that the page re-shapes a distribution, and draws from it, as the library does."""

from __future__ import annotations

import base64
import random
from collections.abc import Callable, Sequence
from dataclasses import dataclass, fields
from typing import Any

import pytest
import torch
from torch import Tensor

from decodery import GenerationParams
from decodery.decoding.draw import choose, draw_key, draw_key_of, stream_seed
from decodery.decoding.processors.pipeline import PROCESSORS, Record, process
from decodery.decoding.request.processor_order import DEFAULT_ORDER
from decodery.decoding.rows import Row
from decodery.kernels.vocabulary import native, reference
from decodery.wire.plain_forms import to_plain
from tests.decoding.rows import make_row
from tests.serving.live import LiveServer

NEAR = 1e-5
SHAPES: dict[str, Callable[[int, torch.Generator], Tensor]] = {
    "a model's": lambda size, g: torch.randn(size, generator=g) * 3,
    "peaked": lambda size, g: torch.randn(size, generator=g) * 12,
    "flat": lambda size, g: torch.randn(size, generator=g) * 0.01,
    "with ties": lambda size, g: torch.randint(-5, 6, (size,), generator=g).float(),
    "all equal": lambda size, g: torch.full((size,), 3.25),
    "zeros of both signs": lambda size, g: torch.where(torch.rand(size, generator=g) < 0.5, 0.0, -0.0),
    "far from 0": lambda size, g: torch.randn(size, generator=g) * 2 + 80,
    "log-probabilities": lambda size, g: torch.randn(size, generator=g).mul(4).log_softmax(-1),
    "with bans": lambda size, g: torch.randn(size, generator=g).masked_fill(
        torch.arange(size) % 7 > torch.randint(0, 6, (1,), generator=g), -torch.inf
    ),
    "with one left": lambda size, g: torch.full((size,), -torch.inf).index_fill(
        0, torch.tensor([size // 2]), 1
    ),
}


@dataclass(frozen=True)
class Case:
    """Holds a distribution, the parameters that re-shape it, and the row that has them."""

    logits: Tensor
    params: dict[str, Any]
    row: Row

    def plain(self) -> dict[str, Any]:
        words = base64.b64encode(self.logits.numpy().tobytes()).decode()
        own = {"temperature": 1, "top_k": 0, "top_p": 1, "min_p": 0, "processor_order": list(DEFAULT_ORDER)}
        return {"logits": words, "params": own | self.params, "key": list(draw_key_of(self.row))}


def case_of(number: int) -> Case:
    rng, generator = random.Random(number), torch.Generator().manual_seed(number)
    size = rng.choice((1, 2, 17, 259, 900, 3000))
    logits = rng.choice(list(SHAPES.values()))(size, generator)
    params: dict[str, Any] = {"temperature": rng.choice((0.0, 0.05, 0.7, 1.0, 1.3, 2.0, 100.0))}
    if rng.random() < 0.6:
        params["top_k"] = min(rng.choice((1, 3, 16, 40, 700)), size)
    if rng.random() < 0.6:
        params["top_p"] = rng.choice((0.01, 0.5, 0.9, 0.95, 0.999, rng.random()))
    if rng.random() < 0.6:
        params["min_p"] = rng.choice((0.0001, 0.05, 0.2, 1.0, rng.random()))
    if rng.random() < 0.3:
        params["processor_order"] = rng.sample(DEFAULT_ORDER, len(DEFAULT_ORDER))
    return Case(logits, params, make_row(range(rng.randrange(1, 50)), seed=rng.randrange(2**63), **params))


RESHAPE_ALL = """async (cases) => {
  const { Distribution, reshape, choose } = await import("/assets/core/reshape.js");
  const floats = (text) => new Float32Array(Uint8Array.from(atob(text), (c) => c.charCodeAt(0)).buffer);
  const text = (values) => {
    let bytes = "";
    for (const byte of new Uint8Array(values.buffer)) bytes += String.fromCharCode(byte);
    return btoa(bytes);
  };
  return cases.map(({ logits, params, key }) => {
    const all = floats(logits);
    const distribution = new Distribution(all);
    const shape = reshape(distribution, params, params.processor_order);
    const shares = new Float64Array(all.length);
    distribution.tokens.forEach((token, place) => { shares[token] = shape.probability(place); });
    return { shares: text(shares), kept: shape.kept, choice: choose(shape, key), stages: shape.stages };
  });
}"""


@pytest.fixture
def script(page: Any, server: LiveServer) -> Any:
    """Returns a page of the server's origin, in which the page's modules can be imported."""
    page.route("**/favicon.ico", lambda route: route.fulfill(status=204))
    page.goto(f"{server.url}/assets/style/icon.svg")
    return page


@pytest.mark.page
def test_a_thousand_distributions_are_those_of_the_library(script: Any) -> None:
    cases = [case_of(number) for number in range(1000)]
    found = script.evaluate(RESHAPE_ALL, [case.plain() for case in cases])
    decided = 0
    for case, page in zip(cases, found, strict=True):
        stages: list[dict[str, Any]] = []
        processed = process(case.logits[None], [case.row], recorded_in(stages))
        assert page["stages"] == stages
        assert page["kept"] == int((processed > -torch.inf).sum())
        shares = torch.frombuffer(bytearray(base64.b64decode(page["shares"])), dtype=torch.float64)
        assert float((shares - processed[0].double().softmax(-1)).abs().max()) < 1e-5
        choice = page["choice"]
        assert choice["undecided"] or choice["margin"] >= NEAR
        if not choice["undecided"]:
            decided += 1
            assert [choice["token"]] == choose(processed, [case.row])
    assert decided > 800


def recorded_in(stages: list[dict[str, Any]]) -> Record:
    def record(name: str, using: Sequence[int], logits: Tensor) -> None:
        stages.append({"name": name, "kept": int((logits > -torch.inf).sum())})

    return record


NOISE = """async ({ keys, tokens }) => {
  const { gumbelNoise } = await import("/assets/core/noise.js");
  return keys.map((key) => tokens.map((token) => gumbelNoise(key, token)));
}"""


@pytest.mark.parametrize("kernels", [native, reference], ids=["compiled", "torch"])
def test_the_noise_is_the_librarys(script: Any, kernels: Any) -> None:
    keys = [(0, 0), (-1, 2**31 - 1), (-(2**31), 5), *(draw_key(seed, seed * 3) for seed in range(40))]
    tokens = [0, 1, 2**20, *range(1000, 1200), 262143]
    found = torch.tensor(script.evaluate(NOISE, {"keys": [list(k) for k in keys], "tokens": tokens}))
    for key, noise in zip(keys, found, strict=True):
        each = torch.tensor(key, dtype=torch.int32).expand(len(tokens), 2)
        expected = kernels.gumbel_noise(each, torch.tensor(tokens, dtype=torch.int32))
        # The tail of unlucky tokens is coarse: there torch rounds the random number another way.
        lucky = expected > -2.5 if kernels is reference else torch.ones_like(expected, dtype=torch.bool)
        assert noise[lucky].numpy() == pytest.approx(expected[lucky].numpy(), abs=1e-6, rel=1e-6)


KEYS = """async (asked) => {
  const { streamSeed, drawKey } = await import("/assets/core/noise.js");
  return asked.map(([seed, stream, position]) => drawKey(streamSeed(BigInt(seed), stream), position));
}"""


def test_the_key_of_a_draw_follows_from_seed_stream_and_position(script: Any) -> None:
    asked = [(s, k, p) for s in (0, 7, -1, 2**63 - 1, 2**64 - 1) for k in (0, 1, 9) for p in (0, 5, 100_000)]
    found = script.evaluate(KEYS, [[str(seed), stream, position] for seed, stream, position in asked])
    assert found == [list(draw_key(stream_seed(seed, k), p)) for seed, k, p in asked]


def test_the_page_knows_the_order_of_the_processors_and_which_shape_what_is_sampled(script: Any) -> None:
    found = script.evaluate("async () => ({ ...await import('/assets/core/stages.js') })")
    assert found["DEFAULT_ORDER"] == list(DEFAULT_ORDER)
    assert set(found["SHAPING"]) == {name for name, processor in PROCESSORS.items() if processor.shapes}


USED = """async (each) => {
  const { DEFAULT_ORDER, isUsed } = await import("/assets/core/stages.js");
  return each.map((params) => DEFAULT_ORDER.filter((name) => isUsed(name, params)));
}"""
USES: dict[str, dict[str, Any]] = {
    "grammar": {"grammar": {"type": "choice", "options": ["a"]}},
    "presence_and_frequency_penalty": {"frequency_penalty": -0.1},
    "dry": {"dry_multiplier": 0.8},
    "no_repeat_ngram": {"no_repeat_ngram_size": 2},
    "min_tokens": {"min_tokens": 2},
    "forced_eos": {"forced_eos_token_id": 0},
    "exponential_decay": {"exponential_decay_length_penalty": [1, 1.5]},
    "allowed_token_ids": {"allowed_token_ids": [1, 2]},
    "logit_bias": {"logit_bias": {"5": -1.0}},
    "temperature": {"temperature": 0.5},
    "top_n_sigma": {"top_n_sigma": 1.5},
    "tfs": {"tfs_z": 0.9},
    "typical_p": {"typical_p": 0.9},
    "xtc": {"xtc_probability": 0.5},
    "mirostat": {"mirostat_mode": 2},
    "watermark": {"watermark": {"type": "watermark"}},
    "renormalize": {"renormalize_logits": True},
}


def test_the_page_knows_which_parameters_turn_a_processor_on(script: Any) -> None:
    off = {f.name: to_plain(getattr(GenerationParams(), f.name)) for f in fields(GenerationParams)}
    found = script.evaluate(USED, [off, {}, *USES.values()])
    assert found == [[], [], *([name] for name in USES)]


TIMES = """async ({ size, moves }) => {
  const { Distribution, reshape, choose } = await import("/assets/core/reshape.js");
  const logits = Float32Array.from({ length: size }, (_, i) => 8 * Math.sin(i * i) + 4 * Math.cos(7 * i));
  const distribution = new Distribution(logits);
  return moves.map((params) => choose(reshape(distribution, params), [3, 4]).token);
}"""


@pytest.mark.page
def test_a_large_vocabulary_is_sorted_once_and_every_move_gives_a_token(script: Any) -> None:
    moves = [{"temperature": t / 10, "top_k": 0, "top_p": 0.999, "min_p": 0} for t in range(1, 20)]
    found = script.evaluate(TIMES, {"size": 262_144, "moves": moves})
    assert len(found) == len(moves)
    assert all(0 <= token < 262_144 for token in found)


@pytest.mark.page
def test_scores_that_are_not_numbers_are_refused(script: Any) -> None:
    code = "async (name) => { new (await import(name)).Distribution(Float32Array.of(1, NaN)); }"
    with pytest.raises(Exception, match="not numbers"):
        script.evaluate(code, "/assets/core/reshape.js")
