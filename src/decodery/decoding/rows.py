"""Defines what strategies receive and return: rows, proposals, scores, verdicts."""

from __future__ import annotations

from array import array
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Protocol

from torch import Tensor

from decodery.decoding.chosen import FinishReason, TokenLogprobs
from decodery.decoding.request.params import GenerationParams
from decodery.decoding.trace import BeamCandidate, Considered


class Watch(Protocol):
    """Follows a row's tokens and may end it, as stop strings do; immutable, so that it forks with its row."""

    @property
    def stopped(self) -> object:
        """Returns what ended the row, or None."""

    def after(self, token: int) -> Watch:
        """Returns the state after one more token."""


class GrammarState(Protocol):
    """Holds the state of a row's text in its grammar; immutable, so that it forks with its row."""

    @property
    def unrestricted(self) -> bool:
        """True if any token may come next, an end token too."""

    @property
    def accepting(self) -> bool:
        """True if the text may end here."""

    @property
    def complete(self) -> bool:
        """True if nothing may follow: the text matches, and no token continues it."""

    @property
    def forced(self) -> tuple[int, ...]:
        """Returns the tokens that must come next, if the grammar allows only one continuation; else none."""

    def after(self, token: int) -> GrammarState:
        """Returns the state after one more token, which must be allowed."""


