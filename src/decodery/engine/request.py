"""What the engine keeps of a request: its live sequences, what has ended, and what came of its prompt."""

from __future__ import annotations

from array import array
from collections.abc import Sequence as SequenceOf
from dataclasses import dataclass, field

from torch import Tensor

from decodery.decoding.request.params import GenerationParams
from decodery.decoding.rows import FinishReason, Method, Needs, Row, TokenLogprobs
from decodery.decoding.strategies.registry import method_of
from decodery.decoding.trace import BeamCandidate, Considered
from decodery.engine.second_model import SecondModel


@dataclass(slots=True, eq=False)
class Sequence:
    """A row with its pages; the keys and values of its first `computed` tokens are in them.

    The first `offered` pages are known to the prefix cache. `companion` follows the sequence with another
    prompt: it is given the same tokens and scored at the same positions.
    """

    row: Row
    pages: list[int] = field(default_factory=list)
    page_keys: list[bytes] = field(default_factory=list)
    computed: int = 0
    offered: int = 0
    companion: Sequence | None = None

    @property
    def known(self) -> int:
        """How many tokens are known, computed or not."""
        return len(self.row.tokens)


@dataclass(slots=True, eq=False)
class Request:
    """One prompt on its way through the engine; `sequences` are alive, in the order of their streams.

    `branches` are forks that live for one step only. `deadline` is the time, on the engine's clock, at which
    it ends. `amateur` and `drafter` are the assistants that its strategy and its speculation need.
    """

    id: int
    prompt: array[int]
    params: GenerationParams
    seed: int
    sequences: list[Sequence]
    amateur: SecondModel | None = None
    drafter: SecondModel | None = None
    deadline: float | None = None
    branches: list[Sequence] = field(default_factory=list)
    method: Method = field(init=False)
    needs: Needs = field(init=False)
    prompt_logprobs: list[TokenLogprobs | None] | None = None
    context: list[Tensor] | None = None

    def __post_init__(self) -> None:
        self.method = method_of(self.params)
        self.needs = self.method.needs(self.params)
        if self.params.prompt_logprobs is not None:
            self.prompt_logprobs = [None]
        if self.needs.context:
            self.context = []

    @property
    def members(self) -> list[Sequence]:
        """Its sequences, each followed by its companion."""
        return [m for s in self.sequences for m in (s, s.companion) if m is not None]

    @property
    def decoding(self) -> bool:
        """Whether all but the last known token of every sequence is computed."""
        return all(m.computed >= m.known - 1 for m in self.members)

    @property
    def collecting(self) -> bool:
        """Whether something is still wanted of each position of the prompt, so that all of them must run."""
        scoring = self.prompt_logprobs is not None and len(self.prompt_logprobs) < len(self.prompt)
        return scoring or self.context is not None


@dataclass(frozen=True, slots=True)
class Event:
    """What a step brought one stream of a request: new tokens, and perhaps its end.

    `error` says why when `finish` is "error", and `score` what the strategy ranked a completion by. Of
    `drafts` that were tried, the first `accepted` are among the tokens. `considered` and `beams` are filled
    when the request was added with `explain`; `beams` comes without a stream, as it tells of all of them.
    """

    request: int
    stream: int | None
    tokens: tuple[int, ...] = ()
    finish: FinishReason | None = None
    logprobs: tuple[TokenLogprobs, ...] = ()
    error: str | None = None
    score: float | None = None
    drafts: tuple[int, ...] = ()
    accepted: int = 0
    considered: tuple[Considered, ...] = ()
    beams: tuple[BeamCandidate, ...] = ()
    prompt_logprobs: SequenceOf[TokenLogprobs | None] | None = None
