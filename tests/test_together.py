"""Runs strategies, grammars and drafts in one batch of an LLM, over a tiny model whose tokens are bytes."""

from __future__ import annotations

import json
import random
import re
from array import array
from collections.abc import Sequence
from typing import Any

import numpy as np
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
    GenerationParams,
    JsonSchema,
    PromptLookup,
    Regex,
    RequestError,
    StochasticBeamSearch,
    Watermark,
)
from decodery.decoding.processors.watermark import detect
from decodery.engine.embedded_prompt import EmbeddedPrompt
from decodery.outputs import RequestOutput
from tests.cli.conftest import write_model
from tests.decoding.grammar.test_json_schema import random_schema, valid
from tests.kernels.native.fixtures import built

BASE = GenerationParams(max_tokens=20, seed=1, logprobs=2, ignore_eos=True)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> str:
    return write_model(tmp_path_factory.mktemp("tiny"))


@pytest.fixture(scope="module", params=["torch", pytest.param("native", marks=built)])
def llm(request: pytest.FixtureRequest, folder: str) -> LLM:
    return LLM(folder, dtype="float32", backend=request.param, kv_memory="64MB")


@pytest.fixture(scope="module")
def native(folder: str) -> LLM:
    """Returns the model on the native backend, on which equality is bit for bit."""
    return LLM(folder, dtype="float32", backend="native", kv_memory="64MB")


def strategies(second: Any) -> list[GenerationParams]:
    """Returns requests of eight strategies and more, each with another feature."""
    greedy = BASE.replace(temperature=0)
    return [
        greedy.replace(repetition_penalty=1.2),
        BASE.replace(temperature=0.9, top_p=0.9, n=2),
        greedy.replace(strategy=BeamSearch(3, num_return_sequences=2), no_repeat_ngram_size=2),
        BASE.replace(strategy=BeamSearch(3, sample=True), temperature=0.7),
        greedy.replace(strategy=BeamSearch(4, num_beam_groups=2, diversity_penalty=0.5)),
        greedy.replace(strategy=BeamSearch(3, force_words=((65, 66),))),
        BASE.replace(strategy=StochasticBeamSearch(3)),
        greedy.replace(strategy=ContrastiveSearch(3, 0.5)),
        BASE.replace(strategy=ContrastiveDecoding(second), top_k=20),
        greedy.replace(strategy=DoLa("low"), presence_penalty=0.2),
        BASE.replace(guidance_scale=1.5, negative_prompt="no, never", temperature=0.8),
        greedy.replace(grammar=Regex("([a-z]{3} )+"), speculate=PromptLookup()),
        BASE.replace(mirostat_mode=2, speculate=DraftModel(second)),
        BASE.replace(strategy=BeamSearch(2), grammar=Regex("[0-9]+(,[0-9]+)*")),
    ]


PROMPTS = ["abc abd abc abe", "x", "The quick brown fox. " * 4, "abc abd abc abf"]


def result_of(output: RequestOutput) -> Any:
    assert output.error is None
    return [(c.text, c.token_ids, c.logprobs, c.finish_reason, c.score) for c in output.completions]


def jobs(second: Any) -> tuple[list[str], list[GenerationParams]]:
    params = strategies(second)
    return [PROMPTS[i % 4] for i in range(len(params))], params


@pytest.fixture(scope="module")
def alone(native: LLM, folder: str) -> list[Any]:
    return [
        result_of(native.generate(prompt, params)[0]) for prompt, params in zip(*jobs(folder), strict=True)
    ]


def together(llm: LLM, prompts: Sequence[str], params: Sequence[GenerationParams]) -> list[Any]:
    return [result_of(output) for output in llm.generate(prompts, params, progress=False)]


def test_strategies_run_together(llm: LLM, folder: str) -> None:
    prompts, params = jobs(folder)
    for found, asked in zip(together(llm, prompts, params), params, strict=True):
        assert len(found) == asked.streams
        assert all(1 <= len(tokens) <= 20 for _, tokens, *_ in found)
    llm.engine.check_integrity()


@built
def test_strategies_together_give_what_each_gives_alone(native: LLM, folder: str, alone: list[Any]) -> None:
    prompts, params = jobs(folder)
    assert together(native, prompts, params) == alone
    assert together(native, prompts[::-1], params[::-1]) == alone[::-1]
    native.engine.check_integrity()


