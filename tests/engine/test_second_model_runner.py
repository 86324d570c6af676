"""Checks that a second model scores and drafts for rows as if each were alone."""

from __future__ import annotations

import random
from array import array
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import pytest
import torch
from torch import Tensor

from decodery.decoding.request.params import GenerationParams
from decodery.decoding.request.speculation_params import DraftModel
from decodery.decoding.rows import Row
from decodery.decoding.strategies.drafts.draft_model import draw_drafts
from decodery.engine.limits import Limits
from decodery.engine.second_model import SecondModel
from decodery.engine.second_model_runner import SecondModelRunner
from decodery.models.decoders.llama import Llama
from tests.decoding.rows import make_row
from tests.engine.runs import make_engine
from tests.kernels.native.fixtures import built
from tests.models.tiny import default_model, tiny_model

VOCAB = 97


@pytest.fixture(scope="module")
def model() -> Llama:
    return default_model(max_position_embeddings=512)


def runner_of(
    model: Llama, pages: int = 200, token_budget: int = 512, *, prefix_cache: bool = True
) -> SecondModelRunner:
    return SecondModelRunner(model, Limits(pages, 1, 512, token_budget, prefix_cache=prefix_cache))


def row_of(tokens: Sequence[int], request: int = 0, **params: Any) -> Row:
    return replace(make_row(tokens, **params), request=request)


def words(count: int, seed: int = 0) -> list[int]:
    rng = random.Random(seed)
    return [rng.randrange(VOCAB) for _ in range(count)]


def alone(model: Llama, tokens: Sequence[int], drafts: Sequence[int] = ()) -> Tensor:
    """Returns the scores of a runner that has run nothing else."""
    return runner_of(model).logits([(row_of(tokens), tuple(drafts))])


def test_its_logits_are_the_models() -> None:
    model = tiny_model(max_position_embeddings=512)
    tokens, drafts = words(70), words(5, 1)
    with torch.no_grad():
        dense = model(torch.tensor([tokens + drafts]))[0, len(tokens) - 1 :]
    assert torch.allclose(alone(model, tokens, drafts), dense, atol=1e-4)


def test_it_is_what_the_engine_asks_for(model: Llama) -> None:
    second: SecondModel = runner_of(model)
    assert second.logits([(row_of([1]), ())]).shape == (1, VOCAB)


@built
@pytest.mark.parametrize("prefix_cache", [True, False])
@pytest.mark.parametrize(("pages", "token_budget"), [(200, 512), (200, 16), (14, 512), (9, 16)])
def test_rows_that_grow_fork_and_rewind_score_as_if_they_were_alone(
    model: Llama, pages: int, token_budget: int, prefix_cache: bool
) -> None:
    rng = random.Random(pages + token_budget)
    second = runner_of(model, pages, token_budget, prefix_cache=prefix_cache)
    beginning = words(40)
    texts: list[tuple[int, list[int]]] = [(i, beginning[: rng.randrange(1, 40)]) for i in range(3)]
    for turn in range(40):
        runs, expected = [], []
        for request, text in sorted(rng.sample(texts, rng.randrange(1, len(texts) + 1))):
            drafts = tuple(words(rng.randrange(4), rng.randrange(10**6)))
            row = row_of(text, request)
            runs.append((row, drafts))
            expected.append(alone(model, text, drafts))
            if rng.random() < 0.3:
                # Another branch of the same row.
                runs.append((row, drafts[:1]))
                expected.append(alone(model, text, drafts[:1]))
            # The text continues with some of the drafts and another token.
            text += [*drafts[: rng.randrange(4)], rng.randrange(VOCAB)]
        assert torch.equal(second.logits(runs), torch.cat(expected))
        second.check_integrity()
        place = rng.randrange(len(texts))
        request, text = texts[place]
        if turn % 5 == 1:
            texts.append((request, list(text)))
        elif turn % 5 == 3:
            del texts[place]
        elif turn % 5 == 4 or len(text) > 100:
            del text[rng.randrange(1, 40) :]
        texts = texts or [(turn, [turn])]
        second.retain([row_of(text, request) for request, text in texts])
        second.check_integrity()


def greedy(model: Llama, tokens: Sequence[int], count: int) -> list[int]:
    text = list(tokens)
    for _ in range(count):
        text.append(int(alone(model, text)[0].argmax()))
    return text[len(tokens) :]


