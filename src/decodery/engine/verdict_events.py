"""Makes the events that report a step's verdicts."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from decodery.decoding.event import Event, Times
from decodery.decoding.rows import Row, Survivor, Verdict
from decodery.engine.request import Request


def beam_events(requests: Sequence[Request], verdict: Verdict) -> list[Event]:
    """Returns the events that report the fate of beams; `requests[i]` is that of the verdict's row i."""
    return [
        Event(requests[i].id, None, beams=beams, cached_tokens=requests[i].cached_tokens)
        for i, beams in verdict.beams
    ]


def ending_events(requests: Sequence[Request], verdict: Verdict, now: float) -> list[Event]:
    """Returns the events that report whole completions; `requests[i]` is that of the verdict's row i.

    `now` is the time on the engine's clock.
    """
    return [
        Event(
            requests[e.parent].id,
            e.stream,
            e.tokens[requests[e.parent].generated :],
            e.finish,
            e.logprobs,
            e.error,
            score=e.score,
            prompt_logprobs=requests[e.parent].prompt_logprobs,
            cached_tokens=requests[e.parent].cached_tokens,
            times=ended_at(now, requests[e.parent]),
        )
        for e in verdict.endings
    ]


def makes_event(survivor: Survivor, parent: Row) -> bool:
    """True if a survivor has a stream and has new tokens or has ended."""
    grown = len(survivor.row.tokens) > len(parent.tokens)
    return bool(survivor.row.streams) and (grown or survivor.finish is not None)


def ended_at(now: float, request: Request) -> Times:
    """Returns the times of a stream of the request that ends now."""
    return replace(request.times, ended=now)


def event_of(
    request: Request, known: int, survivor: Survivor, now: float, sources: tuple[str, ...] = ()
) -> Event:
    """Returns the event of a survivor; its parent had `known` tokens, and its drafts are from `sources`.

    The last drafts that have a source may not have run. `now` is the time on the engine's clock.
    """
    return Event(
        request=request.id,
        stream=survivor.row.streams[0],
        tokens=tuple(survivor.row.tokens[known:]),
        finish=survivor.finish,
        logprobs=survivor.logprobs,
        error=survivor.error,
        drafts=survivor.drafts,
        accepted=min(survivor.keep, len(survivor.drafts)),
        draft_sources=sources[: len(survivor.drafts)],
        considered=survivor.considered,
        prompt_logprobs=request.prompt_logprobs,
        cached_tokens=request.cached_tokens,
        times=None if survivor.finish is None else ended_at(now, request),
    )
