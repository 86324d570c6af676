"""The page table: which pages of the key/value cache belong to whom. Plain integers; needs no torch."""

from __future__ import annotations

from array import array
from collections import Counter, OrderedDict
from collections.abc import Iterable, Sequence
from hashlib import blake2b

from decodery.kernels import PAGE_SIZE


class Pages:
    """Pages with reference counts, a prefix cache, and least-recently-used eviction.

    A page is *held* by one or more sequences, or *cached* (held by none, but full and known by the hash of
    all tokens up to its end), or *free*. Cached pages are given out when no free ones are left, the least
    recently used first.
    """

    def __init__(self, count: int) -> None:
        self.count = count
        self.clear()

    def clear(self) -> None:
        """Make every page free, whoever held it, and forget what is cached."""
        self._free = list(range(self.count - 1, -1, -1))
        self._holders = [0] * self.count
        self._cached: OrderedDict[int, None] = OrderedDict()
        self._page_of: dict[bytes, int] = {}
        self._key_of: dict[int, bytes] = {}

    @property
    def available(self) -> int:
        """How many pages can be allocated now."""
        return len(self._free) + len(self._cached)

    def allocate(self) -> int:
        """A page held once. Raises `IndexError` when none is available."""
        if self._free:
            page = self._free.pop()
        else:
            if not self._cached:
                raise IndexError("no page is available")
            page, _ = self._cached.popitem(last=False)
            self._forget(page)
        self._holders[page] = 1
        return page

    def hold(self, pages: Iterable[int]) -> None:
        """Count one more holder of each page, as a fork does."""
        for page in pages:
            if self._holders[page] == 0:
                del self._cached[page]
            self._holders[page] += 1

    def release(self, pages: Sequence[int]) -> None:
        """Count one holder fewer of each page; the last one leaves it cached or free."""
        # From the end, so that a sequence's last pages are evicted first and its prefix stays usable.
        for page in reversed(pages):
            self._holders[page] -= 1
            if self._holders[page] == 0:
                if page in self._key_of:
                    self._cached[page] = None
                else:
                    self._free.append(page)

    def shared(self, page: int) -> bool:
        """Whether writing to the page would disturb another holder or the prefix cache."""
        return self._holders[page] > 1 or page in self._key_of

    def remember(self, page: int, key: bytes) -> int:
        """Offer a full page for reuse under the hash of all tokens up to its end.

        Returns the page that is remembered under the key: this one, or one with the same content.
        """
        known = self._page_of.setdefault(key, page)
        if known == page:
            self._key_of[page] = key
        return known

    def find(self, keys: Sequence[bytes]) -> list[int]:
        """The pages of the longest prefix of `keys` that is remembered; not yet held."""
        found = []
        for key in keys:
            page = self._page_of.get(key)
            if page is None:
                break
            found.append(page)
        return found

    def _forget(self, page: int) -> None:
        del self._page_of[self._key_of.pop(page)]

    def check_integrity(self, holders: Iterable[Sequence[int]]) -> None:
        """Raise `AssertionError` unless the books agree with `holders`, the page lists of all sequences."""
        counts = Counter(page for pages in holders for page in pages)
        free = set(self._free)
        assert len(free) == len(self._free), "a page is free twice"
        for page in range(self.count):
            held = self._holders[page]
            assert held == counts[page], f"page {page} has {counts[page]} holders, the books say {held}"
            places = (held > 0) + (page in free) + (page in self._cached)
            assert places == 1, f"page {page} is in {places} of held, free and cached"
            assert page not in free or page not in self._key_of, f"free page {page} is still remembered"
            assert page not in self._cached or page in self._key_of, f"cached page {page} has no key"
        assert {page: key for key, page in self._page_of.items()} == self._key_of, "prefix keys disagree"


def extend_page_keys(keys: list[bytes], tokens: array[int]) -> None:
    """Extend `keys` by the hashes of the full pages of `tokens` that it lacks.

    Each key covers all tokens up to its page's end, through the key before it; a cryptographic hash, since a
    collision would show one request what another one computed.
    """
    for index in range(len(keys), len(tokens) // PAGE_SIZE):
        page = tokens[index * PAGE_SIZE : (index + 1) * PAGE_SIZE]
        previous = keys[-1] if keys else b""
        keys.append(blake2b(previous + page.tobytes(), digest_size=16).digest())


def pages_for(tokens: int) -> int:
    """How many pages hold this many tokens."""
    return -(-tokens // PAGE_SIZE)
