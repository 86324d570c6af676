from __future__ import annotations

from array import array

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from decodery.engine.pages import Pages, encode_salt, extend_page_keys, pages_for
from decodery.kernels import PAGE_SIZE

COUNT = 12
SALTS = (b"", encode_salt([b"one"]), encode_salt([b"two"]))

OPERATIONS = st.lists(
    st.tuples(
        st.sampled_from(["start", "append", "fork", "free", "truncate"]),
        st.integers(0, 10**6),
        st.integers(1, 3 * PAGE_SIZE),
        st.sampled_from(SALTS),
    ),
    max_size=60,
)
Held = tuple[list[int], list[int], bytes]


class CheckedSequences:
    """Holds sequences over a page table, and the tokens and the salt that each page should contain.

    `hits` counts the pages that were found in the prefix cache. Without `salted`, keys contain no salt.
    """

    def __init__(self, *, salted: bool = True) -> None:
        self.pages = Pages(COUNT)
        self.content: list[list[int | None]] = [[None] * PAGE_SIZE for _ in range(COUNT)]
        self.owners: list[bytes | None] = [None] * COUNT
        self.sequences: list[Held] = []
        self.hits = 0
        self.salted = salted

    def check(self) -> None:
        self.pages.check_integrity([held for held, _, _ in self.sequences])
        for held, tokens, salt in self.sequences:
            assert len(held) == pages_for(len(tokens))
            seen = [self.content[p][i] for p in held for i in range(PAGE_SIZE)][: len(tokens)]
            assert seen == tokens, "another sequence wrote here"
            assert all(self.owners[page] == salt for page in held), "another salt's page"

    def keys(self, tokens: list[int], salt: bytes) -> list[bytes]:
        keys: list[bytes] = []
        extend_page_keys(keys, array("q", tokens), salt if self.salted else b"")
        return keys

    def allocate(self, salt: bytes) -> int:
        page = self.pages.allocate()
        self.owners[page] = salt
        return page

    def extend(self, held: list[int], tokens: list[int], salt: bytes, new: list[int]) -> None:
        for token in new:
            index, offset = divmod(len(tokens), PAGE_SIZE)
            if index == len(held):
                if not self.pages.available:
                    break
                held.append(self.allocate(salt))
            elif self.pages.shared(held[index]):
                if not self.pages.available:
                    break
                copy = self.allocate(salt)
                self.content[copy] = list(self.content[held[index]])
                self.pages.release([held[index]])
                held[index] = copy
            self.content[held[index]][offset] = token
            tokens.append(token)
        for index, key in enumerate(self.keys(tokens, salt)):
            known = self.pages.remember(held[index], key)
            if known != held[index]:
                # Two sequences computed the same page; the scheduler keeps one of both.
                self.pages.hold([known])
                self.pages.release([held[index]])
                held[index] = known

    def start(self, size: int, salt: bytes) -> None:
        tokens = [i % 3 for i in range(size)]
        held = self.pages.find(self.keys(tokens, salt))
        self.hits += len(held)
        self.pages.hold(held)
        known = tokens[: len(held) * PAGE_SIZE]
        self.sequences.append((held, known, salt))
        self.extend(held, known, salt, tokens[len(known) :])

    def run(self, operations: list[tuple[str, int, int, bytes]]) -> None:
        for name, which, size, salt in operations:
            if name == "start":
                self.start(size, salt)
            elif self.sequences:
                self.change(name, which, size)
            self.check()

    def change(self, name: str, which: int, size: int) -> None:
        held, tokens, salt = self.sequences[which % len(self.sequences)]
        if name == "append":
            self.extend(held, tokens, salt, [(which + i) % 5 for i in range(size)])
        elif name == "fork":
            self.pages.hold(held)
            self.sequences.append((list(held), list(tokens), salt))
        elif name == "truncate":
            del tokens[max(len(tokens) - size, 0) :]
            self.pages.release(held[pages_for(len(tokens)) :])
            del held[pages_for(len(tokens)) :]
        else:
            self.pages.release(held)
            del self.sequences[which % len(self.sequences)]


def test_no_page_is_lost_overwritten_or_shared_by_mistake_or_across_salts() -> None:
    hits = 0

    @settings(max_examples=300, deadline=None)
    @given(OPERATIONS)
    def check(operations: list[tuple[str, int, int, bytes]]) -> None:
        nonlocal hits
        checked = CheckedSequences()
        checked.run(operations)
        hits += checked.hits

    check()
    assert hits > 20, "sharing within a salt is not tested"


def test_the_check_of_pages_notices_keys_without_a_salt() -> None:
    same = [("start", 0, 2 * PAGE_SIZE, SALTS[0]), ("start", 0, 2 * PAGE_SIZE, SALTS[1])]
    CheckedSequences().run(same)
    with pytest.raises(AssertionError, match="another salt"):
        CheckedSequences(salted=False).run(same)


@given(st.lists(st.binary(max_size=3), max_size=4), st.lists(st.binary(max_size=3), max_size=4))
def test_different_parts_have_different_salts(one: list[bytes], other: list[bytes]) -> None:
    assert (encode_salt(one) == encode_salt(other)) == (one == other)


def test_all_keys_of_a_text_depend_on_its_salt() -> None:
    texts: list[list[bytes]] = []
    for salt in SALTS:
        keys: list[bytes] = []
        extend_page_keys(keys, array("q", range(3 * PAGE_SIZE)), salt)
        texts.append(keys)
    assert len({key for keys in texts for key in keys}) == 3 * len(SALTS)
    # A salt that equals the key of a page does not continue that page's text.
    continued: list[bytes] = []
    extend_page_keys(continued, array("q", range(PAGE_SIZE, 2 * PAGE_SIZE)), texts[0][0])
    assert continued[0] != texts[0][1]


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
