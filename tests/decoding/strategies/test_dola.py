from __future__ import annotations

import json
import math
import random
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from decodery.decoding.request.params import GenerationParams
from decodery.decoding.request.strategy_params import DoLa
from decodery.decoding.rows import Row, Run, Scores
from decodery.decoding.strategies.dola import DoLaMethod, candidate_layers
from decodery.errors import ParameterError
from decodery.models.decoders.llama import Llama
from decodery.models.layers.attention import DenseAttend
from tests.decoding.rows import make_row
from tests.engine.runs import Job, make_engine, run
from tests.kernels.native.fixtures import built
from tests.models.tiny import default_model, tiny_model

ORACLE = json.loads(
    (Path(__file__).parents[2] / "data" / "decoding-smollm2.json").read_text(encoding="utf-8")
)
CASES = [case for case in ORACLE["cases"] if case["name"].startswith("dola")]
VOCAB = 97


@pytest.fixture(scope="module")
def model() -> Llama:
    return tiny_model(num_hidden_layers=5)


@pytest.fixture(scope="module")
def default() -> Llama:
    return default_model(num_hidden_layers=5)


@pytest.mark.parametrize("length", [12, pytest.param(40, marks=pytest.mark.slow)])
def test_the_oracles_texts_token_for_token(default_llm: Any, length: int) -> None:
    params = [
        GenerationParams(
            strategy=DoLa(case["args"]["dola_layers"]),
            max_tokens=length,
            temperature=0,
            repetition_penalty=case["args"].get("repetition_penalty", 1.0),
        )
        for case in CASES
    ]
    outputs = default_llm.generate([case["prompt"] for case in CASES], params)
    assert len(CASES) == 4
    assert [o.completions[0].token_ids for o in outputs] == [case["sequences"][0][:length] for case in CASES]


@pytest.mark.parametrize(
    ("layers", "depth", "tied", "expected"),
    [
        ("low", 32, False, tuple(range(0, 16, 2))),
        ("low", 32, True, tuple(range(2, 16, 2))),
        ("high", 32, False, tuple(range(16, 32, 2))),
        ("high", 32, True, tuple(range(16, 32, 2))),
        ("low", 30, True, (2, 4, 6, 8, 10, 12, 14)),
        ("high", 30, True, (15, 17, 19, 21, 23, 25, 27, 29)),
        ("low", 40, False, tuple(range(0, 20, 2))),
        ("high", 40, False, tuple(range(20, 40, 2))),
        ("low", 80, True, tuple(range(2, 20, 2))),
        ("high", 81, False, tuple(range(61, 81, 2))),
        # A shallow model too has at least one.
        ("low", 1, False, (0,)),
        ("low", 1, True, (0,)),
        ("high", 1, True, (0,)),
        ("low", 2, True, (1,)),
        ("high", 2, True, (1,)),
        ("low", 3, True, (2,)),
        ("low", 4, True, (2,)),
        ("low", 5, True, (2,)),
        ((0, 3, 5), 6, True, (0, 3, 5)),
        ((5,), 6, False, (5,)),
    ],
)
def test_low_and_high_are_every_second_layer_of_a_half(
    layers: Any, depth: int, tied: bool, expected: tuple[int, ...]
) -> None:
    assert candidate_layers(layers, depth, tied) == expected


def test_the_last_layer_is_no_candidate() -> None:
    with pytest.raises(ParameterError, match=r"layers names layer 6; .* 0 to 5"):
        candidate_layers((2, 6), 6, False)


def test_an_engine_takes_only_numbers(model: Llama) -> None:
    with pytest.raises(ParameterError, match="layers is 'low'"):
        make_engine(model).add([1], GenerationParams(strategy=DoLa("low")))


def reference(mature: Tensor, earlier: Sequence[Tensor]) -> Tensor:
    """Returns the contrasted logits in float64, of logits `[vocab]`."""
    p = mature.double().softmax(-1)
    divergences = []
    for logits in earlier:
        q = logits.double().softmax(-1)
        m = (p + q) / 2
        divergences.append(float((m * (m / p).log()).sum() + (m * (m / q).log()).sum()) / 2)
    base = earlier[divergences.index(max(divergences))].double().log_softmax(-1)
    contrast = p.log() - base
    contrast[p < 0.1 * p.max()] = -torch.inf
    return contrast


