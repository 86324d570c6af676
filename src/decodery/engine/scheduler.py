"""Chooses what the next step runs, by priority, within a token budget and the number of pages."""

from __future__ import annotations

from bisect import insort
from collections.abc import Iterable, Mapping

from decodery.decoding.rows import Row
from decodery.engine.batch import Batch, Chunk
from decodery.engine.pages import Pages, pages_for
from decodery.engine.request import Request, Sequence
from decodery.engine.step_bound import StepBound
from decodery.kernels import PAGE_SIZE

Branches = Mapping[Row, tuple[tuple[int, ...], ...]]
_NOTHING: tuple[tuple[int, ...], ...] = ((),)


class Scheduler:
    """Holds the queue of requests and allocates the pages of the running ones.

    There is one kind of step: computed tokens catch up with known tokens. The sequences of a request are
    judged together, in a step that runs all remaining tokens of each. `waiting` and `running` are in the
    order of priorities, and of arrival where these are equal. Requests that decode come first in a step, and
    prompts get what remains of the token budget. When pages run out, the last request is preempted: its pages
    are freed, and it starts again from its known tokens (preemption by recompute). Every request ends unless
    others of higher priority keep coming, since the first one is never preempted and each fits alone. With
    `drafts_may_wait`, drafts that exceed the token budget are left out of the step, unless their sequence has
    nothing else to run. Forks always run.
    """

    def __init__(
        self,
        pages: Pages,
        *,
        token_budget: int,
        max_sequences: int,
        prefix_cache: bool,
        drafts_may_wait: bool = False,
    ) -> None:
        self.pages = pages
        self.token_budget = token_budget
        self.max_sequences = max_sequences
        self.prefix_cache = prefix_cache
        self.drafts_may_wait = drafts_may_wait
        self.waiting: list[Request] = []
        self.running: list[Request] = []
        self.preemptions = 0
        self._copies: list[tuple[int, int]] = []

    def add(self, request: Request) -> None:
        """Queues a request."""
        insort(self.waiting, request, key=_rank)

    def remove(self, request: Request) -> None:
        """Removes a request, waiting or running, and frees its pages. Empties its `sequences`."""
        self._free_all(request)
        request.sequences.clear()
        if request in self.running:
            self.running.remove(request)
        else:
            self.waiting.remove(request)

    def start_over(self, requests: Iterable[Request]) -> None:
        """Frees all pages and queues these requests, and no others, to run again from their known tokens.

        Afterwards pages and sequences agree, wherever an interrupted step stopped.
        """
        self.pages.clear()
        self.running, self.waiting, self._copies = [], sorted(requests, key=_rank), []
        for request in self.waiting:
            request.branches.clear()
            for member in request.members:
                member.pages = []
                member.computed = member.offered = 0

    def schedule(self, branches: Branches, bound: StepBound | None = None) -> Batch:
        """Returns the batch of the next step, with its pages allocated.

        With a `bound`, a step in which requests decode runs no more of prompts than the bound allows.

        Moves requests between `waiting` and `running`. The sequences' `computed` stays as it is; `settle`
        sets it once the step has run.
        """
        # A batch that did not run has left its copies to this one.
        batch = Batch(copies=self._copies)
        for request in self.running:
            # Forks of a batch that did not run are not used again.
            self.free_branches(request)
        preempted: list[Request] = []
        for request in sorted(self.running, key=lambda r: not r.decoding):
            if request not in preempted:
                preempted += self._run(request, batch, branches, bound)
        if not preempted:
            self._admit(batch, branches, bound)
        return batch

    def _admit(self, batch: Batch, branches: Branches, bound: StepBound | None) -> None:
        while self.waiting and batch.length < self.token_budget:
            request = self.waiting[0]
            if bound is not None and bound.is_reached(batch, request):
                return
            width = sum(r.params.width for r in (*self.running, request))
            if self.running and (width > self.max_sequences or not self._fits(request)):
                return
            insort(self.running, self.waiting.pop(0), key=_rank)
            if self._run(request, batch, branches, bound):
                return

    def _fits(self, request: Request) -> bool:
        """True if the known tokens of a waiting request fit into the available pages."""
        found = self._reusable(request, request.sequences[0])
        needed = sum(pages_for(m.known) for m in request.members) - len(found)
        # Found pages may themselves be among the available ones until they are held.
        return needed <= self.pages.available - len(found)

    def _run(
        self, request: Request, batch: Batch, branches: Branches, bound: StepBound | None
    ) -> list[Request]:
        """Adds to the batch what fits of a running request. Returns the requests that it preempted."""
        preempted: list[Request] = []
        for chunk in self._chunks(request, batch, branches, bound):
            while not self._reserve(chunk, batch):
                last = self.running[-1]
                self._preempt(last, batch)
                preempted.append(last)
                if last is request:
                    return preempted
            batch.add(chunk)
        return preempted

    def _chunks(
        self, request: Request, batch: Batch, branches: Branches, bound: StepBound | None
    ) -> list[Chunk]:
        budget, alone = self.token_budget - batch.length, not batch.chunks
        behind = self._behind(request)
        if behind is not None and bound is not None:
            budget = bound.tokens(batch, Chunk(request, behind, behind.known - behind.computed), budget)
        single = len(request.members) == 1
        if single or request.decoding:
            length = sum(self._judged_length(s, branches) for s in request.sequences)
            if length > budget and not alone and self.drafts_may_wait:
                only_drafts = {s.row for s in request.sequences if s.computed == s.known}
                branches = {row: b for row, b in branches.items() if len(b) > 1 or row in only_drafts}
                length = sum(self._judged_length(s, branches) for s in request.sequences)
            # Sequences that are judged together may exceed the budget when alone: otherwise they could never
            # run.
            if length <= budget or (alone and request.decoding):
                prefill = behind is not None or request.times.prefilled is None
                return [
                    chunk
                    for i in range(len(request.sequences))
                    for chunk in self._judged_chunks(request, i, branches, prefill=prefill)
                ]
        if behind is None or budget <= 0:
            return []
        # The last known token is left for the step that runs the drafts and is judged.
        return [Chunk(request, behind, min(behind.known - behind.computed - 1, budget), prefill=True)]

    def _judged_length(self, sequence: Sequence, branches: Branches) -> int:
        """Returns the number of tokens that run to judge a sequence and its companion."""
        members = [m for m in (sequence, sequence.companion) if m is not None]
        drafts = branches.get(sequence.row, _NOTHING)
        return sum(m.known - m.computed + len(branch) for branch in drafts for m in members)

    def _judged_chunks(
        self, request: Request, place: int, branches: Branches, *, prefill: bool
    ) -> list[Chunk]:
        """Returns the chunks that judge a sequence: one for each branch, each with its companion's after it.

        Forks the sequence for every branch but the first.
        """
        sequence = request.sequences[place]
        chunks = []
        for index, branch in enumerate(branches.get(sequence.row, _NOTHING)):
            runner = sequence
            if index:
                runner = self.fork(sequence, sequence.row)
                request.branches.append(runner)
            count = runner.known - runner.computed
            chunk = Chunk(request, runner, count, branch, judged=True, place=place, prefill=prefill)
            assert chunk.length, "a sequence is judged and runs nothing"
            chunks.append(chunk)
            if runner.companion is not None:
                count = runner.companion.known - runner.companion.computed
                chunk.companion = Chunk(request, runner.companion, count, branch, is_companion=True)
                chunks.append(chunk.companion)
        return chunks

    def _behind(self, request: Request) -> Sequence | None:
        """Returns the sequence that is computed next, or None if all but the last known tokens are computed.

        One sequence runs at a time, so that the next one finds its pages in the prefix cache.
        """
        for member in request.members:
            if member.computed < member.known - 1:
                if not member.pages:
                    self._reuse(request, member)
                if member.computed < member.known - 1:
                    return member
        return None

    def _reusable(self, request: Request, sequence: Sequence) -> list[int]:
        most = request.reusable(sequence) // PAGE_SIZE if self.prefix_cache else 0
        if not most:
            return []
        sequence.extend_page_keys()
        return self.pages.find(sequence.page_keys[:most])

    def _reuse(self, request: Request, sequence: Sequence) -> None:
        found = self._reusable(request, sequence)
        self.pages.hold(found)
        sequence.pages = found
        sequence.offered = len(found)
        sequence.computed = len(found) * PAGE_SIZE
        if request.times.started is None and sequence is request.sequences[0]:
            request.cached_tokens = sequence.computed

    def _reserve(self, chunk: Chunk, batch: Batch) -> bool:
        """Allocates the pages of a chunk, and copies the page in which it starts if that is shared.

        Returns False, and allocates nothing, when too few pages are available.
        """
        sequence = chunk.sequence
        missing = pages_for(chunk.start + chunk.length) - len(sequence.pages)
        inside = chunk.start // PAGE_SIZE
        copied = inside < len(sequence.pages) and self.pages.shared(sequence.pages[inside])
        if max(missing, 0) + copied > self.pages.available:
            return False
        if copied:
            page = self.pages.allocate()
            batch.copies.append((sequence.pages[inside], page))
            self.pages.release([sequence.pages[inside]])
            sequence.pages[inside] = page
        sequence.pages.extend(self.pages.allocate() for _ in range(missing))
        return True

    def _preempt(self, request: Request, batch: Batch) -> None:
        batch.remove(request)
        self._free_all(request)
        self.running.remove(request)
        self.add(request)
        self.preemptions += 1

    def fork(self, parent: Sequence, row: Row) -> Sequence:
        """Returns a sequence for `row` that shares all pages of the parent, with a fork of its companion."""
        self.pages.hold(parent.pages)
        companion = parent.companion
        return Sequence(
            row,
            list(parent.pages),
            list(parent.page_keys),
            parent.computed,
            parent.offered,
            None if companion is None else self.fork(companion, companion.row),
            parent.embedded,
            parent.rope_set,
        )

    def settle(self, sequence: Sequence, computed: int) -> None:
        """Sets how many tokens of a sequence are computed.

        Frees the pages behind them and enters full pages into the prefix cache.
        """
        sequence.computed = computed
        kept = pages_for(computed)
        self.pages.release(sequence.pages[kept:])
        del sequence.pages[kept:]
        if self.prefix_cache:
            self._offer(sequence)

    def _offer(self, sequence: Sequence) -> None:
        sequence.extend_page_keys()
        for index in range(sequence.offered, sequence.computed // PAGE_SIZE):
            page = sequence.pages[index]
            known = self.pages.remember(page, sequence.page_keys[index])
            if known != page:
                # Another sequence computed the same page in the same step. The streams of a request must
                # share their prompt: otherwise the request could need more pages than `pages_needed` says.
                self.pages.hold([known])
                self.pages.release([page])
                sequence.pages[index] = known
        sequence.offered = max(sequence.offered, sequence.computed // PAGE_SIZE)

    def free(self, sequence: Sequence) -> None:
        """Frees the pages of a sequence and its companion. Both keep their known tokens."""
        self.pages.release(sequence.pages)
        sequence.pages = []
        sequence.computed = sequence.offered = 0
        if sequence.companion is not None:
            self.free(sequence.companion)

    def free_branches(self, request: Request) -> None:
        """Frees and removes the forks that live for one step."""
        for branch in request.branches:
            self.free(branch)
        request.branches.clear()

    def _free_all(self, request: Request) -> None:
        self.free_branches(request)
        for sequence in request.sequences:
            self.free(sequence)

    def check_integrity(self) -> None:
        """Raises `AssertionError` unless pages and sequences agree."""
        sequences = [m for r in (*self.running, *self.waiting) for m in r.members]
        # A step that ran nothing leaves its forks to the next step.
        sequences += [m for r in self.running for b in r.branches for m in (b, b.companion) if m is not None]
        self.pages.check_integrity([s.pages for s in sequences])
        for request in self.waiting:
            assert all(not m.pages and not m.computed for m in request.members), "a waiting request has pages"
        for sequence in sequences:
            assert sequence.computed <= sequence.known, "more is computed than known"
            assert pages_for(sequence.computed) <= len(sequence.pages), "computed tokens have no page"
        for requests in (self.running, self.waiting):
            assert requests == sorted(requests, key=_rank), "requests are not in order"


def _rank(request: Request) -> tuple[int, int]:
    """Returns the key by which requests are in order."""
    return request.priority, request.id
