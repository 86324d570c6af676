"""Counts what an engine does."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, fields

from decodery.decoding.event import Event
from decodery.engine.batch import Batch
from decodery.engine.request import Request
from decodery.engine.scheduler import Scheduler


@dataclass(frozen=True, slots=True)
class Statistics:
    """Holds what an engine does now, and what it has done since it was made.

    Of the `pages` of the key/value cache, `pages_used` are held by sequences; the others are free, or only
    kept for later hits of the prefix cache. The prefix cache was searched for `prefix_queries` tokens of
    prompts and had `prefix_hits` of them, each prompt counted when its request first ran. Steps computed
    `prompt_tokens` tokens of prompts and negative prompts, those of a preempted request again, and events
    reported `generated_tokens`. Of the `drafted` tokens of speculation, `accepted` were in the text.
    `longest_step` is in seconds. `step_since` is the time on the engine's clock at which the step in progress
    began, None between steps. `by_source` has, for each source of the engine's own drafts, how many it made
    and how many of them were in the text.
    """

    running: int
    waiting: int
    pages: int
    pages_used: int
    prefix_queries: int
    prefix_hits: int
    preemptions: int
    drafted: int
    accepted: int
    generated_tokens: int
    prompt_tokens: int
    steps: int
    longest_step: float
    step_since: float | None
    by_source: Mapping[str, tuple[int, int]] = field(default_factory=dict)


@dataclass(slots=True)
class Counters:
    """Holds the numbers that grow with every step of an engine."""

    prefix_queries: int = 0
    prefix_hits: int = 0
    drafted: int = 0
    accepted: int = 0
    generated_tokens: int = 0
    prompt_tokens: int = 0
    steps: int = 0
    longest_step: float = 0.0
    by_source: dict[str, tuple[int, int]] = field(default_factory=dict)

    def statistics(self, scheduler: Scheduler, step_since: float | None) -> Statistics:
        """Returns these numbers and the present ones of the scheduler."""
        pages = scheduler.pages
        return Statistics(
            running=len(scheduler.running),
            waiting=len(scheduler.waiting),
            pages=pages.count,
            pages_used=pages.count - pages.available,
            preemptions=scheduler.preemptions,
            step_since=step_since,
            **{field.name: getattr(self, field.name) for field in fields(self)}
            | {"by_source": dict(self.by_source)},
        )

    def count_search(self, request: Request) -> None:
        """Counts the search of the prefix cache for the prompt of a request that runs for the first time."""
        self.prefix_queries += len(request.prompt)
        self.prefix_hits += request.cached_tokens

    def count_batch(self, batch: Batch) -> None:
        """Counts the prompt tokens of a batch; to be called before its tokens count as computed."""
        for chunk in batch.chunks:
            left = chunk.sequence.row.prompt_length - chunk.sequence.computed
            if left > 0:
                self.prompt_tokens += min(left, chunk.count)

    def count_step(self, events: Iterable[Event], seconds: float) -> None:
        """Counts a step that took so many seconds, and the tokens of its events."""
        self.steps += 1
        self.longest_step = max(self.longest_step, seconds)
        for event in events:
            self.generated_tokens += len(event.tokens)
            self.drafted += len(event.drafts)
            self.accepted += event.accepted
            for place, source in enumerate(event.draft_sources):
                drafted, accepted = self.by_source.get(source, (0, 0))
                self.by_source[source] = drafted + 1, accepted + (place < event.accepted)
