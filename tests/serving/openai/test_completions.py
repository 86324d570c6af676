"""Checks `/v1/completions`: log-probabilities, offsets, choices, stops, seeds, usage, and streams."""

from __future__ import annotations

import math
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import tokenizers
from safetensors.torch import load_file, save_file

from decodery import LLM, GenerationParams
from decodery.serving.openai.fields import ALIASES, PARAMETERS
from tests.cli.conftest import write_model
from tests.serving.conftest import CONTEXT, open_tiny
from tests.serving.live import LiveServer, serving

END = 256
PROMPT = "Once upon a time there was a fox"
PRINTABLE = range(94)
IDS = list(range(40, 80))


def scored(server: LiveServer, prompt: Any, **body: Any) -> dict[str, Any]:
    """Returns the log-probabilities of an echoed prompt, as lm-eval asks for them."""
    asked = {"max_tokens": 1, "logprobs": 1, "echo": True, "temperature": 0, "seed": 1234, **body}
    (choice,) = server.complete(model="tiny", prompt=prompt, **asked)["choices"]
    found: dict[str, Any] = choice["logprobs"]
    return found


def test_lm_evals_request_scores_the_prompt_and_one_token_more(server: LiveServer, library: LLM) -> None:
    found = scored(server, IDS)
    (expected,) = library.score([IDS])
    assert {len(found[name]) for name in ("tokens", "token_logprobs", "top_logprobs", "text_offset")} == {41}
    assert found["token_logprobs"][0] is None
    assert found["top_logprobs"][0] is None
    assert found["token_logprobs"][1:-1] == expected.logprobs[1:]
    for logprob, top in zip(found["token_logprobs"][1:], found["top_logprobs"][1:], strict=True):
        # Its test of a greedy token compares the numbers.
        assert logprob <= max(top.values())
        assert logprob in top.values()


def test_a_prompt_is_scored_from_the_token_that_a_request_names(server: LiveServer, library: LLM) -> None:
    (expected,) = library.score([IDS[20:]], prefix=IDS[:20])
    assert scored(server, IDS, prompt_logprobs_start=20)["token_logprobs"][:-1] == [
        *[None] * 20,
        *expected.logprobs,
    ]
    answer = server.complete(prompt=IDS, max_tokens=1, prompt_logprobs=0, prompt_logprobs_start=20)
    entries = answer["choices"][0]["prompt_logprobs"]
    assert entries[:20] == [None] * 20
    assert [e[str(token)]["logprob"] for e, token in zip(entries[20:], IDS[20:], strict=True)] == (
        expected.logprobs
    )


def test_the_answer_with_many_prompts_has_one_choice_for_each_in_order(server: LiveServer) -> None:
    answer = server.complete(prompt=[IDS, IDS[:5], [7]], max_tokens=1, logprobs=1, echo=True, temperature=0)
    assert [choice["index"] for choice in answer["choices"]] == [0, 1, 2]
    assert [len(choice["logprobs"]["tokens"]) for choice in answer["choices"]] == [41, 6, 2]
    assert [c["logprobs"] for c in answer["choices"]] == [scored(server, p) for p in (IDS, IDS[:5], [7])]


def test_the_end_token_has_an_entry(server: LiveServer) -> None:
    bias = {str(END): 100}
    for stream in (False, True):
        body: dict[str, Any] = {
            "prompt": IDS,
            "max_tokens": 5,
            "logprobs": 1,
            "echo": True,
            "logit_bias": bias,
        }
        if stream:
            chunks = [c["logprobs"] for c in server.stream(**body).choices if c["logprobs"]]
            tokens = [token for chunk in chunks for token in chunk["tokens"]]
        else:
            (choice,) = server.complete(**body)["choices"]
            assert choice["finish_reason"] == "stop"
            tokens = choice["logprobs"]["tokens"]
        assert len(tokens) == len(IDS) + 1


@pytest.mark.parametrize(
    "what", [{"echo": True, "logprobs": 2}, {"prompt_logprobs": 2}], ids=["echo", "prompt"]
)
def test_scores_of_a_prompt_are_the_same_when_its_pages_are_cached(server: LiveServer, what: Any) -> None:
    def ask(prompt: list[int]) -> Any:
        (choice,) = server.complete(prompt=prompt, max_tokens=1, temperature=0, **what)["choices"]
        return choice["logprobs"], choice.get("prompt_logprobs")

    prompt = [*range(100, 148)]
    server.complete(prompt=prompt, max_tokens=1)
    first, second = ask(prompt), ask(prompt)
    assert first == second
    longer, fresh = ask([*prompt, 9, 9]), ask([5, *prompt])
    name = 0 if "echo" in what else 1
    if name:
        assert longer[1][: len(prompt)] == first[1]
        assert fresh[1][-1] != longer[1][-1]
    else:
        assert longer[0]["token_logprobs"][: len(prompt)] == first[0]["token_logprobs"][: len(prompt)]


