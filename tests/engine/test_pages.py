from __future__ import annotations

from array import array

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from decodery.engine.pages import Pages, extend_page_keys, pages_for
from decodery.kernels import PAGE_SIZE

COUNT = 12

OPERATIONS = st.lists(
    st.tuples(
        st.sampled_from(["start", "append", "fork", "free", "truncate"]),
        st.integers(0, 10**6),
        st.integers(1, 3 * PAGE_SIZE),
    ),
    max_size=60,
)


class CheckedSequences:
    """Holds sequences over a page table, and the tokens that each page should contain."""

    def __init__(self) -> None:
        self.pages = Pages(COUNT)
        self.content: list[list[int | None]] = [[None] * PAGE_SIZE for _ in range(COUNT)]
        self.sequences: list[tuple[list[int], list[int]]] = []

    def check(self) -> None:
        self.pages.check_integrity([held for held, _ in self.sequences])
        for held, tokens in self.sequences:
            assert len(held) == pages_for(len(tokens))
            seen = [self.content[p][i] for p in held for i in range(PAGE_SIZE)][: len(tokens)]
            assert seen == tokens, "another sequence wrote here"

    def extend(self, held: list[int], tokens: list[int], new: list[int]) -> None:
        for token in new:
            index, offset = divmod(len(tokens), PAGE_SIZE)
            if index == len(held):
                if not self.pages.available:
                    break
                held.append(self.pages.allocate())
            elif self.pages.shared(held[index]):
                if not self.pages.available:
                    break
                copy = self.pages.allocate()
                self.content[copy] = list(self.content[held[index]])
                self.pages.release([held[index]])
                held[index] = copy
            self.content[held[index]][offset] = token
            tokens.append(token)
        keys: list[bytes] = []
        extend_page_keys(keys, array("q", tokens))
        for page, key in zip(held, keys, strict=False):
            self.pages.remember(page, key)

    def start(self, size: int) -> None:
        tokens = [i % 3 for i in range(size)]
        keys: list[bytes] = []
        extend_page_keys(keys, array("q", tokens))
        held = self.pages.find(keys)
        self.pages.hold(held)
        known = tokens[: len(held) * PAGE_SIZE]
        self.sequences.append((held, known))
        self.extend(held, known, tokens[len(known) :])


@settings(max_examples=300, deadline=None)
@given(OPERATIONS)
def test_no_page_is_lost_shared_by_mistake_or_overwritten(operations: list[tuple[str, int, int]]) -> None:
    checked = CheckedSequences()
    for name, which, size in operations:
        if name == "start":
            checked.start(size)
        elif checked.sequences:
            held, tokens = checked.sequences[which % len(checked.sequences)]
            if name == "append":
                checked.extend(held, tokens, [(which + i) % 5 for i in range(size)])
            elif name == "fork":
                checked.pages.hold(held)
                checked.sequences.append((list(held), list(tokens)))
            elif name == "truncate":
                del tokens[max(len(tokens) - size, 0) :]
                checked.pages.release(held[pages_for(len(tokens)) :])
                del held[pages_for(len(tokens)) :]
            else:
                checked.pages.release(held)
                del checked.sequences[which % len(checked.sequences)]
        checked.check()


def test_cached_pages_are_evicted_the_least_recently_used_first() -> None:
    pages = Pages(3)
    held = [pages.allocate() for _ in range(3)]
    for page in held:
        pages.remember(page, bytes([page]))
    pages.release([held[1]])
    pages.release([held[0]])
    pages.release([held[2]])
    assert [pages.allocate() for _ in range(3)] == [held[1], held[0], held[2]]
    with pytest.raises(IndexError):
        pages.allocate()


def test_the_last_pages_of_a_sequence_are_evicted_before_its_first() -> None:
    pages = Pages(3)
    held = [pages.allocate() for _ in range(3)]
    keys: list[bytes] = []
    extend_page_keys(keys, array("q", range(3 * PAGE_SIZE)))
    for page, key in zip(held, keys, strict=True):
        pages.remember(page, key)
    pages.release(held)
    pages.allocate()
    assert pages.find(keys) == held[:2]


def test_a_page_key_covers_everything_before_it() -> None:
    one: list[bytes] = []
    other: list[bytes] = []
    extend_page_keys(one, array("q", [1] * 2 * PAGE_SIZE))
    extend_page_keys(other, array("q", [2] + [1] * (2 * PAGE_SIZE - 1)))
    assert one[1] != other[1]


def test_integrity_notices_a_leak() -> None:
    pages = Pages(2)
    pages.allocate()
    with pytest.raises(AssertionError):
        pages.check_integrity([])
