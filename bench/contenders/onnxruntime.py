"""Runs onnxruntime-genai's generator."""

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
    import onnxruntime_genai  # noqa: F401


class OnnxRuntime:
    """Runs a folder that the library's model builder wrote."""

    serving = "static batches of up to 4 waiting requests of similar length"

    def __init__(self, model: Path, threads: int) -> None:
        import onnxruntime_genai

        config = onnxruntime_genai.Config(str(model))
        config.overlay(
            f'{{"model": {{"decoder": {{"session_options": {{"intra_op_num_threads": {threads}}}}}}}}}'
        )
        self.model: Any = onnxruntime_genai.Model(config)
        settings = json.loads((model / "genai_config.json").read_text(encoding="utf-8"))
        self.padding: int = settings["model"]["pad_token_id"]

    def run(self, prompts: Sequence[Prompt], tokens: int) -> Timing:
        return run_in_steps(self._generate, prompts, tokens)

    def beams(self, prompt: Prompt, tokens: int, beams: int) -> float:
        start = time.perf_counter()
        self._generate([prompt], tokens, lambda: None, num_beams=beams)
        return time.perf_counter() - start

    def serve(self, arrivals: Sequence[Arrival]) -> list[list[float]]:
        return serve_in_batches(arrivals, self._generate, largest=4)

    def _generate(
        self, prompts: Sequence[Prompt], tokens: int, step: Callable[[], None], **settings: Any
    ) -> None:
        import numpy
        import onnxruntime_genai

        longest = max(len(prompt) for prompt in prompts)
        params = onnxruntime_genai.GeneratorParams(self.model)
        length = longest + tokens
        params.set_search_options(
            max_length=length, min_length=length, batch_size=len(prompts), do_sample=False, **settings
        )
        generator = onnxruntime_genai.Generator(self.model, params)
        padded = [[self.padding] * (longest - len(prompt)) + list(prompt) for prompt in prompts]
        generator.append_tokens(numpy.array(padded, dtype=numpy.int32))
        for _ in range(tokens):
            assert not generator.is_done(), "it ended early"
            generator.generate_next_token()
            step()


def load(model: Path, threads: int) -> OnnxRuntime:
    """Loads the model and returns the contender."""
    return OnnxRuntime(model, threads)
