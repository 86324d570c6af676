"""What the engine keeps of a request: its live sequences, what has ended, and what came of its prompt."""

from __future__ import annotations

from array import array
from collections.abc import Sequence as SequenceOf
from dataclasses import dataclass, field

from decodery.decoding.params import GenerationParams
from decodery.decoding.rows import FinishReason, Method, Row, TokenLogprobs, Watch
from decodery.decoding.strategies import method_of
from decodery.decoding.trace import Considered


@dataclass(slots=True, eq=False)
class Sequence:
    """A row with its pages; the keys and values of its first `computed` tokens are in them.

    The first `offered` pages are known to the prefix cache.
    """

    row: Row
    pages: list[int] = field(default_factory=list)
    page_keys: list[bytes] = field(default_factory=list)
    computed: int = 0
    offered: int = 0

    @property
    def known(self) -> int:
        """How many tokens are known, computed or not."""
        return len(self.row.tokens)


@dataclass(slots=True, eq=False)
class Request:
    """One prompt on its way through the engine; `sequences` are alive, in the order of their streams."""

    id: int
    prompt: array[int]
    params: GenerationParams
    seed: int
    sequences: list[Sequence]
    method: Method = field(init=False)
    prompt_logprobs: list[TokenLogprobs | None] | None = None

    def __post_init__(self) -> None:
        self.method = method_of(self.params)
        if self.params.prompt_logprobs is not None:
            self.prompt_logprobs = [None]

    @property
    def streams(self) -> int:
        """How many sequences it has, or will have once its prompt is computed."""
        return sum(len(s.row.streams) for s in self.sequences)

    @property
    def decoding(self) -> bool:
        """Whether all but the last known token of every sequence is computed."""
        return all(s.computed >= s.known - 1 for s in self.sequences)


@dataclass(frozen=True, slots=True)
class Event:
    """What a step brought one stream of a request: new tokens, and perhaps its end.

    `error` says why when `finish` is "error". `watch` is the row's after these tokens. `considered` is filled
    when the request was added with `explain`.
    """

    request: int
    stream: int
    tokens: tuple[int, ...]
    finish: FinishReason | None = None
    logprobs: tuple[TokenLogprobs, ...] = ()
    watch: Watch | None = None
    error: str | None = None
    considered: tuple[Considered, ...] = ()
    prompt_logprobs: SequenceOf[TokenLogprobs | None] | None = None