def test_a_count_may_be_written_as_a_number_with_a_point(server: LiveServer) -> None:
    def ask(*counts: float) -> Any:
        body = dict(zip(("max_tokens", "logprobs", "n"), counts, strict=True))
        return server.complete(prompt=PROMPT, seed=1, echo=True, **body)["choices"]

    assert ask(2.0, 1.0, 2.0) == ask(2, 1, 2)
    assert ask(2, 0.0, 1) == ask(2, 0, 1)


def test_prompt_logprobs_have_no_number_for_the_first_token_and_all_for_the_others(
    server: LiveServer,
) -> None:
    (choice,) = server.complete(prompt=IDS, max_tokens=1, prompt_logprobs=2)["choices"]
    found = choice["prompt_logprobs"]
    assert len(found) == len(IDS)
    assert found[0] is None
    for token, entries in zip(IDS[1:], found[1:], strict=True):
        assert str(token) in entries
        assert 2 <= len(entries) <= 3
        assert {1, 2} <= {entry["rank"] for entry in entries.values()}


def test_offsets_count_characters_from_the_prompts_start(server: LiveServer) -> None:
    for prompt in (PROMPT, "naïve 😀 fox", list("naïve".encode())):
        for echo in (True, False):
            body: dict[str, Any] = {"prompt": prompt, "max_tokens": 6, "logprobs": 0, "temperature": 0}
            (choice,) = server.complete(**body, echo=echo)["choices"]
            offsets = choice["logprobs"]["text_offset"]
            assert offsets == sorted(offsets)
            whole = choice["text"] if echo else server.complete(**body, echo=True)["choices"][0]["text"]
            text = whole[: len(whole) - len(server.complete(**body)["choices"][0]["text"])]
            assert offsets[0] == (0 if echo else len(text))
            assert offsets[-1] <= len(whole)


def test_entries_are_as_many_as_the_tokens_and_the_chosen_one_has_its_own_number(server: LiveServer) -> None:
    asked: dict[str, Any] = {"prompt": PROMPT, "max_tokens": 30, "seed": 3, "ignore_eos": True}
    (choice,) = server.complete(**asked, logprobs=3, return_token_ids=True)["choices"]
    found = choice["logprobs"]
    assert len(found["tokens"]) == len(choice["token_ids"]) == 30
    for token, logprob, top in zip(
        found["tokens"], found["token_logprobs"], found["top_logprobs"], strict=True
    ):
        assert top[token] == logprob
        assert 3 <= len(top) <= 4


@pytest.fixture(scope="module")
def twin_texts(tmp_path_factory: pytest.TempPathFactory) -> Iterator[LiveServer]:
    """Returns a server whose model has two tokens with the text "A", of which one is likelier."""
    folder = tmp_path_factory.mktemp("twins")
    write_model(folder, context=CONTEXT, rows=260)
    backend = tokenizers.Tokenizer.from_file(str(folder / "tokenizer.json"))
    backend.add_tokens([tokenizers.AddedToken("A", normalized=False)])
    backend.save(str(folder / "tokenizer.json"))
    yield from _serve(folder)


def _serve(folder: Path) -> Iterator[LiveServer]:
    weights = load_file(folder / "model.safetensors")
    rows = weights["model.embed_tokens.weight"]
    plain = tokenizers.Tokenizer.from_file(str(folder / "tokenizer.json")).get_vocab()
    twins = [token for text, token in plain.items() if text == "A"]
    rows[259] = rows[twins[0]] * 1.2 if twins[0] != 259 else rows[65]
    save_file({name: tensor.contiguous() for name, tensor in weights.items()}, folder / "model.safetensors")
    with serving(open_tiny(folder)) as found:
        yield found


def test_of_two_tokens_with_one_text_the_likelier_one_stays(twin_texts: LiveServer) -> None:
    llm = twin_texts.llm
    same = [t for t in range(260) if llm.tokenizer.token_bytes(t) == b"A"]
    if len(same) < 2:
        pytest.skip("this tokenizer keeps one token for a text")
    bias = {str(token): 30.0 for token in same}
    (choice,) = twin_texts.complete(
        prompt=PROMPT, max_tokens=8, logprobs=2, logit_bias=bias, ignore_eos=True
    )["choices"]
    seen = set()
    for text, chosen, top in zip(
        *(choice["logprobs"][name] for name in ("tokens", "token_logprobs", "top_logprobs")), strict=True
    ):
        assert top[text] >= chosen
        seen.add(top[text] > chosen)
    assert seen