@built
@pytest.mark.parametrize(("pages", "prefix_cache"), [(16, True), (28, False)])
def test_scarce_pages_and_small_steps_change_nothing(
    folder: str, alone: list[Any], pages: int, prefix_cache: bool
) -> None:
    page = LLM(folder, dtype="float32", backend="native", kv_memory="1MB").engine.limits.page_bytes
    scarce = LLM(
        folder,
        dtype="float32",
        backend="native",
        kv_memory=2 * pages * page,  # The second model takes half of it.
        token_budget=16,
        prefix_cache=prefix_cache,
    )
    assert together(scarce, *jobs(folder)) == alone
    assert scarce.engine.preemptions > 0
    assert scarce.engine.limits.pages == pages
    scarce.engine.check_integrity()


@built
@pytest.mark.parametrize("kv_dtype", ["float16", "bfloat16", "int8"])
def test_a_cache_of_any_precision_gives_each_request_what_it_gets_alone(
    folder: str, alone: list[Any], kv_dtype: str
) -> None:
    def opened(pages: int, **more: Any) -> LLM:
        made = LLM(folder, dtype="float32", backend="native", kv_memory="1MB", kv_dtype=kv_dtype)
        memory = 2 * pages * made.engine.limits.page_bytes  # The second model takes half of it.
        return LLM(folder, dtype="float32", backend="native", kv_memory=memory, kv_dtype=kv_dtype, **more)

    plenty, scarce = opened(500), opened(16, token_budget=16)
    prompts, params = jobs(folder)
    expected = [
        result_of(plenty.generate(prompt, one)[0]) for prompt, one in zip(prompts, params, strict=True)
    ]
    assert together(plenty, prompts, params) == expected
    assert together(scarce, prompts, params) == expected
    assert scarce.engine.preemptions > 0
    assert (expected == alone) == (kv_dtype == "float16")


@built
def test_streamed_is_generated_whatever_the_strategy(native: LLM, folder: str, alone: list[Any]) -> None:
    for prompt, params, expected in zip(*jobs(folder), alone, strict=True):
        texts: dict[int, str] = {}
        for event in native.stream(prompt, params):
            texts[event.index] = texts.get(event.index, "") + event.text
        assert [texts[i] for i in sorted(texts)] == [text for text, *_ in expected]


SCHEMAS = range(120)


def schema_jobs() -> list[tuple[dict[str, Any], GenerationParams]]:
    ways: list[dict[str, Any]] = [
        {"strategy": BeamSearch(3)},
        {"strategy": BeamSearch(2, sample=True)},
        {"speculate": PromptLookup()},
        {"temperature": 0, "speculate": PromptLookup(acceptance="rejection")},
        {"strategy": ContrastiveSearch(3)},
        {"n": 2},
    ]
    found = []
    for seed in SCHEMAS:
        source = random.Random(seed)
        schema = random_schema(source)
        schema["$defs"] = {name: random_schema(source, 1, refs=False) for name in "uv"}
        params = GenerationParams(max_tokens=80, seed=seed, grammar=JsonSchema(schema), **ways[seed % 6])
        found.append((schema, params))
    return found


def test_schemas_hold_with_beams_and_with_drafts(llm: LLM) -> None:
    listed = schema_jobs()
    outputs = llm.generate(["a: "] * len(listed), [params for _, params in listed], progress=False)
    whole = 0
    for (schema, _), output in zip(listed, outputs, strict=True):
        assert output.error is None
        for completion in output.completions:
            if completion.finish_reason == "stop":
                whole += 1
                assert valid(json.loads(completion.text), schema, schema), (schema, completion.text)
            else:
                assert completion.finish_reason == "length"
    assert whole > 60


@built
def test_drafts_change_nothing_with_grammars_and_penalties(native: LLM, folder: str) -> None:
    source = random.Random(0)
    patterns = ["(ab|cd|[x-z])+", "[a-e ]{5,}", '\\{"(name|names)": [0-9]+\\}', "(yes|no)( (yes|no))*"]
    plain = [
        GenerationParams(
            max_tokens=16,
            seed=i,
            logprobs=0,
            temperature=source.choice([0, 0.5, 1.0]),
            grammar=Regex(source.choice(patterns)) if i % 2 else None,
            repetition_penalty=source.choice([1.0, 1.3]),
            frequency_penalty=source.choice([0.0, 0.4]),
            top_k=source.choice([0, 20]),
        )
        for i in range(100)
    ]
    prompts = [source.choice(PROMPTS) for _ in plain]
    expected = together(native, prompts, plain)
    for speculation in (PromptLookup(num_tokens=5), DraftModel(folder)):
        drafting = [params.replace(speculate=speculation) for params in plain]
        assert together(native, prompts, drafting) == expected


