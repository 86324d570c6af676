"""Checks prompts with vectors: with the embeddings of their tokens they give what the plain prompts give."""

from __future__ import annotations

import random
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from decodery import (
    LLM,
    BeamSearch,
    ContrastiveDecoding,
    ContrastiveSearch,
    DoLa,
    DraftModel,
    EmbeddedPrompt,
    GenerationParams,
    ParameterError,
    PromptLookup,
    Regex,
    RequestError,
    StochasticBeamSearch,
)
from decodery.engine.engine import Engine
from decodery.kernels.native.library import available
from decodery.outputs import RequestOutput
from tests.cli.conftest import WIDTH, write_model
from tests.kernels.native.fixtures import built

BASE = GenerationParams(max_tokens=12, seed=1, logprobs=2, ignore_eos=True)
EACH = [
    BASE.replace(temperature=0),
    BASE.replace(temperature=0.8, n=3),
    BASE.replace(strategy=BeamSearch(3, num_return_sequences=2)),
    BASE.replace(strategy=BeamSearch(2, force_words=("x",))),
    BASE.replace(strategy=StochasticBeamSearch(3)),
    BASE.replace(strategy=ContrastiveSearch(3)),
    BASE.replace(strategy=DoLa((0, 1))),
    BASE.replace(grammar=Regex("[a-z ]+"), speculate=PromptLookup()),
    BASE.replace(guidance_scale=1.4, negative_prompt="a sad story"),
    BASE.replace(guidance_scale=1.4),
    BASE.replace(prompt_logprobs=1, repetition_penalty=1.2),
    BASE.replace(best_of=3),
]
PROMPTS = [[(7 * i + 3 * j) % 256 for i in range(n)] for j, n in enumerate((1, 16, 17, 40, 60))]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> str:
    return write_model(tmp_path_factory.mktemp("tiny"))


@pytest.fixture(scope="module")
def llm(folder: str) -> LLM:
    return LLM(folder, dtype="float32", backend="native" if available() else "torch", kv_memory="16MB")


def rows_of(llm: LLM, ids: Sequence[int]) -> Tensor:
    embedding: Any = llm.model.embedding  # type: ignore[attr-defined]
    with torch.inference_mode():
        return embedding(torch.tensor(list(ids))).clone()


def with_vectors(
    llm: LLM, ids: Sequence[int], positions: Sequence[int], placeholder: int | None = None
) -> Any:
    """Returns a prompt with the embeddings of its tokens as vectors at these positions."""
    shown = [placeholder if placeholder is not None and p in positions else t for p, t in enumerate(ids)]
    return EmbeddedPrompt(shown, positions, rows_of(llm, [ids[p] for p in positions]))


def result_of(output: RequestOutput) -> Any:
    completions = [(c.text, c.token_ids, c.logprobs, c.score, c.finish_reason) for c in output.completions]
    return completions, output.prompt_logprobs, output.error


def jobs(llm: LLM) -> tuple[list[list[int]], list[EmbeddedPrompt], list[GenerationParams]]:
    """Returns prompts, the same prompts with vectors at random positions, and parameters for each."""
    source = random.Random(3)
    plain = [PROMPTS[i % len(PROMPTS)] for i in range(2 * len(EACH))]
    vectors = []
    for i, ids in enumerate(plain):
        positions = source.sample(range(len(ids)), source.randint(1, len(ids)))
        if i % 2:
            positions = [*{*positions, len(ids) - 1}]
        # Penalties and the prompt's log-probabilities depend on the tokens of the prompt, not on its vectors.
        reads_tokens = EACH[i % len(EACH)].prompt_logprobs is not None
        vectors.append(with_vectors(llm, ids, positions, placeholder=None if reads_tokens else 0))
    return plain, vectors, EACH * 2


@built
def test_embeddings_as_vectors_give_the_plain_text_bit_for_bit(llm: LLM) -> None:
    plain, vectors, params = jobs(llm)
    alone = [result_of(llm.generate([p], q)[0]) for p, q in zip(plain, params, strict=True)]
    assert [error for *_, error in alone] == [None] * len(alone)
    each = zip(vectors, params, strict=True)
    assert [result_of(llm.generate(v, q)[0]) for v, q in each] == alone
    # Each prompt with vectors beside plain ones, in one batch.
    both = llm.generate([*vectors, *plain], params * 2, progress=False)
    assert [result_of(output) for output in both] == alone * 2
    llm.engine.check_integrity()


