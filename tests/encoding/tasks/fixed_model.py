"""Builds encoders whose scores a test chooses: the scores of a token are those of its word and its place."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import torch

from decodery.encoding.encoder_parts import EncoderParts
from decodery.encoding.text_batches import Batch, TokenText
from decodery.text.tokenizer.tokenizer import Tokenizer
from tests.encoding.folders import write_tokenizer

TokenScores = Callable[[str, int], Sequence[float]]
"""Returns the logits of a token, given as the vocabulary writes it, at a place of what the model reads."""


class FixedHead:
    """Returns the states as scores: the states are the scores already."""

    def __init__(self, reads: str, labels: int) -> None:
        self.reads = reads
        self.labels = labels

    def __call__(self, states: torch.Tensor) -> torch.Tensor:
        return states


class FixedRunner:
    """Runs texts one by one: a token's state is its scores. `read` are the texts that it ran."""

    def __init__(self, tokenizer: Tokenizer, scores: TokenScores) -> None:
        self.tokenizer = tokenizer
        self.scores = scores
        self.read: list[TokenText] = []

    def run(self, texts: Sequence[TokenText], *, layers: Iterable[int] = ()) -> Iterator[Batch]:
        for index, text in enumerate(texts):
            self.read.append(text)
            rows = [self.scores(self.tokenizer.token_text(t), place) for place, t in enumerate(text.ids)]
            yield Batch([index], [0], [len(text.ids)], torch.tensor(rows), {})


def fixed_parts(
    path: Path,
    head: str,
    scores: TokenScores,
    *,
    tokenizer: str = "word pieces",
    context: int = 512,
    labels: int = 1,
    config: Mapping[str, Any] | None = None,
) -> EncoderParts:
    """Returns an encoder with one head, whose scores are those of `scores`."""
    write_tokenizer(path, tokenizer)
    opened = Tokenizer.from_folder(path)
    reads = "first" if head in ("classes", "choices", "next_sentence") else "tokens"
    model: Any = SimpleNamespace(
        heads={head: FixedHead(reads, labels)}, context_length=context, vocab_size=opened.vocab_size
    )
    runner: Any = FixedRunner(opened, scores)
    return EncoderParts(model, "Fixed", opened, runner, config or {}, path)
