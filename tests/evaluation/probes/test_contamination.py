"""Checks which documents count as part of a corpus."""

from __future__ import annotations

import random
import tracemalloc
from collections.abc import Iterator

import pytest

from decodery.errors import ParameterError
from decodery.evaluation.probes.contamination import Contamination, contaminated

RNG = random.Random(5)
NAMES = [f"word{i}" for i in range(500)]


def text(count: int) -> str:
    return " ".join(RNG.choice(NAMES) for _ in range(count))


def test_thirteen_words_in_a_row_are_contamination_and_twelve_are_not() -> None:
    words = [f"w{i}" for i in range(40)]
    document = " ".join(words)
    for length, state in ((12, "clean"), (13, "contaminated")):
        corpus = [["before " + " ".join(words[5 : 5 + length]) + " after"]]
        (found,) = contaminated({"d": document}, corpus)
        assert (found.state, found.windows, found.found) == (state, 28, int(length == 13))


def test_a_short_document_is_not_checkable_and_is_neither_clean_nor_contaminated() -> None:
    short = "only twelve words are here so that no window of thirteen fits"
    assert len(short.split()) == 12
    found = contaminated({"a": short, "b": short + " now", "c": ""}, [[short + " now"]])
    assert [one.state for one in found] == ["not checkable", "contaminated", "not checkable"]
    assert found[0] == Contamination("a", "not checkable")


def test_case_punctuation_and_lines_do_not_hide_a_window() -> None:
    document = "The quick brown fox jumps over the lazy dog and then it sleeps well."
    lines = ["the QUICK -- brown\n", "fox, jumps: over\n", "the lazy dog and then it sleeps\n"]
    (found,) = contaminated({"d": document}, [lines])
    assert found.state == "contaminated"
    assert found.example == "the quick brown fox jumps over the lazy dog and then it sleeps"


def test_windows_do_not_go_across_texts_of_the_corpus() -> None:
    words = [f"w{i}" for i in range(13)]
    whole, halves = " ".join(words), [[" ".join(words[:7])], [" ".join(words[7:])]]
    assert contaminated({"d": whole}, halves)[0].state == "clean"
    assert contaminated({"d": whole}, [[*halves[0], *halves[1]]])[0].state == "contaminated"


def test_every_state_is_that_of_a_direct_search() -> None:
    documents = {str(i): text(RNG.randint(5, 40)) for i in range(60)}
    corpus = [text(200) for _ in range(20)]
    for key in ("3", "7", "11"):
        words = documents[key].split()
        corpus.append(text(30) + " " + " ".join(words) + " " + text(30))
    for found in contaminated(documents, [[one] for one in corpus]):
        words = documents[found.document].split()
        runs = {" ".join(words[i : i + 13]) for i in range(len(words) - 12)}
        hits = sum(any(f" {run} " in f" {one} " for one in corpus) for run in runs)
        assert (found.windows, found.found) == (len(runs), hits)
        expected = "contaminated" if hits else "clean" if runs else "not checkable"
        assert found.state == expected


def test_memory_does_not_grow_with_the_corpus() -> None:
    def lines(count: int) -> Iterator[str]:
        rng = random.Random(1)
        for _ in range(count):
            yield " ".join(rng.choice(NAMES) for _ in range(20))

    def peak(count: int) -> int:
        tracemalloc.start()
        contaminated({"d": text(30)}, [lines(count)])
        found = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
        return found

    # What other threads of the process hold is measured too, and only adds.
    assert min(peak(4000) for _ in range(3)) < peak(200) + 50_000


@pytest.mark.parametrize("words", [0, -1, 1.5, True])
def test_a_window_has_a_whole_number_of_words(words: object) -> None:
    with pytest.raises(ParameterError, match="words must be a whole number from 1 on"):
        contaminated({"d": "a"}, [], words=words)  # type: ignore[arg-type]
