"""Draws the pictures of the learner's pages from runs on the default model."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from decodery import LLM, GenerationParams
from decodery.decoding.request.plain import params_from_plain
from decodery.learn import LearnPage
from decodery.pictures.generation_trace import GenerationTrace
from decodery.pictures.learn.beams import beams_picture
from decodery.pictures.learn.choice_rows import choice_rows_picture
from decodery.pictures.learn.draft_rows import draft_rows_picture
from decodery.pictures.learn.head_grid import head_grid_picture
from decodery.pictures.learn.pieces import pieces_picture
from decodery.pictures.learn.temperatures import temperatures_picture
from decodery.pictures.learn.truncation_table import truncation_picture
from decodery.pictures.learn.weighing import weighing_picture
from decodery.weights.sources.wheels import DEFAULT_MODEL
from tests.learn.more_pictures import (
    batching_picture,
    cache_picture,
    dola_picture,
    guidance_picture,
    penalties_picture,
    positions_picture,
    quantisation_picture,
    watermark_picture,
)

CERTAIN, OPEN = "The capital of France is", "My favourite animal is the"
TEMPERATURES = (0.3, 0.7, 1.0, 1.5)
RULES: Mapping[str, dict[str, Any]] = {
    "top-k 5": {"top_k": 5},
    "top-p 0.9": {"top_p": 0.9},
    "min-p 0.1": {"min_p": 0.1},
    "epsilon 0.01": {"epsilon_cutoff": 0.01},
    "top-nσ 1": {"top_n_sigma": 1},
}
POSITIONS = 12
# A head of this layer gives most to the noun of a pronoun.
PRONOUN_LAYER = 14
PIECES = ("The capital of France", "tokenization", "untranslatable", "hello", "HELLO", "3.14159", "naïve 😀")


def traced(llm: LLM, prompt: str, params: GenerationParams, candidates: int = 8) -> GenerationTrace:
    """Returns the trace of a run."""
    trace = GenerationTrace(prompt, DEFAULT_MODEL.name, params, llm.tokenizer)
    [trace.output] = llm.generate(prompt, params, observer=trace.add, candidates=candidates)
    return trace


def run_of(llm: LLM, page: LearnPage, candidates: int = 8) -> GenerationTrace:
    """Returns the trace of the run that a page offers to try."""
    params = params_from_plain(page.run["params"], models=None)
    return traced(llm, page.run["prompt"], params, candidates)


def next_tokens(llm: LLM, prompt: str, candidates: int = 14, **fields: Any) -> GenerationTrace:
    """Returns the trace of one token."""
    return traced(llm, prompt, GenerationParams(max_tokens=1, seed=2, **fields), candidates)


def block_picture(llm: LLM, text: str) -> str:
    """Returns the picture of the heads of the layer that ties pronouns to nouns."""
    views = llm.layer_views(text)
    return head_grid_picture(views, PRONOUN_LAYER, [llm.tokenizer.token_label(t) for t in views.token_ids])


def _sampling(llm: LLM, page: LearnPage) -> str:
    params = params_from_plain(page.run["params"], models=None)
    return temperatures_picture(
        {t: next_tokens(llm, OPEN, 40, temperature=t) for t in TEMPERATURES},
        {t: traced(llm, page.run["prompt"], params.replace(temperature=t)) for t in TEMPERATURES},
    )


def _truncation(llm: LLM, page: LearnPage) -> str:
    return truncation_picture(
        [
            {name: next_tokens(llm, prompt, **rule) for name, rule in RULES.items()}
            for prompt in (CERTAIN, OPEN)
        ]
    )


PICTURES: Mapping[str, Callable[[LLM, LearnPage], str]] = {
    "greedy": lambda llm, page: choice_rows_picture(run_of(llm, page)),
    "sampling": _sampling,
    "truncation": _truncation,
    "beam-search": lambda llm, page: beams_picture(run_of(llm, page)),
    "contrastive-search": lambda llm, page: weighing_picture(run_of(llm, page), POSITIONS),
    "speculation": lambda llm, page: draft_rows_picture(run_of(llm, page)),
    "grammars": lambda llm, page: choice_rows_picture(run_of(llm, page)),
    "block": lambda llm, page: block_picture(llm, page.run["layers"]),
    "penalties": penalties_picture,
    "diverse-beam-search": lambda llm, page: beams_picture(run_of(llm, page)),
    "constrained-beam-search": lambda llm, page: beams_picture(run_of(llm, page)),
    "dola": dola_picture,
    "guidance": guidance_picture,
    "watermark": watermark_picture,
    "kv-cache": cache_picture,
    "batching": batching_picture,
    "positions": positions_picture,
    "quantisation": quantisation_picture,
    "tokenizers": lambda llm, page: pieces_picture(llm.tokenizer, PIECES),
}
