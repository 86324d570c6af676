"""Checks stop strings that contain special tokens, over a tiny model that says what it is told to."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from torch import Tensor

from decodery import (
    LLM,
    BeamSearch,
    ContrastiveDecoding,
    ContrastiveSearch,
    DoLa,
    DraftModel,
    GenerationParams,
    PromptLookup,
    Regex,
    StochasticBeamSearch,
)
from tests.cli.conftest import write_model

# What the model says; the two special tokens are left out of the text.
SAID = "The end<|user|>now, é<|reply|>and so on and so on"
FREE = GenerationParams(max_tokens=len(SAID), seed=1, ignore_eos=True)
GREEDY = FREE.replace(temperature=0)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> str:
    return write_model(tmp_path_factory.mktemp("tiny"))


@pytest.fixture(scope="module")
def llm(folder: str) -> LLM:
    return LLM(folder, dtype="float32", backend="torch", kv_memory="64MB")


def saying(llm: LLM, prompt: str, said: str = SAID) -> Callable[[list[int], Tensor], Tensor]:
    """Returns a processor of logits that makes the tokens of a text far more likely than all others."""
    begin = len(llm.tokenizer.encode(prompt))
    tokens = llm.tokenizer.encode(said, add_special_tokens=False)

    def process(ids: list[int], logits: Tensor) -> Tensor:
        logits = logits * 1e-3
        logits[tokens[min(len(ids) - begin, len(tokens) - 1)]] = 50
        return logits

    return process


def requests(second: str) -> dict[str, GenerationParams]:
    return {
        "greedy": GREEDY,
        "n": FREE.replace(n=2, logprobs=1),
        "beams": GREEDY.replace(strategy=BeamSearch(2, num_return_sequences=1)),
        "sampled beams": FREE.replace(strategy=BeamSearch(2, num_return_sequences=1, sample=True)),
        "stochastic beams": FREE.replace(strategy=StochasticBeamSearch(2)),
        "contrastive search": GREEDY.replace(strategy=ContrastiveSearch(2, 0.0)),
        "contrastive decoding": GREEDY.replace(strategy=ContrastiveDecoding(second)),
        "DoLa": GREEDY.replace(strategy=DoLa("low")),
        "drafts of the prompt": GREEDY.replace(speculate=PromptLookup()),
        "drafts, rejection": FREE.replace(speculate=PromptLookup(acceptance="rejection")),
        "a draft model": FREE.replace(speculate=DraftModel(second)),
    }


STOPS = {
    "<|user|>": ("The end", "<|user|>"),
    "end<|user|>now": ("The ", "end<|user|>now"),
    "d<|user|>": ("The en", "d<|user|>"),
    "<|reply|>an": ("The endnow, é", "<|reply|>an"),
    "é<|reply|>": ("The endnow, ", "é<|reply|>"),
    # The displayed text has these letters side by side.
    "endnow": ("The ", "endnow"),
}


CASES = [
    *(("greedy", stop) for stop in STOPS),
    *((name, stop) for name in list(requests(""))[1:] for stop in ("<|user|>", "end<|user|>now")),
]


@pytest.mark.parametrize(("name", "stop"), CASES)
def test_every_strategy_stops_at_a_special_token_that_the_text_leaves_out(
    llm: LLM, folder: str, name: str, stop: str
) -> None:
    prompt = "The end<|user|>now, é<|reply|>and so on. "
    params = requests(folder)[name].replace(logits_processors=(saying(llm, prompt),), stop=("absent", stop))
    before, met = STOPS[stop]
    events = list(llm.stream(prompt, params))
    assert "".join(event.text for event in events if event.index == 0) == before
    each = [params, params.replace(include_stop=True)]
    for output, text in zip(llm.generate([prompt] * 2, each), (before, before + met), strict=True):
        completion = output.completions[0]
        assert (completion.text, completion.finish_reason, completion.stop_reason) == (text, "stop", stop)
        # The tokens end with the one that completes the stop string.
        skip = "<|" not in stop
        assert llm.tokenizer.decode(completion.token_ids, skip_special_tokens=skip).endswith(stop)
    llm.engine.check_integrity()


def test_a_special_token_that_the_text_shows_is_a_stop_string_like_others(llm: LLM) -> None:
    params = GREEDY.replace(logits_processors=(saying(llm, "x"),), skip_special_tokens=False)
    for stop, text in (("<|user|>", "The end"), ("|>n", "The end<|user"), ("d<|us", "The en")):
        (output,) = llm.generate("x", params.replace(stop=stop))
        assert (output.completions[0].text, output.completions[0].stop_reason) == (text, stop)


def test_a_part_of_a_special_token_that_the_text_leaves_out_is_no_stop_string(llm: LLM) -> None:
    params = GREEDY.replace(logits_processors=(saying(llm, "x"),), stop=("|>n", "<|us", "user"))
    (output,) = llm.generate("x", params)
    assert output.completions[0].text.startswith("The endnow, éand so on")


def test_a_stop_string_may_be_spelled_in_ordinary_tokens(llm: LLM) -> None:
    spelled = llm.tokenizer.encode("a<|user|>b", add_special_tokens=False, parse_special=False)
    params = GREEDY.replace(
        logits_processors=(lambda ids, logits: logits.index_fill(0, _next(ids, spelled), 99),),
        stop="<|user|>",
    )
    (output,) = llm.generate("x", params)
    assert (output.completions[0].text, output.completions[0].stop_reason) == ("a", "<|user|>")


def _next(ids: list[int], tokens: list[int]) -> Tensor:
    import torch

    return torch.tensor([tokens[min(len(ids) - 1, len(tokens) - 1)]])


def test_an_end_token_ends_the_text_before_a_stop_string_of_the_same_text(llm: LLM) -> None:
    params = GREEDY.replace(
        logits_processors=(saying(llm, "x", "ab<|end|>cd"),), stop="<|end|>", ignore_eos=False
    )
    (ended,) = llm.generate("x", params)
    assert (ended.completions[0].text, ended.completions[0].stop_reason) == ("ab", 256)
    (stopped,) = llm.generate("x", params.replace(ignore_eos=True))
    assert (stopped.completions[0].text, stopped.completions[0].stop_reason) == ("ab", "<|end|>")


def test_a_special_token_before_min_tokens_does_not_stop_the_text(llm: LLM) -> None:
    said = "a<|user|>b<|user|>c"
    params = GREEDY.replace(logits_processors=(saying(llm, "x", said),), stop="<|user|>")
    for least, text in ((0, "a"), (2, "a"), (3, "ab"), (4, "ab"), (5, "abc" + "c" * (len(SAID) - 5))):
        (output,) = llm.generate("x", params.replace(min_tokens=least))
        assert output.completions[0].text == text


def test_a_grammar_and_a_hidden_stop_string_go_together(llm: LLM) -> None:
    params = GREEDY.replace(grammar=Regex("[a-z]{5}"), stop="<|user|>", ignore_eos=False)
    (output,) = llm.generate("x", params)
    assert len(output.completions[0].text) == 5


@pytest.mark.parametrize("stream", [False, True])
def test_the_tokens_of_a_hidden_stop_string_have_no_log_probabilities_in_an_answer(
    tmp_path: Path, stream: bool
) -> None:
    from tests.serving.conftest import open_tiny
    from tests.serving.live import serving

    special = 257
    with serving(open_tiny(write_model(tmp_path))) as server:
        body: dict[str, Any] = {
            "prompt": "ab",
            "max_tokens": 9,
            "logprobs": 0,
            "stop": ["<|user|>"],
            "logit_bias": {str(special): 100},
            "min_tokens": 0,
        }
        if stream:
            answer = server.stream(**body)
            texts = [chunk["text"] for chunk in answer.choices]
            found = [t for chunk in answer.choices if chunk["logprobs"] for t in chunk["logprobs"]["tokens"]]
            assert ("".join(texts), found) == ("", [])
        else:
            (choice,) = server.complete(**body)["choices"]
            assert (choice["text"], choice["logprobs"]["tokens"]) == ("", [])
            assert (choice["finish_reason"], choice["stop_reason"]) == ("stop", "<|user|>")
        (kept,) = server.complete(**body, include_stop_str_in_output=True)["choices"]
        assert (kept["text"], kept["logprobs"]["tokens"]) == ("<|user|>", ["<|user|>"])
