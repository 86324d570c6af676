"""Declares the flags of the harnesses of others."""

from __future__ import annotations

from dataclasses import dataclass

from decodery.cli.flags.flag_field import option


@dataclass(frozen=True)
class LmEvalOptions:
    """Holds how lm-eval runs, as it is written on the command line; each field is a flag."""

    tasks: str = option("", "The tasks, with commas between them.", metavar="NAME,...")
    include_path: str | None = option(None, "A folder with tasks of your own.", metavar="FOLDER")
    num_fewshot: int | None = option(None, "The number of few-shots; without it, each task's own.")
    limit: int | None = option(None, "Ask about the first documents of each task only, so many.")
    apply_chat_template: bool = option(
        False, "Render prompts as conversations in the model's chat template, each few-shot as a turn."
    )
    fewshot_as_multiturn: bool = option(
        True, "With --apply-chat-template, each few-shot is a turn; else all are in one message."
    )
    system_instruction: str | None = option(None, "A system message before each prompt.", metavar="TEXT")
    bos: bool | None = option(
        None, "Begin prompts with the token of the beginning, or not; without it, as the tokenizer does."
    )
    bootstrap_iters: int = option(100_000, "The samples from which some standard errors are computed.")
    seed: int = option(1234, "The seed of the few-shots and of sampled texts.")
    out: str | None = option(
        None, "Write lm-eval's results with all samples into this file.", panel="Output", metavar="FILE"
    )
    json: bool = option(False, "Print the results as one JSON object.", panel="Output")


@dataclass(frozen=True)
class MtebOptions:
    """Holds how mteb runs, as it is written on the command line; each field is a flag."""

    tasks: str = option("", "The tasks, with commas between them.", metavar="NAME,...")
    batch_size: int = option(32, "The number of texts that mteb hands over at a time.")
    json: bool = option(False, "Print the results as one JSON object.", panel="Output")
