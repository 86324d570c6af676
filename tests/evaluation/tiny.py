"""Builds tiny models whose tokens are single characters, for tests of what is asked of a model."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import tokenizers
from safetensors.torch import save_file

from decodery import LLM
from decodery.evaluation.contract import ContinuationAnswer, GenerationAnswer
from tests.cli.conftest import random_weights, write_model

BOS, EOS = "<s>", "</s>"
TEMPLATE = (
    "{% for m in messages %}{{ m.role[0] + m.content }}{% endfor %}{% if add_generation_prompt %}r{% endif %}"
)


def characters(
    folder: Path,
    alphabet: str,
    merges: Sequence[tuple[str, str]] = (),
    *,
    adds_bos: bool = False,
    template: str | None = None,
    context: int = 128,
) -> LLM:
    """Returns a random model with a token for each character and merge, for <s> and for </s>."""
    tokens = [*alphabet, *("".join(pair) for pair in merges), BOS, EOS]
    vocabulary = {token: place for place, token in enumerate(tokens)}
    backend = tokenizers.Tokenizer(tokenizers.models.BPE(vocab=vocabulary, merges=list(merges)))
    backend.decoder = tokenizers.decoders.Fuse()
    backend.add_special_tokens([BOS, EOS])
    if adds_bos:
        backend.post_processor = tokenizers.processors.TemplateProcessing(
            single=f"{BOS} $A", special_tokens=[(BOS, vocabulary[BOS])]
        )
    folder.mkdir(exist_ok=True)
    write_model(folder, context=context, rows=len(tokens))
    save_file(random_weights(len(tokens)), folder / "model.safetensors")
    backend.save(str(folder / "tokenizer.json"))
    settings: dict[str, Any] = {"bos_token": BOS, "eos_token": EOS, "add_bos_token": adds_bos}
    if template is not None:
        settings["chat_template"] = template
    (folder / "tokenizer_config.json").write_text(json.dumps(settings), encoding="utf-8")
    return LLM(folder, dtype="float32", kv_memory="16MB")


def scored(*totals: float, tokens: int = 2, ids: Sequence[Sequence[int]] | None = None) -> list[Any]:
    """Returns answers with these log-probabilities."""
    return [
        ContinuationAnswer((0,), tuple(ids[place]) if ids else tuple(range(tokens)), (total,), False)
        for place, total in enumerate(totals)
    ]


def written(*texts: str, finish: str = "stop", stop: str | None = None) -> list[Any]:
    """Returns answers with these texts."""
    return [GenerationAnswer((0,), (1,), text, finish, stop) for text in texts]
