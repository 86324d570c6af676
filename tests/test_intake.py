"""Checks that requests are prepared without an engine, in any thread, and that salts change no text."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest

from decodery import (
    LLM,
    BeamSearch,
    ContrastiveDecoding,
    DraftModel,
    GenerationParams,
    JsonSchema,
    ParameterError,
    Regex,
    RequestError,
)
from decodery.collector import Collector
from decodery.intake import Intake, Prepared, salt_of
from decodery.kernels.native.library import available
from decodery.loading.open_model import Opened, SecondModels, open_model
from decodery.outputs import RequestOutput
from tests.cli.conftest import CONTEXT, write_model
from tests.engine.runs import make_engine

BASE = GenerationParams(max_tokens=10, seed=1, ignore_eos=True)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> str:
    return write_model(tmp_path_factory.mktemp("tiny"))


@pytest.fixture(scope="module")
def opened(folder: str) -> Opened:
    return open_model(folder, dtype="float32", backend="auto")


@pytest.fixture(scope="module")
def llm(folder: str) -> LLM:
    return LLM(folder, dtype="float32", kv_memory="16MB")


def intake_of(opened: Opened, second: str) -> Intake:
    models = SecondModels(opened, opens=False, dtype="float32", backend="auto")
    models.add("small", second)
    return Intake(opened.tokenizer, opened.model, models)


def each(second: Any) -> list[GenerationParams]:
    return [
        BASE.replace(stop=("e", "zz"), temperature=0.7),
        BASE.replace(grammar=Regex("[a-z]+")),
        BASE.replace(grammar=JsonSchema({"type": "integer"}), max_tokens=5),
        BASE.replace(token_healing=True),
        BASE.replace(strategy=BeamSearch(2, force_words=("no",))),
        BASE.replace(strategy=ContrastiveDecoding(second)),
        BASE.replace(speculate=DraftModel(second), bad_words=("a",)),
        BASE.replace(guidance_scale=1.3, negative_prompt="sad"),
    ]


def ran(opened: Opened, prepared: list[Prepared]) -> list[Any]:
    """Returns the completions of prepared requests, run in an engine that no LLM owns."""
    engine = make_engine(opened.model, pages=2000, end_ids=opened.tokenizer.eos_token_ids)
    collectors = {}
    for one in prepared:
        request = one.add_with(engine.add)
        output = RequestOutput(one.text, one.token_ids, [], engine.seed_of(request))
        collectors[request] = Collector(output, one.params, one.text_state, one.end_ids, None)
    while engine.has_work():
        for event in engine.step():
            collectors[event.request].take(event)
    return [collector.finished().completions for collector in collectors.values()]


def test_requests_prepared_in_threads_without_an_engine_give_the_texts_of_an_llm(
    opened: Opened, llm: LLM, folder: str
) -> None:
    expected = [llm.generate("hello wo", params)[0].completions for params in each(folder)]
    intake = intake_of(opened, folder)
    with ThreadPoolExecutor(8) as pool:
        prepared = list(pool.map(lambda params: intake.prepare("hello wo", params), each("small") * 4))
    found = ran(opened, prepared)
    texts = [[(c.text, c.token_ids, c.finish_reason) for c in completions] for completions in found]
    right = [[(c.text, c.token_ids, c.finish_reason) for c in completions] for completions in expected]
    assert not available() or texts == right * 4


def test_the_same_request_is_prepared_the_same_whatever_the_engine_does(opened: Opened, folder: str) -> None:
    intake = intake_of(opened, folder)
    one, other = (intake.prepare("abc", BASE.replace(bad_words=("no",))) for _ in range(2))
    assert (one.prompt, one.params, one.end_ids, one.salt) == (other.prompt, other.params, other.end_ids, b"")


def test_a_chat_prompt_is_that_of_an_llm(opened: Opened, llm: LLM, folder: str) -> None:
    messages = [{"role": "user", "content": "hi"}]
    assert intake_of(opened, folder).chat_prompt(messages) == llm.chat_prompt(messages)


@pytest.mark.parametrize(
    ("prompt", "params", "error", "match"),
    [
        ("", BASE, RequestError, "the prompt is empty"),
        ([1.5], BASE, RequestError, "whole numbers"),
        (None, BASE, RequestError, "not NoneType"),
        ("a", {}, ParameterError, "params must be GenerationParams"),
        ("a", BASE.replace(grammar=Regex("(")), ParameterError, "Regex"),
        ("a", BASE.replace(allowed_token_ids=(10**6,)), ParameterError, "1000000"),
    ],
)
def test_what_no_engine_could_run_is_refused_at_the_intake(
    opened: Opened, folder: str, prompt: Any, params: Any, error: type[Exception], match: str
) -> None:
    with pytest.raises(error, match=match):
        intake_of(opened, folder).prepare(prompt, params)


def test_different_cache_salts_have_different_salts_and_none_is_the_common_cache() -> None:
    listed = [None, "", "a", "b", "ab", "\ud800", "cache_salt"]
    assert len({salt_of(salt) for salt in listed}) == len(listed)
    assert salt_of(None) == b""
    assert salt_of("a") == salt_of("a")


@pytest.mark.parametrize("salt", [5, b"bytes", ["a"], True])
def test_a_cache_salt_that_is_no_text_is_one_error_for_the_whole_call(llm: LLM, salt: Any) -> None:
    calls: list[Any] = [
        lambda: llm.generate(["a", "b"], BASE, cache_salt=salt),
        lambda: llm.stream("a", BASE, cache_salt=salt),
        lambda: llm.chat([{"role": "user", "content": "hi"}], BASE, cache_salt=salt),
        lambda: llm.score("ab", cache_salt=salt),
    ]
    for call in calls:
        with pytest.raises(ParameterError, match="cache_salt must be a text or None"):
            call()
    assert not llm.engine.has_work()


def test_every_call_uses_the_cache_of_its_salt_and_gives_the_same_text(folder: str) -> None:
    llm = LLM(folder, dtype="float32", kv_memory="16MB")
    counts: list[int] = []
    schedule = llm.engine._scheduler.schedule

    def counting(*arguments: Any) -> Any:
        batch = schedule(*arguments)
        counts.append(batch.length)
        return batch

    llm.engine._scheduler.schedule = counting  # type: ignore[method-assign]
    greedy = BASE.replace(temperature=0, max_tokens=1)
    messages = [{"role": "user", "content": "abcd" * 16}]
    prompt = llm.chat_prompt(messages)
    calls: list[Any] = [
        lambda salt: llm.generate([prompt], greedy, cache_salt=salt)[0].completions[0].text,
        lambda salt: "".join(event.text for event in llm.stream(prompt, greedy, cache_salt=salt)),
        lambda salt: llm.chat(messages, greedy, cache_salt=salt)[0].completions[0].text,
    ]
    texts, computed = [], []
    for number, call in enumerate(calls):
        for salt in (f"one {number}", f"two {number}", f"one {number}"):
            counts.clear()
            texts.append(call(salt))
            computed.append(sum(counts))
    assert len(set(texts)) == 1
    assert computed == [len(prompt), len(prompt), len(prompt) - len(prompt) // 16 * 16] * 3


def test_a_text_longer_than_the_amateurs_context_is_refused(llm: LLM, tmp_path: Any) -> None:
    short = write_model(tmp_path, context=CONTEXT // 2)
    params = BASE.replace(strategy=ContrastiveDecoding(short), max_tokens=CONTEXT // 2)
    with pytest.raises(ParameterError, match=f"amateur has a context of {CONTEXT // 2} tokens"):
        llm.generate("abc", params)
