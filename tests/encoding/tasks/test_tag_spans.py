"""Tests how labels become spans, and the spans of windows."""

from __future__ import annotations

import numpy as np
import pytest

from decodery.encoding.tasks.tag_spans import (
    FoundSpan,
    LabelScheme,
    joined_windows,
    scheme_of,
    spans_of,
    word_scores,
)

BIO = ("O", "B-PER", "I-PER", "B-LOC", "I-LOC")
BIOES = (*BIO, "E-PER", "S-PER", "E-LOC", "S-LOC")
BILOU = (*BIO, "L-PER", "U-PER")


def found(names: tuple[str, ...], labels: str, **options: object) -> list[tuple[str, int, int]]:
    """Returns the kind and the words of each span of words with these labels."""
    rows = np.full((len(labels.split()), len(names)), 0.01)
    for row, label in zip(rows, labels.split(), strict=True):
        row[names.index(label)] = 0.9
    scheme = scheme_of(names, ("O",), "first")
    return [(span.kind, span.first, span.last) for span in spans_of(rows, 0, scheme)]


SCHEMES = [
    (BIO, "O O", []),
    (BIO, "B-PER I-PER O B-LOC", [("PER", 0, 2), ("LOC", 3, 4)]),
    (BIO, "B-PER B-PER I-PER", [("PER", 0, 1), ("PER", 1, 3)]),
    (BIO, "B-PER I-LOC I-LOC", [("PER", 0, 1), ("LOC", 1, 3)]),
    (BIO, "I-PER I-PER", [("PER", 0, 2)]),
    (BIO, "B-PER O I-PER", [("PER", 0, 1), ("PER", 2, 3)]),
    (BIOES, "B-PER I-PER E-PER I-PER", [("PER", 0, 3), ("PER", 3, 4)]),
    (BIOES, "S-PER S-PER E-PER", [("PER", 0, 1), ("PER", 1, 2), ("PER", 2, 3)]),
    (BIOES, "S-PER I-PER B-LOC E-LOC S-LOC", [("PER", 0, 1), ("PER", 1, 2), ("LOC", 2, 4), ("LOC", 4, 5)]),
    (BILOU, "B-PER L-PER U-PER I-PER", [("PER", 0, 2), ("PER", 2, 3), ("PER", 3, 4)]),
    (("O", "PER", "LOC"), "PER PER LOC O PER", [("PER", 0, 2), ("LOC", 2, 3), ("PER", 4, 5)]),
    # Parts of speech: no word is without a label, so that each stands alone.
    (("NOUN", "VERB"), "NOUN NOUN VERB", [("NOUN", 0, 1), ("NOUN", 1, 2), ("VERB", 2, 3)]),
    # Without B- and I-, a letter and a hyphen are a part of the name.
    (("O", "E-MAIL", "S-BAHN"), "E-MAIL E-MAIL S-BAHN", [("E-MAIL", 0, 2), ("S-BAHN", 2, 3)]),
    (("O", "B_PER", "I_PER"), "B_PER I_PER B_PER", [("PER", 0, 2), ("PER", 2, 3)]),
]


@pytest.mark.parametrize(("names", "labels", "expected"), SCHEMES)
def test_neighbours_join_as_the_scheme_says(
    names: tuple[str, ...], labels: str, expected: list[tuple[str, int, int]]
) -> None:
    assert found(names, labels) == expected


def test_labels_are_ignored_with_and_without_their_prefix() -> None:
    for ignore in (("O", "PER"), ("O", "B-PER", "I-PER")):
        scheme = scheme_of(BIO, ignore, "first")
        assert scheme.ignored == {0, 1, 2}
    assert scheme_of(BIO, (), "first").ignored == frozenset()


def test_without_merging_every_token_is_a_span() -> None:
    scheme = scheme_of(BIO, ("O",), "none")
    rows = np.eye(5)[[1, 2, 2]]
    assert [(span.first, span.last) for span in spans_of(rows, 0, scheme)] == [(0, 1), (1, 2), (2, 3)]


