from __future__ import annotations

import random
from pathlib import Path
from typing import Any

import pytest
import torch

from decodery import LLM, EmbeddedPrompt, GenerationParams, ParameterError, RequestError
from decodery.outputs import RequestOutput, TextScore
from decodery.shared_scores import ScoredText, continuations, score_texts
from tests.cli.conftest import write_model
from tests.kernels.native.fixtures import built


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> str:
    return write_model(tmp_path_factory.mktemp("tiny"), context=1024)


def opened(folder: str, **options: Any) -> LLM:
    return LLM(folder, dtype="float32", kv_memory="64MB", **{"backend": "native", **options})


@pytest.fixture
def llm(folder: str) -> LLM:
    """Returns a model without any page in its prefix cache."""
    return opened(folder)


def whole(folder: str, texts: list[Any], **options: Any) -> list[TextScore]:
    """Returns the scores of whole texts, each computed by itself."""
    llm = opened(folder, prefix_cache=False, **options)
    return [llm.score([text])[0] for text in texts]


def computed(llm: LLM) -> int:
    """Returns how many tokens of prompts have been computed so far."""
    return llm.engine.statistics().prompt_tokens


def ids_of(rng: random.Random, count: int) -> list[int]:
    return [rng.randrange(256) for _ in range(count)]


def ends_of(scores: list[TextScore], start: int) -> list[TextScore]:
    return [TextScore(s.token_ids[start:], s.logprobs[start:], s.ranks[start:]) for s in scores]


@built
@pytest.mark.parametrize("length", [1, 15, 16, 17, 32, 33, 200])
def test_scores_after_a_prefix_are_those_of_whole_texts_bit_for_bit(folder: str, length: int) -> None:
    rng = random.Random(length)
    prefix, ends = ids_of(rng, length), [ids_of(rng, rng.randint(1, 40)) for _ in range(6)]
    expected = ends_of(whole(folder, [prefix + end for end in ends]), length)
    llm = opened(folder)
    for _ in range(2):
        # The second time all pages of the prefix are in the prefix cache.
        assert llm.score(ends, prefix=prefix) == expected
    assert opened(folder, token_budget=7).score(ends, prefix=prefix) == expected
    assert opened(folder, prefix_cache=False).score(ends, prefix=prefix) == expected


def test_scores_after_a_prefix_are_those_of_whole_texts_on_torch(folder: str) -> None:
    rng = random.Random(1)
    prefix, ends = ids_of(rng, 50), [ids_of(rng, 5) for _ in range(4)]
    expected = ends_of(whole(folder, [prefix + end for end in ends], backend="torch"), 50)
    for found, right in zip(
        opened(folder, backend="torch").score(ends, prefix=prefix), expected, strict=True
    ):
        assert found.token_ids == right.token_ids
        assert found.logprobs == pytest.approx(right.logprobs, abs=1e-4)


@built
def test_a_prefix_is_computed_once(llm: LLM) -> None:
    prefix, ends = [i * 7 % 256 for i in range(600)], [[i, 1, 2] for i in range(8)]
    llm.score(ends, prefix=prefix)
    # Each text computes what follows the last whole page of the prefix, and its own tokens.
    assert computed(llm) == 603 + 7 * (600 % 16 + 3)
    before = computed(llm)
    llm.score(ends, prefix=prefix)
    assert computed(llm) - before == 8 * (600 % 16 + 3)


@built
def test_a_common_beginning_is_computed_once_and_scored_the_same_bit_for_bit(folder: str, llm: LLM) -> None:
    rng = random.Random(2)
    common, deeper = ids_of(rng, 100), ids_of(rng, 60)
    texts = [
        *(common + ids_of(rng, 9) for _ in range(4)),
        ids_of(rng, 30),
        *(common + deeper + ids_of(rng, 3) for _ in range(3)),
        common + deeper,
        common[:50],
        common[:5],
    ]
    texts.append(texts[5])
    rng.shuffle(texts)
    expected = whole(folder, texts)
    assert llm.score(texts) == expected
    assert computed(llm) < 2 * (109 + 63 + 30 + 8 * 19)
    assert llm.score(texts) == expected


@built
def test_any_mixture_of_texts_is_scored_as_each_alone(folder: str) -> None:
    rng = random.Random(3)
    for _ in range(8):
        # Many texts begin alike.
        stems = [ids_of(rng, rng.randint(1, 70)) for _ in range(3)]
        texts = [
            rng.choice(stems)[: rng.randint(1, 70)] + [rng.randrange(3) for _ in range(rng.randint(0, 40))]
            for _ in range(12)
        ]
        assert opened(folder, token_budget=rng.choice([16, 100, 512])).score(texts) == whole(folder, texts)


@built
def test_texts_after_texts_and_after_ids_are_scored_alike(folder: str, llm: LLM) -> None:
    prefix, ends = "Once upon a time. " * 3, ["there was", "é", "nobody"]
    expected = ends_of(whole(folder, [prefix + end for end in ends]), len(prefix.encode()))
    assert llm.score(ends, prefix=prefix) == expected
    ids = llm.tokenizer.encode(prefix)
    assert llm.score(ends, prefix=ids) == expected
    assert llm.score([llm.tokenizer.encode(end) for end in ends], prefix=prefix) == expected
    (single,) = llm.score(ends[0], prefix=prefix)
    assert single == expected[0]


def test_after_an_empty_prefix_the_first_token_of_all_has_no_score(llm: LLM) -> None:
    assert llm.score(["abc"], prefix="") == llm.score(["abc"]) == llm.score(["abc"], prefix=[])


