"""Runs requests step by step and yields events. Carries out verdicts without naming any strategy."""

from __future__ import annotations

import secrets
import time
from array import array
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import replace

import torch

from decodery.decoding.chosen import FinishReason
from decodery.decoding.event import Event, PromptProgress, Times
from decodery.decoding.processors.pipeline import possible_stages
from decodery.decoding.request.params import GenerationParams
from decodery.decoding.rows import GrammarState, Row, Survivor, Verdict, Watch
from decodery.decoding.stopping import finish_of
from decodery.engine.batch import Batch, Chunk
from decodery.engine.drafts.proposals import Proposals, collect_proposals
from decodery.engine.drafts.speculator import Speculator
from decodery.engine.embedded_prompt import EmbeddedPrompt
from decodery.engine.limits import (
    Limits,
    check_contrast_model,
    check_request,
    computed_at_most,
    megabytes,
    page_bytes,
)
from decodery.engine.pages import Pages
from decodery.engine.prompt_scores import collect_prompts
from decodery.engine.request import Request, Snapshot, companion_of
from decodery.engine.request import Sequence as Live
from decodery.engine.runner import Runner
from decodery.engine.scheduler import Scheduler
from decodery.engine.second_model import SecondModel
from decodery.engine.second_model_runner import SecondModelRunner
from decodery.engine.statistics import Counters, Statistics
from decodery.engine.step_bound import StepBound, StepCost, work_of
from decodery.engine.step_scores import JudgedGroup, ScoresBuilder, groups_to_judge, judge_group
from decodery.engine.verdict_events import beam_events, ended_at, ending_events, event_of, makes_event
from decodery.errors import ParameterError, RequestError
from decodery.kernels.threads import threads_set
from decodery.models.contract import CausalModel