def test_several_prompts_with_several_choices_are_numbered_prompt_by_prompt(server: LiveServer) -> None:
    asked: dict[str, Any] = {"prompt": ["ab", "cd", "ef"], "n": 2, "max_tokens": 4, "seed": 5}
    answer = server.complete(**asked)
    assert [choice["index"] for choice in answer["choices"]] == list(range(6))
    for place, prompt in enumerate(asked["prompt"]):
        alone = server.complete(**{**asked, "prompt": prompt})["choices"]
        assert [c["text"] for c in alone] == [c["text"] for c in answer["choices"][2 * place : 2 * place + 2]]


def test_without_a_seed_three_answers_differ_and_with_one_they_are_the_same_again(server: LiveServer) -> None:
    free = [server.complete(prompt=PROMPT, max_tokens=12)["choices"][0]["text"] for _ in range(3)]
    together = [c["text"] for c in server.complete(prompt=[PROMPT] * 3, max_tokens=12)["choices"]]
    assert len({*free, *together}) == 6
    seeded = [
        [c["text"] for c in server.complete(prompt=PROMPT, max_tokens=12, n=3, seed=7)["choices"]]
        for _ in range(2)
    ]
    assert seeded[0] == seeded[1]
    assert len(set(seeded[0])) == 3


def test_an_answer_is_the_librarys(server: LiveServer, library: LLM) -> None:
    params = GenerationParams(max_tokens=20, temperature=0.8, top_p=0.9, seed=11, logprobs=2, n=2)
    (expected,) = library.generate(PROMPT, params)
    answer = server.complete(
        prompt=PROMPT,
        max_tokens=20,
        temperature=0.8,
        top_p=0.9,
        seed=11,
        logprobs=2,
        n=2,
        return_token_ids=True,
    )
    assert [c["text"] for c in answer["choices"]] == [c.text for c in expected.completions]
    assert [c["token_ids"] for c in answer["choices"]] == [c.token_ids for c in expected.completions]
    for choice, completion in zip(answer["choices"], expected.completions, strict=True):
        assert completion.logprobs is not None
        assert choice["logprobs"]["token_logprobs"] == [entry.logprob for entry in completion.logprobs]


def test_a_stop_over_several_tokens_leaves_no_byte_of_it_and_takes_no_letter(
    server: LiveServer, library: LLM
) -> None:
    asked: dict[str, Any] = {"max_tokens": 40, "seed": 1, "allowed_token_ids": list(PRINTABLE)}
    (whole,) = library.generate(PROMPT, GenerationParams(**asked))
    text = whole.completions[0].text
    place = next(i for i in range(9, 36) if text.find(text[i : i + 4]) == i)
    stop = text[place : place + 4]
    body = {"prompt": PROMPT, **asked, "stop": [stop]}
    (choice,) = server.complete(**body, logprobs=0)["choices"]
    assert choice["text"] == text[:place]
    assert (choice["finish_reason"], choice["stop_reason"]) == ("stop", stop)
    assert "".join(choice["logprobs"]["tokens"]) == text[:place]
    stream = server.stream(**body, logprobs=0)
    assert stream.text() == text[:place]
    for chunk in stream.choices:
        assert not any(chunk["text"].endswith(stop[:n]) for n in (2, 3, 4))
    (kept,) = server.complete(**body, include_stop_str_in_output=True)["choices"]
    assert kept["text"] == text[: place + 4]


def test_usage_counts_a_prompt_once_and_all_choices(server: LiveServer) -> None:
    asked: dict[str, Any] = {"prompt": PROMPT, "max_tokens": 9, "n": 3, "seed": 1, "return_token_ids": True}
    answer = server.complete(**asked)
    usage = answer["usage"]
    assert usage["prompt_tokens"] == len(PROMPT)
    assert usage["completion_tokens"] == sum(len(c["token_ids"]) for c in answer["choices"])
    assert usage["total_tokens"] == usage["prompt_tokens"] + usage["completion_tokens"]
    stream = server.stream(**asked, stream_options={"include_usage": True})
    assert stream.events[-1]["choices"] == []
    assert stream.events[-1]["usage"]["completion_tokens"] == usage["completion_tokens"]
    assert all(event["usage"] is None for event in stream.events[:-1])
    long = "x" * 70
    first = server.complete(prompt=long, max_tokens=1, cache_salt="usage")["usage"]
    again = server.complete(prompt=long, max_tokens=1, cache_salt="usage")["usage"]
    assert first["prompt_tokens_details"] == {"cached_tokens": 0}
    assert again["prompt_tokens_details"] == {"cached_tokens": 64}
    assert first["prompt_tokens"] == again["prompt_tokens"] == 70


