"""Joins the labels of words to spans, and the spans that several windows see."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass
from typing import Literal, NamedTuple

import numpy as np

from decodery.encoding.tasks.head_scores import Floats

Merge = Literal["first", "average", "max", "simple", "none"]
"""How tokens become spans. A word has the label of its first token, of its tokens' mean, or of the token with
the best score. "simple" joins tokens whatever word they belong to, "none" joins nothing."""

_BEGINS, _ENDS = frozenset("BSU"), frozenset("ESLU")


class Label(NamedTuple):
    """Holds a label: its place in the scheme, B, I, E, L, S, U or "" without one, and the kind of span."""

    prefix: str
    kind: str


@dataclass(frozen=True)
class LabelScheme:
    """Holds the labels of a head of tokens, and how those of neighbours make a span.

    `joins` is False where each word is a span of its own: if no label is ignored and none has a prefix, as
    for parts of speech.
    """

    labels: tuple[Label, ...]
    ignored: frozenset[int]
    joins: bool


class FoundSpan(NamedTuple):
    """Holds a span of words, or of tokens: a slice of them, its kind and its score.

    `cut_start` and `cut_end` are True where the window ends and the text does not. `begins`: the first
    label begins a span by itself.
    """

    first: int
    last: int
    kind: str
    score: float
    begins: bool = True
    cut_start: bool = False
    cut_end: bool = False

    @property
    def partial(self) -> bool:
        """True if the rest of the span may be outside the window."""
        return self.cut_start or self.cut_end


def scheme_of(names: Sequence[str], ignore: Collection[str], merge: Merge) -> LabelScheme:
    """Returns the scheme of these labels: BIO, BIOES, BILOU, or labels without prefixes."""
    prefixed = any(name[:2] in ("B-", "I-", "B_", "I_") for name in names)
    labels = tuple(_parsed(name) if prefixed else Label("", name) for name in names)
    ignored = frozenset(
        place for place, name in enumerate(names) if name in ignore or labels[place].kind in ignore
    )
    return LabelScheme(labels, ignored, merge != "none" and (prefixed or "O" in names))


def _parsed(name: str) -> Label:
    if len(name) > 2 and name[0] in "BIELSU" and name[1] in "-_":
        return Label(name[0], name[2:])
    return Label("", name)


def word_scores(scores: Floats, merge: Merge) -> Floats:
    """Returns the scores [labels] of a word from those of its tokens [tokens, labels]."""
    if merge == "average":
        mean: Floats = scores.mean(0)
        return mean
    best: Floats = scores[int(scores.max(1).argmax())] if merge == "max" else scores[0]
    return best


def spans_of(
    scores: Floats, first: int, scheme: LabelScheme, *, cut_start: bool = False, cut_end: bool = False
) -> list[FoundSpan]:
    """Returns the spans of words whose scores are [words, labels]; `first` is the number of the first word.

    A span's score is the mean of its words' scores. `cut_start` and `cut_end` tell that more words are before
    and after these.
    """
    found: list[FoundSpan] = []
    parts: list[float] = []
    is_open = False
    for place, row in enumerate(scores):
        label = int(row.argmax())
        if label in scheme.ignored:
            is_open = False
            continue
        prefix, kind = scheme.labels[label]
        begins = prefix in _BEGINS
        if scheme.joins and is_open and not begins and found[-1].kind == kind:
            parts.append(float(row[label]))
            found[-1] = found[-1]._replace(last=first + place + 1, score=float(np.mean(parts)))
        else:
            parts = [float(row[label])]
            found.append(FoundSpan(first + place, first + place + 1, kind, parts[0], begins))
        is_open = prefix not in _ENDS
    if found and cut_start and found[0].first == first:
        found[0] = found[0]._replace(cut_start=True)
    if found and cut_end and found[-1].last == first + len(scores):
        found[-1] = found[-1]._replace(cut_end=is_open)
    return found


def joined_windows(windows: Iterable[Sequence[FoundSpan]], scheme: LabelScheme) -> list[FoundSpan]:
    """Returns the spans of all windows of a text, in order, none upon another.

    A span that several windows see has the best of their scores. A whole span excludes those upon it that a
    window cuts; two halves that windows cut become one.
    """
    best: dict[tuple[int, int, str], FoundSpan] = {}
    for window in windows:
        for span in window:
            key = span.first, span.last, span.kind
            best[key] = _better(best[key], span) if key in best else span
    whole = _apart([span for span in best.values() if not span.partial], [])
    halves = [span for span in best.values() if span.partial and not _overlaps(span, whole)]
    halves = _joined_halves(sorted(halves)) if scheme.joins else halves
    return sorted(_apart(halves, whole))


def _better(one: FoundSpan, other: FoundSpan) -> FoundSpan:
    """Returns a span that two windows see alike, with the better score; it is cut if both cut it."""
    return one._replace(
        score=max(one.score, other.score),
        begins=one.begins or other.begins,
        cut_start=one.cut_start and other.cut_start,
        cut_end=one.cut_end and other.cut_end,
    )


def _joined_halves(spans: Sequence[FoundSpan]) -> list[FoundSpan]:
    """Returns spans in which the end of one window and the beginning of the next one are one span."""
    found: list[FoundSpan] = []
    for span in spans:
        last = found[-1] if found else None
        if (
            last is not None
            and last.cut_end
            and span.cut_start
            and last.kind == span.kind
            and (span.first < last.last or (span.first == last.last and not span.begins))
        ):
            found[-1] = last._replace(
                last=max(last.last, span.last), score=max(last.score, span.score), cut_end=span.cut_end
            )
        else:
            found.append(span)
    return found


def _apart(spans: Iterable[FoundSpan], taken: Sequence[FoundSpan]) -> list[FoundSpan]:
    """Returns `taken` with those of the spans that are upon no other, the best score first."""
    found = list(taken)
    for span in sorted(spans, key=lambda span: (-span.score, span.first - span.last, span.first)):
        if not _overlaps(span, found):
            found.append(span)
    return found


def _overlaps(span: FoundSpan, others: Iterable[FoundSpan]) -> bool:
    return any(span.first < other.last and other.first < span.last for other in others)