class Engine:
    """Runs any number of requests on a model at once, step by step.

    The engine is synchronous, and one thread at a time may use it: `SharedEngine` lets several take turns.
    Engines over the same model may run in several threads at once. `end_ids` are the model's end tokens.
    `clock` returns the seconds against which `max_time` is measured.
    """

    def __init__(
        self,
        model: CausalModel,
        limits: Limits,
        end_ids: Iterable[int] = (),
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self.model = model
        self.limits = self._first_limits = limits
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
        self._second_models: dict[int, SecondModel] = {}
        self._requests: dict[int, Request] = {}
        self._next_id = 0
        self._stepping = False
        self._step_since: float | None = None
        self._counters = Counters()
        self._cost = None if limits.max_step_ms is None else StepCost()
        # Only native kernels compute the same bits with drafts as without.
        self._speculator = (
            Speculator(remember_texts=limits.remember_texts) if model.kernels.captures() else None
        )
        self._dropped: list[int] = []
        self._snapshots: list[Snapshot] = []

    def add(
        self,
        prompt: Sequence[int] | EmbeddedPrompt,
        params: GenerationParams,
        watch: Watch | None = None,
        *,
        grammar: GrammarState | None = None,
        contrast_model: CausalModel | None = None,
        draft_model: CausalModel | None = None,
        explain: int = 0,
        shows_logits: bool = False,
        salt: bytes = b"",
        priority: int = 0,
        timeout: float | None = None,
        generated: int = 0,
    ) -> int:
        """Queues a request and returns its id.

        `watch` and `grammar` are the states of each stream before its first token. `contrast_model` is the
        model that `ContrastiveDecoding` names and `draft_model` the one that `DraftModel` names; one that is
        new here takes its part of the key/value memory, as `Limits` says. With `explain`, events contain that
        many candidates of every choice, and with `shows_logits` also all of its logits. Requests share pages
        of a prefix cache only if their `salt` (of `encode_salt`) is the same. Requests of lower `priority`
        run first, and those that came first among equals; a request may wait as long as others of lower
        priority come. The first step that begins `timeout` seconds from now or later ends the request with an
        error, also if it still waits. The last `generated` tokens of the prompt are generated text: limits,
        penalties and draws go on from there, and `watch` and `grammar` are the states after it. If the text
        has ended with them, the next step says so. Raises `RequestError` or `ParameterError`, and queues
        nothing, when the request can never run here.
        """
        embedded = prompt if isinstance(prompt, EmbeddedPrompt) else None
        ids = prompt.token_ids if isinstance(prompt, EmbeddedPrompt) else prompt
        if type(priority) is not int:
            raise ParameterError(f"priority must be a whole number, not {priority!r}")
        if timeout is not None and not (type(timeout) in (int, float) and timeout > 0):
            raise ParameterError(f"timeout must be a number of seconds above 0, not {timeout!r}")
        second_models = {id(m): m for m in (contrast_model, draft_model) if m is not None}
        prompt_length = len(ids) - generated
        self._close_second_models(second_models, prompt_length, params)
        limits = self._limits_with(second_models)
        check_request(ids, params, self.model.vocab_size, limits, generated)
        if contrast_model is not None:
            check_contrast_model(contrast_model.context_length, limits.token_limit(prompt_length, params))
        if embedded is not None:
            embedded.check(self.model.width, self.model.dtype)
            assert not second_models, "a second model cannot run the vectors of another"
        self._open_second_models(second_models, limits)
        tokens = array("q", ids)
        # Readers of JSON whose numbers are float64 read 53 bits exactly.
        seed = secrets.randbits(53) if params.seed is None else params.seed
        # Incremented first: after an interrupt no other request may get the same id.
        number, self._next_id = self._next_id, self._next_id + 1
        row = Row(
            request=number,
            params=params,
            seed=seed,
            streams=tuple(range(params.streams)),
            tokens=tokens,
            prompt_length=prompt_length,
            limit=limits.token_limit(prompt_length, params),
            end_ids=frozenset(params.stop_token_ids) | (frozenset() if params.ignore_eos else self.end_ids),
            watch=watch,
            grammar=grammar,
            explain=explain,
            shows_logits=shows_logits,
            salt=salt,
        )
        row = replace(row, stages=possible_stages(row))
        live = Live(row, embedded=embedded, companion=companion_of(row, embedded))
        self._set_rope(live)
        request = Request(
            number,
            tokens,
            params,
            seed,
            [live],
            contrast_model=self._second_model(contrast_model),
            draft_model=self._second_model(draft_model),
            priority=priority,
            timeout=timeout,
            times=Times(self._clock()),
            generated=generated,
            ended=finish_of(row) if generated else None,
        )
        try:
            self._requests[number] = request
            self._scheduler.add(request)
        except BaseException:
            self._requests.pop(number, None)
            self._start_over()
            raise
        return number

    def _set_rope(self, sequence: Live) -> None:
        """Decides which set of rotary frequencies a new sequence and its companion have."""
        for member in (sequence, sequence.companion):
            if member is not None:
                prompt, params = member.row.prompt_length, member.row.params
                length = computed_at_most(prompt, params, self.model.context_length)
                member.rope_set = self.model.rope_set(length)

    def _second_model(self, model: CausalModel | None) -> SecondModel | None:
        return None if model is None else self._second_models[id(model)]

    def _limits_with(self, models: Mapping[int, CausalModel]) -> Limits:
        """Returns the limits once these second models, by id, are open too: they share the key/value memory.

        Raises `RequestError` if too little memory remains.
        """
        if models.keys() <= self._second_models.keys():
            return self.limits
        every = {**{key: second.model for key, second in self._second_models.items()}, **models}.values()
        limits = self._first_limits.shared_with(page_bytes(model, self.limits.kv_dtype) for model in every)
        for request in self._requests.values():
            prompt = len(request.prompt) - request.generated
            needed = self.limits.pages_needed(prompt, request.params)
            if needed > limits.pages:
                raise RequestError(
                    "a second model takes a part of the key/value memory, and a request that runs needs more"
                    " than would remain: wait for its end, or give"
                    f" kv_memory of {megabytes(needed * limits.page_bytes)}"
                )
        return limits

    def _close_second_models(
        self, wanted: Mapping[int, CausalModel], prompt: int, params: GenerationParams
    ) -> None:
        """Closes second models that no request uses, if a request with the `wanted` ones needs their memory.

        It does if they would shorten its text or refuse it, or if it opens another second model. So neither
        does a request depend on second models of earlier requests, nor do these accumulate.
        """
        used = {id(m) for r in self._requests.values() for m in (r.contrast_model, r.draft_model)}
        unused = [k for k, m in self._second_models.items() if id(m) not in used and k not in wanted]
        if not unused or self._stepping:
            return
        kept = [second.model for key, second in self._second_models.items() if key not in unused]
        limits = self._first_limits.shared_with(page_bytes(model, self.limits.kv_dtype) for model in kept)
        opens = not wanted.keys() <= self._second_models.keys()
        shortens = self.limits.token_limit(prompt, params) < limits.token_limit(prompt, params)
        if opens or shortens or self.limits.pages_needed(prompt, params) > self.limits.pages:
            for key in unused:
                del self._second_models[key]
            self._share_memory(limits)

    def _share_memory(self, limits: Limits) -> None:
        """Gives all caches the pages of `limits`; running requests start again from their known tokens."""
        try:
            # In this order, an interrupt leaves no page table larger than its cache.
            self.limits = limits
            self._scheduler.pages.resize(limits.pages)
            self._runner.resize(limits.pages)
            for second_model in self._second_models.values():
                second_model.resize(limits.pages)
        finally:
            self._start_over()

    def _open_second_models(self, models: Mapping[int, CausalModel], limits: Limits) -> None:
        """Opens those of the second models that are not open; all caches get the pages of `limits`.

        Running requests then start again from their known tokens.
        """
        if models.keys() <= self._second_models.keys():
            return
        if self._stepping:
            raise RequestError(
                "a second model is opened in the middle of a step: generate outside of functions that the"
                " model calls"
            )
        self._share_memory(limits)
        # After an interrupt, a model that is not registered is opened again.
        for key in models.keys() - self._second_models.keys():
            self._second_models[key] = SecondModelRunner(models[key], limits)

    def seed_of(self, request: int) -> int:
        """Returns the seed that a queued or running request draws with."""
        return self._requests[request].seed

    def progress(self, request: int) -> PromptProgress:
        """Returns how much of the prompt of a queued or running request is computed.

        Raises `KeyError` for a request that has ended. May be called between steps only.
        """
        found = self._requests[request]
        prompt = len(found.prompt)
        computed = min(found.sequences[0].computed, prompt)
        running = any(r is found for r in self._scheduler.running)
        return PromptProgress(prompt, found.cached_tokens, computed, running)

    def statistics(self) -> Statistics:
        """Returns what the engine does now and has done so far.

        May be called from any thread, also during a step; then the numbers may be from different moments of
        the step.
        """
        return self._counters.statistics(self._scheduler, self._step_since)

    def abort(self, request: int) -> None:
        """Drops a request in any state; it has no more events. Ignores a request that has ended."""
        if self._stepping:
            # The garbage collector may close an abandoned stream, and so abort its request, at any point of a
            # step.
            self._dropped.append(request)
        else:
            self._remove(request)

    def _remove(self, request: int) -> None:
        try:
            found = self._requests.pop(request, None)
            if self._speculator is not None:
                self._speculator.forget(request)
            if found is not None:
                self._scheduler.remove(found)
        except BaseException:
            self._start_over()
            raise

    def _start_over(self) -> None:
        """Restores a consistent state after an interrupt, which may come between any two statements.

        Requests return to their state before the step whose events were lost, and the next step repeats it.
        All pages are freed.
        """
        for snapshot in self._snapshots:
            snapshot.restore()
            self._requests[snapshot.request.id] = snapshot.request
        self._snapshots = []
        self._scheduler.start_over(self._requests.values())
        for second_model in self._second_models.values():
            second_model.start_over()

    def has_work(self) -> bool:
        """True if any request has not ended."""
        return bool(self._requests)

    @property
    def preemptions(self) -> int:
        """Returns how often a request was preempted."""
        return self._scheduler.preemptions

    def check_integrity(self) -> None:
        """Raises `AssertionError` unless pages, sequences and requests agree."""
        self._scheduler.check_integrity()
        for second_model in self._second_models.values():
            second_model.check_integrity()
        queued = {r.id for r in (*self._scheduler.running, *self._scheduler.waiting)}
        assert queued == set(self._requests), "a request is lost"

    def step(self) -> list[Event]:
        """Runs one step (propose, schedule, compute, judge, carry out the verdicts) and returns its events.

        Raises `RequestError` when called within a step, by a callback.
        """
        events: list[Event] = []
        self.step_into(events)
        return events

    def step_into(self, events: list[Event]) -> None:
        """Runs one step as `step` does, and appends its events to `events`.

        After an interrupt, `events` has all of them or none. If none, the next step repeats them.
        """
        if self._stepping:
            raise RequestError(
                "the model is in the middle of a step: generate outside of functions that it calls"
            )
        try:
            self._stepping = True
            self._step_since = began = self._clock()
            with self._threads():
                found = self._end_before(began) + self._step()
            if self._dropped:
                found = [event for event in found if event.request not in self._dropped]
            # Counted first: an interrupt while counting may count a step twice, but loses no event.
            self._counters.count_step(found, self._clock() - began)
            # One statement, between whose two assignments no interrupt comes.
            events[len(events) :], self._snapshots = found, []
        except BaseException:
            self._start_over()
            raise
        finally:
            self._stepping = False
            self._step_since = None
            dropped, self._dropped = self._dropped, []
            for request in dropped:
                self._remove(request)

    def _threads(self) -> AbstractContextManager[None]:
        """Returns the kernels' `exclusive_threads`, without a limit on other kernels of a second model."""
        kernels, threads = self.model.kernels, self.limits.threads
        same = all(type(second.model.kernels) is type(kernels) for second in self._second_models.values())
        if same:
            return kernels.exclusive_threads(threads)
        return threads_set(torch_threads=threads, kernel_threads=threads)

    def _end_before(self, now: float) -> list[Event]:
        """Removes the requests that no step runs any more, and returns their events.

        They are those whose timeout is over, and those whose given text had ended.
        """
        late = [
            request
            for request in self._requests.values()
            if request.timeout is not None and now - request.times.queued >= request.timeout
        ]
        ended = [request for request in self._requests.values() if request.ended and request not in late]
        self._snapshots = [Snapshot(request) for request in (*late, *ended)]
        events = []
        for request in late:
            reason = f"the request took longer than its timeout of {request.timeout:g} seconds"
            events += self._end(request, "error", reason)
        for request in ended:
            events += self._end(request, request.ended)
        return events

    @torch.inference_mode()
    def _step(self) -> list[Event]:
        if not self._requests:
            return []
        self._mark_expired()
        for second_model in self._second_models.values():
            second_model.retain(s.row for r in self._scheduler.running for s in r.sequences)
        proposals = collect_proposals(
            self._scheduler.running, self.limits.context_length, self._free_speculator()
        )
        planned = self._clock()
        batch = self._scheduler.schedule(proposals.branches, self._bound(planned))
        if not batch.chunks:
            return []
        self._count(batch)
        self._snapshots += [Snapshot(request) for request in self._scheduler.running]
        # Before the step runs: its work is that of tokens that are not computed yet.
        work = None if self._cost is None else work_of(batch.chunks)
        with_prompt = any(chunk.prefill for chunk in batch.chunks)
        tokens = batch.length
        events = self._run(batch, proposals)
        seconds = self._clock() - planned
        if self._cost is not None and work is not None:
            self._cost.learn(work, seconds, with_prompt=with_prompt)
        if self._speculator is not None and not with_prompt:
            self._speculator.learn_time(tokens, seconds)
        return events

    def _free_speculator(self) -> Speculator | None:
        """Returns the speculator unless pages are scarce: its drafts must not preempt requests."""
        running = sum(request.params.width for request in self._scheduler.running)
        return self._speculator if self._scheduler.pages.available >= 2 * running else None

    def _bound(self, now: float) -> StepBound | None:
        """Returns the bound of the step in progress, less the time that it has taken, if steps have one."""
        if self._cost is None or self.limits.max_step_ms is None or self._step_since is None:
            return None
        return StepBound(self._cost, self.limits.max_step_ms / 1000 - (now - self._step_since))

    def _run(self, batch: Batch, proposals: Proposals) -> list[Event]:
        """Computes a batch, lets the methods judge it, and carries out their verdicts."""
        groups = groups_to_judge(batch)
        states = self._runner.hidden(
            batch, {layer for r in self._scheduler.running for layer in r.needs.layers}
        )
        collect_prompts(self._runner, batch, states)
        for chunk in batch.chunks:
            if not chunk.judged and not chunk.is_companion:
                self._scheduler.settle(chunk.sequence, chunk.start + chunk.count)
                self._compute_beside(chunk)
        if not groups:
            return []
        scores = ScoresBuilder(self._runner, batch, states, proposals.drafted, proposals.given).build(groups)
        verdicts = [judge_group(g, s) for g, s in zip(groups, scores, strict=True)]
        return [
            e for g, v in zip(groups, verdicts, strict=True) for e in self._carry_out(g, v, proposals.sources)
        ]

    def _compute_beside(self, chunk: Chunk) -> None:
        """Lets second models compute what the first one has of a prompt: at its end, no step is long."""
        sequence = chunk.sequence
        for second_model in chunk.request.second_models:
            if sequence in chunk.request.sequences:
                row = replace(sequence.row, tokens=sequence.row.tokens[: sequence.computed])
                second_model.compute(row)

    def _count(self, batch: Batch) -> None:
        """Counts what a batch computes, and marks the requests that run for the first time."""
        self._counters.count_batch(batch)
        for request in batch.started:
            request.times = replace(request.times, started=self._clock())
            if self._scheduler.prefix_cache and request.reusable(request.sequences[0]):
                self._counters.count_search(request)

    def _mark_expired(self) -> None:
        """Marks the rows of requests whose `max_time` is over as expired; starts the clock of new ones."""
        now = self._clock()
        for request in self._scheduler.running:
            if request.params.max_time is None:
                continue
            if request.deadline is None:
                request.deadline = now + request.params.max_time
            if now >= request.deadline:
                for sequence in request.sequences:
                    sequence.row = replace(sequence.row, expired=True)

    def _carry_out(
        self, group: JudgedGroup, verdict: Verdict, sources: Mapping[Row, tuple[str, ...]]
    ) -> list[Event]:
        """Appends, forks and frees sequences as the verdict says, and returns the events."""
        requests = [branches[0].request for branches in group.branches]
        failed = {requests[index].id: reason for index, reason in verdict.failures}
        children: list[list[Survivor]] = [[] for _ in group.rows]
        for survivor in verdict.survivors:
            children[survivor.parent].append(survivor)
        now = self._clock()
        for request in requests:
            if request.times.prefilled is None:
                request.times = replace(request.times, prefilled=now)
        events = beam_events(requests, verdict)
        grown: dict[int, list[Live]] = {}
        for row, branches, survivors in zip(group.rows, group.branches, children, strict=True):
            request = branches[0].request
            if request.id in failed:
                continue
            grown.setdefault(request.id, []).extend(self._advance(branches, survivors))
            found = sources.get(row, ())
            made = [s for s in survivors if makes_event(s, row)]
            events += [event_of(request, len(row.tokens), s, now, found) for s in made]
            if self._speculator is not None:
                self._speculator.learn(row, survivors)
        events += ending_events(requests, verdict, now)
        for request in {r.id: r for r in requests}.values():
            if request.id in failed:
                events += self._end(request, "error", failed[request.id])
                continue
            self._scheduler.free_branches(request)
            request.sequences = grown[request.id]
            if not request.sequences:
                self._remove(request.id)
        return events

    def _advance(self, branches: list[Chunk], survivors: Sequence[Survivor]) -> list[Live]:
        """Returns the sequences that continue one row, in the order of its survivors that have not ended."""
        request = branches[0].request
        known = branches[0].sequence.known
        alive = [s for s in survivors if s.finish is None]
        taken: set[int] = set()
        sequences = []
        for chunk in branches:
            for c in (chunk, chunk.companion):
                if c is not None:
                    c.sequence.computed = c.start + c.length
        # Forks are made before any sequence gets its new tokens, since they continue it as it is now.
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
                # Settled first, so that the prefix cache gets its full pages.
                self._scheduler.settle(chunk.sequence, known)
                self._scheduler.free(chunk.sequence)
        request.branches = [b for b in request.branches if not any(b is s for s in sequences)]
        return sequences

    def _end(self, request: Request, finish: FinishReason | None, error: str | None = None) -> list[Event]:
        """Removes a request and returns an event with the end of each of its streams."""
        streams = {stream for s in request.sequences for stream in s.row.streams}
        if not streams:
            streams = set(range(request.params.streams))
        self._remove(request.id)
        return [
            Event(
                request.id,
                stream,
                finish=finish,
                error=error,
                cached_tokens=request.cached_tokens,
                times=ended_at(self._clock(), request),
            )
            for stream in sorted(streams)
        ]
