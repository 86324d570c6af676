from __future__ import annotations

from array import array

from hypothesis import given
from hypothesis import strategies as st

from decodery.engine.drafts.ngram_index import LONGEST, NgramIndex

texts = st.lists(st.integers(0, 2), min_size=2, max_size=40)


def lengths(tokens: list[int], known: list[int], ends: range) -> dict[int, int]:
    """Returns the length of the common suffix of `known` and of `tokens` up to each of these ends."""
    found = {}
    for end in ends:
        length = 0
        while length < min(LONGEST, end, len(known)) and tokens[end - 1 - length] == known[-1 - length]:
            length += 1
        found[end] = length
    return found


@given(texts, st.integers(0, 40))
def test_the_longest_earlier_occurrence_in_the_same_text_is_found(tokens: list[int], cut: int) -> None:
    index = NgramIndex()
    index.extend(tokens[:cut])
    index.extend(tokens[cut:])
    end, length = index.longest(array("q", tokens), index.before_end())
    expected = lengths(tokens, tokens, range(2, len(tokens)))
    places = [e for e, n in expected.items() if n >= 2]
    # The search looks at the latest occurrences only.
    best = max((expected[e] for e in sorted(places)[-12:]), default=0)
    assert length == best
    if length:
        assert expected[end] == length
        assert end == max(e for e in sorted(places)[-12:] if expected[e] == best)


@given(texts, texts)
def test_the_longest_occurrence_in_another_text_is_found(tokens: list[int], known: list[int]) -> None:
    index = NgramIndex()
    index.extend(tokens)
    end, length = index.longest(array("q", known), index.latest(known[-2], known[-1]))
    expected = lengths(tokens, known, range(2, len(tokens) + 1))
    places = [e for e, n in expected.items() if n >= 2]
    assert length == max((expected[e] for e in sorted(places)[-12:]), default=0)
    if length:
        assert expected[end] == length


def test_an_empty_index_finds_nothing() -> None:
    index = NgramIndex()
    assert index.longest(array("q", [1, 2]), index.before_end()) == (0, 0)
    assert len(index) == 0
