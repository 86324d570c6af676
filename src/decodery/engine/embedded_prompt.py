"""Defines a prompt in which vectors stand in place of the embeddings of some tokens."""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from hashlib import blake2b
from typing import Any

import torch
from torch import Tensor

from decodery.errors import RequestError
from decodery.kernels import PAGE_SIZE
from decodery.token_ids import plain


@dataclass(frozen=True, eq=False)
class EmbeddedPrompt:
    """Holds a prompt with vectors at given positions, such as a soft prompt.

    The model runs `embeddings` [n, width] in place of the embeddings of the tokens at the n `positions`,
    which count from 0. The tokens there are placeholders: processors that look at the prompt see them. The
    tensor is copied, in the order of the positions. `page_digests` are the digests of the vectors in each
    page of tokens.

    Raises `RequestError` unless each vector has a position of its own in the prompt.
    """

    token_ids: Sequence[int]
    positions: Sequence[int]
    embeddings: Tensor
    page_digests: Mapping[int, bytes] = field(init=False, repr=False)

    def __post_init__(self) -> None:
        ids = _whole("token_ids", self.token_ids)
        positions = _whole("positions", self.positions)
        if not isinstance(self.embeddings, Tensor) or self.embeddings.dim() != 2:
            raise RequestError("embeddings must be a tensor [vectors, width]")
        if len(self.embeddings) != len(positions):
            raise RequestError(
                f"there are {len(positions)} positions and {len(self.embeddings)} embeddings:"
                " give one position for each"
            )
        if len(set(positions)) < len(positions) or not all(0 <= p < len(ids) for p in positions):
            raise RequestError(f"positions must differ and lie in the prompt, from 0 to {len(ids) - 1}")
        order = sorted(range(len(positions)), key=positions.__getitem__)
        embeddings = self.embeddings.detach()[order]
        if not embeddings.isfinite().all():
            raise RequestError("embeddings must be finite numbers")
        object.__setattr__(self, "token_ids", ids)
        object.__setattr__(self, "positions", tuple(positions[i] for i in order))
        object.__setattr__(self, "embeddings", embeddings)
        object.__setattr__(self, "page_digests", self._digests())

    def _digests(self) -> dict[int, bytes]:
        pages: dict[int, Any] = {}
        stored = self.embeddings.cpu().contiguous().view(torch.uint8)
        for position, vector in zip(self.positions, stored, strict=True):
            digest = pages.setdefault(position // PAGE_SIZE, blake2b(digest_size=16))
            digest.update(position.to_bytes(8, "little") + vector.numpy().tobytes())
        return {page: digest.digest() for page, digest in pages.items()}

    def check(self, width: int, dtype: torch.dtype) -> None:
        """Raises `RequestError` unless the vectors are those of a model of this width and dtype."""
        found = self.embeddings
        if found.shape[1] != width or found.dtype != dtype:
            raise RequestError(
                f"the embeddings have width {found.shape[1]} and type {found.dtype};"
                f" this model takes width {width} and type {dtype}"
            )

    def with_tokens(self, token_ids: Sequence[int]) -> EmbeddedPrompt:
        """Returns the prompt with other tokens.

        Raises `RequestError` if a vector is beyond them.
        """
        if self.positions and self.positions[-1] >= len(token_ids):
            raise RequestError(
                "token_healing chooses the prompt's last token again, and here that is a vector: end the"
                " prompt with a token, or leave token_healing out"
            )
        return EmbeddedPrompt(token_ids, self.positions, self.embeddings)

    def last(self) -> EmbeddedPrompt | None:
        """Returns the prompt of the last token alone, or None if that has no vector."""
        if not self.positions or self.positions[-1] < len(self.token_ids) - 1:
            return None
        return EmbeddedPrompt(self.token_ids[-1:], (0,), self.embeddings[-1:])

    def between(self, start: int, end: int) -> tuple[list[int], Tensor]:
        """Returns the positions from `start` to before `end` that have vectors, and the vectors."""
        first, last = bisect_left(self.positions, start), bisect_left(self.positions, end)
        return list(self.positions[first:last]), self.embeddings[first:last]


def _whole(name: str, values: Any) -> tuple[int, ...]:
    kind, values = type(values).__name__, plain(values)
    if not isinstance(values, Sequence) or isinstance(values, (str, bytes)):
        raise RequestError(f"{name} must be a list of whole numbers, not {kind}")
    found: tuple[int, ...] = tuple(map(plain, values))
    for value in found:
        if not isinstance(value, int) or isinstance(value, bool):
            raise RequestError(f"{name} must be whole numbers, not {value!r}")
    return found