@built
@pytest.mark.parametrize(
    ("budget", "pages", "prefix_cache"), [(5, 400, True), (16, 18, True), (64, 28, False)]
)
def test_chunks_and_preemption_change_no_text_of_vectors(
    llm: LLM, folder: str, budget: int, pages: int, prefix_cache: bool
) -> None:
    plain, vectors, params = jobs(llm)
    alone = [result_of(llm.generate([p], q)[0]) for p, q in zip(plain, params, strict=True)]
    scarce = LLM(
        folder,
        dtype="float32",
        kv_memory=pages * llm.engine.limits.page_bytes,
        token_budget=budget,
        prefix_cache=prefix_cache,
    )
    prompts: list[Any] = [v if i % 3 else p for i, (v, p) in enumerate(zip(vectors, plain, strict=True))]
    outputs = scarce.generate(prompts, params, progress=False)
    assert [result_of(output) for output in outputs] == alone
    assert pages == 400 or scarce.engine.preemptions > 0
    scarce.engine.check_integrity()


@built
def test_the_default_model_reads_the_embeddings_of_a_prompt_as_the_prompt(default_llm: LLM) -> None:
    llm = LLM(backend="native", kv_memory="64MB", context_length=512)
    ids = llm.tokenizer.encode("The quick brown fox jumps over the lazy dog, and then it")
    params = GenerationParams(max_tokens=8, temperature=0, logprobs=3)
    prompt = with_vectors(llm, ids, range(3, len(ids) - 2))
    assert result_of(llm.generate(prompt, params)[0]) == result_of(llm.generate([ids], params)[0])


def computed(engine: Engine, llm: LLM, prompt: Any) -> int:
    """Returns how many tokens of a prompt are run."""
    counts: list[int] = []
    schedule = engine._scheduler.schedule

    def counting(*arguments: Any) -> Any:
        batch = schedule(*arguments)
        counts.append(batch.length)
        return batch

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(engine._scheduler, "schedule", counting)
        llm.generate(prompt, GenerationParams(max_tokens=1, temperature=0))
    return sum(counts)


def test_pages_are_shared_up_to_the_first_that_holds_other_vectors(folder: str) -> None:
    llm = LLM(folder, dtype="float32", backend="torch", kv_memory="16MB")
    ids = [i % 256 for i in range(80)]
    positions = [20, 40]
    one = with_vectors(llm, ids, positions)
    vectors = one.embeddings.clone()
    vectors[1] += 1
    other = EmbeddedPrompt(ids, positions, vectors)
    assert computed(llm.engine, llm, one) == 80
    assert computed(llm.engine, llm, one) == 16
    # Pages 0 and 1 hold the same vectors.
    assert computed(llm.engine, llm, other) == 80 - 32
    # Page 0 holds none.
    assert computed(llm.engine, llm, [ids]) == 80 - 16
    moved = EmbeddedPrompt(ids, [21, 40], one.embeddings)
    assert computed(llm.engine, llm, moved) == 80 - 16


@built
def test_a_prefix_hit_changes_no_text_of_vectors(folder: str) -> None:
    warm, cold = (LLM(folder, dtype="float32", kv_memory="16MB", prefix_cache=hit) for hit in (True, False))
    plain, vectors, params = jobs(cold)
    expected = [result_of(cold.generate(v, q)[0]) for v, q in zip(vectors, params, strict=True)]
    for _ in range(2):
        assert [result_of(output) for output in warm.generate(vectors, params)] == expected
    assert expected == [result_of(warm.generate([p], q)[0]) for p, q in zip(plain, params, strict=True)]