@dataclass(frozen=True, slots=True, eq=False)
class Row:
    """Holds one live sequence: an immutable value, from which `after` makes the next.

    `tokens` holds the prompt and the generated tokens, and is never changed in place. `streams` are the
    completions that the row represents: all of the request's until they diverge, then one. `limit` is the
    number of known tokens at which the row ends with reason "length". `mu` is mirostat's, None before the
    first token. `state` is what the row's strategy remembers. `explain` is how many candidates of each choice
    survivors report in `considered`; 0 reports none. `expired` says that the request's time is up. `stages`
    holds the stages of the pipeline that the row may want, if they are known already. `salt` begins the keys
    of its pages in every prefix cache. `shows_logits` says that what is explained includes all logits.
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
    salt: bytes = b""
    shows_logits: bool = False

    @property
    def generated(self) -> int:
        """Returns how many tokens follow the prompt."""
        return len(self.tokens) - self.prompt_length

    def after(self, token: int) -> Row:
        """Returns the row with one more token; its watch does not see end tokens, which are not text."""
        tokens = self.tokens[:]
        tokens.append(token)
        watch = self.watch
        if watch is not None and token not in self.end_ids:
            watch = watch.after(token)
        grammar = None if self.grammar is None else self.grammar.after(token)
        return self._with(self.streams, tokens, watch, grammar, self.state)

    def with_tokens(self, tokens: array[int]) -> Row:
        """Returns the row with other tokens, which its watch and its grammar have not seen."""
        return self._with(self.streams, tokens, self.watch, self.grammar, self.state)

    def silent(self, state: object) -> Row:
        """Returns the row without streams and with this strategy state."""
        return self._with((), self.tokens, self.watch, self.grammar, state)

    def _with(
        self,
        streams: tuple[int, ...],
        tokens: array[int],
        watch: Watch | None,
        grammar: GrammarState | None,
        state: object,
    ) -> Row:
        # Written out, because `replace` takes four times as long.
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
            self.salt,
            self.shows_logits,
        )


@dataclass(frozen=True, slots=True)
class Needs:
    """Says what a request's scores must hold besides logits.

    `hidden`: the final hidden states at every scored position. `context`: those of all known tokens, given
    once, with the request's first scores. `layers`: logits computed after these layers (0: the embeddings).
    `amateur`: the logits of the request's amateur model.
    """

    hidden: bool = False
    context: bool = False
    layers: tuple[int, ...] = ()
    amateur: bool = False


Draw = Callable[[Sequence[Row], Tensor], tuple[Sequence[int], Tensor]]


@dataclass(frozen=True, slots=True)
class Extension:
    """Requests drafts from draft models: `counts[i]` for row i, after its only branch.

    `draw(rows, logits)` returns the next draft of each row, by its draft model's logits `[rows, vocab]`, and
    the processed logits that it was drawn from.
    """

    counts: Sequence[int]
    draw: Draw


@dataclass(frozen=True, slots=True)
class Proposal:
    """Says what each row runs beyond its known tokens.

    `branches[i]` are row i's continuations, each a tuple of drafts: one empty tuple runs only the known
    tokens; several run forks side by side. `extension` requests more drafts from draft models. Drafts may be
    cut where the row's limit or the context ends. `given[i]` counts the first drafts, in row i's only branch,
    that are right whatever the scores before them say, so that these scores need not be computed; `given` is
    empty if there are none. `most_drafts[i]` is how many drafts the engine may add to row i's only branch;
    `most_drafts` is empty if there are none.
    """

    branches: Sequence[tuple[tuple[int, ...], ...]]
    extension: Extension | None = None
    given: Sequence[int] = ()
    most_drafts: Sequence[int] = ()


@dataclass(frozen=True, slots=True)
class Run:
    """Locates the scores of one branch that ran.

    `tokens` are its drafts. `at(0)` scores what follows the last known token, and exists only if that token
    had not been computed before; `at(j)` scores what follows the j-th draft. Scores before given drafts may
    be missing. `drafted` are the processed logits `[len(tokens), vocab]` from which a draft model drew the
    drafts.
    """

    tokens: tuple[int, ...]
    first: int
    drafted: Tensor | None = None

    def at(self, drafts: int) -> int:
        """Returns the index, into the scores, of the position after so many drafts."""
        return self.first + drafts


@dataclass(frozen=True, slots=True)
class Scores:
    """Holds the model's scores for a proposal.

    `logits` is float32 `[positions, vocab]`, unprocessed. A judge may overwrite them, unless it raises
    `CallbackError`, after which the rows are judged again. `runs[i]` are row i's branches. `companion` holds
    the logits of companions, the rows with a negative prompt (guidance), and `companion_at` maps a position
    to its index there. `hidden` `[positions, width]`, `layers` and `amateur` (`[positions, vocab]` each) are
    present if a row needs them, and are defined at its positions only. `context` maps a row to the hidden
    states `[known tokens - 1, width]` before its last known token.
    """

    logits: Tensor
    runs: Sequence[tuple[Run, ...]]
    companion: Tensor | None = None
    companion_at: Mapping[int, int] | None = None
    hidden: Tensor | None = None
    layers: Mapping[int, Tensor] | None = None
    amateur: Tensor | None = None
    context: Mapping[int, Tensor] | None = None

    def of_rows(self, rows: Sequence[int]) -> Scores:
        """Returns the scores of some of the rows; positions keep their numbers."""
        if len(rows) == len(self.runs):
            return self
        known = self.context or {}
        context = {new: known[old] for new, old in enumerate(rows) if old in known}
        return replace(self, runs=[self.runs[i] for i in rows], context=context)


@dataclass(frozen=True, slots=True)
class Survivor:
    """Continues a sequence, or ends it: `row` is `rows[parent]` with tokens appended.

    It continues the parent's `branch`, of which the first `keep` drafts stay computed; these must be the
    first `keep` of the new tokens. With `finish` the sequence ends after its new tokens; `error` is the cause
    if it is "error". A row without streams causes no events. `logprobs` has one entry for each new token if
    the request wants them, and `considered` likewise if it explains. `drafts` are those that were judged.
    """

    parent: int
    row: Row
    keep: int = 0
    branch: int = 0
    finish: FinishReason | None = None
    error: str | None = None
    logprobs: tuple[TokenLogprobs, ...] = ()
    considered: tuple[Considered, ...] = ()
    drafts: tuple[int, ...] = ()


@dataclass(frozen=True, slots=True)
class Ending:
    """Reports a whole completion at once: all of its tokens after the prompt.

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
    """Says how the sequences go on: a parent named once appends, several times forks, not named is freed.

    `failures` names rows whose requests end with reason "error", each with the cause. `beams` reports, for
    requests that explain, the fate of a step's candidates, each time with a row of the request.
    """

    survivors: Sequence[Survivor]
    endings: Sequence[Ending] = ()
    failures: Sequence[tuple[int, str]] = ()
    beams: Sequence[tuple[int, tuple[BeamCandidate, ...]]] = ()

    def of_group(self, rows: Sequence[int]) -> Verdict:
        """Returns a verdict on these rows of a group as a verdict on the whole group."""
        return Verdict(
            [replace(s, parent=rows[s.parent]) for s in self.survivors],
            [replace(e, parent=rows[e.parent]) for e in self.endings],
            [(rows[i], why) for i, why in self.failures],
            [(rows[i], beams) for i, beams in self.beams],
        )


class Method(Protocol):
    """Implements a strategy. Each method sees all rows of all its requests; a request's rows are adjacent."""

    def needs(self, params: GenerationParams) -> Needs:
        """Returns what a request's scores must hold."""

    def propose(self, rows: Sequence[Row]) -> Proposal:
        """Returns the tokens to run for each row."""

    def judge(self, rows: Sequence[Row], scores: Scores) -> Verdict:
        """Returns which sequences survive."""
