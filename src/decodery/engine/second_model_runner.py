"""Runs a second model over the tokens of rows, in a key/value cache of its own."""

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
from decodery.engine.limits import Limits, computed_at_most
from decodery.engine.pages import Pages, pages_for
from decodery.engine.request import Request, Sequence
from decodery.engine.runner import Runner
from decodery.engine.scheduler import Branches, Scheduler
from decodery.kernels import PAGE_SIZE
from decodery.models.contract import CausalModel


class SecondModelRunner:
    """Runs a model as a `SecondModel`.

    For each request it keeps the sequences that it computed last. A row continues the sequence that shares
    most tokens with it. A call runs all its rows in one batch if there are enough pages, and one after the
    other if not. `limits` gives the pages and their `kv_dtype`, the token budget and the use of a prefix
    cache; its other fields are ignored.
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
        # The sequences of each request. The least recently used come first, in the dict and in each list.
        self._sequences: dict[int, list[Sequence]] = {}

    @torch.inference_mode()
    def logits(self, runs: SequenceOf[tuple[Row, tuple[int, ...]]]) -> Tensor:
        """Returns the float32 logits `[positions, vocab]` after the last known token of each row and after
        each of its drafts."""
        sequences = self._sequences_for([row for row, _ in runs])
        return torch.cat(self._scores(sequences, [drafts for _, drafts in runs]))

    @torch.inference_mode()
    def compute(self, row: Row) -> None:
        """Computes the row's tokens ahead of calls that continue it, as far as the model's context goes."""
        if len(row.tokens) <= self.model.context_length:
            self._scores(self._sequences_for([row]), [()])

    @torch.inference_mode()
    def draft(
        self, rows: SequenceOf[Row], counts: SequenceOf[int], draw: Draw
    ) -> list[tuple[list[int], Tensor]]:
        """Returns drafts for each row, at most `counts[i]` for row i, and the processed logits `[tokens,
        vocab]` from which `draw` drew them.

        A row gets fewer drafts where it would end, where this model's context ends, and when pages are short.
        """
        wanted = self._affordable(rows, counts)
        tokens: list[list[int]] = [[] for _ in rows]
        drawn: list[list[Tensor]] = [[] for _ in rows]
        going = [i for i, count in enumerate(wanted) if count and finish_of(rows[i]) is None]
        sequences = dict(zip(going, self._sequences_for([rows[i] for i in going]), strict=True))
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
        """Keeps as many sequences of each request as it has rows; frees the least recently used ones."""
        alive = Counter(row.request for row in rows)
        for request, sequences in list(self._sequences.items()):
            dropped = max(len(sequences) - alive[request], 0)
            for sequence in sequences[:dropped]:
                self._scheduler.free(sequence)
            del sequences[:dropped]
            if not sequences:
                del self._sequences[request]

    def resize(self, pages: int) -> None:
        """Makes the number of pages `pages`, and frees all sequences."""
        self._pages.resize(pages)
        self._runner.resize(pages)
        self.start_over()

    def start_over(self) -> None:
        """Frees all sequences, after an interrupt at any point."""
        self._sequences.clear()
        self._scheduler.start_over(())

    def check_integrity(self) -> None:
        """Raises `AssertionError` unless pages and sequences agree."""
        self._pages.check_integrity([s.pages for sequences in self._sequences.values() for s in sequences])

    def _affordable(self, rows: SequenceOf[Row], counts: SequenceOf[int]) -> list[int]:
        """Returns how many tokens to draft for each row, so that all fit into the context and the pages."""
        result = []
        left = self._pages.count
        for row, count in zip(rows, counts, strict=True):
            within = max(min(count, self.model.context_length - len(row.tokens)), 0)
            # One more page, for the copy of a shared one.
            needed = pages_for(len(row.tokens) + within) + 1
            result.append(within if needed <= left else 0)
            left -= needed if result[-1] else 0
        return result

    def _sequences_for(self, rows: SequenceOf[Row]) -> list[Sequence]:
        """Returns a sequence for each row. Tokens that a sequence of the same request has computed are not
        computed again, except the row's last token."""
        sources = [self._source(row) for row in rows]
        sequences: list[Sequence] = []
        # Forks are made before any sequence is rewound, since they continue it as it is now.
        for row, (source, _) in zip(rows, sources, strict=True):
            if source is None:
                length = computed_at_most(row.prompt_length, row.params, self.model.context_length)
                sequences.append(Sequence(row, rope_set=self.model.rope_set(length)))
            elif any(s is source for s in sequences):
                sequences.append(self._scheduler.fork(source, row))
            else:
                sequences.append(source)
        self._keep(rows, sequences)
        for sequence, row, (_, common) in zip(sequences, rows, sources, strict=True):
            # Each sequence has its own row object, since the same row may come several times with other
            # drafts.
            sequence.row = replace(row)
            del sequence.page_keys[common // PAGE_SIZE :]
            sequence.offered = min(sequence.offered, common // PAGE_SIZE)
            self._scheduler.settle(sequence, common)
        return sequences

    def _source(self, row: Row) -> tuple[Sequence | None, int]:
        """Returns the request's sequence that shares most computed tokens with the row, and their number."""
        best: tuple[Sequence | None, int] = (None, 0)
        for sequence in self._sequences.get(row.request, ()):
            common = _common(sequence, row.tokens)
            if common > best[1]:
                best = (sequence, common)
        return best

    def _keep(self, rows: SequenceOf[Row], sequences: SequenceOf[Sequence]) -> None:
        """Marks the sequences of these rows as the most recently used."""
        used = {id(s) for s in sequences}
        for request in {row.request: None for row in rows}:
            old = [s for s in self._sequences.pop(request, ()) if id(s) not in used]
            new = [s for row, s in zip(rows, sequences, strict=True) if row.request == request]
            self._sequences[request] = old + new

    def _scores(self, sequences: SequenceOf[Sequence], drafts: SequenceOf[tuple[int, ...]]) -> list[Tensor]:
        """Returns for each sequence the logits `[1 + drafts, vocab]` after its last token and its drafts.

        Appends the drafts to the tokens of the sequence.
        """
        scheduler = self._scheduler
        branches = {s.row: (d,) for s, d in zip(sequences, drafts, strict=True)}
        for sequence in sequences:
            length = _length(sequence, branches)
            assert pages_for(length) <= self._pages.count, "a sequence is longer than the cache"
        # A callback that failed may have left sequences here; they stay in `_sequences`.
        scheduler.waiting.clear()
        scheduler.running = [_request(sequence) for sequence in sequences]
        scores: dict[int, Tensor] = {}
        while scheduler.running or scheduler.waiting:
            self._free_pages([r.sequences[0] for r in (*scheduler.running, *scheduler.waiting)], branches)
            scores |= self._step(branches)
            scheduler.running = [r for r in scheduler.running if id(r.sequences[0]) not in scores]
        return [scores[id(sequence)] for sequence in sequences]

    def _free_pages(self, wanted: SequenceOf[Sequence], branches: Branches) -> None:
        """Frees sequences that are not wanted, the least recently used first, until the wanted ones fit."""
        # One more page for each, for the copy of a shared one.
        needed = sum(max(pages_for(_length(s, branches)) - len(s.pages), 0) + 1 for s in wanted)
        spared = {id(s) for s in wanted}
        for sequence in (s for sequences in self._sequences.values() for s in sequences):
            if self._pages.available >= needed:
                return
            if id(sequence) not in spared:
                self._scheduler.free(sequence)

    def _step(self, branches: Branches) -> Mapping[int, Tensor]:
        """Runs one step, and returns the logits of the sequences that it computes to their end, by id."""
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
    """Returns a request for the scheduler that holds this sequence and collects nothing from its prompt."""
    row = sequence.row
    request = Request(row.request, row.tokens, row.params, row.seed, [sequence])
    request.prompt_logprobs = request.context = None
    return request


def _length(sequence: Sequence, branches: Branches) -> int:
    return sequence.known + len(branches[sequence.row][0])


def _common(sequence: Sequence, tokens: array[int]) -> int:
    """Returns how many computed tokens of a sequence are a prefix of `tokens[:-1]`."""
    count = min(sequence.computed, len(tokens) - 1)
    known = np.frombuffer(sequence.row.tokens, dtype=np.int64)[:count]
    differs = known != np.frombuffer(tokens, dtype=np.int64)[:count]
    return int(differs.argmax()) if differs.any() else count
