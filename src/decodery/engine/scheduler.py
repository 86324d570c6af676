"""Who runs in the next step: first come first served, within a token budget and the pages there are."""

from __future__ import annotations

from collections import deque
from collections.abc import Mapping

from decodery.decoding.rows import Row
from decodery.engine.batch import Batch, Chunk
from decodery.engine.pages import Pages, extend_page_keys, pages_for
from decodery.engine.request import Request, Sequence
from decodery.kernels import PAGE_SIZE

Drafts = Mapping[Row, tuple[int, ...]]


class Scheduler:
    """The queue of requests and the pages of the running ones.

    There is one kind of step: computed tokens catch up with known tokens. A request's sequences are judged
    together, in a step that covers all that is left of each. When pages run out, the request that came last
    gives up its pages and starts over from its known tokens (preemption by recompute); since the first one
    never gives way and each fits alone, every request ends.
    """

    def __init__(self, pages: Pages, *, token_budget: int, max_sequences: int, prefix_cache: bool) -> None:
        self.pages = pages
        self.token_budget = token_budget
        self.max_sequences = max_sequences
        self.prefix_cache = prefix_cache
        self.waiting: deque[Request] = deque()
        self.running: list[Request] = []
        self.preemptions = 0
        self._copies: list[tuple[int, int]] = []

    def add(self, request: Request) -> None:
        """Queue a request behind all others."""
        self.waiting.append(request)

    def remove(self, request: Request) -> None:
        """Forget a request and free its pages, whether it waits or runs."""
        for sequence in request.sequences:
            self.free(sequence)
        request.sequences.clear()
        if request in self.running:
            self.running.remove(request)
        else:
            self.waiting.remove(request)

    def schedule(self, drafts: Drafts) -> Batch:
        """The next step's batch. Allocates its pages, moves requests between waiting and running, and leaves
        `computed` as it is until the step is done."""
        # Copies that an interrupted step left undone are still owed.
        batch = Batch(copies=self._copies)
        preempted = False
        # The list shrinks from its end while requests that came last give way.
        position = 0
        while position < len(self.running):
            request = self.running[position]
            preempted |= not self._run(request, batch, drafts)
            position += 1
        if not preempted:
            self._admit(batch, drafts)
        return batch

    def _admit(self, batch: Batch, drafts: Drafts) -> None:
        while self.waiting and batch.length < self.token_budget:
            request = self.waiting[0]
            streams = sum(r.streams for r in (*self.running, request))
            if self.running and (streams > self.max_sequences or not self._has_room(request)):
                return
            self.running.append(self.waiting.popleft())
            if not self._run(request, batch, drafts):
                return

    def _has_room(self, request: Request) -> bool:
        found = self._reusable(request, request.sequences[0])
        needed = sum(pages_for(s.known) for s in request.sequences) - len(found)
        # Found pages may themselves be among the available ones until they are held.
        return needed <= self.pages.available - len(found)

    def _run(self, request: Request, batch: Batch, drafts: Drafts) -> bool:
        """Put what fits of a running request into the batch; False when a request had to give way."""
        budget = self.token_budget - batch.length
        undisturbed = True
        for chunk in self._chunks(request, budget, drafts, alone=not batch.chunks):
            while not self._reserve(chunk, batch):
                undisturbed = False
                last = self.running[-1]
                self._preempt(last)
                if last is request:
                    batch.chunks = [c for c in batch.chunks if c.request is not request]
                    return False
            batch.chunks.append(chunk)
        return undisturbed

    def _chunks(self, request: Request, budget: int, drafts: Drafts, *, alone: bool) -> list[Chunk]:
        behind = self._behind(request)
        single = len(request.sequences) == 1
        if single or request.decoding:
            whole = [
                Chunk(request, s, s.known - s.computed, drafts.get(s.row, ()), judged=True)
                for s in request.sequences
            ]
            # Sequences that are judged together may exceed the budget, or they could never run.
            if sum(chunk.length for chunk in whole) <= budget or (alone and request.decoding):
                return whole
        if behind is None or budget <= 0:
            return []
        left = behind.known - behind.computed - (0 if single else 1)
        return [Chunk(request, behind, min(left, budget))]

    def _behind(self, request: Request) -> Sequence | None:
        """The sequence that catches up next. One at a time, so that the next finds its pages to share."""
        for sequence in request.sequences:
            if sequence.computed < sequence.known - 1:
                if not sequence.pages:
                    self._reuse(request, sequence)
                if sequence.computed < sequence.known - 1:
                    return sequence
        return None

    def _reusable(self, request: Request, sequence: Sequence) -> list[int]:
        # Prompt log-probabilities need every position of the prompt to run once.
        collected = request.prompt_logprobs is None or len(request.prompt_logprobs) == len(request.prompt)
        if not self.prefix_cache or not collected:
            return []
        extend_page_keys(sequence.page_keys, sequence.row.tokens)
        return self.pages.find(sequence.page_keys[: (sequence.known - 1) // PAGE_SIZE])

    def _reuse(self, request: Request, sequence: Sequence) -> None:
        found = self._reusable(request, sequence)
        self.pages.hold(found)
        sequence.pages = found
        sequence.offered = len(found)
        sequence.computed = len(found) * PAGE_SIZE

    def _reserve(self, chunk: Chunk, batch: Batch) -> bool:
        """Give a chunk its pages, the one it starts in for itself alone; False when there are too few."""
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

    def _preempt(self, request: Request) -> None:
        for sequence in request.sequences:
            self.free(sequence)
        self.running.remove(request)
        self.waiting.appendleft(request)
        self.preemptions += 1

    def fork(self, parent: Sequence, row: Row) -> Sequence:
        """A sequence for `row` that shares all of the parent's pages."""
        self.pages.hold(parent.pages)
        return Sequence(row, list(parent.pages), list(parent.page_keys), parent.computed, parent.offered)

    def settle(self, sequence: Sequence, computed: int) -> None:
        """Say how much of a sequence is computed, free the pages behind it, and offer full ones for reuse."""
        sequence.computed = computed
        kept = pages_for(computed)
        self.pages.release(sequence.pages[kept:])
        del sequence.pages[kept:]
        if self.prefix_cache:
            self._offer(sequence)

    def _offer(self, sequence: Sequence) -> None:
        extend_page_keys(sequence.page_keys, sequence.row.tokens)
        for index in range(sequence.offered, sequence.computed // PAGE_SIZE):
            page = sequence.pages[index]
            known = self.pages.remember(page, sequence.page_keys[index])
            if known != page:
                # Somebody computed the same at the same time. One copy is enough, and a request's streams
                # must share their prompt, or it could need more pages than it was admitted with.
                self.pages.hold([known])
                self.pages.release([page])
                sequence.pages[index] = known
        sequence.offered = max(sequence.offered, sequence.computed // PAGE_SIZE)

    def free(self, sequence: Sequence) -> None:
        """Give up a sequence's pages; its known tokens stay."""
        self.pages.release(sequence.pages)
        sequence.pages = []
        sequence.computed = sequence.offered = 0

    def check_integrity(self) -> None:
        """Raise `AssertionError` unless pages and sequences agree."""
        sequences = [s for r in (*self.running, *self.waiting) for s in r.sequences]
        self.pages.check_integrity([s.pages for s in sequences])
        for request in self.waiting:
            assert all(not s.pages and not s.computed for s in request.sequences), (
                "a waiting request has pages"
            )
        for sequence in sequences:
            assert sequence.computed < sequence.known, "nothing is left to run"
            assert pages_for(sequence.computed) <= len(sequence.pages), "computed tokens have no page"
