"""Declares the flags of the harnesses of others."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any


def _option(default: Any, help: str, **more: str) -> Any:
    return field(default=default, metadata={"help": help, "panel": "Options", **more})


@dataclass(frozen=True)
class LmEvalOptions:
    """Holds how lm-eval runs, as it is written on the command line; each field is a flag."""

    tasks: str = _option("", "The tasks, with commas between them.", metavar="NAME,...")
    include_path: str | None = _option(None, "A folder with tasks of your own.", metavar="FOLDER")
    num_fewshot: int | None = _option(None, "The number of few-shots; without it, each task's own.")
    limit: int | None = _option(None, "Ask about the first documents of each task only, so many.")
    apply_chat_template: bool = _option(
        False, "Render prompts as conversations in the model's chat template, each few-shot as a turn."
    )
    fewshot_as_multiturn: bool = _option(
        True, "With --apply-chat-template, each few-shot is a turn; else all are in one message."
    )
    system_instruction: str | None = _option(None, "A system message before each prompt.", metavar="TEXT")
    bos: bool | None = _option(
        None, "Begin prompts with the token of the beginning, or not; without it, as the tokenizer does."
    )
    bootstrap_iters: int = _option(100_000, "The samples from which some standard errors are computed.")
    seed: int = _option(1234, "The seed of the few-shots and of sampled texts.")
    out: str | None = _option(
        None, "Write lm-eval's results with all samples into this file.", panel="Output", metavar="FILE"
    )
    json: bool = _option(False, "Print the results as one JSON object.", panel="Output")


@dataclass(frozen=True)
class MtebOptions:
    """Holds how mteb runs, as it is written on the command line; each field is a flag."""

    tasks: str = _option("", "The tasks, with commas between them.", metavar="NAME,...")
    batch_size: int = _option(32, "The number of texts that mteb hands over at a time.")
    json: bool = _option(False, "Print the results as one JSON object.", panel="Output")