def made(positions: int, layers: Sequence[int], vocab: int = 40, seed: int = 0) -> Scores:
    """Returns scores of rows that ran only their last token, with random logits after these layers."""
    generator = torch.Generator().manual_seed(seed)
    logits = torch.randn(positions, vocab, generator=generator) * 2
    each = {
        layer: logits + torch.randn(positions, vocab, generator=generator) * (1 + i % 3)
        for i, layer in enumerate(layers)
    }
    return Scores(logits, [(Run((), i),) for i in range(positions)], layers=each)


def row_of(*layers: int, **params: Any) -> Row:
    return make_row(strategy=DoLa(layers), **params)


def test_the_contrast_is_with_the_layer_that_differs_most() -> None:
    scores = made(12, (0, 2, 4, 7))
    assert scores.layers is not None
    choices: list[tuple[int, ...]] = [(0, 2, 4, 7), (2, 0), (7,), (0, 4)]
    rows = [row_of(*choices[i % 4]) for i in range(12)]
    contrasts = DoLaMethod().logits(scores, range(12), rows)
    for i, contrasted in enumerate(contrasts):
        expected = reference(scores.logits[i], [scores.layers[layer][i] for layer in choices[i % 4]])
        torch.testing.assert_close(contrasted.double(), expected, atol=1e-4, rtol=1e-4)
        kept = contrasted > -torch.inf
        assert 0 < int(kept.sum()) < 40
        assert bool(kept[scores.logits[i].argmax()])


def test_the_most_different_layer_is_chosen_and_its_likeliest_tokens_are_avoided() -> None:
    mature = torch.log(torch.tensor([[0.5, 0.4, 0.06, 0.04]]))
    near, far = mature.clone(), torch.log(torch.tensor([[0.9, 0.02, 0.04, 0.04]]))
    scores = Scores(mature, [(Run((), 0),)], layers={0: near, 1: far})
    (contrast,) = DoLaMethod().logits(scores, [0], [row_of(0, 1)])
    assert contrast.tolist() == pytest.approx(
        [math.log(0.5 / 0.9), math.log(0.4 / 0.02), math.log(0.06 / 0.04), -math.inf], abs=1e-5
    )


def test_if_all_plausible_tokens_are_banned_plausibility_is_judged_among_the_others() -> None:
    mature = torch.log(torch.tensor([[0.9, 0.05, 0.04, 0.009, 0.001]]))
    base = torch.log(torch.tensor([[0.9, 0.09, 0.007, 0.001, 0.002]]))
    scores = Scores(mature, [(Run((), 0),)], layers={2: base})
    (survivor,) = DoLaMethod().judge([row_of(2, temperature=0)], scores).survivors
    assert survivor.row.tokens[-1] == 0
    row = row_of(2, temperature=0, allowed_token_ids=[1, 2, 4])
    (survivor,) = DoLaMethod().judge([row], scores).survivors
    assert survivor.row.tokens[-1] == 2


@pytest.fixture
def two_threads() -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(2)
    yield
    torch.set_num_threads(before)


def test_a_position_has_the_same_bits_with_others(two_threads: None) -> None:
    # Over so large a vocabulary torch sums a single row in another order than several rows.
    scores = made(3, (0, 2), vocab=70_000)
    rows = [row_of(0, 2), row_of(2), row_of(0, 2)]
    together = DoLaMethod().logits(scores, [0, 1, 2], rows)
    for i in (2, 0, 1):
        assert torch.equal(DoLaMethod().logits(scores, [i], [rows[i]])[0], together[i])


def test_drafts_are_judged_by_contrasted_logits() -> None:
    scores = made(4, (1, 3))
    plain = []
    row = row_of(1, 3, temperature=0, repetition_penalty=1.5)
    for i in range(3):
        one = Scores(scores.logits, [(Run((), i),)], layers=scores.layers)
        (survivor,) = DoLaMethod().judge([row], one).survivors
        row = survivor.row
        plain.append(row.tokens[-1])
    start = row_of(1, 3, temperature=0, repetition_penalty=1.5)
    drafts = Scores(scores.logits, [(Run((*plain[:2], 39), 0),)], layers=scores.layers)
    (survivor,) = DoLaMethod().judge([start], drafts).survivors
    assert survivor.row.tokens.tolist()[1:] == plain
    assert survivor.keep == 2


