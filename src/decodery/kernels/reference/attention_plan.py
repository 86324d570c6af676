"""Plans the attention of one step as a few dense calls."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from decodery.kernels import PAGE_SIZE


@dataclass(frozen=True)
class AttentionGroup:
    """Holds the pieces of sequences that share one dense call: `batch` pieces, each of `rows` query rows and
    `keys` keys.

    A query row is a (token, head) pair; it belongs to the K/V head that it reads. `queries` [batch * kv_heads
    * rows] are row indices into q seen as [tokens * heads, dim]; None: all rows in order. `pages` [batch *
    keys / 16] are the pages to read. `first_page` is the first of them if they are consecutive, else None.
    `mask` [batch, 1, rows, keys] is added to the scores. `positions` [batch, rows] are the positions of the
    query rows.
    """

    batch: int
    rows: int
    keys: int
    queries: Tensor | None
    pages: Tensor
    first_page: int | None
    mask: Tensor
    positions: Tensor


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
    heads: int,
    kv_heads: int,
    dtype: torch.dtype,
    device: torch.device | str,
    sliding_window: int | None = None,
) -> AttentionPlan:
    """Plans a step in which sequence s runs the positions `starts[s] .. starts[s] + lengths[s] - 1`.

    The K/V of sequence s are in the pages `page_tables[s]`. Its queries (at least one) are consecutive in the
    token batch, sequence after sequence. A query sees the keys at its position and before it, with a sliding
    window only the last `sliding_window` of these. `dtype` is that of the queries and the caches.

    The order in which torch sums over keys depends on their number. So each sequence is cut into pieces such
    that the number of keys that a query is computed with, some of them masked, follows from its position
    alone. The order depends on the number of query rows only where that is no multiple of 4. With both
    numbers padded, a query's result has the same bits however its sequence is cut into steps. Pieces with the
    same padded shape share a call. The heads that share a K/V head are query rows of one call, so that keys
    are read once.
    """
    members: dict[tuple[int, int], list[_Piece]] = {}
    slots = []
    tokens = 0
    for table, start, length in zip(page_tables, starts, lengths, strict=True):
        used = torch.tensor(table[: -(-(start + length) // PAGE_SIZE)], dtype=torch.int64)
        positions = torch.arange(start, start + length)
        slots.append(used[positions // PAGE_SIZE] * PAGE_SIZE + positions % PAGE_SIZE)
        for piece in _pieces(tokens, start, length, used):
            shape = _padded_rows(piece.length * (heads // kv_heads)), _padded_keys(piece.end)
            members.setdefault(shape, []).append(piece)
        tokens += length
    groups = []
    order = torch.empty(tokens * heads, dtype=torch.int64)
    done = 0
    for (rows, keys), pieces in members.items():
        query, real = _queries(pieces, rows, heads // kv_heads)
        positions = torch.tensor([piece.start for piece in pieces])[:, None] + query
        indices = _row_indices(pieces, query, heads, kv_heads)
        real = real[:, None].expand(indices.shape)
        order[indices[real]] = torch.arange(done, done + indices.numel()).view(indices.shape)[real]
        done += indices.numel()
        indices = indices.flatten()
        groups.append(
            AttentionGroup(
                batch=len(pieces),
                rows=rows,
                keys=keys,
                queries=None if _is_range(indices, len(order)) else indices.to(device),
                pages=torch.cat([_key_pages(piece, keys) for piece in pieces]).to(device),
                first_page=_run_start(pieces),
                mask=_mask(positions, keys, sliding_window).to(device, dtype),
                positions=positions.to(device),
            )
        )
    return AttentionPlan(
        tokens=tokens,
        slots=torch.cat(slots).to(device),
        groups=tuple(groups),
        order=None if _is_range(order, done) else order.to(device),
    )


@dataclass(frozen=True)
class _Piece:
    """Holds consecutive queries of one sequence and the pages of all the keys that they see."""

    first_token: int
    start: int
    length: int
    pages: Tensor

    @property
    def end(self) -> int:
        return self.start + self.length


def _pieces(first_token: int, start: int, length: int, pages: Tensor) -> Iterator[_Piece]:
    end = start + length
    while start < end:
        stop = min(end, _padded_keys(start + 1))
        yield _Piece(first_token, start, stop - start, pages[: -(-stop // PAGE_SIZE)])
        first_token += stop - start
        start = stop


def _padded_rows(count: int) -> int:
    """Returns the number of query rows of a call: a multiple of 4, from few sizes, so that sequences share
    calls.
    """
    if count <= 16:
        return count + -count % 4
    if count <= 128:
        return 1 << (count - 1).bit_length()
    return count + -count % 128


def _padded_keys(count: int) -> int:
    """Returns the number of keys for a query at position `count - 1`: from few sizes, with little padding."""
    step = 64 if count <= 64 else 128 if count <= 1024 else 512
    return count + -count % step


def _queries(pieces: Sequence[_Piece], rows: int, group_size: int) -> tuple[Tensor, Tensor]:
    """Returns the query of its piece for each row, and True where it is no padding; padding repeats the last
    query.
    """
    query = torch.arange(rows) // group_size
    lengths = torch.tensor([piece.length for piece in pieces])[:, None]
    return torch.minimum(query, lengths - 1), query < lengths


def _row_indices(pieces: Sequence[_Piece], query: Tensor, heads: int, kv_heads: int) -> Tensor:
    """Returns the row of q [tokens * heads, dim] for each row of the call: [batch, kv_heads, rows]."""
    group_size = heads // kv_heads
    first = torch.tensor([piece.first_token for piece in pieces])[:, None]
    head = torch.arange(kv_heads)[:, None] * group_size + torch.arange(query.shape[1]) % group_size
    return (first + query)[:, None] * heads + head


def _mask(positions: Tensor, keys: int, sliding_window: int | None) -> Tensor:
    positions = positions[:, None, :, None]
    key = torch.arange(keys)
    hidden = key > positions
    if sliding_window is not None:
        hidden |= key <= positions - sliding_window
    return torch.zeros(hidden.shape).masked_fill_(hidden, -math.inf)


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
