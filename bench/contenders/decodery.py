"""Runs Decodery through `LLM`."""

from __future__ import annotations

import math
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from bench.contenders.contender import Arrival, Prompt, Stamps, Timing, Writing

# The parameters that many users set together: temperature, top-k, top-p and the penalties.
SAMPLING: dict[str, Any] = {
    "temperature": 0.8,
    "top_k": 50,
    "top_p": 0.95,
    "repetition_penalty": 1.1,
    "presence_penalty": 0.2,
    "frequency_penalty": 0.2,
    "seed": 1,
}


def prepare() -> None:
    """Imports torch, on which Decodery is built."""
    import torch  # noqa: F401


class Decodery:
    """Runs Decodery on one of its backends."""

    serving = "continuous batching"

    def __init__(
        self,
        model: Path,
        threads: int | None = None,
        *,
        dtype: str = "auto",
        backend: str = "native",
        max_step_ms: float | None = None,
    ) -> None:
        from decodery import LLM

        self.llm = LLM(model, dtype=dtype, backend=backend, threads=threads, max_step_ms=max_step_ms)

    def run(self, prompts: Sequence[Prompt], tokens: int) -> Timing:
        return self._timed(prompts, tokens, {"temperature": 0})

    def sampled(self, prompts: Sequence[Prompt], tokens: int) -> Timing:
        """Generates as `run` does, with temperature, truncation and penalties."""
        return self._timed(prompts, tokens, SAMPLING)

    def _timed(self, prompts: Sequence[Prompt], tokens: int, sampling: dict[str, Any]) -> Timing:
        from decodery import GenerationParams

        # The prompts are random tokens, on which drafts say nothing.
        params = GenerationParams(max_tokens=tokens, ignore_eos=True, speculate=None, **sampling)
        times: list[float] = []
        start = time.perf_counter()
        outputs = self.llm.generate(
            list(prompts),
            params,
            progress=False,
            observer=lambda event: times.append(time.perf_counter() - start),
            candidates=0,
        )
        assert all(len(output.completions[0].token_ids) == tokens for output in outputs)
        # There is one event for each token. All prompts run in one step, so the first events are the first
        # tokens of the streams.
        first = sorted(times)[len(prompts) - 1]
        after = [t for t in times if t > first]
        return Timing(first, max(after, default=first), len(after))

    def write(self, writing: Writing, drafts: bool) -> Timing:
        """Writes a text plainly, or with the engine's drafts."""
        from decodery import GenerationParams, JsonSchema

        params = GenerationParams(
            max_tokens=writing.tokens,
            seed=writing.seed,
            temperature=writing.temperature,
            top_p=writing.top_p,
            repetition_penalty=writing.repetition_penalty,
            grammar=None if writing.schema is None else JsonSchema(writing.schema),
            ignore_eos=writing.ignore_end,
            speculate="auto" if drafts else None,
        )
        # A draw with another seed may still repeat a text, so each seed has a salt of its own.
        seen: list[tuple[float, int]] = []
        start = time.perf_counter()
        self.llm.generate(
            [list(writing.prompt)],
            params,
            progress=False,
            observer=lambda event: seen.append((time.perf_counter() - start, len(event.tokens))),
            candidates=0,
            cache_salt=f"{writing.seed} {drafts}",
        )
        first, count = seen[0]
        return Timing(first, seen[-1][0], sum(tokens for _, tokens in seen) - count)

    def beams(self, prompt: Prompt, tokens: int, beams: int) -> float:
        from decodery import BeamSearch, GenerationParams

        strategy = BeamSearch(num_beams=beams)
        params = GenerationParams(max_tokens=tokens, temperature=0, ignore_eos=True, strategy=strategy)
        start = time.perf_counter()
        self.llm.generate([list(prompt)], params, progress=False)
        return time.perf_counter() - start

    def serve(self, arrivals: Sequence[Arrival]) -> list[list[float]]:
        from decodery import GenerationParams

        stamps = Stamps(len(arrivals))
        waiting = sorted(range(len(arrivals)), key=lambda i: arrivals[i].at)
        engine, times_of = self.llm.engine, {}
        start = time.perf_counter()
        # As a server does: one thread adds what has arrived, then runs a step for all.
        while waiting or engine.has_work():
            now = time.perf_counter() - start
            while waiting and arrivals[waiting[0]].at <= now:
                index = waiting.pop(0)
                params = GenerationParams(
                    max_tokens=arrivals[index].tokens, temperature=0, ignore_eos=True, speculate=None
                )
                request = engine.add(list(arrivals[index].prompt), params)
                times_of[request] = stamps.times[index]
            if not engine.has_work():
                time.sleep(arrivals[waiting[0]].at - now)
                continue
            for event in engine.step():
                times_of[event.request] += [time.perf_counter() - start] * len(event.tokens)
        return stamps.times

    def prompts(self, tasks: Sequence[tuple[str, bool]]) -> list[list[int]]:
        """Returns the tokens of texts; those that are marked are messages to chat with."""
        from bench.speculation import Task, prompt_of

        return [prompt_of(self.llm, Task("", text, chat=chat)) for text, chat in tasks]

    def facts(self) -> dict[str, float]:
        """Returns the bytes of weights that a decoding step reads, and the layers' multiply-adds a token."""
        model = self.llm.model
        layers = [module.weight for module in model.layers.modules() if _is_matrix(module)]
        head = model.embedding.weight if model.head is None else model.head.weight
        return {
            "step_bytes": float(sum(weight.nbytes for weight in [*layers, head])),
            "multiply_adds": float(sum(math.prod(weight.shape) for weight in layers)),
        }


def _is_matrix(module: Any) -> bool:
    return len(getattr(getattr(module, "weight", None), "shape", ())) == 2


def load(model: Path, threads: int) -> Decodery:
    """Loads the model and returns the contender."""
    return Decodery(model, threads)


def own_dtype(backend: str, dtype: str) -> str:
    """Returns the dtype to compare with a peer in `dtype`; the native backend always has its own."""
    return "auto" if backend == "native" else dtype
