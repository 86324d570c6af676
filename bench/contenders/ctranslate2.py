"""Runs CTranslate2's generator."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from bench.contenders.batching import run_in_steps, serve_in_batches
from bench.contenders.contender import Arrival, Prompt, Timing


def prepare() -> None:
    """Imports the library."""
    import ctranslate2  # noqa: F401


class CTranslate2:
    """Runs a converted folder in int8."""

    serving = "one after another, which is faster than batches"

    def __init__(self, model: Path, threads: int) -> None:
        import ctranslate2

        self.generator: Any = ctranslate2.Generator(
            str(model), device="cpu", compute_type="int8", intra_threads=threads
        )
        self.words: list[str] = json.loads((model / "vocabulary.json").read_text(encoding="utf-8"))

    def run(self, prompts: Sequence[Prompt], tokens: int) -> Timing:
        return run_in_steps(self._generate, prompts, tokens)

    def beams(self, prompt: Prompt, tokens: int, beams: int) -> float:
        start = time.perf_counter()
        self._generate([prompt], tokens, None, beam_size=beams)
        return time.perf_counter() - start

    def serve(self, arrivals: Sequence[Arrival]) -> list[list[float]]:
        return serve_in_batches(arrivals, self._generate, largest=1)

    def _generate(
        self, prompts: Sequence[Prompt], tokens: int, step: Callable[[], None] | None, **settings: Any
    ) -> None:
        last = len(prompts) - 1

        def stepped(result: Any) -> bool:
            # The library calls this for each row of a step in turn.
            if step is not None and result.batch_id == last:
                step()
            return False

        results = self.generator.generate_batch(
            [[self.words[token] for token in prompt] for prompt in prompts],
            max_length=tokens,
            min_length=tokens,
            include_prompt_in_result=False,
            sampling_topk=1,
            end_token=[],
            **({"callback": stepped} if step is not None else {}),
            **settings,
        )
        assert all(len(result.sequences_ids[0]) == tokens for result in results)


def load(model: Path, threads: int) -> CTranslate2:
    """Loads the model and returns the contender."""
    return CTranslate2(model, threads)