def test_usage_grows_in_a_stream_that_wants_it_all_along(server: LiveServer) -> None:
    options = {"include_usage": True, "continuous_usage_stats": True}
    stream = server.stream(prompt=PROMPT, max_tokens=8, n=2, seed=1, ignore_eos=True, stream_options=options)
    counts = [event["usage"]["completion_tokens"] for event in stream.events]
    assert counts == sorted(counts)
    assert counts[0] >= 1
    assert counts[-1] == 16


def test_usage_of_beams_and_stops_counts_what_was_generated(server: LiveServer) -> None:
    beams = {"type": "beam_search", "num_beams": 4, "num_return_sequences": 4}
    asked: dict[str, Any] = {"prompt": PROMPT, "max_tokens": 6, "temperature": 0, "return_token_ids": True}
    for answer in (
        server.complete(**asked, strategy=beams),
        server.complete(**asked, stop=["e", "=", "[", "a"]),
        server.complete(**asked, speculate={"type": "prompt_lookup"}),
    ):
        assert answer["usage"]["completion_tokens"] == sum(len(c["token_ids"]) for c in answer["choices"])


@pytest.mark.parametrize("wants", [False, True])
def test_a_stream_has_one_id_one_finish_a_choice_and_text_in_every_other_chunk(
    server: LiveServer, wants: bool
) -> None:
    options = {"stream_options": {"include_usage": True}} if wants else {}
    stream = server.stream(prompt=["ab", "cd"], n=3, max_tokens=7, seed=2, **options)
    assert stream.status == 200
    assert stream.done
    assert len({(event["id"], event["created"], event["model"]) for event in stream.events}) == 1
    assert {event["object"] for event in stream.events} == {"text_completion"}
    assert sorted(stream.finishes) == list(range(6))
    ended: set[int] = set()
    for choice in stream.choices:
        assert choice["index"] not in ended
        if choice["finish_reason"] is not None:
            ended.add(choice["index"])
        else:
            assert choice["text"]
    without = [event for event in stream.events if not event["choices"]]
    assert len(without) == wants
    assert all(("usage" in event) == wants for event in stream.events)


def test_no_chunk_has_half_a_character(server: LiveServer, library: LLM) -> None:
    for seed in range(4):
        body: dict[str, Any] = {"prompt": "😀é", "max_tokens": 40, "seed": seed, "temperature": 1.5}
        (plain,) = server.complete(**body, logprobs=1)["choices"]
        stream = server.stream(**body, logprobs=1)
        assert stream.text() == plain["text"]
        tokens = [t for c in stream.choices if c["logprobs"] for t in c["logprobs"]["tokens"]]
        assert tokens == plain["logprobs"]["tokens"]


