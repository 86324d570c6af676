"""A second model that follows rows by their tokens, in a key/value cache of its own."""

from __future__ import annotations

import sys
from array import array
from collections import Counter
from collections.abc import Iterable, Mapping
from collections.abc import Sequence as SequenceOf
from dataclasses import replace

import numpy as np
import torch
from torch import Tensor

from decodery.decoding.rows import Draw, Row
from decodery.decoding.stopping import finish_of
from decodery.engine.limits import Limits
from decodery.engine.pages import Pages, pages_for
from decodery.engine.request import Request, Sequence
from decodery.engine.runner import Runner
from decodery.engine.scheduler import Branches, Scheduler
from decodery.kernels import PAGE_SIZE
from decodery.kernels.contract import Kernels
from decodery.models.families import CausalModel


class SecondModelRunner:
    """The `SecondModel` that runs a model.

    Of each request it keeps the sequences that it computed last; a row goes on from the one that shares most
    of its tokens. A call runs all its rows together as far as the pages reach, and after each other where
    they don't. Of `limits` the pages, the token budget and the use of a prefix cache count.
    """

    def __init__(self, model: CausalModel, limits: Limits) -> None:
        self.model = model
        self._runner = Runner(model, limits.pages, limits.kv_dtype)
        self._pages = Pages(limits.pages)
        self._scheduler = Scheduler(
            self._pages,
            token_budget=limits.token_budget,
            max_sequences=sys.maxsize,
            prefix_cache=limits.prefix_cache,
        )
        # By request, the least recently used first.
        self._followed: dict[int, list[Sequence]] = {}

    @property
    def kernels(self) -> Kernels:
        """Those of its model."""
        return self.model.kernels

    @torch.inference_mode()
    def logits(self, runs: SequenceOf[tuple[Row, tuple[int, ...]]]) -> Tensor:
        """Scores float32 `[positions, vocab]` after each row's last known token and after each of its
        drafts."""
        sequences = self._follow([row for row, _ in runs])
        return torch.cat(self._scores(sequences, [drafts for _, drafts in runs]))

    @torch.inference_mode()
    def draft(
        self, rows: SequenceOf[Row], counts: SequenceOf[int], draw: Draw
    ) -> list[tuple[list[int], Tensor]]:
        """For each row at most so many tokens that `draw` draws from this model's scores, and the processed
        logits `[tokens, vocab]` that they were drawn from.

        Fewer where the row would end, where this model's context ends, and where the pages do.
        """
        wanted = self._affordable(rows, counts)
        tokens: list[list[int]] = [[] for _ in rows]
        drawn: list[list[Tensor]] = [[] for _ in rows]
        going = [i for i, count in enumerate(wanted) if count and finish_of(rows[i]) is None]
        sequences = dict(zip(going, self._follow([rows[i] for i in going]), strict=True))
        while going:
            logits = torch.cat(self._scores([sequences[i] for i in going], [()] * len(going)))
            chosen, processed = draw([sequences[i].row for i in going], logits)
            unended = []
            for i, token, from_ in zip(going, chosen, processed, strict=True):
                if token < 0 or not bool(from_[token] > -torch.inf):
                    continue
                sequences[i].row = sequences[i].row.after(token)
                tokens[i].append(token)
                drawn[i].append(from_)
                if len(tokens[i]) < wanted[i] and finish_of(sequences[i].row) is None:
                    unended.append(i)
            going = unended
        nothing = torch.zeros((0, self.model.vocab_size), device=self.model.device)
        return [(t, torch.stack(d) if d else nothing) for t, d in zip(tokens, drawn, strict=True)]

    def retain(self, rows: Iterable[Row]) -> None:
        """Give up what is held for the requests of other rows than these."""
        alive = Counter(row.request for row in rows)
        for request, sequences in list(self._followed.items()):
            dropped = max(len(sequences) - alive[request], 0)
            for sequence in sequences[:dropped]:
                self._scheduler.free(sequence)
            del sequences[:dropped]
            if not sequences:
                del self._followed[request]

    def start_over(self) -> None:
        """Give up all that is held, after an interrupt that may have come anywhere."""
        self._followed.clear()
        self._scheduler.start_over(())

    def check_integrity(self) -> None:
        """Raise `AssertionError` unless pages and sequences agree."""
        self._pages.check_integrity([s.pages for sequences in self._followed.values() for s in sequences])

    def _affordable(self, rows: SequenceOf[Row], counts: SequenceOf[int]) -> list[int]:
        """How many tokens of each row to draft, so that context and pages hold all of them together."""
        result = []
        left = self._pages.count
        for row, count in zip(rows, counts, strict=True):
            within = max(min(count, self.model.context_length - len(row.tokens)), 0)
            # One more for the copy of a page that is shared.
            needed = pages_for(len(row.tokens) + within) + 1
            result.append(within if needed <= left else 0)
            left -= needed if result[-1] else 0
        return result

    def _follow(self, rows: SequenceOf[Row]) -> list[Sequence]:
        """A sequence for each row, of which all but the last token is computed as far as one of the
        request's."""
        sources = [self._source(row) for row in rows]
        sequences: list[Sequence] = []
        # All forks before any sequence is rewound, so that they start from what it was.
        for row, (source, _) in zip(rows, sources, strict=True):
            if source is None:
                sequences.append(Sequence(row))
            elif any(s is source for s in sequences):
                sequences.append(self._scheduler.fork(source, row))
            else:
                sequences.append(source)
        self._keep(rows, sequences)
        for sequence, row, (_, common) in zip(sequences, rows, sources, strict=True):
            # A row of its own, since one row may be asked for with several drafts.
            sequence.row = replace(row)
            del sequence.page_keys[common // PAGE_SIZE :]
            sequence.offered = min(sequence.offered, common // PAGE_SIZE)
            self._scheduler.settle(sequence, common)
        return sequences

    def _source(self, row: Row) -> tuple[Sequence | None, int]:
        """The request's sequence that shares most computed tokens with the row, and how many."""
        best: tuple[Sequence | None, int] = (None, 0)
        for sequence in self._followed.get(row.request, ()):
            common = _common(sequence, row.tokens)
            if common > best[1]:
                best = (sequence, common)
        return best

    def _keep(self, rows: SequenceOf[Row], sequences: SequenceOf[Sequence]) -> None:
        """Count the sequences of these rows as the last ones used."""
        used = {id(s) for s in sequences}
        for request in {row.request: None for row in rows}:
            old = [s for s in self._followed.pop(request, ()) if id(s) not in used]
            new = [s for row, s in zip(rows, sequences, strict=True) if row.request == request]
            self._followed[request] = old + new

    def _scores(self, sequences: SequenceOf[Sequence], drafts: SequenceOf[tuple[int, ...]]) -> list[Tensor]:
        """For each sequence the scores `[1 + drafts, vocab]` after its last token and after its drafts.

        Its drafts count among its tokens afterwards.
        """
        scheduler = self._scheduler
        branches = {s.row: (d,) for s, d in zip(sequences, drafts, strict=True)}
        for sequence in sequences:
            length = _length(sequence, branches)
            assert pages_for(length) <= self._pages.count, "a sequence is longer than the cache"
        # What a callback's failure left there is followed still.
        scheduler.waiting.clear()
        scheduler.running = [_request(sequence) for sequence in sequences]
        scores: dict[int, Tensor] = {}
        while scheduler.running or scheduler.waiting:
            self._make_room([r.sequences[0] for r in (*scheduler.running, *scheduler.waiting)], branches)
            scores |= self._step(branches)
            scheduler.running = [r for r in scheduler.running if id(r.sequences[0]) not in scores]
        return [scores[id(sequence)] for sequence in sequences]

    def _make_room(self, wanted: SequenceOf[Sequence], branches: Branches) -> None:
        """Take pages from sequences that are not wanted, the least recently used first."""
        # One more each for the copy of a page that is shared.
        needed = sum(max(pages_for(_length(s, branches)) - len(s.pages), 0) + 1 for s in wanted)
        spared = {id(s) for s in wanted}
        for sequence in (s for sequences in self._followed.values() for s in sequences):
            if self._pages.available >= needed:
                return
            if id(sequence) not in spared:
                self._scheduler.free(sequence)

    def _step(self, branches: Branches) -> Mapping[int, Tensor]:
        """Run what fits of the scheduled sequences; the scores of those that it brings to their end."""
        batch = self._scheduler.schedule(branches)
        if not batch.chunks:
            return {}
        states = self._runner.hidden(batch)
        indices: list[int] = []
        judged: dict[int, int] = {}
        base = 0
        for chunk in batch.chunks:
            sequence, end = chunk.sequence, chunk.start + chunk.length
            if chunk.judged:
                scored = range(base + chunk.count - 1, base + chunk.length)
                indices += scored
                judged[id(sequence)] = len(scored)
            base += chunk.length
            if chunk.drafts:
                sequence.row = replace(sequence.row, tokens=sequence.row.tokens + array("q", chunk.drafts))
            self._scheduler.settle(sequence, end)
        logits = self._runner.logits(states.final, indices)
        return dict(zip(judged, torch.split(logits, list(judged.values())), strict=True))


def _request(sequence: Sequence) -> Request:
    """What the scheduler takes: a request for a sequence of which nothing but scores is wanted."""
    row = sequence.row
    request = Request(row.request, row.tokens, row.params, row.seed, [sequence])
    request.prompt_logprobs = request.context = None
    return request


def _length(sequence: Sequence, branches: Branches) -> int:
    return sequence.known + len(branches[sequence.row][0])


def _common(sequence: Sequence, tokens: array[int]) -> int:
    """How many computed tokens of a sequence begin `tokens`, of which the last is to run in any case."""
    count = min(sequence.computed, len(tokens) - 1)
    known = np.frombuffer(sequence.row.tokens, dtype=np.int64)[:count]
    differs = known != np.frombuffer(tokens, dtype=np.int64)[:count]
    return int(differs.argmax()) if differs.any() else count
