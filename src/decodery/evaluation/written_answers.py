"""Takes answers from texts that a model wrote, and measures them from 0 to 1 by the right ones."""

from __future__ import annotations

from collections.abc import Sequence

from decodery.metrics.short_answers import exact_match, token_f1


def cut_before(text: str, marks: Sequence[str]) -> str:
    """Returns what comes before the first of these marks in a text."""
    return text[: min((place for mark in marks if (place := text.find(mark)) >= 0), default=len(text))]


def whole_text(text: str) -> str | None:
    """Returns a text without the white space around it, or None if it is empty."""
    return text.strip() or None


def first_line(text: str) -> str | None:
    """Returns the first line of a text, or None if it is empty."""
    return text.strip().partition("\n")[0].strip() or None


def same(gold: Sequence[str], answer: str) -> float:
    """Returns 1 if an answer is one of the right ones, character by character."""
    return float(answer in gold)


def normalised_match(gold: Sequence[str], answer: str) -> float:
    """Returns 1 if an answer is one of the right ones in SQuAD's normalisation."""
    return exact_match([gold], [answer]).value or 0.0


def shared_words(gold: Sequence[str], answer: str) -> float:
    """Returns the largest F1 of the words of an answer and of a right one, in SQuAD's normalisation."""
    return token_f1([gold], [answer]).value or 0.0
