"""Computes the states of texts with transformers."""

from __future__ import annotations

from pathlib import Path

import torch


def states_of(folder: Path, text: str) -> torch.Tensor:
    """Returns the states [length, width] of a text alone, with its special tokens."""
    import transformers

    model = transformers.AutoModel.from_pretrained(folder).eval()
    tokenizer = transformers.AutoTokenizer.from_pretrained(folder)
    with torch.no_grad():
        found = model(**tokenizer([text], return_tensors="pt", return_token_type_ids=True))
    states: torch.Tensor = found.last_hidden_state[0]
    return states
