"""The engine: requests in, steps, events out. Reads verdicts mechanically and knows no strategy by name."""

from __future__ import annotations

import secrets
import time
from array import array
from collections.abc import Callable, Iterable, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import replace

import torch
from torch import Tensor

from decodery.decoding.logprobs import token_logprobs
from decodery.decoding.processors.pipeline import possible_stages
from decodery.decoding.request.params import GenerationParams
from decodery.decoding.rows import Extension, GrammarState, Method, Row, Survivor, Verdict, Watch
from decodery.engine.batch import Batch, Chunk
from decodery.engine.limits import Limits, check_request
from decodery.engine.pages import Pages
from decodery.engine.request import Event, Request
from decodery.engine.request import Sequence as Live
from decodery.engine.runner import SCORED_AT_ONCE, Runner, States
from decodery.engine.scheduler import Branches, Scheduler
from decodery.engine.second_model import SecondModel
from decodery.engine.second_model_runner import SecondModelRunner
from decodery.engine.step_scores import Judged, Scorer, judged, judged_groups
from decodery.errors import CallbackError, ParameterError, RequestError
from decodery.models.families import CausalModel


class Engine:
    """A model that serves any number of requests at once, step by step; synchronous, for one thread. Engines
    over the same model share its kernels: one thread for all of them.

    `end_ids` are the model's end tokens; `clock` tells the seconds that `max_time` counts.
    """

    def __init__(
        self,
        model: CausalModel,
        limits: Limits,
        end_ids: Iterable[int] = (),
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self.model = model
        self.limits = limits
        self.end_ids = frozenset(end_ids)
        self._clock = clock
        self._runner = Runner(model, limits.pages, limits.kv_dtype)
        self._scheduler = Scheduler(
            Pages(limits.pages),
            token_budget=limits.token_budget,
            max_sequences=limits.max_sequences,
            prefix_cache=limits.prefix_cache,
            drafts_may_wait=True,
        )
        self._assistants: dict[int, SecondModel] = {}
        self._requests: dict[int, Request] = {}
        self._next_id = 0
        self._stepping = False
        self._dropped: list[int] = []
        self._before: list[_Before] = []

    def add(
        self,
        prompt: Sequence[int],
        params: GenerationParams,
        watch: Watch | None = None,
        *,
        grammar: GrammarState | None = None,
        amateur: CausalModel | None = None,
        drafter: CausalModel | None = None,
        explain: int = 0,
    ) -> int:
        """Queue a request and return its id.

        `watch` and `grammar` follow each of its streams from their first token. `amateur` and `drafter` are
        the models that its strategy and its speculation name. With `explain`, its events tell what was
        considered, with so many candidates. Raises `RequestError` or `ParameterError` when the request can
        never run here; nothing is queued then.
        """
        check_request(prompt, params, self.model.vocab_size, self.limits)
        seed = secrets.randbits(63) if params.seed is None else params.seed
        # Counted first: after an interrupt no other request may have the number.
        number, self._next_id = self._next_id, self._next_id + 1
        row = Row(
            request=number,
            params=params,
            seed=seed,
            streams=tuple(range(params.streams)),
            tokens=array("q", prompt),
            prompt_length=len(prompt),
            limit=self.limits.token_limit(len(prompt), params),
            end_ids=frozenset(params.stop_token_ids) | (frozenset() if params.ignore_eos else self.end_ids),
            watch=watch,
            grammar=grammar,
            explain=explain,
        )
        row = replace(row, stages=possible_stages(row))
        live = Live(row, companion=_companion(row))
        request = Request(
            number,
            array("q", prompt),
            params,
            seed,
            [live],
            amateur=self._assistant(amateur),
            drafter=self._assistant(drafter),
        )
        try:
            self._requests[number] = request
            self._scheduler.add(request)
        except BaseException:
            self._requests.pop(number, None)
            self._start_over()
            raise
        return number

    def _assistant(self, model: CausalModel | None) -> SecondModel | None:
        if model is None:
            return None
        found = self._assistants.get(id(model))
        if found is None:
            found = self._assistants[id(model)] = SecondModelRunner(model, self.limits)
        return found

    def seed_of(self, request: int) -> int:
        """The seed that a queued or running request draws with."""
        return self._requests[request].seed

    def abort(self, request: int) -> None:
        """Drop a request, whatever its state; no more events come of it. An ended one is left alone."""
        if self._stepping:
            # A stream that nobody holds any more may be collected at any moment.
            self._dropped.append(request)
        else:
            self._remove(request)

    def _remove(self, request: int) -> None:
        try:
            found = self._requests.pop(request, None)
            if found is not None:
                self._scheduler.remove(found)
        except BaseException:
            self._start_over()
            raise

    def _start_over(self) -> None:
        """Make the books right again after an interrupt, which may come between any two of their entries.

        What nobody was told of has not happened: the next step does it again.
        """
        for before in self._before:
            before.restore()
            self._requests[before.request.id] = before.request
        self._before = []
        self._scheduler.start_over(self._requests.values())
        for assistant in self._assistants.values():
            assistant.start_over()

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
        for assistant in self._assistants.values():
            assistant.check_integrity()
        queued = {r.id for r in (*self._scheduler.running, *self._scheduler.waiting)}
        assert queued == set(self._requests), "a request is lost"

    def step(self) -> list[Event]:
        """Run one step: propose, schedule, compute, judge, and carry out the verdicts.

        Raises `RequestError` within a step: in a function that one calls, or in another thread.
        """
        if self._stepping:
            raise RequestError(
                "the model is in the middle of a step: generate outside of functions that it calls, and in"
                " one thread at a time"
            )
        self._stepping = True
        try:
            with self._quiet():
                events = self._step()
            self._before = []
        except BaseException:
            self._start_over()
            raise
        finally:
            self._stepping = False
            dropped, self._dropped = self._dropped, []
            for request in dropped:
                self._remove(request)
        return [e for e in events if e.request not in dropped] if dropped else events

    def _quiet(self) -> AbstractContextManager[None]:
        """Returns the context of a step: `exclusive_threads`, unless a second model has other kernels.

        Those need the cores themselves.
        """
        kernels = self.model.kernels
        same = all(type(assistant.kernels) is type(kernels) for assistant in self._assistants.values())
        return kernels.exclusive_threads() if same else nullcontext()

    @torch.inference_mode()
    def _step(self) -> list[Event]:
        if not self._requests:
            return []
        self._keep_time()
        branches, drafted, given = self._proposals()
        batch = self._scheduler.schedule(branches)
        if not batch.chunks:
            return []
        self._before = [_Before(request) for request in self._scheduler.running]
        groups = judged_groups(batch)
        states = self._runner.hidden(
            batch, {layer for r in self._scheduler.running for layer in r.needs.layers}
        )
        self._collect(batch, states)
        for chunk in batch.chunks:
            if not chunk.judged and not chunk.follows:
                self._scheduler.settle(chunk.sequence, chunk.start + chunk.count)
        if not groups:
            return []
        scores = Scorer(self._runner, batch, states, drafted, given).scores(groups)
        verdicts = [judged(g, s) for g, s in zip(groups, scores, strict=True)]
        return [e for g, v in zip(groups, verdicts, strict=True) for e in self._carry_out(g, v)]

    def _keep_time(self) -> None:
        """Mark the rows of requests whose time is up."""
        now = self._clock()
        for request in self._scheduler.running:
            if request.params.max_time is None:
                continue
            if request.deadline is None:
                request.deadline = now + request.params.max_time
            if now >= request.deadline:
                for sequence in request.sequences:
                    sequence.row = replace(sequence.row, expired=True)

    def _proposals(self) -> tuple[Branches, dict[Row, Tensor], dict[Row, int]]:
        """What each decoding row runs beyond its known tokens, what assistants drew it from, and how many of
        the drafts are given."""
        branches: dict[Row, tuple[tuple[int, ...], ...]] = {}
        drafted: dict[Row, Tensor] = {}
        given: dict[Row, int] = {}
        members: dict[Method, list[tuple[Request, Row]]] = {}
        for request in self._scheduler.running:
            if request.decoding:
                rows = [(request, s.row) for s in request.sequences]
                members.setdefault(request.method, []).extend(rows)
        for assistant in self._assistants.values():
            assistant.retain(s.row for r in self._scheduler.running for s in r.sequences)
        for method, found in members.items():
            proposal = method.propose([row for _, row in found])
            for (_, row), branch in zip(found, proposal.branches, strict=True):
                # Behind the limit and the context there is no page for a draft.
                room = max(min(row.limit, self.limits.context_length) - len(row.tokens), 0)
                branches[row] = tuple(draft[:room] for draft in branch)
            given |= {row: count for (_, row), count in zip(found, proposal.given, strict=False) if count}
            if proposal.extension is not None:
                self._extend(found, proposal.extension, branches, drafted)
        return branches, drafted, given

    def _extend(
        self,
        found: Sequence[tuple[Request, Row]],
        extension: Extension,
        branches: dict[Row, tuple[tuple[int, ...], ...]],
        drafted: dict[Row, Tensor],
    ) -> None:
        asked: dict[int, tuple[SecondModel, list[tuple[Row, int]]]] = {}
        for (request, row), count in zip(found, extension.counts, strict=True):
            room = min(row.limit, self.limits.context_length) - len(row.tokens) - len(branches[row][0])
            if request.drafter is not None and min(count, room) > 0:
                entry = asked.setdefault(id(request.drafter), (request.drafter, []))
                entry[1].append((row, min(count, room)))
        for assistant, wanted in asked.values():
            while wanted:
                ahead = [_ahead(row, branches[row][0]) for row, _ in wanted]
                try:
                    results = assistant.draft(ahead, [count for _, count in wanted], extension.draw)
                except CallbackError as error:
                    # Its judgement will say so; what was drafted by halves is forgotten.
                    assistant.retain(())
                    wanted = [(row, count) for row, count in wanted if row.request != error.request]
                    continue
                for (row, _), (tokens, logits) in zip(wanted, results, strict=True):
                    branches[row] = ((*branches[row][0], *tokens),)
                    drafted[row] = logits
                break

    def _carry_out(self, group: Judged, verdict: Verdict) -> list[Event]:
        requests = [branches[0].request for branches in group.branches]
        failed = {requests[index].id: reason for index, reason in verdict.failures}
        children: list[list[Survivor]] = [[] for _ in group.rows]
        for survivor in verdict.survivors:
            children[survivor.parent].append(survivor)
        events = [Event(requests[index].id, None, beams=beams) for index, beams in verdict.beams]
        grown: dict[int, list[Live]] = {}
        for row, branches, survivors in zip(group.rows, group.branches, children, strict=True):
            request = branches[0].request
            if request.id in failed:
                continue
            grown.setdefault(request.id, []).extend(self._advance(branches, survivors))
            events += [_event(request, len(row.tokens), s) for s in survivors if _tells(s, row)]
        events += [
            Event(
                requests[e.parent].id,
                e.stream,
                e.tokens,
                e.finish,
                e.logprobs,
                e.error,
                score=e.score,
                prompt_logprobs=requests[e.parent].prompt_logprobs,
            )
            for e in verdict.endings
        ]
        for request in {r.id: r for r in requests}.values():
            if request.id in failed:
                events += self._fail(request, failed[request.id])
                continue
            self._scheduler.free_branches(request)
            request.sequences = grown[request.id]
            if not request.sequences:
                self._remove(request.id)
        return events

    def _advance(self, branches: list[Chunk], survivors: Sequence[Survivor]) -> list[Live]:
        """The sequences that follow from one row's, in the order of its survivors."""
        request = branches[0].request
        known = branches[0].sequence.known
        alive = [s for s in survivors if s.finish is None]
        taken: set[int] = set()
        sequences = []
        for chunk in branches:
            for c in (chunk, chunk.companion):
                if c is not None:
                    c.sequence.computed = c.start + c.length
        # All forks before any sequence goes on, so that they start from what it was.
        for survivor in alive:
            runner = branches[survivor.branch].sequence
            sequences.append(
                self._scheduler.fork(runner, survivor.row) if survivor.branch in taken else runner
            )
            taken.add(survivor.branch)
        for survivor, sequence in zip(alive, sequences, strict=True):
            new = survivor.row.tokens[known:]
            sequence.row = survivor.row
            self._scheduler.settle(sequence, known + survivor.keep)
            companion = sequence.companion
            if companion is not None:
                computed = companion.known + survivor.keep
                companion.row = replace(companion.row, tokens=companion.row.tokens + new)
                self._scheduler.settle(companion, computed)
        for index, chunk in enumerate(branches):
            if index not in taken and index == 0:
                # Settled first, so that its pages can be reused.
                self._scheduler.settle(chunk.sequence, known)
                self._scheduler.free(chunk.sequence)
        request.branches = [b for b in request.branches if not any(b is s for s in sequences)]
        return sequences

    def _fail(self, request: Request, reason: str) -> list[Event]:
        streams = {stream for s in request.sequences for stream in s.row.streams}
        if not streams:
            streams = set(range(request.params.streams))
        self._remove(request.id)
        return [Event(request.id, stream, finish="error", error=reason) for stream in sorted(streams)]

    def _collect(self, batch: Batch, states: States) -> None:
        """Take from the states of prompts what requests want of each of their positions."""
        base = 0
        for chunk in batch.chunks:
            request = chunk.request
            if chunk.sequence in request.sequences:
                self._score_prompt(chunk, states.final, base)
                if request.context is not None:
                    seen = sum(len(part) for part in request.context)
                    # What was computed before a preemption is not taken again.
                    skip = max(seen - chunk.start, 0)
                    request.context.append(states.final[base + skip : base + chunk.count].clone())
            base += chunk.length

    def _score_prompt(self, chunk: Chunk, hidden: Tensor, base: int) -> None:
        request = chunk.request
        collected = request.prompt_logprobs
        if collected is None or len(collected) == len(request.prompt):
            return
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


class _Before:
    """What a request was when a step began to compute, to begin again from after an interrupt."""

    def __init__(self, request: Request) -> None:
        self.request = request
        self._sequences = list(request.sequences)
        self._rows = [member.row for member in request.members]
        self._context = request.context

    def restore(self) -> None:
        request = self.request
        request.sequences, request.context = self._sequences, self._context
        for member, row in zip(request.members, self._rows, strict=True):
            member.row = row
            member.page_keys = []


def _ahead(row: Row, tokens: Sequence[int]) -> Row:
    for token in tokens:
        row = row.after(token)
    return row


def _companion(row: Row) -> Live | None:
    """The sequence that a guided row is led by: it has the negative prompt in place of the prompt."""
    params = row.params
    if not params.guided:
        return None
    negative = params.negative_prompt
    tokens = array("q", [row.tokens[-1]] if negative is None else _ids(negative))
    return Live(replace(row, tokens=tokens, prompt_length=len(tokens), watch=None, grammar=None))


def _ids(phrase: str | tuple[int, ...]) -> tuple[int, ...]:
    if isinstance(phrase, str):
        raise ParameterError("negative_prompt is a text: an engine takes token ids")
    return phrase


def _tells(survivor: Survivor, parent: Row) -> bool:
    """Whether there is something to say of a survivor: it stands for a stream, and has grown or ended."""
    grown = len(survivor.row.tokens) > len(parent.tokens)
    return bool(survivor.row.streams) and (grown or survivor.finish is not None)


def _event(request: Request, known: int, survivor: Survivor) -> Event:
    return Event(
        request=request.id,
        stream=survivor.row.streams[0],
        tokens=tuple(survivor.row.tokens[known:]),
        finish=survivor.finish,
        logprobs=survivor.logprobs,
        drafts=survivor.drafts,
        accepted=min(survivor.keep, len(survivor.drafts)),
        considered=survivor.considered,
        prompt_logprobs=request.prompt_logprobs,
    )
