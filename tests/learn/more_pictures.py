"""Draws the pictures of the learner's pages on rules beside the basic ones, and on what runs below them."""

from __future__ import annotations

import uuid
from collections.abc import Mapping, Sequence
from typing import Any

import torch

from decodery import LLM, DoLa, GenerationParams, Watermark
from decodery.decoding.processors.watermark import detect
from decodery.decoding.request.plain import params_from_plain
from decodery.learn import LearnPage
from decodery.pictures.generation_trace import GenerationTrace
from decodery.pictures.learn.marked_tokens import marked_tokens_picture
from decodery.pictures.learn.page_cells import page_cells_picture
from decodery.pictures.learn.rotations import rotations_picture
from decodery.pictures.learn.rounding_chart import rounding_picture
from decodery.pictures.learn.shares_table import shares_picture
from decodery.pictures.learn.step_grid import Cell, step_grid_picture
from decodery.weights.sources.wheels import DEFAULT_MODEL

APPLES, WRITTEN = (
    "I like apples, I like",
    " apples, but I'm not sure if I'm ready to eat them. I'm not sure if I'm",
)
PENALTIES: Mapping[str, dict[str, Any]] = {
    "none": {},
    "repetition 1.3": {"repetition_penalty": 1.3},
    "presence 1": {"presence_penalty": 1.0},
    "frequency 1": {"frequency_penalty": 1.0},
    "no 3-gram twice": {"no_repeat_ngram_size": 3},
}
SEA, PLAIN = "A story about the sea. The morning was", "The morning was"
WATER = "Water boils at"
MUSEUM = (
    "The museum is open from nine to five, and on Sundays from ten to four. A ticket costs six euros,"
    " and children do not pay. Question: "
)
QUESTIONS = ("What does a ticket cost? Answer:", "When does it close on Sundays? Answer:")
ARRIVALS = (
    ("The capital of France is", 0, 8),
    ("My favourite animal is the", 2, 4),
    ("Two plus two is", 3, 5),
)
PAIRS, POSITIONS = (0, 4, 8, 16), 10
CAT, BLOCK = " cat", 32


def one_choice(
    llm: LLM, prompt: str, written: str = "", candidates: int = 10, **fields: Any
) -> GenerationTrace:
    """Returns the trace of the token behind a prompt and what is written already."""
    first = llm.tokenizer.encode(prompt)
    ids = first + llm.tokenizer.encode(written, add_special_tokens=False)
    generated = len(ids) - len(first)
    params = GenerationParams(**{"temperature": 1.0, "seed": 2, "max_tokens": generated + 1, **fields})
    trace = GenerationTrace(prompt, DEFAULT_MODEL.name, params, llm.tokenizer)
    [trace.output] = llm.generate(ids, params, observer=trace.add, candidates=candidates, generated=generated)
    return trace


def penalties_picture(llm: LLM, page: LearnPage) -> str:
    """Returns the picture of candidates of which some were written before, under each penalty."""
    runs = {name: one_choice(llm, APPLES, WRITTEN, 12, **rule) for name, rule in PENALTIES.items()}
    seen = set(llm.tokenizer.encode(APPLES + WRITTEN))
    title = "The token after “… I'm not sure if I'm” (* is in the text already)"
    return shares_picture(title, runs, dict.fromkeys(seen, " *"))


def guidance_picture(llm: LLM, page: LearnPage) -> str:
    """Returns the picture of candidates under several scales of guidance."""
    runs = {
        f"scale {scale}": one_choice(
            llm, SEA, guidance_scale=scale, negative_prompt=None if scale == 1 else PLAIN
        )
        for scale in (1, 2, 3)
    }
    return shares_picture(f"The token after “{SEA}”", runs, {})


def dola_picture(llm: LLM, page: LearnPage) -> str:
    """Returns the picture of candidates with and without the contrast of layers."""
    runs = {
        "the last layer": one_choice(llm, WATER),
        "minus an early one": one_choice(llm, WATER, strategy=DoLa("low")),
        "minus a late one": one_choice(llm, WATER, strategy=DoLa("high")),
    }
    return shares_picture(f"The token after “{WATER}”", runs, {})


def watermarked(llm: LLM, page: LearnPage) -> tuple[Watermark, dict[str, list[int]]]:
    """Returns the mark of a page's run, and the texts with and without it."""
    params = params_from_plain(page.run["params"], models=None)
    assert params.watermark is not None
    both = {"without": params.replace(watermark=None), "with": params}
    outputs = llm.generate([page.run["prompt"]] * 2, list(both.values()))
    texts = [list(output.completions[0].token_ids) for output in outputs]
    return params.watermark, dict(zip(both, texts, strict=True))


