"""Declares the flags of judging."""

from __future__ import annotations

from dataclasses import dataclass

from decodery.cli.flags.flag_field import option


@dataclass(frozen=True)
class JudgeOptions:
    """Holds how answers are judged, as it is written on the command line; each field is a flag."""

    votes: str | None = option(
        None,
        "People's votes, beside the judges: JSON lines with id, vote (one, other, tie, both_bad), voter; a"
        " file that the page saved has the answers too.",
        metavar="FILE",
    )
    rubric: str | None = option(
        None,
        "Give each answer of ANSWERS a mark by the rubric in this file, in place of comparing.",
        metavar="FILE",
    )
    best: int = option(5, "The best mark of the rubric; the worst is 1.")
    inconsistent: str = option(
        "excluded",
        "How pairs count whose verdict changes with the order of the answers.",
        metavar="excluded|half",
    )
    instructions: str | None = option(
        None, "What the judge is told, in place of the default.", metavar="FILE"
    )
    reasons: bool = option(True, "Let the judge write a reason before its verdict.")
    limit: int | None = option(None, "Judge the first answers only, so many.")
    out: str | None = option(
        None, "Keep the verdicts in this folder; the same command goes on there.", metavar="FOLDER"
    )
    json: bool = option(False, "Print the results as one JSON object.", panel="Output")
