"""Plans the attention of one step as a few dense calls."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from decodery.kernels import PAGE_SIZE
from decodery.kernels.attention_layer import AttentionKind


@dataclass(frozen=True)
class AttentionGroup:
    """Holds the pieces of sequences that share one dense call: `batch` pieces, each of `rows` query rows and
    `keys` keys.

    A query row is a (token, head) pair; it belongs to the K/V head that it reads. `queries` [batch * kv_heads
    * rows] are row indices into q seen as [tokens * heads, dim]; None: all rows in order. `pages` [batch *
    keys / 16] are the pages to read. `first_page` is the first of them if they are consecutive, else None.
    `mask` [batch, 1, rows, keys] is added to the scores. `positions` [batch, rows] are the positions of the
    query rows, `first_keys` [batch, 1] those of the first keys.
    """

    batch: int
    rows: int
    keys: int
    queries: Tensor | None
    pages: Tensor
    first_page: int | None
    mask: Tensor
    positions: Tensor
    first_keys: Tensor


@dataclass(frozen=True)
class AttentionPlan:
    """Holds one step's attention over paged caches; `plan_attention` makes it once and every layer uses it.

    `slots` [tokens] are the places where each token's key and value are written (page * 16 + offset). `order`
    [tokens * heads] gives, for each row of the result seen as [tokens * heads, dim], its row in the
    concatenated results of the groups; None: they are in order already.
    """

    tokens: int
    slots: Tensor
    groups: tuple[AttentionGroup, ...]
    order: Tensor | None


def plan_attention(
    page_tables: Sequence[Sequence[int]],
    starts: Sequence[int],
    lengths: Sequence[int],
    *,
    kind: AttentionKind,
    dtype: torch.dtype,
    device: torch.device | str,
    sources: Sequence[int] | None = None,
    keys: Sequence[int] | None = None,
) -> AttentionPlan:
    """Plans a step in which sequence s runs the positions `starts[s] .. starts[s] + lengths[s] - 1`.

    The K/V of sequence s are in the pages `page_tables[s]`. Its queries (at least one) are consecutive in the
    token batch, sequence after sequence. `kind` decides which keys a query sees. `dtype` is that of the
    queries. With `sources` the pages are those of other sequences of `sources[s]` positions, all of which the
    queries see. With `keys` they see the first `keys[s]` positions alone.

    A long run of queries is cut into pieces with about as many keys each, because one call would multiply
    many hidden keys: it takes 1.3 times as long for a prompt of 512 tokens. Pieces with about as many queries
    and keys share a call: they are padded to the same number of both. The heads that share a K/V head are
    query rows of one call, so that keys are read once. A piece reads only the pages with keys that one of its
    queries sees.
    """
    assert sources is None or (keys is None and kind[2:] == (None, None, False))
    members: dict[tuple[int, int], list[_Piece]] = {}
    slots = [torch.empty(0, dtype=torch.int64)]
    tokens = 0
    ends = [s + n for s, n in zip(starts, lengths, strict=True)] if sources is None else sources
    limits = ends if keys is None else keys
    for table, start, length, end, limit in zip(page_tables, starts, lengths, ends, limits, strict=True):
        used = torch.tensor(table[: -(-end // PAGE_SIZE)], dtype=torch.int64)
        if sources is None:
            positions = torch.arange(start, start + length)
            slots.append(used[positions // PAGE_SIZE] * PAGE_SIZE + positions % PAGE_SIZE)
        for piece in _pieces(tokens, start, length, limit, used, kind):
            members.setdefault(piece.padded_shape, []).append(piece)
        tokens += length
    groups, order = [], torch.empty(tokens * kind.heads, dtype=torch.int64)
    done = 0
    for (queries, padded), pieces in members.items():
        group, rows, real = _group(pieces, queries, padded, kind, dtype, device, tokens)
        order[rows[real]] = torch.arange(done, done + len(rows))[real]
        done += len(rows)
        groups.append(group)
    return AttentionPlan(
        tokens=tokens,
        slots=torch.cat(slots).to(device),
        groups=tuple(groups),
        order=None if _is_range(order, done) else order.to(device),
    )


@dataclass(frozen=True)
class _Piece:
    """Holds consecutive queries of one sequence, and the pages of the keys that they see.

    `first_key` is the position of the first key in these pages, `end_key` that behind the last one.
    """

    first_token: int
    start: int
    length: int
    pages: Tensor
    first_key: int
    end_key: int

    @property
    def padded_shape(self) -> tuple[int, int]:
        """Returns the numbers of queries and keys, each rounded up so that pieces share calls."""
        return _padded_queries(self.length), _padded_keys(len(self.pages) * PAGE_SIZE)


def _pieces(
    first_token: int, start: int, length: int, limit: int, pages: Tensor, kind: AttentionKind
) -> Iterator[_Piece]:
    end = start + length
    while start < end:
        stop = min(end, _padded_keys(start + 1))
        first_page = kind.first_key(start) // PAGE_SIZE
        end_key = kind.end_key(stop - 1, limit)
        seen = pages[first_page : -(-end_key // PAGE_SIZE)]
        yield _Piece(first_token, start, stop - start, seen, first_page * PAGE_SIZE, end_key)
        first_token += stop - start
        start = stop


def _padded_queries(count: int) -> int:
    return 1 << (count - 1).bit_length() if count <= 64 else count + -count % 64


def _padded_keys(count: int) -> int:
    """Returns one of few numbers, not much larger than `count`."""
    step = 64 if count <= 64 else 128 if count <= 1024 else 512
    return count + -count % step


def _group(
    pieces: Sequence[_Piece],
    queries: int,
    keys: int,
    kind: AttentionKind,
    dtype: torch.dtype,
    device: torch.device | str,
    tokens: int,
) -> tuple[AttentionGroup, Tensor, Tensor]:
    """Returns the group of these pieces, the row of q for each of its rows, and False where that is padding;
    padding repeats the last query.
    """
    shared = kind.heads // kind.kv_heads
    query, lengths = torch.arange(queries), torch.tensor([piece.length for piece in pieces])[:, None]
    first_token, start, first_key, end_key = (
        torch.tensor(numbers)[:, None]
        for numbers in zip(*((p.first_token, p.start, p.first_key, p.end_key) for p in pieces), strict=True)
    )
    real, query = query < lengths, torch.minimum(query, lengths - 1)
    head = torch.arange(kind.heads).view(kind.kv_heads, 1, shared)
    rows = ((first_token + query)[:, None, :, None] * kind.heads + head).flatten()
    positions, key = start + query, first_key + torch.arange(keys)
    hidden = kind.hidden(positions[:, :, None], key[:, None])
    hidden |= (key >= end_key)[:, None]
    mask = torch.zeros(hidden.shape, dtype=dtype).masked_fill_(hidden, -math.inf)
    group = AttentionGroup(
        batch=len(pieces),
        rows=queries * shared,
        keys=keys,
        queries=None if _is_range(rows, tokens * kind.heads) else rows.to(device),
        pages=torch.cat([_key_pages(piece, keys) for piece in pieces]).to(device),
        first_page=_run_start(pieces),
        mask=mask.repeat_interleave(shared, 1)[:, None].to(device),
        positions=positions.repeat_interleave(shared, 1).to(device),
        first_keys=first_key.to(device),
    )
    return group, rows, real[:, None, :, None].expand(-1, *head.shape[:1], -1, shared).flatten()


def _key_pages(piece: _Piece, keys: int) -> Tensor:
    """Returns the piece's pages, padded with repetitions of its first page."""
    padding = piece.pages[:1].expand(keys // PAGE_SIZE - len(piece.pages))
    return torch.cat((piece.pages, padding))


def _run_start(pieces: Sequence[_Piece]) -> int | None:
    """Returns the first page if there is one piece and its pages are consecutive, else None."""
    if len(pieces) > 1:
        return None
    pages = pieces[0].pages
    first = int(pages[0])
    return first if _is_range(pages - first, len(pages)) else None


def _is_range(index: Tensor, size: int) -> bool:
    return len(index) == size and torch.equal(index, torch.arange(size))