def test_vectors_and_not_the_placeholders_are_read(llm: LLM) -> None:
    ids = [i * 5 % 256 for i in range(30)]
    hidden = with_vectors(llm, ids, [3, 4, 29], placeholder=0)
    (output,) = llm.generate(hidden, BASE.replace(temperature=0))
    (expected,) = llm.generate([ids], BASE.replace(temperature=0))
    assert output.completions == expected.completions
    assert output.prompt_token_ids == [0 if p in (3, 4, 29) else t for p, t in enumerate(ids)]
    (shifted,) = llm.generate(
        EmbeddedPrompt(hidden.token_ids, [29, 3, 4], 3 * hidden.embeddings[[2, 0, 1]] + 1),
        BASE.replace(temperature=0),
    )
    assert shifted.completions != expected.completions


def test_a_prompt_with_vectors_is_taken_wherever_a_prompt_is(llm: LLM) -> None:
    ids = [i * 5 % 256 for i in range(30)]
    prompt = with_vectors(llm, ids, [0, 7])
    pieces = "".join(event.text for event in llm.stream(prompt, BASE))
    assert pieces == llm.generate([ids], BASE)[0].completions[0].text
    assert llm.score([prompt, "abc"])[0] == llm.score([ids])[0]


def test_the_prompt_is_a_copy_in_the_order_of_positions() -> None:
    vectors = torch.arange(6.0).view(3, 2)
    prompt = EmbeddedPrompt([1, 2, 3, 4], [3, 0, 2], vectors)
    vectors.zero_()
    assert prompt.positions == (0, 2, 3)
    assert prompt.embeddings.tolist() == [[2, 3], [4, 5], [0, 1]]


ONE = torch.zeros(1, WIDTH)


@pytest.mark.parametrize(
    ("ids", "positions", "embeddings", "match"),
    [
        ([1, 2], [2], ONE, "positions must differ and lie in the prompt, from 0 to 1"),
        ([1, 2], [-1], ONE, "positions must differ and lie"),
        ([1, 2], [1, 1], torch.zeros(2, WIDTH), "positions must differ"),
        ([1, 2], [0, 1], ONE, "there are 2 positions and 1 embeddings"),
        ([1, 2], [0], torch.zeros(WIDTH), "a tensor"),
        ([1, 2], [0], [[0.0]], "a tensor"),
        ([1, 2], [0], ONE / 0, "finite"),
        ([1, 2.0], [0], ONE, "token_ids must be whole numbers"),
        ("ab", [0], ONE, "token_ids must be a list"),
        ([1, 2], [True], ONE, "positions must be whole numbers"),
    ],
)
def test_a_malformed_prompt_is_refused_when_it_is_built(
    ids: Any, positions: Any, embeddings: Any, match: str
) -> None:
    with pytest.raises(RequestError, match=match) as error:
        EmbeddedPrompt(ids, positions, embeddings)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize("embeddings", [torch.zeros(1, WIDTH + 1), ONE.double(), ONE.bfloat16(), ONE.long()])
def test_vectors_of_another_width_or_type_are_refused_with_the_models(llm: LLM, embeddings: Tensor) -> None:
    prompt = EmbeddedPrompt([1, 2], [0], embeddings)
    with pytest.raises(RequestError, match=rf"takes width {WIDTH} and type torch\.float32"):
        llm.generate(prompt, BASE)
    good, bad = llm.generate(["ab", prompt], BASE)
    assert good.error is None
    assert bad.error is not None
    assert bad.prompt_token_ids == [1, 2]
    assert not llm.engine.has_work()


def test_second_models_and_healed_vectors_are_refused(llm: LLM, tmp_path: Path) -> None:
    ids = llm.tokenizer.encode("hi")
    prompt = EmbeddedPrompt(ids, [1], ONE)
    for params in (
        BASE.replace(speculate=DraftModel(tmp_path)),
        BASE.replace(strategy=ContrastiveDecoding(tmp_path)),
    ):
        # Refused before the model is looked for.
        with pytest.raises(ParameterError, match="and an EmbeddedPrompt do not go together"):
            llm.generate(prompt, params)
    healing = BASE.replace(token_healing=True)
    with pytest.raises(RequestError, match="end the prompt with a token"):
        llm.generate(prompt, healing)
    (output,) = llm.generate(with_vectors(llm, ids, [0]), healing)
    assert output.completions == llm.generate("hi", healing)[0].completions
