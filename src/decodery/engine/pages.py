"""Keeps the page table: the holders of each page of the key/value cache. Plain integers; needs no torch."""

from __future__ import annotations

from array import array
from collections import Counter, OrderedDict
from collections.abc import Iterable, Mapping, Sequence
from hashlib import blake2b

from decodery.kernels import PAGE_SIZE


class Pages:
    """Holds the reference counts of all pages and a prefix cache with least-recently-used eviction.

    A page is in one of three states. It is *held* by one or more sequences, or *cached* (held by none, but
    full and found by the hash of its salt, all tokens up to its end and the vectors in their place), or
    *free*. Cached pages are allocated when no free ones are left, the least recently used first.
    """

    def __init__(self, count: int) -> None:
        self.count = count
        self.clear()

    def resize(self, count: int) -> None:
        """Makes the number of pages `count`, and clears the table."""
        self.count = count
        self.clear()

    def clear(self) -> None:
        """Makes every page free, held or not, and empties the prefix cache."""
        self._free = list(range(self.count - 1, -1, -1))
        self._holders = [0] * self.count
        self._cached: OrderedDict[int, None] = OrderedDict()
        self._page_of: dict[bytes, int] = {}
        self._key_of: dict[int, bytes] = {}

    @property
    def available(self) -> int:
        """Returns the number of pages that can be allocated now."""
        return len(self._free) + len(self._cached)

    def allocate(self) -> int:
        """Returns a page, now held once. Raises `IndexError` when none is available."""
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
        """Adds one holder to each page, as a fork does."""
        for page in pages:
            if self._holders[page] == 0:
                del self._cached[page]
            self._holders[page] += 1

    def release(self, pages: Sequence[int]) -> None:
        """Removes one holder from each page; a page without holders becomes cached or free."""
        # From the end, so that a sequence's last pages are evicted first and its prefix stays usable.
        for page in reversed(pages):
            self._holders[page] -= 1
            if self._holders[page] == 0:
                if page in self._key_of:
                    self._cached[page] = None
                else:
                    self._free.append(page)

    def shared(self, page: int) -> bool:
        """True if writing to the page would change what another holder or the prefix cache reads."""
        return self._holders[page] > 1 or page in self._key_of

    def remember(self, page: int, key: bytes) -> int:
        """Enters a full page into the prefix cache under its key, which `extend_page_keys` makes.

        Returns the page that the cache has under the key: this one, or an earlier one with the same content.
        """
        known = self._page_of.setdefault(key, page)
        if known == page:
            self._key_of[page] = key
        return known

    def find(self, keys: Sequence[bytes]) -> list[int]:
        """Returns the pages of the longest prefix of `keys` that is in the cache, without holding them."""
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
        """Raises `AssertionError` unless the table agrees with `holders`, the page lists of all sequences."""
        counts = Counter(page for pages in holders for page in pages)
        free = set(self._free)
        assert len(free) == len(self._free), "a page is free twice"
        for page in range(self.count):
            held = self._holders[page]
            assert held == counts[page], f"page {page} has {counts[page]} holders, the table says {held}"
            places = (held > 0) + (page in free) + (page in self._cached)
            assert places == 1, f"page {page} is in {places} of held, free and cached"
            assert page not in free or page not in self._key_of, f"free page {page} is still remembered"
            assert page not in self._cached or page in self._key_of, f"cached page {page} has no key"
        assert {page: key for key, page in self._page_of.items()} == self._key_of, "prefix keys disagree"


def encode_salt(parts: Iterable[bytes]) -> bytes:
    """Returns a salt for `extend_page_keys`: the parts, each after its length; b"" without parts.

    Different lists of parts have different salts.
    """
    return b"".join(len(part).to_bytes(8, "little") + part for part in parts)


def extend_page_keys(
    keys: list[bytes],
    tokens: array[int],
    salt: bytes = b"",
    vectors: Mapping[int, bytes] | None = None,
    rope_set: int = 0,
) -> None:
    """Appends to `keys` the hashes of the full pages of `tokens` that it lacks.

    Each key covers the salt and all tokens up to the end of its page, since it includes the key before it.
    `vectors` are the digests, by page, of the vectors that run in place of the embeddings of tokens, and
    `rope_set` is the set of rotary frequencies. The hash is cryptographic: a collision would give one request
    the keys and values of another request's text.
    """
    for index in range(len(keys), len(tokens) // PAGE_SIZE):
        page = tokens[index * PAGE_SIZE : (index + 1) * PAGE_SIZE].tobytes()
        # The salt is hashed by itself, so that no salt can act as the key of a page.
        previous = keys[-1] if keys else _hashed(salt, b"salt %d" % rope_set)
        keys.append(_hashed(previous + page + (vectors or {}).get(index, b""), b"page"))


def _hashed(content: bytes, purpose: bytes) -> bytes:
    return blake2b(content, digest_size=16, person=purpose).digest()


def pages_for(tokens: int) -> int:
    """Returns the number of pages that this many tokens need."""
    return -(-tokens // PAGE_SIZE)
