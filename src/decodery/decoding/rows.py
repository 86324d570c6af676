"""What strategies read and answer: rows, proposals, scores, verdicts."""

from __future__ import annotations

from array import array
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Literal, Protocol

from torch import Tensor

from decodery.decoding.request.params import GenerationParams
from decodery.decoding.trace import BeamCandidate, Considered

FinishReason = Literal["stop", "length", "time", "abort", "error"]


class Watch(Protocol):
    """Follows a row's tokens and may end it, as stop strings do; immutable, so that it forks with its row."""

    @property
    def stopped(self) -> object:
        """What ended the row, or None."""

    def after(self, token: int) -> Watch:
        """The state after one more token."""


class GrammarState(Protocol):
    """Where a row stands in its grammar; immutable, so that it forks with its row."""

    @property
    def accepting(self) -> bool:
        """Whether the text may end here."""

    @property
    def complete(self) -> bool:
        """Whether nothing may follow: the text matches, and no token continues it."""

    @property
    def forced(self) -> tuple[int, ...]:
        """The tokens that must come next because the grammar allows one continuation only, or none."""

    def after(self, token: int) -> GrammarState:
        """The state after one more token, which must be allowed."""


@dataclass(frozen=True, slots=True, eq=False)
class Row:
    """One live sequence: an immutable value, of which `after` makes the next.

    `tokens` holds the prompt and then what was generated, and is never changed in place. `streams` are the
    completions that the row still stands for: all of the request's until they part, then one. `limit` is the
    number of known tokens at which the row ends with reason "length". `mu` is mirostat's, None before the
    first token; `state` is what the row's strategy remembers. With `explain`, survivors tell what was
    considered, so many candidates of each choice. `expired` says that the request's time is up. `stages` are
    those of the pipeline that it may go through, where they are known already.
    """

    request: int
    params: GenerationParams
    seed: int
    streams: tuple[int, ...]
    tokens: array[int]
    prompt_length: int
    limit: int
    end_ids: frozenset[int]
    watch: Watch | None = None
    grammar: GrammarState | None = None
    mu: float | None = None
    state: object = None
    explain: int = 0
    expired: bool = False
    stages: tuple[str, ...] | None = None

    @property
    def generated(self) -> int:
        """How many tokens follow the prompt."""
        return len(self.tokens) - self.prompt_length

    def after(self, token: int) -> Row:
        """The row with one more token; its watch is not shown end tokens, which are no text."""
        tokens = self.tokens[:]
        tokens.append(token)
        watch = self.watch
        if watch is not None and token not in self.end_ids:
            watch = watch.after(token)
        grammar = None if self.grammar is None else self.grammar.after(token)
        return self._with(self.streams, tokens, watch, grammar, self.state)

    def silent(self, state: object) -> Row:
        """The row as one that stands for no stream and remembers this."""
        return self._with((), self.tokens, self.watch, self.grammar, state)

    def _with(
        self,
        streams: tuple[int, ...],
        tokens: array[int],
        watch: Watch | None,
        grammar: GrammarState | None,
        state: object,
    ) -> Row:
        # Written out: `replace` takes four times as long.
        return Row(
            self.request,
            self.params,
            self.seed,
            streams,
            tokens,
            self.prompt_length,
            self.limit,
            self.end_ids,
            watch,
            grammar,
            self.mu,
            state,
            self.explain,
            self.expired,
            self.stages,
        )


@dataclass(frozen=True, slots=True)
class Needs:
    """What a request's scores must hold besides logits.

    `hidden`: the final hidden states at every scored position. `context`: those of all known tokens, given
    once, with the request's first scores. `layers`: logits read off after these layers (0: the embeddings).
    `assistant`: the logits of the request's assistant model.
    """

    hidden: bool = False
    context: bool = False
    layers: tuple[int, ...] = ()
    assistant: bool = False


Draw = Callable[[Sequence[Row], Tensor], tuple[Sequence[int], Tensor]]


@dataclass(frozen=True, slots=True)
class Extension:
    """Drafts that are asked of assistants: `counts[i]` for row i, after its only branch.

    `draw(rows, logits)` gives the next draft of each row from its assistant's logits `[rows, vocab]`, and the
    processed logits that it was drawn from.
    """

    counts: Sequence[int]
    draw: Draw


