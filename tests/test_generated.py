"""Checks that a request whose prompt ends with generated text goes on as the request that generated it."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from decodery import (
    LLM,
    BeamSearch,
    ContrastiveDecoding,
    ContrastiveSearch,
    DoLa,
    EmbeddedPrompt,
    GenerationParams,
    JsonSchema,
    ParameterError,
    PromptLookup,
    Regex,
    RequestError,
    StochasticBeamSearch,
    Watermark,
)
from decodery.collector import Collector
from decodery.outputs import Completion, RequestOutput
from tests.cli.conftest import write_model

PROMPT = "abab cdcd abab ce"
# So few that the penalties of repetition matter.
FEW = tuple(range(60, 68))
BASE = GenerationParams(max_tokens=20, seed=5, ignore_eos=True)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> str:
    return write_model(tmp_path_factory.mktemp("tiny"))


@pytest.fixture(scope="module")
def llm(folder: str) -> LLM:
    return LLM(folder, dtype="float32", kv_memory="16MB")


def continued(llm: LLM, prompt: list[int], params: GenerationParams, given: list[int]) -> RequestOutput:
    """Returns the output of a request whose text begins with the `given` tokens."""
    prepared = llm.intake.prepare([*prompt, *given], params, generated=len(given))
    request = prepared.add_with(llm.engine.add)
    output = RequestOutput(prepared.text, prepared.token_ids, [], llm.engine.seed_of(request))
    collector = Collector(
        output,
        prepared.params,
        prepared.text_state,
        prepared.end_ids,
        None,
        prepared.check,
        prepared.echoed,
    )
    while not collector.done:
        for event in llm.engine.step():
            collector.take(event)
    llm.engine.check_integrity()
    return collector.finished()


def whole(llm: LLM, params: GenerationParams, prompt: str = PROMPT) -> tuple[list[int], Completion]:
    [output] = llm.generate([prompt], params)
    return output.prompt_token_ids, output.completions[0]


FEATURES: dict[str, dict[str, Any]] = {
    "greedy": {"temperature": 0},
    "sampling": {},
    "repetition penalty": {"repetition_penalty": 1.5, "penalize_prompt": False, "allowed_token_ids": FEW},
    "presence and frequency": {"presence_penalty": 1.0, "frequency_penalty": 0.7, "allowed_token_ids": FEW},
    "encoder repetition": {"encoder_repetition_penalty": 1.5, "allowed_token_ids": FEW},
    "no repeated n-grams": {"no_repeat_ngram_size": 2, "temperature": 0},
    "no n-grams of the prompt": {"encoder_no_repeat_ngram_size": 2, "allowed_token_ids": FEW},
    "dry": {"dry_multiplier": 1.0},
    "decay": {"exponential_decay_length_penalty": (3, 1.4), "ignore_eos": False},
    "min_tokens": {"min_tokens": 15, "ignore_eos": False, "logit_bias": {256: 20.0}},
    "begin": {"begin_suppress_tokens": (8, 9), "forced_bos_token_id": 120},
    "forced end": {"forced_eos_token_id": 70},
    "xtc": {"xtc_probability": 0.5},
    "watermark": {"watermark": Watermark()},
    "stop string": {"logit_bias": {65: 4.0, 66: 4.0}, "stop": "bab"},
    "stop regex": {"logit_bias": {65: 4.0, 66: 4.0}, "stop_regex": "a[^a]a"},
    "regex": {"grammar": Regex("[a-z]{3}-[0-9]{4} [a-z]+")},
    "schema": {"grammar": JsonSchema({"type": "array", "items": {"type": "integer"}})},
    "token healing": {"token_healing": True},
    "healed grammar": {"token_healing": True, "grammar": Regex("e[a-z]{30}")},
    "guidance": {"guidance_scale": 1.8, "negative_prompt": "no"},
    "guidance without a prompt": {"guidance_scale": 1.8},
    "contrastive search": {"strategy": ContrastiveSearch(3), "temperature": 1},
    "DoLa": {"strategy": DoLa("low")},
    "lookup": {"speculate": PromptLookup()},
    "no drafts": {"speculate": None, "top_k": 5},
    "echo": {"echo": True},
    "logprobs": {"logprobs": 2},
    "max_length": {"max_tokens": None, "max_length": 30},
}


@pytest.mark.parametrize("changes", FEATURES.values(), ids=FEATURES)
def test_a_text_goes_on_from_any_place_as_it_went_on_there(llm: LLM, changes: dict[str, Any]) -> None:
    params = BASE.replace(**changes)
    prompt, text = whole(llm, params)
    assert len(text.token_ids) > 4
    for given in (1, 2, len(text.token_ids) // 2, len(text.token_ids) - 1):
        [rest] = continued(llm, prompt, params, text.token_ids[:given]).completions
        assert rest.token_ids == text.token_ids[given:], given
        assert rest.finish_reason == text.finish_reason
        assert rest.stop_reason == text.stop_reason
        if params.logprobs is not None:
            assert text.logprobs is not None
            assert rest.logprobs == text.logprobs[given:]
        # The part that was released with the given tokens comes again where the prompt is echoed.
        assert rest.text == text.text if params.echo else text.text.endswith(rest.text)


def test_each_prompt_of_a_call_may_end_with_generated_text(llm: LLM) -> None:
    prompt, text = whole(llm, BASE)
    counts = [0, 1, 7]
    outputs = llm.generate([[*prompt, *text.token_ids[:count]] for count in counts], BASE, generated=counts)
    assert [output.completions[0].token_ids for output in outputs] == [text.token_ids[n:] for n in counts]
    assert [len(output.prompt_token_ids) for output in outputs] == [len(prompt) + n for n in counts]
    both = [[*prompt, *text.token_ids[:7]]] * 2
    for output in llm.generate(both, BASE, generated=7):
        assert output.completions[0].token_ids == text.token_ids[7:]
    events = list(llm.stream(both[0], BASE, generated=7))
    assert [token for event in events for token in event.token_ids] == text.token_ids[7:]


def test_a_count_of_generated_ids_that_cannot_be_is_refused(llm: LLM) -> None:
    for wrong in (-1, True, 1.0, "1", None, [1], [1, 2, 3], [1, None]):
        with pytest.raises(ParameterError, match="generated"):
            llm.generate([[65, 66, 67]] * 2, BASE, generated=wrong)  # type: ignore[arg-type]
        with pytest.raises(ParameterError, match="generated"):
            llm.stream([65, 66, 67], BASE, generated=[wrong, wrong])  # type: ignore[arg-type]
    # Only the prompt that is too short fails.
    outputs = llm.generate([[65], [65, 66]], BASE.replace(max_tokens=3), generated=1)
    assert "generated is 1" in (outputs[0].error or "")
    assert len(outputs[1].completions[0].token_ids) == 2


def test_an_amateur_goes_on_too(llm: LLM, folder: str) -> None:
    params = BASE.replace(strategy=ContrastiveDecoding(folder, beta=0.9))
    prompt, text = whole(llm, params)
    assert continued(llm, prompt, params, text.token_ids[:7]).completions[0].token_ids == text.token_ids[7:]


def test_the_given_tokens_cost_no_second_prefill(llm: LLM) -> None:
    params = BASE.replace(max_tokens=60)
    prompt, text = whole(llm, params)
    known = len(prompt) + 50
    assert continued(llm, prompt, params, text.token_ids[:50]).cached_tokens == (known - 1) // 16 * 16


def test_a_branch_draws_with_the_noise_of_its_positions(llm: LLM) -> None:
    prompt, text = whole(llm, BASE)
    other = [*text.token_ids[:9], (text.token_ids[9] + 1) % 256]
    [once, again] = (continued(llm, prompt, BASE, other).completions[0].token_ids for _ in range(2))
    assert once == again
    assert len(once) == 10


def test_a_text_that_has_ended_has_its_end_as_the_only_event(llm: LLM) -> None:
    for changes, given, finish in (
        ({"ignore_eos": False}, [97, 256], "stop"),
        ({"stop": "ba"}, [97, 98, 97], "stop"),
        ({"max_tokens": 3}, [97, 98, 97], "length"),
        ({"max_tokens": 2}, [97, 98, 97], "length"),
        ({"grammar": Regex("abc")}, [97, 98, 99], "stop"),
        ({"strategy": BeamSearch(2, num_return_sequences=2), "ignore_eos": False}, [97, 256], "stop"),
    ):
        encoded = llm.tokenizer.encode("abc")
        ids = [encoded[token - 97] if token < 256 else token for token in given]
        completions = continued(llm, [65, 66], BASE.replace(**changes), ids).completions  # type: ignore[arg-type]
        assert [(c.token_ids, c.finish_reason) for c in completions] == [([], finish)] * len(completions)


def test_a_character_in_halves_becomes_whole(llm: LLM) -> None:
    first, second = llm.tokenizer.encode("é")
    params = BASE.replace(max_tokens=2, logit_bias={second: 100.0})
    [rest] = continued(llm, [65, 66], params, [first]).completions
    assert rest.token_ids == [second]
    assert rest.text == "é"


def test_beams_begin_anew_and_count_the_whole_text(llm: LLM) -> None:
    for strategy in (BeamSearch(3, num_return_sequences=3), StochasticBeamSearch(3)):
        params = BASE.replace(strategy=strategy, presence_penalty=0.5, max_tokens=9)
        prompt, text = whole(llm, params)
        output = continued(llm, prompt, params, text.token_ids[:5])
        assert [len(c.token_ids) for c in output.completions] == [4] * 3
    search = BASE.replace(strategy=BeamSearch(3), max_tokens=9, logprobs=0)
    [best] = continued(llm, prompt, search, text.token_ids[:5]).completions
    assert best.score is not None
    assert best.score == pytest.approx(best.cumulative_logprob / 9)


def test_several_completions_go_on_from_one_text(llm: LLM) -> None:
    params = BASE.replace(n=3, speculate=PromptLookup())
    output = continued(llm, [65, 66, 65, 66], params, [65, 66, 65])
    texts = [tuple(c.token_ids) for c in output.completions]
    assert [len(text) for text in texts] == [17] * 3
    assert len(set(texts)) == 3


def test_what_cannot_go_on_is_refused(llm: LLM) -> None:
    ids = llm.tokenizer.encode("abc")
    for changes, prompt, generated, error, word in (
        ({"mirostat_mode": 2}, ids, 1, ParameterError, "mirostat_mode and generated"),
        ({"grammar": Regex("x+")}, ids, 1, RequestError, "grammar does not allow token"),
        ({}, ids, 3, RequestError, "generated is 3"),
        ({}, ids, -1, RequestError, "generated is -1"),
        # Refused before it is replayed.
        ({"stop_regex": "(a|b)+c"}, ids * 100_000, 199_999, RequestError, "the context holds"),
        ({}, "abc", 1, RequestError, "generated is 1"),
        ({}, EmbeddedPrompt(ids, [1], torch.zeros(1, 32)), 1, RequestError, "generated is 1"),
    ):
        with pytest.raises(error, match=word):
            llm.intake.prepare(prompt, BASE.replace(**changes), generated=generated).add_with(llm.engine.add)  # type: ignore[arg-type]
    assert not llm.engine.has_work()
