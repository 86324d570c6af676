"""Who is measured: the same checkpoint, dtype and threads, greedy, with end tokens ignored."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any, Protocol

import torch


class Contender(Protocol):
    """An engine with a loaded model."""

    def generate(self, prompts: list[list[int]], tokens: int) -> None:
        """Generate exactly so many tokens for each prompt; all prompts have one length."""


class Decodery:
    """Us, on one of our backends."""

    def __init__(self, model: Path, dtype: str, backend: str) -> None:
        from decodery import LLM

        self.llm = LLM(model, dtype=dtype, backend=backend)

    def generate(self, prompts: list[list[int]], tokens: int) -> None:
        from decodery import GenerationParams

        params = GenerationParams(max_tokens=tokens, temperature=0, ignore_eos=True)
        outputs = self.llm.generate(prompts, params, progress=False)
        assert all(len(output.completions[0].token_ids) == tokens for output in outputs)


class Transformers:
    """transformers' own `generate` with its default attention and cache."""

    def __init__(self, model: Path, dtype: str) -> None:
        from transformers import AutoModelForCausalLM, LlamaForCausalLM

        loaded: Any = AutoModelForCausalLM.from_pretrained(
            model.parent, gguf_file=model.name, dtype=getattr(torch, dtype)
        )
        # A model that was loaded from a GGUF keeps hooks of its quantiser; a fresh one is what users run.
        fresh: Any = LlamaForCausalLM(loaded.config).to(getattr(torch, dtype))
        fresh.load_state_dict(loaded.state_dict())
        self.model = fresh.eval()

    def generate(self, prompts: list[list[int]], tokens: int) -> None:
        ids = torch.tensor(prompts)
        with torch.inference_mode():
            output = self.model.generate(
                ids,
                attention_mask=torch.ones_like(ids),
                max_new_tokens=tokens,
                min_new_tokens=tokens,
                do_sample=False,
                pad_token_id=0,
            )
        assert output.shape[1] == ids.shape[1] + tokens

    def beams(self, prompts: list[list[int]], tokens: int, beams: int) -> None:
        """Beam search for exactly so many tokens."""
        ids = torch.tensor(prompts)
        with torch.inference_mode():
            self.model.generate(
                ids,
                attention_mask=torch.ones_like(ids),
                max_new_tokens=tokens,
                eos_token_id=None,
                num_beams=beams,
                do_sample=False,
                pad_token_id=0,
            )


PEERS: dict[str, Callable[[Path, str], Contender]] = {"transformers": Transformers}
