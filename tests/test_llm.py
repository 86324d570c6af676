from __future__ import annotations

import json
import math
import random
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from torch import Tensor

from decodery import (
    LLM,
    BeamSearch,
    ContrastiveSearch,
    DecoderyError,
    DoLa,
    DraftModel,
    GenerationParams,
    ParameterError,
    PromptLookup,
    Regex,
    RequestError,
    RequestOutput,
)
from decodery.decoding.event import Event
from decodery.decoding.rows import Row, Scores, Verdict
from decodery.decoding.strategies.sampling import SamplingMethod
from decodery.text.tokenizer.tokenizer import Tokenizer
from tests.cli.conftest import write_model
from tests.kernels.native.fixtures import built

ORACLE = json.loads((Path(__file__).parent / "data" / "decoding-smollm2.json").read_text(encoding="utf-8"))
GREEDY = GenerationParams(max_tokens=40, temperature=0)
CASES = [case for case in ORACLE["cases"] if case["name"] == "greedy"]


@pytest.mark.parametrize("case", CASES, ids=lambda case: case["prompt"])
def test_greedy_is_the_oracles_token_for_token(default_llm: LLM, case: dict[str, Any]) -> None:
    (output,) = default_llm.generate(case["prompt"], GREEDY.replace(skip_special_tokens=False))
    assert output.prompt_token_ids == case["prompt_ids"]
    assert output.completions[0].token_ids == case["sequences"][0]
    # An end token is among the tokens, but not part of the text.
    assert output.completions[0].text == case["texts"][0].removesuffix("<|im_end|>")


@pytest.mark.parametrize("case", ORACLE["prompt_logprobs"], ids=lambda case: case["prompt"])
def test_prompt_logprobs_are_the_oracles(default_llm: LLM, case: dict[str, Any]) -> None:
    params = GREEDY.replace(max_tokens=1, prompt_logprobs=0, logprobs=10)
    (output,) = default_llm.generate(case["prompt"], params)
    assert output.prompt_logprobs is not None
    logprobs = [entry and entry.logprob for entry in output.prompt_logprobs]
    assert logprobs[0] is None
    assert logprobs[1:] == pytest.approx(case["token_logprobs"][1:], abs=1e-3)
    assert output.completions[0].logprobs is not None
    top = output.completions[0].logprobs[0].top
    assert [token for token, _ in top] == [token for token, _ in case["next_top10"]]
    assert [p for _, p in top] == pytest.approx([p for _, p in case["next_top10"]], abs=1e-3)


def test_score_sums_the_logprobs(default_llm: LLM) -> None:
    scores = default_llm.score([case["prompt"] for case in ORACLE["prompt_logprobs"]])
    for score, case in zip(scores, ORACLE["prompt_logprobs"], strict=True):
        assert score.token_ids == case["ids"]
        total = sum(case["token_logprobs"][1:])
        assert score.total == pytest.approx(total, abs=1e-3)
        assert score.perplexity == pytest.approx(math.exp(-total / (len(case["ids"]) - 1)), rel=1e-3)