def test_text_ends_where_the_regex_would_take_no_more(llm: LLM) -> None:
    params = GenerationParams(max_tokens=20, grammar=Regex("[ab]{4}-[0-9]{3}"), n=3, seed=2)
    for completion in llm.generate("code: ", params)[0].completions:
        assert re.fullmatch("[ab]{4}-[0-9]{3}", completion.text)
        assert completion.finish_reason == "stop"


@built
def test_a_fork_that_runs_alone_is_run_though_the_budget_is_used_up(folder: str) -> None:
    schema = {
        "type": "object",
        "properties": {"name": {"type": "string", "maxLength": 9}, "age": {"type": "integer"}},
        "required": ["name", "age"],
        "additionalProperties": False,
    }
    drafting = GenerationParams(
        max_tokens=40, temperature=0, speculate=PromptLookup(), allowed_token_ids=(65, 66, 67)
    )
    held = GenerationParams(max_tokens=40, strategy=ContrastiveSearch(4), grammar=JsonSchema(schema))
    single = GenerationParams(max_tokens=40, strategy=ContrastiveSearch(1, 0.0))
    prompts = ["ABCABCABCABC"] * 3 + ["hello", "hello", "oth"]
    params = [drafting] * 3 + [held, single, GenerationParams(max_tokens=40, strategy=ContrastiveSearch(3))]
    plain = LLM(folder, dtype="float32", backend="native", kv_memory="64MB")
    expected = [result_of(plain.generate(p, q)[0]) for p, q in zip(prompts, params, strict=True)]

    def small(budget: int) -> LLM:
        return LLM(folder, dtype="float32", backend="native", token_budget=budget)

    for budget in (3, 8, 9, 11, 16):
        assert together(small(budget), prompts, params) == expected


@built
def test_a_function_that_fails_while_drafting_ends_its_own_request_alone(native: LLM, folder: str) -> None:
    def failing(ids: list[int]) -> bool:
        if len(ids) > 3:
            raise ValueError("enough")
        return False

    good = GenerationParams(max_tokens=12, seed=1, speculate=DraftModel(folder))
    outputs = native.generate(["hello abab ab"] * 2, [good.replace(stop_when=failing), good])
    assert "stop_when failed" in (outputs[0].error or "")
    assert result_of(outputs[1]) == result_of(native.generate("hello abab ab", good)[0])


def test_what_a_grammar_bans_no_other_setting_allows(llm: LLM) -> None:
    def everything(ids: list[int], logits: Tensor) -> Tensor:
        return torch.zeros_like(logits)

    held = GenerationParams(max_tokens=6, seed=1, grammar=Regex("[ab]{3}(cc|dd){9}"))
    for params in (held.replace(logits_processors=everything), held.replace(forced_eos_token_id=256)):
        (completion,) = llm.generate("x", params)[0].completions
        assert re.fullmatch("[ab]{3}[cd]{3}", completion.text)
        assert completion.finish_reason == "length"
    (refused,) = llm.generate(["x"], held.replace(forced_bos_token_id=90))
    assert "forced_bos" in (refused.error or "")


def test_a_text_that_cannot_be_scored_is_an_error(llm: LLM) -> None:
    with pytest.raises(RequestError, match="text 2 of 2"):
        llm.score(["The cat", ""])


def test_malformed_requests_of_several_fail_alone(llm: LLM) -> None:
    good = GenerationParams(max_tokens=2)
    prompts: list[Any] = [None, ["a"], "ok", "ok"]
    each: list[Any] = [good, good, None, good]
    outputs = llm.generate(prompts, each)
    assert [output.error is None for output in outputs] == [False, False, False, True]


