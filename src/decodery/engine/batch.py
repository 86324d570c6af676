"""What one step runs."""

from __future__ import annotations

from dataclasses import dataclass, field

from decodery.engine.request import Request, Sequence


@dataclass(slots=True)
class Chunk:
    """Run `count` known tokens of a sequence after its computed ones, and then `drafts`.

    When `judged`, all known tokens are covered and the scores at the last of them and at each draft are
    wanted; `companion` is then the chunk of the sequence's companion, if it has one. `place` is that of its
    sequence, or of the one that it is a fork of, in the request. A companion's own chunk `follows`.
    """

    request: Request
    sequence: Sequence
    count: int
    drafts: tuple[int, ...] = ()
    judged: bool = False
    place: int = 0
    companion: Chunk | None = None
    follows: bool = False

    @property
    def start(self) -> int:
        """The position of the first token that runs."""
        return self.sequence.computed

    @property
    def length(self) -> int:
        """How many tokens run."""
        return self.count + len(self.drafts)

    @property
    def tokens(self) -> list[int]:
        """The tokens that run."""
        start = self.start
        return [*self.sequence.row.tokens[start : start + self.count], *self.drafts]


@dataclass(slots=True)
class Batch:
    """The chunks of one step, a request's side by side.

    `copies` are pages `(from, to)` to copy before it, in this order; what is done is taken from the list.
    """

    chunks: list[Chunk] = field(default_factory=list)
    copies: list[tuple[int, int]] = field(default_factory=list)

    @property
    def length(self) -> int:
        """How many tokens run in all."""
        return sum(chunk.length for chunk in self.chunks)
