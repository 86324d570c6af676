"""Who runs in the next step: first come first served, within a token budget and the pages there are."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable, Mapping

from decodery.decoding.rows import Row
from decodery.engine.batch import Batch, Chunk
from decodery.engine.pages import Pages, extend_page_keys, pages_for
from decodery.engine.request import Request, Sequence
from decodery.kernels import PAGE_SIZE

Branches = Mapping[Row, tuple[tuple[int, ...], ...]]
_NOTHING: tuple[tuple[int, ...], ...] = ((),)


class Scheduler:
    """The queue of requests and the pages of the running ones.

    There is one kind of step: computed tokens catch up with known tokens. A request's sequences are judged
    together, in a step that covers all that is left of each. When pages run out, the request that came last
    gives up its pages and starts over from its known tokens (preemption by recompute); since the first one
    never gives way and each fits alone, every request ends. With `drafts_may_wait`, a sequence whose drafts
    have no room in the budget runs without them, unless it has nothing else to run; forks always run.
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
        self.waiting: deque[Request] = deque()
        self.running: list[Request] = []
        self.preemptions = 0
        self._copies: list[tuple[int, int]] = []

    def add(self, request: Request) -> None:
        """Queue a request behind all others."""
        self.waiting.append(request)

    def remove(self, request: Request) -> None:
        """Forget a request and free its pages, whether it waits or runs."""
        self._free_all(request)
        request.sequences.clear()
        if request in self.running:
            self.running.remove(request)
        else:
            self.waiting.remove(request)

    def start_over(self, requests: Iterable[Request]) -> None:
        """Let these requests, and no others, wait for pages from the beginning: whatever an interrupted step
        has left half done, the books are right again."""
        self.pages.clear()
        self.running, self.waiting, self._copies = [], deque(requests), []
        for request in self.waiting:
            request.branches.clear()
            for member in request.members:
                member.pages = []
                member.computed = member.offered = 0

    def schedule(self, branches: Branches) -> Batch:
        """The next step's batch. Allocates its pages, moves requests between waiting and running, and leaves
        `computed` as it is until the step is done."""
        # Copies of batches that did not run are still owed.
        batch = Batch(copies=self._copies)
        for request in self.running:
            # Forks of such a batch live no longer.
            self.free_branches(request)
        preempted = False
        # The list shrinks from its end while requests that came last give way.
        position = 0
        while position < len(self.running):
            request = self.running[position]
            preempted |= not self._run(request, batch, branches)
            position += 1
        if not preempted:
            self._admit(batch, branches)
        return batch

    def _admit(self, batch: Batch, branches: Branches) -> None:
        while self.waiting and batch.length < self.token_budget:
            request = self.waiting[0]
            width = sum(r.params.width for r in (*self.running, request))
            if self.running and (width > self.max_sequences or not self._has_room(request)):
                return
            self.running.append(self.waiting.popleft())
            if not self._run(request, batch, branches):
                return

    def _has_room(self, request: Request) -> bool:
        found = self._reusable(request, request.sequences[0])
        needed = sum(pages_for(m.known) for m in request.members) - len(found)
        # Found pages may themselves be among the available ones until they are held.
        return needed <= self.pages.available - len(found)

    def _run(self, request: Request, batch: Batch, branches: Branches) -> bool:
        """Put what fits of a running request into the batch; False when a request had to give way."""
        budget = self.token_budget - batch.length
        undisturbed = True
        for chunk in self._chunks(request, budget, branches, alone=not batch.chunks):
            while not self._reserve(chunk, batch):
                undisturbed = False
                last = self.running[-1]
                self._preempt(last)
                if last is request:
                    batch.chunks = [c for c in batch.chunks if c.request is not request]
                    return False
            batch.chunks.append(chunk)
        return undisturbed

    def _chunks(self, request: Request, budget: int, branches: Branches, *, alone: bool) -> list[Chunk]:
        behind = self._behind(request)
        single = len(request.members) == 1
        if single or request.decoding:
            length = sum(self._judged_length(s, branches) for s in request.sequences)
            if length > budget and not alone and self.drafts_may_wait:
                spared = {s.row for s in request.sequences if s.computed == s.known}
                branches = {row: b for row, b in branches.items() if len(b) > 1 or row in spared}
                length = sum(self._judged_length(s, branches) for s in request.sequences)
            # Sequences that are judged together may exceed the budget, or they could never run.
            if length <= budget or (alone and request.decoding):
                return [c for i in range(len(request.sequences)) for c in self._judged(request, i, branches)]
        if behind is None or budget <= 0:
            return []
        # The last known token runs with the drafts, so that it is scored.
        return [Chunk(request, behind, min(behind.known - behind.computed - 1, budget))]

    def _judged_length(self, sequence: Sequence, branches: Branches) -> int:
        """How many tokens run to judge a sequence and its companion."""
        members = [m for m in (sequence, sequence.companion) if m is not None]
        drafts = branches.get(sequence.row, _NOTHING)
        return sum(m.known - m.computed + len(branch) for branch in drafts for m in members)

    def _judged(self, request: Request, place: int, branches: Branches) -> list[Chunk]:
        """The chunks that judge a sequence: one for each branch, each followed by its companion's."""
        sequence = request.sequences[place]
        chunks = []
        for index, branch in enumerate(branches.get(sequence.row, _NOTHING)):
            runner = sequence
            if index:
                runner = self.fork(sequence, sequence.row)
                request.branches.append(runner)
            chunk = Chunk(request, runner, runner.known - runner.computed, branch, judged=True, place=place)
            assert chunk.length, "a sequence is judged and runs nothing"
            chunks.append(chunk)
            if runner.companion is not None:
                count = runner.companion.known - runner.companion.computed
                chunk.companion = Chunk(request, runner.companion, count, branch, follows=True)
                chunks.append(chunk.companion)
        return chunks

    def _behind(self, request: Request) -> Sequence | None:
        """The sequence that catches up next. One at a time, so that the next finds its pages to share."""
        for member in request.members:
            if member.computed < member.known - 1:
                if not member.pages:
                    self._reuse(request, member)
                if member.computed < member.known - 1:
                    return member
        return None

    def _reusable(self, request: Request, sequence: Sequence) -> list[int]:
        if not self.prefix_cache or request.collecting:
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
        self._free_all(request)
        self.running.remove(request)
        self.waiting.appendleft(request)
        self.preemptions += 1

    def fork(self, parent: Sequence, row: Row) -> Sequence:
        """A sequence for `row` that shares all of the parent's pages; its companion likewise."""
        self.pages.hold(parent.pages)
        companion = parent.companion
        return Sequence(
            row,
            list(parent.pages),
            list(parent.page_keys),
            parent.computed,
            parent.offered,
            None if companion is None else self.fork(companion, companion.row),
        )

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
        """Give up the pages of a sequence and its companion; their known tokens stay."""
        self.pages.release(sequence.pages)
        sequence.pages = []
        sequence.computed = sequence.offered = 0
        if sequence.companion is not None:
            self.free(sequence.companion)

    def free_branches(self, request: Request) -> None:
        """Give up the forks that lived for one step."""
        for branch in request.branches:
            self.free(branch)
        request.branches.clear()

    def _free_all(self, request: Request) -> None:
        self.free_branches(request)
        for sequence in request.sequences:
            self.free(sequence)

    def check_integrity(self) -> None:
        """Raise `AssertionError` unless pages and sequences agree."""
        sequences = [m for r in (*self.running, *self.waiting) for m in r.members]
        # A step that ran nothing leaves its forks to the next one.
        sequences += [m for r in self.running for b in r.branches for m in (b, b.companion) if m is not None]
        self.pages.check_integrity([s.pages for s in sequences])
        for request in self.waiting:
            assert all(not m.pages and not m.computed for m in request.members), "a waiting request has pages"
        for sequence in sequences:
            assert sequence.computed <= sequence.known, "more is computed than known"
            assert pages_for(sequence.computed) <= len(sequence.pages), "computed tokens have no page"
