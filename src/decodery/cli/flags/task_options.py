"""Declares the flags of the commands that use the heads of encoders."""

from __future__ import annotations

from dataclasses import dataclass

from decodery.cli.flags.flag_field import option
from decodery.cli.flags.search_options import BASELINE

LONG = "A text that is too long is an error, or cut at its end."
BEST = "The most results of each line; without it, {}."


@dataclass(frozen=True)
class ClassifyOptions:
    """Holds the arguments of `LLM.classify`, as they are written on the command line; each is a flag."""

    labels: str | None = option(
        None, "Labels to choose from, in place of the model's own.", metavar="NAME,..."
    )
    examples: str | None = option(
        None,
        "Learn labels from the lines of a .jsonl file, with the fields text and label; needs scikit-learn.",
        metavar="FILE",
    )
    with_: str | None = option(
        None,
        "Compare with vectors of --examples that need no model: counts of words, TF-IDF, or vectors of words"
        " (PPMI).",
        metavar=BASELINE,
    )
    method: str | None = option(
        None,
        "How to classify; without it, as the other flags and the model need.",
        metavar="head|similarity|entailment|prompt|examples",
    )
    hypothesis: str | None = option(
        None, "The sentence about a label; {} is the label. Without it: This example is {}.", metavar="TEXT"
    )
    entailment: str | None = option(
        None, "The model's class of entailment, if it is not so called.", metavar="NAME"
    )
    contradiction: str | None = option(
        None, "The model's class of contradiction, if it is not so called.", metavar="NAME"
    )
    prompt: str | None = option(
        None,
        "For a model that continues texts: the prompt behind which it names the class; {text} is the line,"
        " {labels} are the labels.",
        metavar="TEXT",
    )
    multi_label: str | None = option(
        None, "Give each label a probability of its own; without it, as the model says.", metavar="yes|no"
    )
    top_k: int | None = option(None, BEST.format("all labels"), panel="Output")
    long: str = option("error", LONG + " For vectors, windows are averaged too.", metavar="error|cut|windows")


@dataclass(frozen=True)
class FillMaskOptions:
    """Holds the arguments of `LLM.fill_mask`, as they are written on the command line; each is a flag."""

    top_k: int | None = option(None, "The most tokens for each mask; without it, 5.", panel="Output")
    targets: str | None = option(None, "Rank these words alone.", metavar="WORD,...")


@dataclass(frozen=True)
class TagOptions:
    """Holds the arguments of `LLM.tag`, as they are written on the command line; each is a flag."""

    merge: str = option(
        "first",
        "The token of a word that labels it, or how tokens join.",
        metavar="first|average|max|simple|none",
    )
    overlap: int | None = option(None, "The tokens that two windows of a long text share; without it, 64.")
    ignore: str = option("O", "Labels to leave out.", metavar="NAME,...", panel="Output")


@dataclass(frozen=True)
class AnswerOptions:
    """Holds the arguments of `LLM.answer`, as they are written on the command line; each is a flag."""

    question: str | None = option(
        None, "Ask this of each line; without it, lines are JSON with question and context.", metavar="TEXT"
    )
    top_k: int = option(1, "The most answers of each line.", panel="Output")
    no_answer: str | None = option(
        None,
        "Let an empty text be among the answers; a number says how much likelier it must be.",
        metavar="yes|no|NUMBER",
    )
    overlap: int | None = option(None, "The tokens that two windows of a long text share; without it, 128.")
    longest: int = option(15, "The most tokens of an answer.")


@dataclass(frozen=True)
class RerankOptions:
    """Holds the arguments of `LLM.rerank`, as they are written on the command line; each is a flag."""

    query: str | None = option(
        None, "Order all lines by this; without it, lines are JSON with query and documents.", metavar="TEXT"
    )
    top_n: int | None = option(None, BEST.format("all documents"), panel="Output")
    long: str = option("error", LONG + " The query is never cut.", metavar="error|cut")
    instruction: str | None = option(
        None,
        "What the query asks for, read before it; without it, as the model says.",
        metavar="TEXT",
    )
    answers: str | None = option(
        None, "The tokens of the answers yes and no; without it, as the model says.", metavar="YES,NO"
    )
