"""Provides a contender that generates nothing and invents its times."""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from pathlib import Path

from bench.contenders.batching import serve_in_batches
from bench.contenders.contender import Arrival, Prompt, Stamps, Timing, Writing


def prepare() -> None:
    """Prints a line, as a library may do."""
    print("loading a library")


class Fake:
    """Claims a second for each token of the prompt and half a second for each further step."""

    serving = "static batches"

    def run(self, prompts: Sequence[Prompt], tokens: int) -> Timing:
        print("generating")
        stamps = Stamps(len(prompts))
        for step in range(tokens):
            for times in stamps.times:
                times.append(len(prompts[0]) + step * 0.5)
        return stamps.timing()

    def write(self, writing: Writing, drafts: bool) -> Timing:
        """Claims that drafts double the speed."""
        seconds = writing.tokens / (2 if drafts else 1)
        return Timing(1.0, 1.0 + seconds, writing.tokens)

    def beams(self, prompt: Prompt, tokens: int, beams: int) -> float:
        raise NotImplementedError("it has no beam search")

    def serve(self, arrivals: Sequence[Arrival]) -> list[list[float]]:
        return serve_in_batches(arrivals, self._batch, largest=8)

    def _batch(self, prompts: Sequence[Prompt], tokens: int, step: Callable[[], None]) -> None:
        for _ in range(tokens):
            step()

    def fail(self) -> None:
        """Fails as a library may do."""
        raise ValueError("two\nlines")

    def die(self) -> None:
        """Ends the process, as a library should not."""
        os._exit(3)


def load(model: Path, threads: int) -> Fake:
    """Loads the model and returns the contender."""
    return Fake()