@dataclass(frozen=True, slots=True)
class Proposal:
    """What each row runs beyond its known tokens.

    `branches[i]` are row i's continuations, each a tuple of drafts: one empty one to run only what is known;
    several to run forks side by side. `extension` asks assistants for more. Drafts may be cut where the
    row's limit or the context ends. `given[i]` of row i's first drafts, in its only branch, are right
    whatever the scores before them say, so that these need not be found; without any, it is empty.
    """

    branches: Sequence[tuple[tuple[int, ...], ...]]
    extension: Extension | None = None
    given: Sequence[int] = ()


@dataclass(frozen=True, slots=True)
class Run:
    """One branch that ran: its drafts, and where its scores are.

    `at(0)` scores what follows the last known token, and is there only if that token had not been computed
    before; `at(j)` scores what follows the j-th draft. Before given drafts there are none, it may be.
    `drafted` are the processed logits `[len(tokens), vocab]` from which an assistant drew the drafts.
    """

    tokens: tuple[int, ...]
    first: int
    drafted: Tensor | None = None

    def at(self, drafts: int) -> int:
        """The index, into the scores, of the position after so many drafts."""
        return self.first + drafts


@dataclass(frozen=True, slots=True)
class Scores:
    """The model's answer to a proposal.

    `logits` is float32 `[positions, vocab]`, unprocessed; a judge may use it up, unless it raises
    `CallbackError`, which has it judged again. `runs[i]` are row i's branches. `companion` are the logits of
    rows that have a companion (guidance), and `companion_at` maps a position to its index there. `hidden`
    `[positions, width]`, `layers` and `assistant` (`[positions, vocab]` each) are there when a row needs
    them, and mean something at its positions only. `context` maps a row to the hidden states
    `[known tokens - 1, width]` before its last known token.
    """

    logits: Tensor
    runs: Sequence[tuple[Run, ...]]
    companion: Tensor | None = None
    companion_at: Mapping[int, int] | None = None
    hidden: Tensor | None = None
    layers: Mapping[int, Tensor] | None = None
    assistant: Tensor | None = None
    context: Mapping[int, Tensor] | None = None


@dataclass(frozen=True, slots=True)
class TokenLogprobs:
    """A token's log-probability under the unprocessed distribution, its rank from 1, and the likeliest."""

    token: int
    logprob: float
    rank: int
    top: tuple[tuple[int, float], ...]


@dataclass(frozen=True, slots=True)
class Survivor:
    """A sequence that lives on, or has just ended: `row` is `rows[parent]` with tokens appended.

    It continues the parent's `branch`, of which the first `keep` drafts stay computed; these must be the
    first `keep` of the new tokens. With `finish` the tokens still count, and then the sequence ends. A row
    without streams goes on silently. `logprobs` has one entry for each new token when the request wants them,
    and `considered` likewise when it explains. `drafts` are those that were tried.
    """

    parent: int
    row: Row
    keep: int = 0
    branch: int = 0
    finish: FinishReason | None = None
    logprobs: tuple[TokenLogprobs, ...] = ()
    considered: tuple[Considered, ...] = ()
    drafts: tuple[int, ...] = ()


@dataclass(frozen=True, slots=True)
class Ending:
    """A completion that is told at once: all of its tokens after the prompt.

    `parent` is any row of its request. `score` is what its strategy ranked it by. `error` says what it lacks
    of what the request asked for.
    """

    parent: int
    stream: int
    tokens: tuple[int, ...]
    finish: FinishReason
    score: float | None = None
    logprobs: tuple[TokenLogprobs, ...] = ()
    error: str | None = None


@dataclass(frozen=True, slots=True)
class Verdict:
    """What follows from the scores: a parent named once appends, several times forks, not named is freed.

    `failures` names rows, and why, for which no token is possible; their requests end with reason "error".
    `beams` tells, for requests that explain, what became of a step's candidates: a row of the request with
    them.
    """

    survivors: Sequence[Survivor]
    endings: Sequence[Ending] = ()
    failures: Sequence[tuple[int, str]] = ()
    beams: Sequence[tuple[int, tuple[BeamCandidate, ...]]] = ()


class Method(Protocol):
    """A strategy's verbs. They see all the rows of all its requests at once, a request's side by side."""

    def needs(self, params: GenerationParams) -> Needs:
        """What a request's scores must hold."""

    def propose(self, rows: Sequence[Row]) -> Proposal:
        """Which tokens to run for each row."""

    def judge(self, rows: Sequence[Row], scores: Scores) -> Verdict:
        """Which sequences live on."""