def mixed(llm: LLM, count: int, longest: int) -> list[tuple[list[int], GenerationParams]]:
    rng = random.Random(0)
    variants: list[dict[str, Any]] = [
        {"temperature": 0},
        {"temperature": 0.8, "top_p": 0.95},
        {"temperature": 0, "repetition_penalty": 1.3},
        {"top_k": 30, "min_p": 0.02, "frequency_penalty": 0.4},
    ]
    lengths = [1, longest, 7, 16, 100, 33, longest // 2, 150]
    return [
        (
            [rng.randrange(100, 40_000) for _ in range(lengths[i % 8])],
            GenerationParams(max_tokens=6, seed=i, logprobs=i % 5, **variants[i % 4]),
        )
        for i in range(count)
    ]


def tokens_of(llm: LLM, jobs: list[tuple[list[int], GenerationParams]]) -> list[Any]:
    outputs = llm.generate([prompt for prompt, _ in jobs], [params for _, params in jobs])
    return [(o.completions[0].token_ids, o.completions[0].logprobs) for o in outputs]


def check_batched_equals_alone(llm: LLM, count: int, longest: int) -> None:
    jobs = mixed(llm, count, longest)
    alone = [tokens_of(llm, [job])[0] for job in jobs]
    # The second run together finds every prompt in the prefix cache.
    assert tokens_of(llm, jobs) == alone
    assert tokens_of(llm, jobs[::-1]) == alone[::-1]
    pages = max(len(prompt) for prompt, _ in jobs) // 16 + 3
    memory = pages * llm.engine.limits.page_bytes
    scarce = LLM(backend="native", token_budget=16, kv_memory=memory, prefix_cache=False)
    assert tokens_of(scarce, jobs) == alone


def test_batched_equals_alone(native_llm: LLM) -> None:
    check_batched_equals_alone(native_llm, 8, 140)


def test_eight_strategies_together_give_what_each_gives_alone(native_llm: LLM) -> None:
    base = GREEDY.replace(max_tokens=6, logprobs=1, seed=3)
    each = [
        base,
        base.replace(temperature=0.8, top_p=0.9, n=2),
        base.replace(strategy=BeamSearch(3)),
        base.replace(strategy=BeamSearch(4, num_beam_groups=2, diversity_penalty=0.5)),
        base.replace(strategy=ContrastiveSearch(3)),
        base.replace(strategy=DoLa("low")),
        base.replace(grammar=Regex("[a-z ]+"), speculate=PromptLookup()),
        base.replace(guidance_scale=1.4, negative_prompt="A sad story."),
    ]

    def results(outputs: list[RequestOutput]) -> list[Any]:
        return [[(c.token_ids, c.logprobs, c.score) for c in output.completions] for output in outputs]

    prompts = ["Once upon a time", "The capital of France is"] * 4
    alone = [results(native_llm.generate(p, params))[0] for p, params in zip(prompts, each, strict=True)]
    assert results(native_llm.generate(prompts, each)) == alone


@pytest.mark.slow
def test_32_requests_of_up_to_600_tokens_batched_equal_alone(native_llm: LLM) -> None:
    check_batched_equals_alone(native_llm, 32, 600)


def test_streamed_pieces_are_the_text_of_generate(native_llm: LLM) -> None:
    params = GenerationParams(max_tokens=30, temperature=1.5, seed=3, n=2)
    (whole,) = native_llm.generate("日本語 and emoji 🙂:", params)
    pieces = ["", ""]
    tokens: list[list[int]] = [[], []]
    for event in native_llm.stream("日本語 and emoji 🙂:", params):
        pieces[event.index] += event.text
        tokens[event.index] += event.token_ids
    assert pieces == [c.text for c in whole.completions]
    assert tokens == [c.token_ids for c in whole.completions]


def test_a_stop_string_cuts_exactly_and_is_never_shown(native_llm: LLM) -> None:
    (free,) = native_llm.generate("Once upon a time", GREEDY)
    text = free.completions[0].text
    stop = text[60:66]
    params = GREEDY.replace(stop=[stop, "never to be met"])
    shown = "".join(event.text for event in native_llm.stream("Once upon a time", params))
    (cut,) = native_llm.generate("Once upon a time", params)
    assert shown == cut.completions[0].text == text[: text.index(stop)]
    assert cut.completions[0].finish_reason == "stop"
    assert cut.completions[0].stop_reason == stop
    (kept,) = native_llm.generate("Once upon a time", params.replace(include_stop=True))
    assert kept.completions[0].text == text[: text.index(stop) + len(stop)]


def test_min_tokens_lets_an_early_stop_string_pass(native_llm: LLM) -> None:
    (free,) = native_llm.generate("Once upon a time", GREEDY)
    text = free.completions[0].text
    (cut,) = native_llm.generate("Once upon a time", GREEDY.replace(stop=[","], min_tokens=10))
    first, second = text.index(","), text.index(",", text.index(",") + 1)
    assert first == 0
    assert cut.completions[0].text == text[:second]
    assert len(cut.completions[0].token_ids) >= 10


def test_an_end_token_is_among_the_tokens_and_not_in_the_text(default_llm: LLM) -> None:
    (output,) = default_llm.generate("The capital of France is", GREEDY)
    completion = output.completions[0]
    assert completion.finish_reason == "stop"
    assert completion.stop_reason == completion.token_ids[-1] == 2
    assert "<|im_end|>" not in completion.text
    ignoring = GREEDY.replace(ignore_eos=True)
    assert (
        default_llm.generate("The capital of France is", ignoring)[0].completions[0].finish_reason == "length"
    )


def test_chat_follows_the_template(native_llm: LLM) -> None:
    messages = [{"role": "user", "content": "Say hello."}]
    ids = native_llm.chat_prompt(messages)
    text = native_llm.tokenizer.decode(ids, skip_special_tokens=False)
    assert text.startswith("<|im_start|>system\n")
    assert text.endswith("<|im_start|>user\nSay hello.<|im_end|>\n<|im_start|>assistant\n")
    (output,) = native_llm.chat(messages, GREEDY)
    assert output.completions[0].text == native_llm.generate([ids], GREEDY)[0].completions[0].text
    assert len(native_llm.chat([messages, messages], GREEDY.replace(max_tokens=2))) == 2


def test_the_reported_seed_repeats_the_text(native_llm: LLM) -> None:
    params = GenerationParams(max_tokens=12)
    (first,) = native_llm.generate("Once", params)
    (again,) = native_llm.generate("Once", params.replace(seed=first.seed))
    assert again.completions == first.completions
    (other,) = native_llm.generate("Once", params)
    assert other.seed != first.seed


def test_the_observer_sees_every_token(native_llm: LLM) -> None:
    seen: list[Event] = []
    (output,) = native_llm.generate("Once", GREEDY.replace(max_tokens=3), observer=seen.append)
    assert [c.token for e in seen for c in e.considered] == output.completions[0].token_ids


def test_an_observer_sees_its_own_requests_and_may_raise(native_llm: LLM) -> None:
    params = GREEDY.replace(max_tokens=8)
    expected = native_llm.generate("Once upon a time", params)[0].completions[0].token_ids
    stream = native_llm.stream("Once upon a time", params)
    tokens = list(next(stream).token_ids)

    def refuse(event: Event) -> None:
        raise KeyError(event.request)

    with pytest.raises(KeyError):
        native_llm.generate("Something else", params, observer=refuse)
    for event in stream:
        tokens += event.token_ids
    assert tokens == expected


def test_generate_and_stream_take_turns(native_llm: LLM) -> None:
    expected = native_llm.generate("Once upon a time", GREEDY.replace(max_tokens=8))[0].completions[0].text
    stream = native_llm.stream("Once upon a time", GREEDY.replace(max_tokens=8))
    start = next(stream).text
    native_llm.generate("Something else", GREEDY.replace(max_tokens=20))
    assert start + "".join(event.text for event in stream) == expected


def test_a_closed_stream_leaves_nothing_behind(default_llm: LLM) -> None:
    for taken in range(2):
        stream = default_llm.stream("Once", GREEDY)
        for _ in range(taken):
            next(stream)
        stream.close()
        assert not default_llm.engine.has_work()
    default_llm.engine.check_integrity()


BAD: list[tuple[Any, Any, str]] = [
    ("", None, "empty"),
    ([""], None, "empty"),
    ([10**6], None, "token 1000000"),
    ("a " * 9000, None, "context holds 8192"),
    (["a", "b"], [GREEDY], "2 prompts and 1 params"),
    ([3.5], None, "not 3.5"),
    ([[1.5]], None, "whole numbers"),
    ([[1, "a"]], None, "whole numbers"),
    (b"ab", None, "not bytes"),
    ([b"ab"], None, "not bytes"),
    (None, None, "not NoneType"),
    ("a", {"temperature": 0}, "params must be"),
]


@pytest.mark.parametrize(("prompts", "params", "match"), BAD, ids=lambda value: str(value)[:20])
def test_a_bad_request_is_one_line_and_nothing_is_left_behind(
    default_llm: LLM, prompts: Any, params: Any, match: str
) -> None:
    with pytest.raises((RequestError, ParameterError), match=match) as error:
        default_llm.generate(prompts, params)
    assert "\n" not in str(error.value)
    assert not default_llm.engine.has_work()


def test_one_bad_request_of_several_fails_alone(native_llm: LLM) -> None:
    prompts: list[Any] = ["Once upon a time", "", [10**6], "Once upon a time", "x"]
    params = [GREEDY.replace(max_tokens=4)] * 5
    params[3] = params[3].replace(grammar=Regex("(unclosed"))
    params[4] = params[4].replace(strategy=BeamSearch(2, force_words=("a phrase too long for it",)))
    outputs = native_llm.generate(prompts, params)
    (alone,) = native_llm.generate("Once upon a time", params[0])
    assert outputs[0].error is None
    assert outputs[0].completions[0].text == alone.completions[0].text
    errors = [output.error or "" for output in outputs[1:]]
    for error, word in zip(errors, ("empty", "token 1000000", "Regex", "force_words"), strict=True):
        assert word in error
        assert "\n" not in error
    assert all(output.completions == [] for output in outputs[1:])
    assert not native_llm.engine.has_work()


@pytest.mark.parametrize(
    ("settings", "match"),
    [
        ({"dtype": "int3"}, "dtype"),
        ({"backend": "abacus"}, "backend"),
        ({"quantization": "int3"}, "quantization"),
        ({"quantization": "int4", "backend": "torch"}, "quantization=int4 and backend=torch"),
        ({"context_length": 0}, "context_length"),
        ({"context_length": 10**6}, "context_length"),
        ({"kv_memory": "much"}, "memory size"),
        ({"kv_memory": 10}, "kv_memory"),
        ({"kv_dtype": "int4"}, "kv_dtype must be auto"),
        ({"threads": 0}, "threads"),
        ({"threads": 1.5}, "threads"),
        ({"threads": 10**11}, "threads must be at most"),
        ({"context_length": 100.5}, "context_length"),
        ({"token_budget": "x"}, "token_budget"),
        ({"model": 5}, "model"),
    ],
)
def test_a_bad_setting_is_one_line(default_llm: LLM, settings: dict[str, Any], match: str) -> None:
    with pytest.raises(DecoderyError, match=match) as error:
        LLM(**settings)
    assert "\n" not in str(error.value)


@built
@pytest.mark.parametrize("form", [None, "int4", "int8", "bf16"])
def test_a_packed_model_and_the_draft_model_that_it_opens_have_the_form_that_is_asked_for(
    form: str | None, tmp_path: Path
) -> None:
    folder = write_model(tmp_path)
    llm = LLM(folder, quantization=form)
    expected = {None: "FLOAT32", "int4": "INT4_MIN", "int8": "INT8", "bf16": "BFLOAT16"}[form]
    greedy = GREEDY.replace(max_tokens=8, ignore_eos=True)
    (plain,) = llm.generate("abc", greedy)
    (drafted,) = llm.generate("abc", greedy.replace(speculate=DraftModel(folder)))
    assert drafted.completions[0].token_ids == plain.completions[0].token_ids
    for model in (llm.model, llm.intake._second_models.named("DraftModel's model", folder)):
        assert model.layers[0].mlp.down.weight.format.name == expected  # type: ignore[attr-defined]


def test_a_request_that_fails_midway_keeps_its_text_and_fails_alone(native_llm: LLM) -> None:
    free = native_llm.generate("Once upon a time", GREEDY.replace(max_tokens=6))[0].completions[0]
    engine = native_llm.engine
    judge = SamplingMethod.judge

    def failing(self: SamplingMethod, rows: Sequence[Row], scores: Scores) -> Verdict:
        verdict = judge(self, rows, scores)
        spent = [i for i, row in enumerate(rows) if row.generated == 4 and row.params.stop]
        kept = [s for s in verdict.survivors if s.parent not in spent]
        return Verdict(kept, failures=[(i, "made to fail") for i in spent])

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(SamplingMethod, "judge", failing)
        params = GREEDY.replace(max_tokens=6, stop=(free.text[4:40] + "never",), speculate=None)
        bad, good = native_llm.generate(["Once upon a time"] * 2, [params, GREEDY.replace(max_tokens=6)])
    assert bad.error == "made to fail"
    assert bad.completions[0].finish_reason == "error"
    assert bad.completions[0].token_ids == free.token_ids[:4]
    assert bad.completions[0].text == native_llm.tokenizer.decode(free.token_ids[:4])
    assert good.completions[0].text == free.text
    assert not engine.has_work()


def test_a_function_that_fails_ends_its_own_request_alone(native_llm: LLM) -> None:
    def failing(ids: list[int], logits: Tensor) -> Tensor:
        return logits if len(ids) < 6 else logits[:5]

    def refusing(ids: list[int]) -> bool:
        raise KeyError("no")

    good = GREEDY.replace(max_tokens=5)
    each = [good, good.replace(logits_processors=failing), good.replace(stop_when=refusing), good]
    outputs = native_llm.generate(["Once upon a time"] * 4, each)
    assert [output.error is None for output in outputs] == [True, False, False, True]
    assert outputs[0].completions[0].token_ids == outputs[3].completions[0].token_ids
    assert "failing returned" in (outputs[1].error or "")
    assert outputs[1].completions[0].token_ids == outputs[0].completions[0].token_ids[:2]
    assert "stop_when failed" in (outputs[2].error or "")
    assert not native_llm.engine.has_work()


def test_a_bar_counts_the_prompts_and_leaves_the_output_alone(
    default_llm: LLM, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    counted: list[str] = []

    @contextmanager
    def counting(description: str, total: int) -> Iterator[Callable[[], None]]:
        counted.append(f"{description} {total}")
        yield lambda: counted.append("one")

    params = GREEDY.replace(max_tokens=1)
    default_llm.generate(["a", "b"], params)
    default_llm.generate(["a", "b"], params, progress=True)
    assert capsys.readouterr().out == ""
    monkeypatch.setattr("decodery.progress.counting", counting)
    monkeypatch.setattr("sys.stderr.isatty", lambda: True)
    default_llm.generate("a", params)
    assert counted == []
    default_llm.generate(["a", "b", "c"], params)
    assert counted == ["generating 3", "one", "one", "one"]


def test_rows_of_a_model_without_a_token_end_nobody(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = write_model(tmp_path)
    read = Tokenizer.from_folder

    def shorter(path: Path) -> Tokenizer:
        tokenizer = read(path)
        # A GGUF file may list fewer tokens than its embedding has rows.
        tokenizer.vocab_size = tokenizer._spelled = 200
        return tokenizer

    monkeypatch.setattr(Tokenizer, "from_folder", shorter)
    llm = LLM(folder, dtype="float32")
    (output,) = llm.generate([[65]], GenerationParams(max_tokens=3, logit_bias={230: 1000.0}))
    assert output.completions[0].token_ids == [230] * 3
    assert output.completions[0].text == ""


def test_a_healed_prompt_goes_on_where_it_ended_and_stops_at_nothing_of_it(native_llm: LLM) -> None:
    params = GREEDY.replace(max_tokens=8, token_healing=True, stop=(":", "p:"), ignore_eos=True)
    (output,) = native_llm.generate("The address is http:", params)
    assert output.completions[0].text.startswith("//")
    assert output.completions[0].finish_reason == "length"
    streamed = "".join(event.text for event in native_llm.stream("The address is http:", params))
    assert streamed == output.completions[0].text
