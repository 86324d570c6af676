"""Declares the flags of the commands that score texts in files."""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial

from decodery.cli.flags.flag_field import option

_option = partial(option, panel="Scores")


@dataclass(frozen=True)
class ScoreOptions:
    """Holds what is compared with what, and how; each field is a flag."""

    references: tuple[str, ...] = _option(
        (), "The references, one a line or a field of rows. Repeat it for several references of each text."
    )
    sources: str | None = _option(
        None,
        "The texts that were summarised or translated, which stand beside the scores of each text.",
        metavar="FILE",
    )
    kind: str | None = _option(
        None,
        "The metrics of a summary (ROUGE), a translation (BLEU, chrF) or a short answer; without it, ROUGE,"
        " BLEU and chrF.",
        metavar="summary|translation|answer",
    )
    metrics: str | None = _option(
        None,
        "These metrics: rouge (all four), rouge1, rouge2, rougeL, rougeLsum, bleu, chrf, bertscore,"
        " exact_match, token_f1.",
        metavar="NAME,...",
    )
    compare: str | None = _option(
        None, "Other texts for the same references: says whether they are better.", metavar="FILE"
    )
    prediction_field: str = _option("prediction", "The field of rows that has the text.", metavar="NAME")
    reference_field: str = _option(
        "reference", "The field of rows that has the reference, or a list of them.", metavar="NAME"
    )
    source_field: str = _option("source", "The field of rows that has the source.", metavar="NAME")
    tokenize: str = _option("13a", "BLEU's tokenizer.", metavar="13a|intl|zh|char|none")
    lowercase: bool = _option(False, "BLEU of texts in lower case.")
    word_order: int = _option(0, "Words in a row that chrF counts too; 2 is chrF++.")
    stemmer: bool = _option(False, "ROUGE of the stems of English words.")
    encoder: str | None = _option(None, "BERTScore's encoder; without it, minilm.", metavar="MODEL")
    layer: int = _option(-1, "The encoder's layer whose vectors are compared; -1 is the last.")
    long: str = _option(
        "error", "What BERTScore does with a text that is too long for the encoder.", metavar="error|cut"
    )
    baseline: str | None = _option(
        None,
        "Rescale BERTScore by this file, from decodery eval bertscore-baseline or bert-score.",
        metavar="FILE",
    )
    out: str | None = _option(
        None, "Write the scores of each text as JSON lines.", metavar="FILE", panel="Output"
    )
    report: str | None = _option(
        None,
        "Write a page (HTML) with the scores and the worst texts.",
        metavar="FILE",
        panel="Output",
    )
