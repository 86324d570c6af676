"""Declares the flags of a measurement."""

from __future__ import annotations

from dataclasses import dataclass

from decodery.cli.flags.flag_field import option


@dataclass(frozen=True)
class EvalOptions:
    """Holds how a task is run, as it is written on the command line; each field is a flag."""

    data: str | None = option(
        None, "The task's data: a file, or the folder that its published archive unpacks to.", metavar="PATH"
    )
    out: str | None = option(
        None, "Write the run into this folder, or go on with the run in it.", metavar="FOLDER"
    )
    cache: str | None = option(
        None,
        "Keep answers in this folder, which runs share: what one has asked, the others do not ask.",
        metavar="FOLDER",
    )
    shots: int | None = option(None, "The number of few-shots; without it, the task's published number.")
    limit: int | None = option(None, "Ask about the first documents only, so many.")
    repeats: int = option(1, "Sample each generated text so many times.")
    seed: int = option(0, "The seed of the few-shots and of sampled texts.")
    chat: bool = option(False, "Render prompts as conversations in the model's chat template.")
    bos: bool | None = option(
        None,
        "Begin prompts with the token of the beginning, or not; without it, as the tokenizer does. Whole"
        " texts follow that token in any case.",
    )
    split: str | None = option(
        None, "Ask about this split of the data; without it, the one of the task's published number."
    )
    options: str | None = option(
        None,
        "Compare the options' texts, or show them with letters or numbers and compare those.",
        metavar="texts|letters|numbers",
    )
    method: str | None = option(
        None,
        "Compare log-probabilities, or let the model write and look for the option in its text.",
        metavar="compare|parse",
    )
    ending: str | None = option(None, r"What comes after the question; \n is a line end.", metavar="TEXT")
    max_tokens: int | None = option(None, "The largest number of tokens of a written answer.")
    shuffle: int | None = option(
        None, "Show the options of each question in an order drawn with this seed.", metavar="SEED"
    )
    source_language: str | None = option(
        None,
        "The language of the texts to translate: its code in the data, or CODE=NAME.",
        metavar="CODE",
    )
    target_language: str | None = option(
        None, "The language to translate into: its code in the data, or CODE=NAME.", metavar="CODE"
    )
    workers: int = option(2, "The number of threads that ask at once; it changes no result.")
    allow_code: bool = option(False, "Allow tasks to run code that the model wrote.")
    json: bool = option(False, "Print the results as one JSON object.", panel="Output")