@pytest.mark.parametrize(
    ("body", "param"),
    [
        ({}, "prompt"),
        ({"prompt": ""}, "prompt"),
        ({"prompt": []}, "prompt"),
        ({"prompt": [[]]}, "prompt[0]"),
        ({"prompt": ["a", 3]}, "prompt[1]"),
        ({"prompt": [1, True]}, "prompt"),
        ({"prompt": [1, 2.0]}, "prompt"),
        ({"prompt": [1, 259]}, "prompt"),
        ({"prompt": [-1]}, "prompt"),
        ({"prompt": [[1], [2, 999]]}, "prompt"),
        ({"prompt": "a", "n": 0}, "n"),
        ({"prompt": "a", "n": 129}, "n"),
        ({"prompt": "a", "n": True}, "n"),
        ({"prompt": "a", "n": "2"}, "n"),
        ({"prompt": "a", "max_tokens": 0}, "max_tokens"),
        ({"prompt": "a", "max_tokens": -1}, "max_tokens"),
        ({"prompt": "a", "temperature": -0.1}, "temperature"),
        ({"prompt": "a", "temperature": "0"}, "temperature"),
        ({"prompt": "a", "top_p": 1.5}, "top_p"),
        ({"prompt": "a", "logprobs": 101}, "logprobs"),
        ({"prompt": "a", "logprobs": -1}, "logprobs"),
        ({"prompt": "a", "stop": ["x"] * 65}, "stop"),
        ({"prompt": "a", "stop": [""]}, "stop"),
        ({"prompt": "a", "stop": [3]}, "stop[0]"),
        ({"prompt": "a", "temprature": 0}, "temprature"),
        ({"prompt": "a", "stream": "true"}, "stream"),
        ({"prompt": "a", "stream_options": {"include_usage": True}}, "stream_options"),
        ({"prompt": "a", "stream": True, "stream_options": {"usage": True}}, "stream_options.usage"),
        ({"prompt": "a", "logit_bias": {"999": 1}}, "logit_bias"),
        ({"prompt": "a", "logit_bias": {"x": 1}}, "logit_bias"),
        ({"prompt": "a", "best_of": 1, "n": 2}, "best_of"),
        ({"prompt": "a", "stop_token_ids": [999]}, "stop_token_ids"),
        ({"prompt": "a", "suffix": 3}, "suffix"),
        ({"prompt": "a", "seed": 1.5}, "seed"),
        ({"prompt": "a", "strategy": {"type": "beam_serch"}}, "strategy.type"),
        ({"prompt": "a", "strategy": {"type": "beam_search", "num_beems": 3}}, "strategy.num_beems"),
        ({"prompt": "a", "strategy": {"type": "contrastive_decoding", "amateur": "/"}}, "strategy.amateur"),
        ({"prompt": "a", "use_beam_search": True, "n": 0}, "n"),
        ({"prompt": "a", "truncate_prompt_tokens": 5}, "truncate_prompt_tokens"),
    ],
)  # fmt: skip
@pytest.mark.parametrize("stream", [False, True])
def test_a_wrong_field_is_a_400_that_names_it(
    server: LiveServer, body: Any, param: str, stream: bool
) -> None:
    if "stream" not in body and "stream_options" not in body:
        body = {**body, "stream": stream}
    assert server.refused(**body)["param"] == param


def test_a_misspelled_field_is_told_the_nearest_name(server: LiveServer) -> None:
    assert "temperature" in server.refused(prompt="a", temprature=0)["message"]
    assert (
        server.post(
            "/v1/completions", {"prompt": "a", "max_tokens": 1, "user": "x", "store": True}
        ).status_code
        == 200
    )


def test_an_unknown_model_is_a_404_and_needs_no_prompt(server: LiveServer) -> None:
    for name in ("gpt-4", "../tiny", "/etc/passwd", "TINY", ""):
        answer = server.post("/v1/completions", {"model": name, "prompt": "a"})
        assert (answer.status_code, answer.json()["error"]["code"]) == (404, "model_not_found")


@pytest.mark.parametrize("stream", [False, True])
def test_what_does_not_fit_the_context_is_refused_before_any_token(server: LiveServer, stream: bool) -> None:
    for body in (
        {"prompt": "x" * (CONTEXT + 1), "max_tokens": 1},
        {"prompt": "x" * (CONTEXT - 100), "max_tokens": 200},
        {"prompt": ["a", "x" * (CONTEXT - 100)], "max_tokens": 200},
        {"prompt": [5] * CONTEXT, "max_tokens": 2},
    ):
        assert server.refused(**body, stream=stream)["code"] == "context_length_exceeded"
    assert server.complete(prompt=[5] * CONTEXT, max_tokens=1)["usage"]["prompt_tokens"] == CONTEXT


def test_of_several_prompts_one_that_is_wrong_refuses_all_and_leaves_nothing(server: LiveServer) -> None:
    server.refused(prompt=["a", "b", "x" * (CONTEXT + 1)], max_tokens=50)
    server.settle()


def test_scores_are_numbers_that_json_has(server: LiveServer) -> None:
    answer = server.complete(prompt=PROMPT, max_tokens=3, logprobs=5, top_k=1, logit_bias={"65": -100})
    for choice in answer["choices"]:
        assert all(math.isfinite(p) for p in choice["logprobs"]["token_logprobs"])
        assert all(math.isfinite(p) for top in choice["logprobs"]["top_logprobs"] for p in top.values())


def test_values_that_mean_not_set_are_as_if_they_were_absent(server: LiveServer) -> None:
    asked: dict[str, Any] = {"prompt": PROMPT, "max_tokens": 5, "temperature": 0}
    expected = server.complete(**asked)["choices"]
    nulls = {name: None for name in PARAMETERS | ALIASES.keys() if name not in asked}
    assert server.complete(**asked, **nulls)["choices"] == expected
    empty = {"top_k": -1, "seed": -1, "stop": [], "logit_bias": {}, "bad_words": [], "stop_token_ids": []}
    assert server.complete(**asked, **empty)["choices"] == expected
    free = [server.complete(prompt=PROMPT, max_tokens=12, seed=-1)["choices"][0]["text"] for _ in range(3)]
    assert len(set(free)) > 1