def test_a_word_has_one_label_by_its_first_its_mean_or_its_best_token() -> None:
    # B-PER, O, B-PER: a word with an O inside.
    rows = np.array([[0.3, 0.5, 0.1, 0.1, 0], [0.9, 0.1, 0, 0, 0], [0.2, 0.6, 0.2, 0, 0]])
    assert word_scores(rows, "first").argmax() == 1
    assert word_scores(rows, "max").argmax() == 0
    assert word_scores(rows, "average").tolist() == pytest.approx([1.4 / 3, 1.2 / 3, 0.1, 0.1 / 3, 0])


def test_the_score_of_a_span_is_the_mean_of_its_words() -> None:
    rows = np.array([[0.1, 0.9, 0, 0, 0], [0.3, 0, 0.7, 0, 0], [0.5, 0, 0.5001, 0, 0]])
    (span,) = spans_of(rows, 4, scheme_of(BIO, ("O",), "first"))
    assert span == FoundSpan(4, 7, "PER", pytest.approx((0.9 + 0.7 + 0.5001) / 3), True)


def span(first: int, last: int, score: float, kind: str = "PER", cut: str = "") -> FoundSpan:
    """Returns a span of a window; `cut` names its sides that the window cuts."""
    return FoundSpan(first, last, kind, score, True, "start" in cut, "end" in cut)


SCHEME: LabelScheme = scheme_of(BIO, ("O",), "first")


def joined(*windows: list[FoundSpan]) -> list[tuple[int, int, str, float]]:
    return [(s.first, s.last, s.kind, s.score) for s in joined_windows(windows, SCHEME)]


def test_a_span_that_two_windows_see_comes_once_with_the_better_score() -> None:
    assert joined([span(3, 5, 0.7)], [span(3, 5, 0.8)]) == [(3, 5, "PER", 0.8)]
    assert joined([span(3, 5, 0.9, cut="end")], [span(3, 5, 0.8)]) == [(3, 5, "PER", 0.9)]
    assert joined([span(3, 5, 0.7)], [span(3, 5, 0.8, "LOC")]) == [(3, 5, "LOC", 0.8)]


def test_the_half_that_a_window_cuts_gives_way_to_the_whole_whatever_its_score() -> None:
    assert joined([span(3, 4, 0.99, cut="end")], [span(3, 5, 0.6)]) == [(3, 5, "PER", 0.6)]
    assert joined([span(2, 5, 0.6)], [span(4, 5, 0.99, cut="start")]) == [(2, 5, "PER", 0.6)]


def test_two_halves_that_windows_cut_are_one_span() -> None:
    continued = span(5, 8, 0.6, cut="start")._replace(begins=False)
    assert joined([span(3, 5, 0.9, cut="end")], [continued]) == [(3, 8, "PER", 0.9)]
    assert joined([span(3, 6, 0.5, cut="end")], [span(4, 8, 0.6, cut="start")]) == [(3, 8, "PER", 0.6)]
    # The next window begins a span of its own, or one of another kind.
    assert joined([span(3, 5, 0.9, cut="end")], [span(5, 8, 0.6, cut="start")]) == [
        (3, 5, "PER", 0.9),
        (5, 8, "PER", 0.6),
    ]
    other = continued._replace(kind="LOC")
    assert joined([span(3, 5, 0.9, cut="end")], [other]) == [(3, 5, "PER", 0.9), (5, 8, "LOC", 0.6)]


def test_a_span_over_three_windows_is_one() -> None:
    middle = span(5, 8, 0.6, cut="start end")._replace(begins=False)
    last = span(8, 9, 0.7, cut="start")._replace(begins=False)
    assert joined([span(3, 5, 0.9, cut="end")], [middle], [last]) == [(3, 9, "PER", 0.9)]


def test_spans_of_different_windows_never_overlap() -> None:
    assert joined([span(0, 3, 0.5)], [span(2, 5, 0.8)], [span(4, 6, 0.7)]) == [(2, 5, "PER", 0.8)]
