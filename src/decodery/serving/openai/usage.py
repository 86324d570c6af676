"""Counts the tokens of a request in the form of OpenAI's API."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from decodery.decoding.event import PromptProgress
from decodery.outputs import RequestOutput


def counted(outputs: Sequence[RequestOutput], completion_tokens: int) -> dict[str, Any]:
    """Returns the usage of a request: each prompt counts once, completions by their sum."""
    prompt = sum(len(output.prompt_token_ids) for output in outputs)
    return {
        "prompt_tokens": prompt,
        "completion_tokens": completion_tokens,
        "total_tokens": prompt + completion_tokens,
        "prompt_tokens_details": {"cached_tokens": sum(output.cached_tokens for output in outputs)},
    }


def progress_body(progress: PromptProgress) -> dict[str, Any]:
    """Returns how much of a prompt is computed, in llama.cpp's form."""
    return {"total": progress.prompt, "cache": progress.cached, "processed": progress.computed}
