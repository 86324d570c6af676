"""Runs OpenVINO GenAI's pipeline with continuous batching, which its plain pipeline uses too."""

from __future__ import annotations

import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from bench.contenders.contender import Arrival, Prompt, Stamps, Timing


def prepare() -> None:
    """Imports the library."""
    import openvino_genai  # noqa: F401


class OpenVino:
    """Runs a converted folder."""

    serving = "continuous batching"

    def __init__(self, model: Path, threads: int) -> None:
        import openvino_genai

        scheduling = openvino_genai.SchedulerConfig()
        # As in the plain pipeline, a prompt runs in one piece.
        scheduling.max_num_batched_tokens = 8192
        self.pipeline: Any = openvino_genai.ContinuousBatchingPipeline(
            str(model), scheduling, "CPU", {"INFERENCE_NUM_THREADS": threads}
        )
        self.requests = 0

    def run(self, prompts: Sequence[Prompt], tokens: int) -> Timing:
        return Stamped(self, [Arrival(0, prompt, tokens) for prompt in prompts]).stamps.timing()

    def beams(self, prompt: Prompt, tokens: int, beams: int) -> float:
        start = time.perf_counter()
        handle = self.add(prompt, tokens, num_beams=beams)
        # Beams can be read only when all are done.
        while not handle.can_read():
            self.pipeline.step()
        return time.perf_counter() - start

    def serve(self, arrivals: Sequence[Arrival]) -> list[list[float]]:
        return Stamped(self, arrivals).stamps.times

    def add(self, prompt: Prompt, tokens: int, **settings: Any) -> Any:
        """Adds a request to the pipeline and returns its handle."""
        import numpy
        import openvino
        import openvino_genai

        config = openvino_genai.GenerationConfig()
        config.max_new_tokens = config.min_new_tokens = tokens
        config.ignore_eos = True
        config.do_sample = False
        for name, value in settings.items():
            setattr(config, name, value)
        self.requests += 1
        ids = openvino.Tensor(numpy.array([list(prompt)], dtype=numpy.int64))
        return self.pipeline.add_request(self.requests, ids, config)


class Stamped:
    """Runs requests and holds the times of their tokens."""

    def __init__(self, engine: OpenVino, arrivals: Sequence[Arrival]) -> None:
        self.stamps = Stamps(len(arrivals))
        waiting = sorted(range(len(arrivals)), key=lambda i: arrivals[i].at)
        handles: dict[int, Any] = {}
        start = time.perf_counter()
        while waiting or handles:
            now = time.perf_counter() - start
            while waiting and arrivals[waiting[0]].at <= now:
                request = waiting.pop(0)
                handles[request] = engine.add(arrivals[request].prompt, arrivals[request].tokens)
            if not handles:
                time.sleep(arrivals[waiting[0]].at - now)
                continue
            engine.pipeline.step()
            now = time.perf_counter() - start
            for request, handle in list(handles.items()):
                times = self.stamps.times[request]
                while handle.can_read():
                    for output in handle.read().values():
                        times += [now] * len(output.generated_ids)
                if len(times) >= arrivals[request].tokens:
                    del handles[request]


def load(model: Path, threads: int) -> OpenVino:
    """Loads the model and returns the contender."""
    return OpenVino(model, threads)
