"""Measures what the learner's pages say of their runs, as phrases that must stand in them."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from typing import Any

from decodery import BeamSearch, DoLa, GenerationParams
from decodery.decoding.processors.watermark import detect
from decodery.decoding.request.plain import params_from_plain
from decodery.learn import LearnPage
from tests.learn.more_pictures import (
    APPLES,
    PAIRS,
    PENALTIES,
    PLAIN,
    SEA,
    WATER,
    WRITTEN,
    batched_steps,
    block_of_weights,
    cached_tokens,
    one_choice,
    watermarked,
)


def _share(llm: Any, word: str, prompt: str, written: str = "", **fields: Any) -> str:
    """Returns the probability of a word, in percent, as what comes next."""
    [token] = llm.tokenizer.encode(word, add_special_tokens=False)
    considered = one_choice(llm, prompt, written, 12, **fields).steps[0][0].considered[0]
    return f"{next(c.after for c in considered.candidates if c.token == token):.1%}"


def _sum(value: float) -> str:
    return f"{value:.2f}".replace("-", "−")


def penalty_claims(llm: Any, page: LearnPage) -> list[str]:
    shares = {name: _share(llm, " ready", APPLES, WRITTEN, **rule) for name, rule in PENALTIES.items()}
    assert shares["no 3-gram twice"] == "0.0%"
    assert abs(float(shares["presence 1"][:-1]) - float(shares["frequency 1"][:-1])) < 0.2
    return [
        f"The model gives `␣ready` {shares['none']}",
        f"The repetition penalty leaves {shares['repetition 1.3']}",
        f'"{APPLES}{WRITTEN}"',
    ]


def diverse_claims(llm: Any, page: LearnPage) -> list[str]:
    params = params_from_plain(page.run["params"], models=None).replace(logprobs=0)
    plain = params.replace(strategy=BeamSearch(num_beams=4, num_return_sequences=4))
    one, many = (output.completions for output in llm.generate([page.run["prompt"]] * 2, [plain, params]))
    assert all(completion.text.startswith(" said") for completion in one)
    assert {completion.text.split()[0] for completion in many} == {"said,", "let", "the", "invited"}
    sums = [_sum(completion.cumulative_logprob) for completion in (many[0], many[-1])]
    return [f"a sum of {sums[0]} against {sums[1]} for the last"]


def constrained_claims(llm: Any, page: LearnPage) -> list[str]:
    params = params_from_plain(page.run["params"], models=None).replace(logprobs=0)
    plain = params.replace(strategy=BeamSearch(num_beams=4))
    outputs = llm.generate([page.run["prompt"]] * 2, [plain, params])
    one, other = (output.completions[0] for output in outputs)
    return [
        f'writes "{one.text.strip()}" with a sum of {_sum(one.cumulative_logprob)}',
        f'the text is "{other.text.strip()}" and its sum {_sum(other.cumulative_logprob)}',
    ]


def dola_claims(llm: Any, page: LearnPage) -> list[str]:
    greedy = GenerationParams(temperature=0, max_tokens=12)
    low = params_from_plain(page.run["params"], models=None)
    outputs = llm.generate([WATER] * 2, [greedy, low])
    one, other = (output.completions[0].text.strip() for output in outputs)
    assert float(_share(llm, " ", WATER, strategy=DoLa("low"))[:-1]) > 99
    return [
        f"gives the space before a number {_share(llm, ' ', WATER)}",
        f'writes "{one}", and DoLa "{other}"',
        f"has only {llm.model.depth} narrow layers",
    ]


def guidance_claims(llm: Any, page: LearnPage) -> list[str]:
    def share(word: str, scale: float) -> str:
        negative = None if scale == 1 else PLAIN
        return _share(llm, word, SEA, guidance_scale=scale, negative_prompt=negative)

    calm = [share(" calm", scale) for scale in (1, 2, 3)]
    return [
        f"it has {calm[0]} at γ = 1, {calm[1]} at 2 and {calm[2]} at 3",
        f"falls from {share(' a', 1)} to {share(' a', 2)}",
    ]


def watermark_claims(llm: Any, page: LearnPage) -> list[str]:
    mark, texts = watermarked(llm, page)
    found = {name: detect(ids, mark, llm.tokenizer.vocab_size) for name, ids in texts.items()}
    one, other = found["without"], found["with"]
    assert (mark.greenlist_ratio, mark.bias) == (0.25, 4)
    # The exact probability of as many green tokens; `p_value` is that of the normal approximation.
    n, share = other.scored, mark.greenlist_ratio
    chance = sum(math.comb(n, g) * share**g * (1 - share) ** (n - g) for g in range(other.green, n + 1))
    assert 1e-20 < chance < 1e-19
    return [
        f"has {one.green} of {one.scored} green tokens, which is near a quarter, and z = {one.z:.1f}",
        f"has {other.green} of {other.scored}, and z = {other.z:.1f}: chance does that less often than once",
        "less often than once in 10¹⁹ texts",
    ]


def cache_claims(llm: Any, page: LearnPage) -> list[str]:
    layer = llm.model.layers[0].attn.layer
    size = 2 * llm.model.depth * layer.kv_heads * layer.k_width * 2
    ids, cached = cached_tokens(llm)["second"]
    assert layer.heads == 3 * layer.kv_heads
    return [
        f"has {llm.model.depth} layers with {layer.kv_heads} such heads of width {layer.k_width}",
        f"a token takes {size:,} bytes at two bytes a number",
        f"its first full page of {cached} tokens is taken from the cache, and {len(ids) - cached} tokens",
    ]


def batching_claims(llm: Any, page: LearnPage) -> list[str]:
    first, second, third = batched_steps(llm).values()
    assert first[2] is not None
    assert second[1] is None
    assert second[2] is not None
    assert third[2] is None
    prompt = third[3]
    assert prompt is not None
    assert first[3] is not None
    assert second[3] is not None
    return [f"in step 4 there is a prompt of {prompt[0]} tokens and one token of each of the two other texts"]


def position_claims(llm: Any, page: LearnPage) -> list[str]:
    config = llm.model.config
    turns = [2 * math.pi * config.rope.theta ** (2 * pair / config.head_dim) for pair in PAIRS]
    return [
        f"the first pair turns once in {turns[0]:.0f} tokens",
        f"pair {PAIRS[-1] + 1} of the default model turns once in {turns[-1]:,.0f} tokens",
        f"Its base θ is {config.rope.theta:,.0f}, and its heads have {config.head_dim} dimensions",
        f"the default model takes {llm.model.context_length:,} tokens",
    ]


def quantisation_claims(llm: Any, page: LearnPage) -> list[str]:
    weights = block_of_weights(llm)
    low, high = min(weights), max(weights)
    return [
        f"16 levels between {low:.3f} and {high:.3f}".replace("-", "−"),
        f"half a step, which is {(high - low) / 15 / 2:.3f}",
    ]


MORE_CLAIMS: Mapping[str, Callable[[Any, LearnPage], list[str]]] = {
    "penalties": penalty_claims,
    "diverse-beam-search": diverse_claims,
    "constrained-beam-search": constrained_claims,
    "dola": dola_claims,
    "guidance": guidance_claims,
    "watermark": watermark_claims,
    "kv-cache": cache_claims,
    "batching": batching_claims,
    "positions": position_claims,
    "quantisation": quantisation_claims,
}
