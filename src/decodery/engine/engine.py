"""The engine: requests in, steps, events out. Reads verdicts mechanically and knows no strategy by name."""

from __future__ import annotations

import secrets
from array import array
from collections.abc import Iterable, Sequence

import torch
from torch import Tensor

from decodery.decoding.logprobs import token_logprobs
from decodery.decoding.params import GenerationParams
from decodery.decoding.rows import Method, Row, Scores, Survivor, Verdict, Watch
from decodery.engine.batch import Batch, Chunk
from decodery.engine.limits import Limits, check_request
from decodery.engine.pages import Pages
from decodery.engine.request import Event, Request
from decodery.engine.request import Sequence as Live
from decodery.engine.runner import SCORED_AT_ONCE, Runner
from decodery.engine.scheduler import Scheduler
from decodery.models.registry import CausalModel


class Engine:
    """A model that serves any number of requests at once, step by step; synchronous, for one thread.

    `end_ids` are the model's end tokens.
    """

    def __init__(self, model: CausalModel, limits: Limits, end_ids: Iterable[int] = ()) -> None:
        self.model = model
        self.limits = limits
        self.end_ids = frozenset(end_ids)
        self._runner = Runner(model, limits.pages)
        self._scheduler = Scheduler(
            Pages(limits.pages),
            token_budget=limits.token_budget,
            max_sequences=limits.max_sequences,
            prefix_cache=limits.prefix_cache,
        )
        self._requests: dict[int, Request] = {}
        self._next_id = 0

    def add(
        self,
        prompt: Sequence[int],
        params: GenerationParams,
        watch: Watch | None = None,
        *,
        explain: int = 0,
    ) -> int:
        """Queue a request and return its id.

        `watch` follows each of its streams from their first token. With `explain`, its events tell what was
        considered, with so many candidates. Raises `RequestError` or `ParameterError`
        when the request can never run here; nothing is queued then.
        """
        check_request(prompt, params, self.model.vocab_size, self.limits)
        seed = secrets.randbits(63) if params.seed is None else params.seed
        row = Row(
            request=self._next_id,
            params=params,
            seed=seed,
            streams=tuple(range(params.n)),
            tokens=array("q", prompt),
            prompt_length=len(prompt),
            limit=self.limits.token_limit(len(prompt), params),
            end_ids=frozenset(params.stop_token_ids) | (frozenset() if params.ignore_eos else self.end_ids),
            watch=watch,
            explain=explain,
        )
        request = Request(self._next_id, array("q", prompt), params, seed, [Live(row)])
        self._requests[request.id] = request
        self._scheduler.add(request)
        self._next_id += 1
        return request.id

    def seed_of(self, request: int) -> int:
        """The seed that a queued or running request draws with."""
        return self._requests[request].seed

    def abort(self, request: int) -> None:
        """Drop a request, whatever its state; no more events come of it. An ended one is left alone."""
        found = self._requests.pop(request, None)
        if found is not None:
            self._scheduler.remove(found)

    def has_work(self) -> bool:
        """Whether any request has not ended."""
        return bool(self._requests)

    @property
    def preemptions(self) -> int:
        """How often a request had to give up its pages."""
        return self._scheduler.preemptions

    def check_integrity(self) -> None:
        """Raise `AssertionError` unless pages, sequences and requests agree."""
        self._scheduler.check_integrity()
        queued = {r.id for r in (*self._scheduler.running, *self._scheduler.waiting)}
        assert queued == set(self._requests), "a request is lost"

    def step(self) -> list[Event]:
        """Run one step: propose, schedule, compute, judge, and carry out the verdicts."""
        if not self._requests:
            return []
        batch = self._scheduler.schedule(self._proposals())
        if not batch.chunks:
            return []
        hidden = self._runner.hidden(batch)
        self._score_prompts(batch, hidden)
        for chunk in batch.chunks:
            if not chunk.judged:
                self._scheduler.settle(chunk.sequence, chunk.start + chunk.count)
        return [event for verdict in self._verdicts(batch, hidden) for event in self._carry_out(*verdict)]

    def _proposals(self) -> dict[Row, tuple[int, ...]]:
        drafts: dict[Row, tuple[int, ...]] = {}
        rows: dict[Method, list[Row]] = {}
        for request in self._scheduler.running:
            if request.decoding:
                rows.setdefault(request.method, []).extend(s.row for s in request.sequences)
        for method, members in rows.items():
            for row, draft in zip(members, method.propose(members).drafts, strict=True):
                # Behind the limit there is no page for a draft, and no use.
                drafts[row] = draft[: max(row.limit - len(row.tokens) - 1, 0)]
        return drafts

    def _verdicts(self, batch: Batch, hidden: Tensor) -> list[tuple[list[Chunk], Verdict]]:
        groups: dict[Method, list[Chunk]] = {}
        last: dict[int, int] = {}
        end = 0
        for chunk in batch.chunks:
            end += chunk.length
            if chunk.judged:
                groups.setdefault(chunk.request.method, []).append(chunk)
                last[id(chunk)] = end
        if not groups:
            return []
        indices: list[int] = []
        spans = []
        for chunks in groups.values():
            offsets = [len(indices)]
            for chunk in chunks:
                indices += range(last[id(chunk)] - len(chunk.drafts) - 1, last[id(chunk)])
                offsets.append(len(indices))
            spans.append(offsets)
        logits = self._runner.logits(hidden, indices)
        verdicts = []
        for (method, chunks), offsets in zip(groups.items(), spans, strict=True):
            scores = Scores(logits[offsets[0] : offsets[-1]], [o - offsets[0] for o in offsets])
            with torch.inference_mode():
                verdict = method.judge([c.sequence.row for c in chunks], scores)
            verdicts.append((chunks, verdict))
        return verdicts

    def _carry_out(self, chunks: list[Chunk], verdict: Verdict) -> list[Event]:
        failed = {chunks[index].request.id: reason for index, reason in verdict.failures}
        children: list[list[Survivor]] = [[] for _ in chunks]
        for survivor in verdict.survivors:
            children[survivor.parent].append(survivor)
        events = []
        for chunk, survivors in zip(chunks, children, strict=True):
            if chunk.request.id not in failed:
                events += self._advance(chunk, survivors)
        for request in {id(c.request): c.request for c in chunks}.values():
            if request.id in failed:
                events += self._fail(request, failed[request.id])
            if not request.sequences and request.id in self._requests:
                self.abort(request.id)
        return events

    def _advance(self, chunk: Chunk, survivors: Sequence[Survivor]) -> list[Event]:
        request, parent = chunk.request, chunk.sequence
        known = parent.known
        parent.computed = known + len(chunk.drafts)
        alive = [s for s in survivors if s.finish is None]
        # All forks before the parent itself goes on, so that they start from what it was.
        sequences = [parent, *(self._scheduler.fork(parent, _copy(parent.row)) for _ in alive[1:])]
        for survivor, sequence in zip(alive, sequences, strict=False):
            row = sequence.row
            row.tokens.extend(survivor.tokens)
            row.streams = survivor.streams
            row.watch = survivor.watch
            self._scheduler.settle(sequence, known + survivor.keep)
        place = request.sequences.index(parent)
        if not alive:
            # Settled first, so that its pages can be reused.
            self._scheduler.settle(parent, known)
            self._scheduler.free(parent)
        request.sequences[place : place + 1] = sequences if alive else []
        return [self._event(request, survivor) for survivor in survivors]

    def _event(self, request: Request, survivor: Survivor) -> Event:
        return Event(
            request=request.id,
            stream=survivor.streams[0],
            tokens=survivor.tokens,
            finish=survivor.finish,
            logprobs=survivor.logprobs,
            watch=survivor.watch,
            considered=survivor.considered,
            prompt_logprobs=request.prompt_logprobs,
        )

    def _fail(self, request: Request, reason: str) -> list[Event]:
        ended = [
            Event(request.id, stream, (), finish="error", error=reason, watch=s.row.watch)
            for s in request.sequences
            for stream in s.row.streams
        ]
        self.abort(request.id)
        return ended

    def _score_prompts(self, batch: Batch, hidden: Tensor) -> None:
        base = 0
        for chunk in batch.chunks:
            request = chunk.request
            collected = request.prompt_logprobs
            if collected is not None and len(collected) < len(request.prompt):
                first, count = chunk.start, request.params.prompt_logprobs or 0
                # What was scored before a preemption is not scored again.
                begin = max(first, len(collected) - 1)
                # The scores at a position are those of the token after it.
                end = min(chunk.start + chunk.count, len(request.prompt) - 1)
                for start in range(begin, end, SCORED_AT_ONCE):
                    positions = range(start, min(start + SCORED_AT_ONCE, end))
                    logits = self._runner.logits(hidden, [base + p - first for p in positions])
                    targets = [request.prompt[p + 1] for p in positions]
                    collected += token_logprobs(logits, targets, [count] * len(targets))
            base += chunk.length


def _copy(row: Row) -> Row:
    return Row(
        request=row.request,
        params=row.params,
        seed=row.seed,
        streams=row.streams,
        tokens=row.tokens[:],
        prompt_length=row.prompt_length,
        limit=row.limit,
        end_ids=row.end_ids,
        watch=row.watch,
        explain=row.explain,
    )
