"""Makes engines over a model and runs requests to their ends."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

from decodery.decoding.event import Event
from decodery.decoding.request.params import GenerationParams
from decodery.engine.engine import Engine
from decodery.engine.limits import Limits, page_bytes
from decodery.models.contract import CausalModel

Job = tuple[Sequence[int], GenerationParams]


def make_engine(
    model: CausalModel, *, pages: int = 400, end_ids: Sequence[int] = (), **limits: Any
) -> Engine:
    """Returns an engine with so many pages."""
    nbytes = page_bytes(model, limits.get("kv_dtype"))
    return Engine(model, Limits(pages, nbytes, model.context_length, **limits), end_ids)


def run(engine: Engine, jobs: Sequence[Job]) -> list[list[list[int]]]:
    """Returns for each job the tokens of each of its streams. Checks integrity after each step."""
    ids = [engine.add(prompt, params) for prompt, params in jobs]
    tokens: dict[tuple[int, int | None], list[int]] = {
        (i, stream): [] for i, (_, p) in zip(ids, jobs, strict=True) for stream in range(p.streams)
    }
    open_streams = set(tokens)
    while engine.has_work():
        for event in engine.step():
            if event.stream is None:
                continue
            assert (event.request, event.stream) in open_streams, "an ended stream goes on"
            tokens[event.request, event.stream] += event.tokens
            if event.finish:
                open_streams.remove((event.request, event.stream))
        engine.check_integrity()
    assert not open_streams
    return [[tokens[i, stream] for stream in range(p.streams)] for i, (_, p) in zip(ids, jobs, strict=True)]


def outcomes(events: Iterable[Event]) -> dict[tuple[int, int | None], list[object]]:
    """Returns the tokens of each stream, then its finish reason and error."""
    found: dict[tuple[int, int | None], list[object]] = {}
    for event in events:
        stream = found.setdefault((event.request, event.stream), [])
        stream += [*event.tokens, *([event.finish, event.error] if event.finish else [])]
    return found
