"""Declares the flags of the commands that use the heads of encoders."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from decodery.cli.flags.search_options import BASELINE


def _option(default: Any, help: str, metavar: str = "", panel: str = "Options") -> Any:
    more = {"metavar": metavar} if metavar else {}
    return field(default=default, metadata={"help": help, "panel": panel, **more})


LONG = "A text that is too long is an error, or cut at its end."
BEST = "The most results of each line; without it, {}."


@dataclass(frozen=True)
class ClassifyOptions:
    """Holds the arguments of `LLM.classify`, as they are written on the command line; each is a flag."""

    labels: str | None = _option(None, "Labels to choose from, in place of the model's own.", "NAME,...")
    examples: str | None = _option(
        None,
        "Learn labels from the lines of a .jsonl file, with the fields text and label; needs scikit-learn.",
        "FILE",
    )
    with_: str | None = _option(
        None,
        "Compare with vectors of --examples that need no model: counts of words, TF-IDF, or vectors of words"
        " (PPMI).",
        BASELINE,
    )
    method: str | None = _option(
        None,
        "How to classify; without it, as the other flags and the model need.",
        "head|similarity|entailment|prompt|examples",
    )
    hypothesis: str | None = _option(
        None, "The sentence about a label; {} is the label. Without it: This example is {}.", "TEXT"
    )
    entailment: str | None = _option(None, "The model's class of entailment, if it is not so called.", "NAME")
    contradiction: str | None = _option(
        None, "The model's class of contradiction, if it is not so called.", "NAME"
    )
    prompt: str | None = _option(
        None,
        "For a model that continues texts: the prompt behind which it names the class; {text} is the line,"
        " {labels} are the labels.",
        "TEXT",
    )
    multi_label: str | None = _option(
        None, "Give each label a probability of its own; without it, as the model says.", "yes|no"
    )
    top_k: int | None = _option(None, BEST.format("all labels"), panel="Output")
    long: str = _option("error", LONG + " For vectors, windows are averaged too.", "error|cut|windows")


@dataclass(frozen=True)
class FillMaskOptions:
    """Holds the arguments of `LLM.fill_mask`, as they are written on the command line; each is a flag."""

    top_k: int | None = _option(None, "The most tokens for each mask; without it, 5.", panel="Output")
    targets: str | None = _option(None, "Rank these words alone.", "WORD,...")


@dataclass(frozen=True)
class TagOptions:
    """Holds the arguments of `LLM.tag`, as they are written on the command line; each is a flag."""

    merge: str = _option(
        "first", "The token of a word that labels it, or how tokens join.", "first|average|max|simple|none"
    )
    overlap: int | None = _option(None, "The tokens that two windows of a long text share; without it, 64.")
    ignore: str = _option("O", "Labels to leave out.", "NAME,...", panel="Output")


@dataclass(frozen=True)
class AnswerOptions:
    """Holds the arguments of `LLM.answer`, as they are written on the command line; each is a flag."""

    question: str | None = _option(
        None, "Ask this of each line; without it, lines are JSON with question and context.", "TEXT"
    )
    top_k: int = _option(1, "The most answers of each line.", panel="Output")
    no_answer: str | None = _option(
        None,
        "Let an empty text be among the answers; a number says how much likelier it must be.",
        "yes|no|NUMBER",
    )
    overlap: int | None = _option(None, "The tokens that two windows of a long text share; without it, 128.")
    longest: int = _option(15, "The most tokens of an answer.")


@dataclass(frozen=True)
class RerankOptions:
    """Holds the arguments of `LLM.rerank`, as they are written on the command line; each is a flag."""

    query: str | None = _option(
        None, "Order all lines by this; without it, lines are JSON with query and documents.", "TEXT"
    )
    top_n: int | None = _option(None, BEST.format("all documents"), panel="Output")
    long: str = _option("error", LONG + " The query is never cut.", "error|cut")
    instruction: str | None = _option(
        None,
        "What the query asks for, read before it; without it, as the model says.",
        "TEXT",
    )
    answers: str | None = _option(
        None, "The tokens of the answers yes and no; without it, as the model says.", "YES,NO"
    )
