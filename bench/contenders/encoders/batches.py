"""Runs sentences through an encoder in batches of one size, the longest first, and pools their states."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from time import perf_counter
from typing import Any

# Numbers of sentences in a batch that are tried; the fastest counts.
SIZES = (4, 8, 16, 32, 64)


class Timed:
    """Times the calls of `embed`, which a contender defines."""

    serving = "batches of sentences of similar length"

    def embed(self, texts: Sequence[str], size: int) -> list[list[float]]:
        """Returns the vectors of length 1 of the texts, in batches of `size`."""
        raise NotImplementedError

    def seconds(self, texts: Sequence[str], size: int, times: int) -> list[float]:
        """Returns the time of each of some calls of `embed`."""
        found = []
        for _ in range(times):
            began = perf_counter()
            self.embed(texts, size)
            found.append(perf_counter() - began)
        return found


class Batched(Timed):
    """Embeds sentences: `run` maps ids and mask [batch, length] to states [batch, length, width] in numpy."""

    def __init__(self, model: Path, run: Callable[[Any, Any], Any]) -> None:
        from tokenizers import Tokenizer

        self._tokenizer = Tokenizer.from_file(str(model / "tokenizer.json"))
        self._tokenizer.no_padding()
        self._tokenizer.no_truncation()
        self._run = run

    def embed(self, texts: Sequence[str], size: int) -> list[list[float]]:
        """Returns the vectors of length 1 of the texts' mean states, in batches of `size`."""
        import numpy

        ids = [encoded.ids for encoded in self._tokenizer.encode_batch(list(texts))]
        order = sorted(range(len(ids)), key=lambda index: -len(ids[index]))
        found: list[Any] = [None] * len(ids)
        for start in range(0, len(ids), size):
            part = order[start : start + size]
            longest = len(ids[part[0]])
            tokens = numpy.zeros((len(part), longest), dtype=numpy.int64)
            mask = numpy.zeros((len(part), longest), dtype=numpy.int64)
            for row, index in enumerate(part):
                tokens[row, : len(ids[index])] = ids[index]
                mask[row, : len(ids[index])] = 1
            states = self._run(tokens, mask)
            mean = (states * mask[..., None]).sum(1) / mask.sum(1, keepdims=True)
            vectors = mean / numpy.linalg.norm(mean, axis=1, keepdims=True)
            for index, vector in zip(part, vectors, strict=True):
                found[index] = vector.tolist()
        return found
