"""Drafts tokens for rows from their own text, from earlier texts, and from likeliest successors."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

from decodery.decoding.rows import Row, Scores, Survivor
from decodery.decoding.strategies.forced_tokens import forced_by_grammar
from decodery.engine.drafts.allocation import worthwhile
from decodery.engine.drafts.confidence import Confidence, place_of, source_of
from decodery.engine.drafts.memory import Memory
from decodery.engine.drafts.ngram_index import NgramIndex
from decodery.engine.drafts.step_time import StepTime
from decodery.kernels.vocabulary.dispatch import largest

# Drafts of one row in one step, at most.
MOST_DRAFTS = 8
# Of so many salts the earlier texts and successors are kept.
MOST_SALTS = 16
# Drafts run only where they are expected to make decoding faster by this factor.
_LEAST = 1.02
# With more rows than these, no drafts can pay, and none are looked for.
MOST_ROWS = 16


@dataclass(slots=True)
class Draft:
    """Holds the tokens that are expected to follow a row, and the place of each in `Confidence`."""

    tokens: list[int] = field(default_factory=list)
    places: list[int] = field(default_factory=list)

    @property
    def sources(self) -> tuple[str, ...]:
        """Returns where each token comes from."""
        return tuple(map(source_of, self.places))


@dataclass(slots=True)
class _Stream:
    """Holds what is known of one stream: the index of its tokens, its confidence and its last draft.

    `memory` is used where requests share none.
    """

    index: NgramIndex
    confidence: Confidence
    draft: Draft = field(default_factory=Draft)
    memory: Memory = field(default_factory=Memory)


class Speculator:
    """Drafts for the rows of an engine, and learns from what came."""

    def __init__(self, *, remember_texts: bool = True) -> None:
        self._remember_texts = remember_texts
        self._time = StepTime()
        self._confidence = Confidence(memory=1000.0)
        self._memories: dict[bytes, Memory] = {}
        self._streams: dict[tuple[int, int], _Stream] = {}

    def drafts(self, rows: Sequence[Row], most: Sequence[int], besides: int) -> list[Draft]:
        """Returns the drafts that each row runs in the next step, at most `most[i]` of row i.

        The step runs `besides` more tokens that decode.
        """
        count = len(rows) + besides
        if count > MOST_ROWS or not self._time.known:
            for row in rows:
                self._stream(row).draft = Draft()
            return [Draft() for _ in rows]
        found = [self._draft(row, limit) for row, limit in zip(rows, most, strict=True)]
        likely = []
        for row, draft in zip(rows, found, strict=True):
            values = self._stream(row).confidence.values
            likely.append([values[place] for place in draft.places])
        counts = worthwhile(likely, count, self._time.times(), least=_LEAST)
        return [Draft(draft.tokens[:n], draft.places[:n]) for draft, n in zip(found, counts, strict=True)]

    def learn(self, row: Row, survivors: Sequence[Survivor]) -> None:
        """Takes note of what became of a row."""
        stream = self._streams.get(_key(row)) if row.streams else None
        if stream is None or len(survivors) != 1:
            return
        (survivor,) = survivors
        tokens = survivor.row.tokens[len(row.tokens) :]
        draft = stream.draft
        for drafted, place, token in zip(draft.tokens, draft.places, tokens, strict=False):
            right = drafted == token
            stream.confidence.learn(place, right)
            self._confidence.learn(place, right)
            if not right:
                break
        stream.draft = Draft()
        if survivor.finish is not None:
            if self._remember_texts:
                self._memory(row).add_text(survivor.row.tokens)
            del self._streams[_key(row)]

    def learn_successors(self, rows: Sequence[Row], scores: Scores) -> None:
        """Takes note of the likeliest token after each row that it drafts for, and after each draft."""
        known = [
            (row, run)
            for row, (run, *_) in zip(rows, scores.runs, strict=True)
            if row.streams and _key(row) in self._streams
        ]
        if not known or len(scores.logits) > 4 * MOST_ROWS:
            return
        likeliest = largest(scores.logits)
        for row, run in known:
            memory = self._memory(row)
            previous, token = row.tokens[-2], row.tokens[-1]
            # Positions before what a grammar forces may have no scores.
            scored = min(len(forced_by_grammar(row)), len(run.tokens))
            for j, draft in enumerate((*run.tokens, -1)):
                if j >= scored and likeliest[run.at(j)] >= 0:
                    memory.learn(previous, token, likeliest[run.at(j)])
                previous, token = token, draft

    def learn_time(self, tokens: int, seconds: float) -> None:
        """Takes note of the time of a step that ran so many tokens, none of them of a prompt."""
        self._time.learn(tokens, seconds)

    def forget(self, request: int) -> None:
        """Forgets the streams of a request that has been removed."""
        for key in [key for key in self._streams if key[0] == request]:
            del self._streams[key]

    def _memory(self, row: Row) -> Memory:
        """Returns what requests of the row's salt share, or what its stream has alone."""
        if not self._remember_texts:
            return self._stream(row).memory
        memory = self._memories.pop(row.salt, None) or Memory()
        # The last used one comes last.
        self._memories[row.salt] = memory
        if len(self._memories) > MOST_SALTS:
            del self._memories[next(iter(self._memories))]
        return memory

    def _stream(self, row: Row) -> _Stream:
        key = _key(row)
        stream = self._streams.get(key)
        if stream is None or len(stream.index) > len(row.tokens):
            confidence = Confidence(self._confidence.values, weight=6.0, memory=40.0)
            stream = self._streams[key] = _Stream(NgramIndex(), confidence)
        if len(stream.index) < len(row.tokens):
            stream.index.extend(row.tokens[len(stream.index) :])
        return stream

    def _draft(self, row: Row, most: int) -> Draft:
        """Returns what is expected to follow a row, and remembers it until the next tokens are known."""
        stream = self._stream(row)
        stream.draft = draft = Draft()
        if most <= 0 or len(row.tokens) < 2:
            return draft
        most = min(most, MOST_DRAFTS)
        memory = self._memory(row)
        known = row.tokens
        values = stream.confidence.values
        index = stream.index
        source, (end, length) = 0, index.longest(known, index.before_end())
        earlier, earlier_end, earlier_length = memory.longest(known)
        if earlier_length > length:
            source, index, end, length = 1, earlier, earlier_end, earlier_length
        successor, by = memory.successor(known[-2], known[-1])
        if successor is not None and (
            length == 0 or values[place_of(2, by)] > values[place_of(source, length)]
        ):
            length = 0
        if length:
            _copy(draft, index, end, length, source, most)
        previous, token = (known[-2], known[-1])
        for drafted in draft.tokens:
            previous, token = token, drafted
        while len(draft.tokens) < most:
            successor, by = memory.successor(previous, token)
            if successor is None:
                break
            draft.tokens.append(successor)
            draft.places.append(place_of(2, by))
            previous, token = token, successor
        return draft


def _copy(draft: Draft, index: NgramIndex, end: int, length: int, source: int, most: int) -> None:
    """Adds the tokens that followed a match; those of the row's own text go on with the draft itself."""
    tokens = index.tokens
    for j in range(most):
        place = end + j
        if place < len(tokens):
            token = tokens[place]
        elif source == 0:
            token = draft.tokens[place - len(tokens)]
        else:
            break
        if token < 0:
            break
        draft.tokens.append(token)
        draft.places.append(place_of(source, length + j))


def _key(row: Row) -> tuple[int, int]:
    return row.request, row.streams[0]
