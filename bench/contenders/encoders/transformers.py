"""Embeds sentences with transformers."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from bench.contenders.encoders.batches import Batched


def prepare() -> None:
    """Imports the libraries."""
    import torch  # noqa: F401
    import transformers  # noqa: F401


def load(model: Path, threads: int) -> Batched:
    """Loads the model in float32."""
    import torch
    import transformers

    torch.set_num_threads(threads)
    encoder = transformers.AutoModel.from_pretrained(model).eval()

    def run(tokens: Any, mask: Any) -> Any:
        with torch.inference_mode():
            ids, keep = torch.from_numpy(tokens), torch.from_numpy(mask)
            return encoder(input_ids=ids, attention_mask=keep).last_hidden_state.numpy()

    return Batched(model, run)
