"""Draws the few-shots of a document. They depend on the seed, the task and the document alone."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Sequence

from decodery.errors import ParameterError
from decodery.evaluation.contract import Document


def seed_of(*parts: object) -> int:
    """Returns a seed below 2**63 that is a hash of the parts, each with its length."""
    texts = [str(part).encode() for part in parts]
    content = b"".join(len(text).to_bytes(8, "little") + text for text in texts)
    return int.from_bytes(hashlib.blake2b(content, digest_size=8).digest(), "little") >> 1


def draw_shots(
    pool: Sequence[Document], document: Document, count: int, *, task: str, seed: int, first: bool = False
) -> tuple[Document, ...]:
    """Returns `count` different documents of a pool, without the document itself and those equal to it.

    With `first`, they are the first of the pool, in its order. Else each is chosen by a hash of the seed, the
    task, the document's id and a counter: a limit or a resumed run changes nothing. A pool in which some
    documents are equal may give fewer. Raises `ParameterError` as `check_pool` does.
    """
    check_pool(pool, document, count, task=task)
    chosen: list[Document] = []
    order = range(len(pool)) if first else _drawn(len(pool), task, seed, document.id)
    for place in order if count else ():
        other = pool[place]
        if other.id != document.id and all(other.fields != one.fields for one in (document, *chosen)):
            chosen.append(other)
            if len(chosen) == count:
                return tuple(chosen)
    return tuple(chosen)


def check_pool(pool: Sequence[Document], document: Document, count: int, *, task: str) -> None:
    """Raises `ParameterError` if a pool has fewer than `count` documents beside a document."""
    others = len(pool) if len(pool) > count else sum(other.id != document.id for other in pool)
    if others < count:
        group = f" of {document.group}" if document.group else ""
        raise ParameterError(
            f"{task} has {others} documents for shots{group} beside document {document.id},"
            f" and shots is {count}: ask for fewer, or give data with a split for shots"
        )


def _drawn(size: int, task: str, seed: int, document: str) -> Iterator[int]:
    """Yields each place below `size` once, in an order that the other arguments decide."""
    seen: set[int] = set()
    counter = 0
    while len(seen) < size:
        place = seed_of(seed, task, document, counter) % size
        counter += 1
        if place not in seen:
            seen.add(place)
            yield place