def test_total_and_perplexity_count_the_tokens_that_have_a_score(llm: LLM) -> None:
    (after,) = llm.score(["c"], prefix="ab")
    assert (after.count, len(after.logprobs)) == (1, 1)
    assert after.total == after.logprobs[0]
    assert after.perplexity == pytest.approx(torch.tensor(-after.total).exp().item())
    (first,) = llm.score(["c"])
    assert (first.count, first.perplexity) == (0, float("inf"))


def pairs(prompt: Any, *, add_special_tokens: bool = True) -> list[int]:
    """Encodes two letters as one token, after a token of the beginning: a longer text changes the last."""
    if not isinstance(prompt, str):
        return list(prompt)
    found = [sum(prompt[i : i + 2].encode()) for i in range(0, len(prompt), 2)]
    return [1, *found] if add_special_tokens else found


def test_the_scored_part_begins_with_the_first_token_that_is_not_the_prefixs() -> None:
    same, merged = continuations(["cd"], "ab", pairs) + continuations(["cd"], "aba", pairs)
    assert (same.ids, same.start) == ([1, 195, 199], 2)
    assert (merged.ids, merged.start) == ([1, 195, 196, 100], 2)
    (by_ids,) = continuations(["cd"], pairs("aba"), pairs)
    assert (by_ids.ids, by_ids.start) == ([1, 195, 97, 199], 3)


@pytest.mark.parametrize(
    ("texts", "prefix", "message"),
    [
        (["a", ""], "ab", "text 2 of 2: there are no tokens after the prefix"),
        ([""], "ab", "^there are no tokens after the prefix"),
        (["a", 7], "ab", "text 2 of 2: after a prefix comes"),
        (["a"], 7, "prefix must be a text or a list"),
        (["a"], [1.5], "whole numbers"),
        (["a", [10**30], "b"], "ab", "text 2 of 3"),
        (["a", [300]], "ab", "text 2 of 2: the prompt holds token 300"),
        (["a" * 2000, "b"], "ab", "text 1 of 2: the prompt has"),
    ],
)
def test_what_cannot_be_scored_is_an_error_that_says_which(
    llm: LLM, texts: Any, prefix: Any, message: str
) -> None:
    with pytest.raises(RequestError, match=message):
        llm.score(texts, prefix=prefix)


def test_vectors_are_no_prefix_and_follow_none(llm: LLM) -> None:
    prompt = EmbeddedPrompt([1, 2, 3], [0], torch.zeros(1, 32))
    with pytest.raises(RequestError, match="prefix must be a text"):
        llm.score(["a"], prefix=prompt)  # type: ignore[arg-type]
    with pytest.raises(RequestError, match="after a prefix comes"):
        llm.score([prompt], prefix="a")


@built
def test_vectors_share_nothing_with_the_tokens_in_whose_place_they_stand(llm: LLM, folder: str) -> None:
    ids = [i * 5 % 256 for i in range(60)]
    prompt = EmbeddedPrompt(ids, [3], torch.ones(1, 32))
    mixed = llm.score([ids, prompt, ids])
    assert mixed == [*whole(folder, [ids]), *opened(folder).score([prompt]), *whole(folder, [ids])]
    assert mixed[0] != mixed[1]


def test_only_texts_of_one_kind_take_over_log_probabilities() -> None:
    asked: list[list[int]] = []

    def generate(prompts: Any, params: Any) -> list[RequestOutput]:
        asked.append([p.prompt_logprobs_start for p in params])
        return [RequestOutput(None, ids, [], 0, prompt_logprobs=[None] * len(ids)) for ids in prompts]

    ids = list(range(50))
    for kinds, rounds in (
        ((0, 0), [[0], [50]]),
        ((0, 1), [[0, 0]]),
        ((None, None), [[0, 0]]),
        ((0, None), [[0, 0]]),
    ):
        asked.clear()
        score_texts([ScoredText([*ids, i], [*ids, i], 0, kind) for i, kind in enumerate(kinds)], generate)
        assert asked == rounds
    # Of unknown kinds, texts share the computation of what comes before the scored part.
    asked.clear()
    score_texts([ScoredText([*ids, i], [*ids, i], 40) for i in range(3)], generate)
    assert asked == [[40], [40, 40]]


def test_a_first_scored_token_needs_scores_and_lies_in_the_prompt(llm: LLM) -> None:
    with pytest.raises(ParameterError, match="prompt_logprobs_start has no meaning"):
        GenerationParams(prompt_logprobs_start=3)
    params = GenerationParams(max_tokens=1, prompt_logprobs=0, prompt_logprobs_start=4)
    with pytest.raises(ParameterError, match="prompt_logprobs_start is 4; the prompt has 3 tokens"):
        llm.generate("abc", params)
    (output,) = llm.generate("abcd", params)
    assert output.prompt_logprobs == [None] * 4


@pytest.mark.slow
def test_scores_after_a_prefix_are_those_of_whole_texts_on_the_default_model(native_llm: Any) -> None:
    prefix = (Path(__file__).parent.parent / "README.md").read_text(encoding="utf-8")[:1500]
    ends = [" The model", " 12", "?", "\n\nNothing"]
    expected = [native_llm.score(prefix + end)[0] for end in ends]
    for found, right in zip(native_llm.score(ends, prefix=prefix), expected, strict=True):
        assert found.logprobs == right.logprobs[-len(found.logprobs) :]
