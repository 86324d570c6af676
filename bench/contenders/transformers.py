"""Runs transformers' own `generate` with its default attention and cache."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from bench.contenders.batching import run_in_steps, serve_in_batches
from bench.contenders.contender import Arrival, Prompt, Timing


def prepare() -> None:
    """Imports the library."""
    import torch  # noqa: F401
    import transformers  # noqa: F401


def from_gguf(path: Path, dtype: Any) -> Any:
    """Returns the dequantised model of a Llama's GGUF.

    A model that was loaded from a GGUF keeps hooks of its quantiser and cannot be saved. So the weights are
    copied into a new model, as users run it.
    """
    from transformers import AutoModelForCausalLM, LlamaForCausalLM

    loaded: Any = AutoModelForCausalLM.from_pretrained(path.parent, gguf_file=path.name, dtype=dtype)
    config = loaded.config
    if hasattr(config, "quantization_config"):
        del config.quantization_config
    fresh: Any = LlamaForCausalLM(config).to(dtype)
    fresh.load_state_dict(loaded.state_dict())
    return fresh


class Transformers:
    """Runs a hub folder or a GGUF file in `dtype`."""

    serving = "static batches of up to 8 waiting requests of similar length"

    def __init__(self, model: Path, threads: int | None = None, dtype: str = "bfloat16") -> None:
        import torch
        from transformers import AutoModelForCausalLM

        if threads is not None:
            torch.set_num_threads(threads)
        chosen = getattr(torch, dtype)
        gguf = model.suffix == ".gguf"
        loaded: Any = (
            from_gguf(model, chosen) if gguf else AutoModelForCausalLM.from_pretrained(model, dtype=chosen)
        )
        self.model = loaded.eval()

    def run(self, prompts: Sequence[Prompt], tokens: int) -> Timing:
        return run_in_steps(self._generate, prompts, tokens)

    def beams(self, prompt: Prompt, tokens: int, beams: int) -> float:
        start = time.perf_counter()
        self._generate([prompt], tokens, lambda: None, num_beams=beams)
        return time.perf_counter() - start

    def serve(self, arrivals: Sequence[Arrival]) -> list[list[float]]:
        return serve_in_batches(arrivals, self._generate, largest=8)

    def _generate(
        self, prompts: Sequence[Prompt], tokens: int, step: Callable[[], None], **settings: Any
    ) -> None:
        import torch

        longest = max(len(prompt) for prompt in prompts)
        ids = torch.tensor([[0] * (longest - len(p)) + list(p) for p in prompts])
        seen = torch.tensor([[0] * (longest - len(p)) + [1] * len(p) for p in prompts])

        def stepped(found: Any, scores: Any) -> Any:
            step()
            return torch.zeros(len(found), dtype=torch.bool)

        with torch.inference_mode():
            output = self.model.generate(
                ids,
                attention_mask=seen,
                max_new_tokens=tokens,
                eos_token_id=None,
                do_sample=False,
                pad_token_id=0,
                stopping_criteria=[stepped],
                **settings,
            )
        assert output.shape[1] == longest + tokens


def load(model: Path, threads: int) -> Transformers:
    """Loads the model and returns the contender."""
    return Transformers(model, threads)