def test_damaged_weights_are_reported_as_such() -> None:
    scores = made(2, (1, 3))
    damaged = replace(scores, logits=scores.logits.clone())
    damaged.logits[0] = torch.nan
    verdict = DoLaMethod().judge([row_of(1, 3), row_of(1, 3)], damaged)
    assert [s.finish for s in verdict.survivors] == ["error", None]
    assert "NaN" in str(verdict.survivors[0].error)


def test_a_greedy_text_is_that_of_the_contrasted_layers(model: Llama) -> None:
    double = tiny_model(torch.float64, num_hidden_layers=5)
    for layers in ((2,), (0, 1, 3), (4, 2)):
        tokens = [5, 9, 5]
        for _ in range(15):
            taps: dict[int, Tensor | None] = dict.fromkeys(layers)
            positions = torch.arange(len(tokens))[None]
            final = double.hidden(torch.tensor([tokens]), positions, DenseAttend(double.kernels), taps=taps)
            weight = double.embedding.weight
            earlier = [tap[0, -1] @ weight.T for layer in layers if (tap := taps[layer]) is not None]
            tokens.append(int(reference(final[0, -1] @ weight.T, earlier).argmax()))
        params = GenerationParams(strategy=DoLa(layers), temperature=0, max_tokens=15)
        assert run(make_engine(model), [([5, 9, 5], params)]) == [[tokens[3:]]]


def mixed_jobs() -> list[Job]:
    """Returns requests of 1 to 200 tokens over different layers, greedy and drawn, some with streams."""
    rng = random.Random(0)
    variants: list[dict[str, Any]] = [
        {"strategy": DoLa((0, 2, 4)), "temperature": 0},
        {"strategy": DoLa((2, 3)), "temperature": 0.9, "n": 3},
        {"strategy": DoLa((1,)), "top_p": 0.9, "logprobs": 2},
        {"temperature": 0.7},
        {"strategy": DoLa((4, 0)), "repetition_penalty": 1.3, "guidance_scale": 1.4},
        {"strategy": DoLa((3, 1)), "min_tokens": 5, "stop_token_ids": (4,), "temperature": 1.5},
    ]
    shared = [rng.randrange(VOCAB) for _ in range(100)]
    return [
        (
            [*shared[: length // 2], *(rng.randrange(VOCAB) for _ in range(length - length // 2))],
            GenerationParams(max_tokens=24, seed=i, **variants[i % 6]),
        )
        for i, length in enumerate([1, 33, 60, 16, 100, 17, 2, 130, 64, 48, 31, 200])
    ]


@pytest.fixture(scope="module")
def alone(default: Llama) -> list[list[list[int]]]:
    return [run(make_engine(default), [job])[0] for job in mixed_jobs()]


@built
@pytest.mark.parametrize("limits", [{}, {"prefix_cache": False}, {"token_budget": 16}], ids=str)
def test_batched_equals_alone(default: Llama, alone: list[list[list[int]]], limits: dict[str, Any]) -> None:
    engine = make_engine(default, **limits)
    assert run(engine, mixed_jobs()) == alone
    # The second time every prompt comes from the prefix cache, if there is one.
    assert run(engine, mixed_jobs()[::-1]) == alone[::-1]


@built
@pytest.mark.parametrize("prefix_cache", [True, False])
def test_preemption_equals_alone(default: Llama, alone: list[list[list[int]]], prefix_cache: bool) -> None:
    ample = make_engine(default, prefix_cache=prefix_cache).limits
    fewest = max(ample.pages_needed(len(prompt), params) for prompt, params in mixed_jobs())
    engine = make_engine(default, pages=fewest, prefix_cache=prefix_cache)
    assert run(engine, mixed_jobs()) == alone
    assert engine.preemptions > 0, "the test needs scarcer pages"


@built
def test_a_text_ends_one_token_after_the_context(default: Llama) -> None:
    short = default_model(num_hidden_layers=5, max_position_embeddings=40)
    params = GenerationParams(strategy=DoLa((1, 3)), temperature=0, max_tokens=None)
    texts = [
        run(make_engine(m), [([1, 2, 3], p)])[0][0]
        for m, p in ((short, params), (default, params.replace(max_tokens=38)))
    ]
    assert texts[0] == texts[1]
    assert len(texts[0]) == 38