@built
@pytest.mark.parametrize("token_budget", [512, 16])
def test_a_draft_is_what_the_model_would_choose_itself(model: Llama, token_budget: int) -> None:
    prompts = [words(n, n) for n in (1, 16, 60, 33)]
    rows = [row_of(prompt, i, temperature=0) for i, prompt in enumerate(prompts)]
    counts = [5, 3, 6, 0]
    second = runner_of(model, token_budget=token_budget)
    results = second.draft(rows, counts, draw_drafts)
    for prompt, count, (tokens, logits) in zip(prompts, counts, results, strict=True):
        assert tokens == greedy(model, prompt, count)
        assert logits.shape == (count, VOCAB)
        for i in range(count):
            assert torch.equal(logits[i : i + 1], alone(model, prompt + tokens[:i]))
    second.check_integrity()


def test_what_was_drafted_and_accepted_is_not_computed_again(model: Llama) -> None:
    second = runner_of(model)
    row = row_of(words(50), temperature=0)
    ((tokens, _),) = second.draft([row], [4], draw_drafts)
    computed: list[int] = []
    schedule = second._scheduler.schedule

    def counting(branches: object) -> object:
        batch = schedule(branches)  # type: ignore[arg-type]
        computed.append(batch.length)
        return batch

    second._scheduler.schedule = counting  # type: ignore[assignment]
    row = replace(row, tokens=row.tokens + array("q", [*tokens, 9]))
    second.draft([row], [2], draw_drafts)
    assert computed == [2, 1]


@built
def test_a_draft_ends_with_the_row_the_context_and_the_pages(model: Llama) -> None:
    text = words(30)
    tokens = greedy(model, text, 4)
    extend = draw_drafts

    def drafted(second: SecondModelRunner, rows: list[Row]) -> list[int]:
        return [len(tokens) for tokens, _ in second.draft(rows, [4] * len(rows), extend)]

    row = row_of(text, temperature=0)
    assert drafted(runner_of(model), [replace(row, end_ids=frozenset(tokens[2:3]))]) == [
        tokens.index(tokens[2]) + 1
    ]
    assert drafted(runner_of(model), [replace(row, limit=32)]) == [2]
    assert drafted(runner_of(model), [row_of(words(510), temperature=0)]) == [2]
    assert drafted(runner_of(model), [row_of(words(600), temperature=0)]) == [0]
    rows = [row_of(text, i, temperature=0) for i in range(3)]
    assert drafted(runner_of(model, pages=9), rows) == [4, 4, 0]
    banned = row_of(text, temperature=0, logit_bias=dict.fromkeys(range(VOCAB), -float("inf")))
    assert drafted(runner_of(model), [banned]) == [0]


def test_requests_that_ended_hold_nothing(model: Llama) -> None:
    second = runner_of(model, prefix_cache=False)
    rows = [row_of(words(40, i), i) for i in range(4)]
    second.logits([(row, ()) for row in rows] + [(rows[0], (1, 2))])
    second.retain(rows[2:])
    second.check_integrity()
    assert second._pages.available == 200 - 2 * 3
    second.retain([])
    assert second._pages.available == 200


@built
def test_an_interrupted_call_does_no_harm(model: Llama, monkeypatch: pytest.MonkeyPatch) -> None:
    second = runner_of(model, token_budget=16)
    runs = [(row_of(words(70, i), i), (3,)) for i in range(3)]
    hidden = second._runner.hidden
    calls = 0

    def interrupted(batch: object) -> object:
        nonlocal calls
        calls += 1
        if calls == 4:
            raise KeyboardInterrupt
        return hidden(batch)  # type: ignore[arg-type]

    monkeypatch.setattr(second._runner, "hidden", interrupted)
    with pytest.raises(KeyboardInterrupt):
        second.logits(runs)
    second.check_integrity()
    expected = torch.cat([alone(model, words(70, i), (3,)) for i in range(3)])
    assert torch.equal(second.logits(runs), expected)


def test_second_models_free_the_sequences_of_ended_requests(model: Llama) -> None:
    engine = make_engine(model, prefix_cache=False)
    params = GenerationParams(max_tokens=20, temperature=0, speculate=DraftModel("other"))
    draft_model = default_model(seed=1)
    for i in range(3):
        engine.add(words(40, i), params.replace(max_tokens=10 + 5 * i), draft_model=draft_model)
    held = []
    (second,) = engine._second_models.values()
    assert isinstance(second, SecondModelRunner)
    while engine.has_work():
        engine.step()
        engine.check_integrity()
        held.append(len(second._sequences))
    assert max(held) == 3
    assert held[-1] == 1