@pytest.mark.parametrize(
    "changes",
    [
        {},
        {"n": 2, "logprobs": None},
        {"speculate": PromptLookup()},
        {"speculate": PromptLookup(acceptance="rejection")},
        {"speculate": "draft model"},
        {"speculate": "draft model", "n": 3},
    ],
    ids=str,
)
def test_where_a_ban_meets_a_grammar_the_tokens_before_are_kept(
    llm: LLM, folder: str, changes: dict[str, Any]
) -> None:
    banned = llm.tokenizer.token_id("7")
    assert banned is not None
    speculate = changes.get("speculate")
    changes = {**changes, "speculate": DraftModel(folder) if speculate == "draft model" else speculate}
    patterns = {"abcdef7gh": "abcdef", "[ab]{5}7": "[ab]{5}", "(abc7|abd7)": "ab[cd]", "7a": ""}
    for pattern, before in patterns.items():
        params = BASE.replace(grammar=Regex(pattern), suppress_tokens=(banned,), **changes)
        (output,) = llm.generate("abcdef7gh abcdef", params)
        assert "banned by grammar and suppress_tokens" in (output.error or "")
        for completion in output.completions:
            assert completion.finish_reason == "error"
            assert re.fullmatch(before, completion.text)
    llm.engine.check_integrity()


FORMS = {
    "numpy": np.array,
    "numpy, small": lambda ids: np.array(ids, dtype=np.int16),
    "torch": torch.tensor,
    "list of numpy": lambda ids: [np.int64(token) for token in ids],
    "list of torch": lambda ids: list(torch.tensor(ids)),
    "array": lambda ids: array("q", ids),
}


@pytest.mark.parametrize("form", FORMS)
def test_arrays_of_numpy_and_torch_are_token_ids_wherever_these_are_taken(llm: LLM, form: str) -> None:
    of, ids, others = FORMS[form], [70, 71, 72, 73], [5, 6, 7]
    params = BASE.replace(max_tokens=4)
    expected = result_of(llm.generate([ids], params)[0])
    assert result_of(llm.generate(of(ids), params)[0]) == expected
    both = [result_of(output) for output in llm.generate([ids, others], params)]
    assert [result_of(output) for output in llm.generate([of(ids), of(others)], params)] == both
    assert llm.generate(of(ids), params)[0].prompt_token_ids == ids
    assert json.dumps(llm.generate(of(ids), params)[0].prompt_token_ids)
    assert [e.token_ids for e in llm.stream(of(ids), params)] == [
        e.token_ids for e in llm.stream(ids, params)
    ]
    assert llm.score(of(ids)) == llm.score([ids])
    assert llm.score([of(others)], prefix=of(ids)) == llm.score([others], prefix=ids)
    special = llm.tokenizer.encode("a<|user|>b")
    for skip in (False, True):
        text = llm.tokenizer.decode(special, skip_special_tokens=skip)
        assert llm.tokenizer.decode(of(special), skip_special_tokens=skip) == text
    assert EmbeddedPrompt(of(ids), of([1]), torch.zeros(1, 32)).token_ids == tuple(ids)
    assert detect(of(ids * 9), Watermark(), 259) == detect(ids * 9, Watermark(), 259)


def test_a_matrix_of_token_ids_is_one_prompt_in_each_row(llm: LLM) -> None:
    params = BASE.replace(max_tokens=3)
    expected = [result_of(output) for output in llm.generate([[70, 71], [72, 73]], params)]
    for matrix in (np.array([[70, 71], [72, 73]]), torch.tensor([[70, 71], [72, 73]])):
        assert [result_of(output) for output in llm.generate(matrix, params)] == expected


WRONG_PROMPTS: list[Any] = [
    *(torch.tensor([[[1]]]), torch.tensor([[[1], [2]], [[3], [4]]]), np.zeros((2, 2, 0), int)),
    *([np.True_, 3], np.array([True, False]), np.array([[True], [False]])),
    *(np.array([504.0, 3575.0]), torch.tensor([1.0]), np.array([[1.0], [2.0]]), [504.0, 3575.0]),
    *([np.float32(1), 2], np.array([1j, 2j])),
]


@pytest.mark.parametrize("prompts", WRONG_PROMPTS, ids=repr)
def test_numbers_that_are_no_token_ids_are_refused_as_one_prompt(llm: LLM, prompts: Any) -> None:
    with pytest.raises(RequestError, match="whole numbers"):
        llm.generate(prompts, BASE)
