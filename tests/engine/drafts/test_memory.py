from __future__ import annotations

from array import array

from decodery.engine.drafts.confidence import FIRST, SOURCES, Confidence, place_of, source_of
from decodery.engine.drafts.memory import MOST_SUCCESSORS, MOST_TOKENS, Memory


def test_what_followed_in_an_earlier_text_is_found() -> None:
    memory = Memory()
    memory.add_text(array("q", [5, 6, 7, 8, 9]))
    index, end, length = memory.longest(array("q", [1, 6, 7, 8]))
    assert (index.tokens[end], length) == (9, 3)
    assert memory.longest(array("q", [1, 2]))[2] == 0


def test_the_oldest_texts_go_first_and_memory_is_bounded() -> None:
    memory = Memory()
    memory.add_text(array("q", [900_001, 900_002, 900_003]))
    for start in range(0, 2 * MOST_TOKENS, 1000):
        memory.add_text(array("q", range(start, start + 1000)))
    assert len(memory._older) + len(memory._newer) <= MOST_TOKENS
    assert memory.longest(array("q", [900_001, 900_002]))[2] == 0
    last = 2 * MOST_TOKENS - 2000
    assert memory.longest(array("q", [last, last + 1]))[2] == 2


def test_a_text_longer_than_the_memory_leaves_its_end() -> None:
    memory = Memory()
    memory.add_text(array("q", range(3 * MOST_TOKENS)))
    assert memory.longest(array("q", [3 * MOST_TOKENS - 3, 3 * MOST_TOKENS - 2]))[2] == 2
    assert len(memory._older) + len(memory._newer) <= MOST_TOKENS + 1


def test_no_match_goes_from_one_text_to_the_next() -> None:
    memory = Memory()
    memory.add_text(array("q", [1, 2]))
    memory.add_text(array("q", [3, 4]))
    assert memory.longest(array("q", [2, 3]))[2] == 0


def test_successors_are_known_by_two_tokens_before_one() -> None:
    memory = Memory()
    memory.learn(1, 2, 10)
    memory.learn(3, 2, 11)
    assert memory.successor(1, 2) == (10, 2)
    assert memory.successor(9, 2) == (11, 1)
    assert memory.successor(9, 9) == (None, 0)
    for token in range(MOST_SUCCESSORS):
        memory.learn(token, token + 1, 0)
    assert len(memory._successors) == MOST_SUCCESSORS
    assert memory.successor(1, 2) == (None, 0)
    assert memory.successor(MOST_SUCCESSORS - 1, MOST_SUCCESSORS) == (0, 2)


def test_every_source_and_length_has_a_place_of_its_own_order() -> None:
    for source in (0, 1):
        places = [place_of(source, length) for length in range(2, 70)]
        assert places == sorted(places)
        assert [FIRST[place] for place in places] == sorted(FIRST[place] for place in places)
    every = {place_of(s, n) for s in (0, 1) for n in range(2, 70)} | {place_of(2, 1), place_of(2, 2)}
    assert every == set(range(len(FIRST)))
    assert [source_of(place_of(source, 2)) for source in range(3)] == list(SOURCES)


def test_confidence_approaches_how_often_drafts_are_right() -> None:
    confidence = Confidence([0.9], memory=50)
    for i in range(2000):
        confidence.learn(0, i % 4 == 0)
    assert 0.15 < confidence.values[0] < 0.35
