"""Compares processed logits with those of transformers' own processors, in its order."""

from __future__ import annotations

from dataclasses import replace
from types import SimpleNamespace
from typing import Any

import numpy as np
import torch
from transformers import GenerationConfig, GenerationMixin, LogitsProcessorList, WatermarkingConfig

from decodery.decoding.processors.pipeline import process
from decodery.decoding.request.watermark_params import Watermark
from tests.decoding.rows import make_row

VOCAB = 1500
ENDS = [3, 700]
# Parameters whose name in transformers is another.
RENAMED = {
    "min_tokens": "min_new_tokens",
    "bad_words": "bad_words_ids",
}


def _parameters(random: np.random.Generator) -> dict[str, Any]:
    """Returns about half of the parameters that both libraries know, with values that have an effect."""

    def phrases(count: int) -> list[list[int]]:
        return [random.integers(0, 12, random.integers(1, 4)).tolist() for _ in range(count)]

    given: dict[str, Any] = {
        "repetition_penalty": float(random.uniform(0.7, 1.8)),
        "encoder_repetition_penalty": float(random.uniform(0.7, 1.8)),
        "no_repeat_ngram_size": int(random.integers(2, 4)),
        "encoder_no_repeat_ngram_size": int(random.integers(2, 4)),
        # Transformers drops a ban of an end token alone; no ban is dropped here.
        "bad_words": [phrase for phrase in phrases(4) if phrase != [3]] or [[1]],
        "sequence_bias": {tuple(p): float(random.normal() * 3) for p in phrases(4)},
        "min_tokens": int(random.integers(1, 12)),
        "min_length": int(random.integers(1, 30)),
        "forced_eos_token_id": 3,
        "exponential_decay_length_penalty": (int(random.integers(0, 8)), float(random.uniform(1.01, 1.5))),
        "suppress_tokens": random.integers(12, VOCAB, 5).tolist(),
        "begin_suppress_tokens": random.integers(12, VOCAB, 5).tolist(),
        "temperature": float(random.uniform(0.3, 2.0)),
        "top_k": int(random.choice([1, 3, 40, 200, 800])),
        "top_p": float(random.uniform(0.1, 0.999)),
        "min_p": float(random.uniform(0.001, 0.3)),
        "typical_p": float(random.uniform(0.1, 0.999)),
        "epsilon_cutoff": float(random.choice([3e-4, 1e-3, 0.05])),
        "eta_cutoff": float(random.choice([3e-4, 1e-3, 0.05])),
        "renormalize_logits": True,
        "watermark": Watermark(
            greenlist_ratio=float(random.uniform(0.1, 0.6)),
            bias=float(random.uniform(-1, 4)),
            context_width=int(random.integers(1, 4)),
            seeding_scheme=random.choice(["lefthash", "selfhash"]).item(),
        ),
    }
    # Watermarks are slow to compute, so few rows have one.
    share = {"watermark": 0.15}
    params = {name: value for name, value in given.items() if random.random() < share.get(name, 0.4)}
    greedy = random.random() < 0.2
    return {**params, "temperature": 0.0} if greedy else params


def _theirs(params: dict[str, Any], prompt: list[int], limit: int) -> LogitsProcessorList:
    settings = {RENAMED.get(name, name): value for name, value in params.items()}
    sample = settings.get("temperature") != 0
    if not sample:
        del settings["temperature"]
    mark = settings.pop("watermark", None)
    if mark is not None:
        settings["watermarking_config"] = WatermarkingConfig(**vars(mark))
    config: Any = GenerationConfig(do_sample=sample, max_length=limit, **settings)
    config._eos_token_tensor = torch.tensor(ENDS)
    model: Any = SimpleNamespace(
        config=SimpleNamespace(
            is_encoder_decoder=False, get_text_config=lambda: SimpleNamespace(vocab_size=VOCAB)
        ),
        _merge_criteria_processor_list=lambda default, custom: default,
    )
    return GenerationMixin._get_logits_processor(
        model,
        config,
        input_ids_seq_length=len(prompt),
        encoder_input_ids=torch.tensor([prompt]),
        device="cpu",
    )


def test_processed_logits_are_those_of_transformers() -> None:
    random = np.random.default_rng(11)
    generator = torch.Generator().manual_seed(11)
    used: set[str] = set()
    for _ in range(200):
        params = _parameters(random)
        used |= set(params)
        # Few different tokens, so that phrases and n-grams occur.
        prompt = random.integers(0, 12, random.integers(2, 20)).tolist()
        generated = random.integers(0, 12, random.integers(0, 12)).tolist()
        remaining = int(random.choice([1, 1, 5]))
        logits = torch.randn(1, VOCAB, generator=generator) * random.uniform(0.5, 5)
        row = make_row(prompt, generated, end_ids=ENDS, max_tokens=len(generated) + remaining + 20, **params)
        limit = len(row.tokens) + remaining
        theirs = _theirs(params, prompt, limit)
        expected = theirs(torch.tensor([[*prompt, *generated]]), logits.clone())
        ours = process(logits, [replace(row, limit=limit)])
        torch.testing.assert_close(
            ours, expected, rtol=1e-5, atol=1e-5, msg=lambda text, p=params: f"{p}\n{text}"
        )
    assert len(used) == 21, "every parameter was drawn"