def watermark_picture(llm: LLM, page: LearnPage) -> str:
    """Returns the picture of two texts, in which green tokens are marked."""
    mark, texts = watermarked(llm, page)
    shown = {}
    for name, ids in texts.items():
        found = detect(ids, mark, llm.tokenizer.vocab_size)
        # As in the detector, a pair counts where it is first, and the first token has none before it.
        pairs = [tuple(ids[max(place - 1, 0) : place + 1]) for place in range(len(ids))]
        green = [
            place > 0 and pair not in pairs[:place] and detect(pair, mark, llm.tokenizer.vocab_size).green > 0
            for place, pair in enumerate(pairs)
        ]
        assert sum(green) == found.green
        labels = [llm.tokenizer.token_label(token) for token in ids]
        heading = f"{name} a watermark: {found.green} of {found.scored} are green, z = {found.z:.1f}"
        shown[heading] = list(zip(labels, green, strict=True))
    return marked_tokens_picture("Which tokens are on the green list?", shown)


def cached_tokens(llm: LLM) -> dict[str, tuple[list[int], int]]:
    """Returns the tokens of two prompts that begin alike, and how many the second one found in the cache."""
    salt = uuid.uuid4().hex  # No earlier run has filled the cache.
    params = GenerationParams(temperature=0, max_tokens=1)
    found = {}
    for name, question in zip(("first", "second"), QUESTIONS, strict=True):
        [output] = llm.generate(MUSEUM + question, params, cache_salt=salt)
        found[name] = (list(output.prompt_token_ids), output.cached_tokens)
    return found


def cache_picture(llm: LLM, page: LearnPage) -> str:
    """Returns the picture of the pages of two requests."""
    requests = {
        name: ([llm.tokenizer.token_label(token) for token in ids], cached)
        for name, (ids, cached) in cached_tokens(llm).items()
    }
    return page_cells_picture("Two prompts that begin alike, in pages of 16 tokens", requests)


def batched_steps(llm: LLM) -> dict[str, list[Cell | None]]:
    """Returns what each request runs in each step, where requests arrive between steps."""
    cells: dict[str, list[Cell | None]] = {prompt: [] for prompt, _, _ in ARRIVALS}
    names: dict[int, str] = {}
    chosen: dict[str, str] = {}
    salt = uuid.uuid4().bytes
    step = 0
    while step <= max(arrival for _, arrival, _ in ARRIVALS) or llm.engine.has_work():
        for prompt, arrival, tokens in ARRIVALS:
            if arrival == step:
                params = GenerationParams(temperature=0, max_tokens=tokens, ignore_eos=True, speculate=None)
                prepared = llm.intake.prepare(prompt, params, salt=salt)
                names[prepared.add_with(llm.engine.add)] = prompt
        ran = {names[event.request]: event for event in llm.engine.step() if event.tokens}
        for prompt, column in cells.items():
            if prompt not in ran:
                column.append(None)
                continue
            size = 0 if prompt in chosen else len(llm.tokenizer.encode(prompt))
            column.append((size, chosen.get(prompt, "")))
            chosen[prompt] = llm.tokenizer.token_label(ran[prompt].tokens[0])
        step += 1
    return cells


def batching_picture(llm: LLM, page: LearnPage) -> str:
    """Returns the picture of the steps of three requests."""
    return step_grid_picture("Three requests, of which two come later", batched_steps(llm))


def positions_picture(llm: LLM, page: LearnPage) -> str:
    """Returns the picture of the rotations of the default model's queries and keys."""
    config = llm.model.config
    title = "How far the rotary embedding turns pairs of dimensions"
    return rotations_picture(title, config.rope.theta, config.head_dim, PAIRS, POSITIONS)


def block_of_weights(llm: LLM) -> Sequence[float]:
    """Returns the first weights of the embedding of a word, which the file stores in 8 bits."""
    [token] = llm.tokenizer.encode(CAT)
    row = llm.model.embed(torch.tensor([token]), torch.tensor([0]))[0]
    return [float(value) for value in row[:BLOCK]]


def quantisation_picture(llm: LLM, page: LearnPage) -> str:
    """Returns the picture of a block of weights that is rounded to 4 bits."""
    title = f"The first {BLOCK} weights of “{CAT.strip()}”: as stored (light) and in 4 bits (strong)"
    return rounding_picture(title, block_of_weights(llm), 4)
