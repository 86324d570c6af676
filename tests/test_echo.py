"""Checks echoed prompts in every strategy and stream, over a tiny model."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest

from decodery import (
    LLM,
    BeamSearch,
    ContrastiveSearch,
    DraftModel,
    GenerationParams,
    ParameterError,
    PromptLookup,
    Regex,
    StochasticBeamSearch,
)
from decodery.client.client import Client
from decodery.text.streaming.prompt_text import prompt_text
from tests.cli.conftest import Run, decodery, write_model
from tests.serving.conftest import open_tiny
from tests.serving.live import LiveServer, serving

__all__ = ["decodery"]

PROMPT = "ab é <|user|>ab"
BASE = GenerationParams(max_tokens=8, seed=2, ignore_eos=True)
GREEDY = BASE.replace(temperature=0)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> str:
    return write_model(tmp_path_factory.mktemp("tiny"))


@pytest.fixture(scope="module")
def llm(folder: str) -> LLM:
    return open_tiny(folder)


@pytest.fixture(scope="module")
def server(llm: LLM) -> Iterator[LiveServer]:
    with serving(llm) as found:
        yield found


def requests(second: str) -> dict[str, GenerationParams]:
    return {
        "greedy": GREEDY,
        "n": BASE.replace(n=3),
        "best_of": BASE.replace(n=2, best_of=4),
        "beams": GREEDY.replace(strategy=BeamSearch(3, num_return_sequences=2)),
        "stochastic beams": BASE.replace(strategy=StochasticBeamSearch(3)),
        "contrastive search": GREEDY.replace(strategy=ContrastiveSearch(3)),
        "drafts": GREEDY.replace(speculate=PromptLookup()),
        "a draft model": BASE.replace(speculate=DraftModel(second)),
        "a grammar with few texts": GREEDY.replace(grammar=Regex("x|y"), strategy=BeamSearch(3)),
        "a stop string of the prompt": GREEDY.replace(stop=("ab", "<|user|>")),
        "an immediate stop": GREEDY.replace(logit_bias={256: 100.0}, ignore_eos=False),
        "healing": GREEDY.replace(token_healing=True),
        "log-probabilities": BASE.replace(logprobs=2, n=2),
    }


def streamed(llm: LLM | Client, prompt: Any, params: GenerationParams) -> dict[int, str]:
    texts: dict[int, str] = {}
    for event in llm.stream(prompt, params):
        texts[event.index] = texts.get(event.index, "") + event.text
    return {index: texts[index] for index in sorted(texts)}


@pytest.mark.parametrize("name", requests(""))
def test_an_echo_is_the_prompt_before_the_same_text(llm: LLM, folder: str, name: str) -> None:
    params = requests(folder)[name]
    for prompt in (PROMPT, llm.tokenizer.encode(PROMPT)):
        (plain,) = llm.generate([prompt], params)
        (echoed,) = llm.generate([prompt], params.replace(echo=True))
        assert [c.text for c in echoed.completions] == [PROMPT + c.text for c in plain.completions]
        for one, other in zip(echoed.completions, plain.completions, strict=True):
            assert (one.token_ids, one.finish_reason, one.stop_reason, one.logprobs) == (
                other.token_ids,
                other.finish_reason,
                other.stop_reason,
                other.logprobs,
            )
        texts = streamed(llm, prompt, params.replace(echo=True))
        shown = {c.index: c.text for c in echoed.completions}
        assert {index: texts[index] for index in shown} == shown


def test_an_echoed_prompt_has_log_probabilities_where_they_are_asked_for(llm: LLM) -> None:
    (echoed,) = llm.generate(PROMPT, GREEDY.replace(echo=True, logprobs=1))
    (asked,) = llm.generate(PROMPT, GREEDY.replace(prompt_logprobs=1))
    assert echoed.prompt_logprobs == asked.prompt_logprobs
    for params in (GREEDY.replace(echo=True), GREEDY.replace(echo=True, n=1, best_of=2, temperature=1)):
        assert llm.generate(PROMPT, params)[0].prompt_logprobs is None
    (other,) = llm.generate(PROMPT, GREEDY.replace(echo=True, logprobs=1, prompt_logprobs=3))
    assert other.prompt_logprobs is not None
    assert len(other.prompt_logprobs[1].top) == 3  # type: ignore[union-attr]


def test_the_first_event_of_a_stream_begins_with_the_prompt(llm: LLM) -> None:
    events = [e for e in llm.stream(PROMPT, BASE.replace(echo=True, n=2)) if e.token_ids]
    for index in (0, 1):
        own = [event.text for event in events if event.index == index]
        assert own[0].startswith(PROMPT)
        assert not any(PROMPT in text for text in own[1:])


def test_a_token_of_a_prompt_begins_where_the_text_of_those_before_ends(llm: LLM) -> None:
    ids = llm.tokenizer.encode(PROMPT)
    text, offsets = prompt_text(llm.tokenizer, ids, PROMPT)
    assert text == PROMPT
    for place, offset in enumerate(offsets):
        before = llm.tokenizer.decode(ids[:place], skip_special_tokens=False)
        assert PROMPT[:offset] == before.rstrip("\ufffd")


def test_echo_is_refused_where_the_text_does_not_follow_the_prompt(llm: LLM, server: LiveServer) -> None:
    with pytest.raises(ParameterError, match="echo has no meaning in a conversation"):
        llm.chat([{"role": "user", "content": "hi"}], GREEDY.replace(echo=True))
    with pytest.raises(ParameterError, match="echo has no meaning in infill"):
        llm.infill("a", "b", GREEDY.replace(echo=True))
    answer = server.post(
        "/v1/chat/completions", {"messages": [{"role": "user", "content": "hi"}], "echo": True}
    )
    assert answer.status_code == 400
    assert "echo" in answer.json()["error"]["message"]


@pytest.mark.parametrize("name", ["greedy", "n", "best_of", "beams", "a stop string of the prompt"])
def test_a_server_and_its_client_echo_what_the_library_echoes(
    llm: LLM, server: LiveServer, folder: str, name: str
) -> None:
    params = requests(folder)[name].replace(echo=True)
    (expected,) = open_tiny(folder).generate(PROMPT, params)
    texts = [c.text for c in expected.completions]
    client = Client(server.url)
    (found,) = client.generate(PROMPT, params)
    assert [c.text for c in found.completions] == texts
    assert list(streamed(client, PROMPT, params).values()) == texts
    body = {"prompt": PROMPT, **_plain(params)}
    assert [c["text"] for c in server.complete(**body)["choices"]] == texts
    stream = server.stream(**body, logprobs=0)
    assert [stream.text(index) for index in range(len(texts))] == texts


def _plain(params: GenerationParams) -> dict[str, Any]:
    from decodery.decoding.request.plain import params_to_plain

    return params_to_plain(params)


def test_the_command_line_prints_the_prompt_before_the_text(decodery: Run, folder: str) -> None:
    asked = ("generate", "-m", folder, "ab cd", "--temperature", "0", "--max-tokens", "5", "--ignore-eos")
    letters = [f"--logit-bias={token}=100" for token in range(64, 90)]
    plain, echoed = decodery(*asked, *letters), decodery(*asked, *letters, "--echo")
    assert echoed.out == "ab cd" + plain.out
    found = decodery(*asked, *letters, "--echo", "--json", "--logprobs", "0").json
    assert found["completions"][0]["text"] + "\n" == echoed.out
    assert len(found["prompt_logprobs"]) == len("ab cd")
