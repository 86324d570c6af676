"""Runs searches in tests: over a table of logits without a model, and in an engine."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from decodery.decoding.event import Event
from decodery.decoding.request.params import GenerationParams
from decodery.decoding.rows import Ending, Method, Row, Verdict
from decodery.decoding.strategies.registry import method_of
from decodery.engine.engine import Engine
from decodery.kernels.reference import torch_kernels
from decodery.models.contract import CausalModel
from decodery.models.load import load_for_inference
from decodery.weights.formats.opening import open_checkpoint
from tests.decoding.rows import make_row, make_scores


@dataclass
class Outcome:
    """Holds a search's results, with the rows before each step and its verdicts."""

    endings: list[Ending] = field(default_factory=list)
    failures: list[str] = field(default_factory=list)
    rows: list[list[Row]] = field(default_factory=list)
    verdicts: list[Verdict] = field(default_factory=list)

    @property
    def tokens(self) -> list[tuple[int, ...]]:
        return [e.tokens for e in self.endings]


def markov(vocab: int, seed: int = 0, spread: float = 1.5) -> Tensor:
    """Returns random logits `[vocab, vocab]` of a token after each token."""
    return torch.randn(vocab, vocab, generator=torch.Generator().manual_seed(seed)) * spread


def row_of(strategy: Any, max_tokens: int = 6, end_ids: Sequence[int] = (), **params: Any) -> Row:
    """Returns a request's first row, after the prompt (0,)."""
    return make_row(strategy=strategy, max_tokens=max_tokens, end_ids=end_ids, **params)


def search(row: Row, table: Tensor) -> Outcome:
    """Runs one request to its end; the logits after a token are `table[token]`."""
    return search_together([row], table)[0]


def search_together(first: Sequence[Row], table: Tensor) -> list[Outcome]:
    """Runs several requests of one strategy to their ends, in one batch."""
    method: Method = method_of(first[0].params)
    outcomes = [Outcome() for _ in first]
    rows = [replace(row, request=i) for i, row in enumerate(first)]
    while rows:
        verdict = method.judge(rows, make_scores(table[[row.tokens[-1] for row in rows]]))
        for i, outcome in enumerate(outcomes):
            if any(row.request == i for row in rows):
                outcome.rows.append([row for row in rows if row.request == i])
                outcome.verdicts.append(verdict)
            outcome.endings += [e for e in verdict.endings if rows[e.parent].request == i]
            outcome.failures += [why for parent, why in verdict.failures if rows[parent].request == i]
        # In an engine's order: by parent, so that a request's rows are adjacent.
        rows = [s.row for s in sorted(verdict.survivors, key=lambda s: s.parent)]
    return outcomes


def run_searches(engine: Engine, jobs: Sequence[tuple[Sequence[int], GenerationParams]]) -> list[list[Event]]:
    """Returns the last event of each job's completions, in the order of their streams."""
    ids = [engine.add(prompt, params) for prompt, params in jobs]
    events: list[Event] = []
    while engine.has_work():
        events += engine.step()
        engine.check_integrity()
    endings = [[e for e in events if e.request == i and e.stream is not None] for i in ids]
    for ends, (_, params) in zip(endings, jobs, strict=True):
        assert [e.stream for e in ends] == list(range(params.streams)), "all at once, in order"
    return endings


def load(folder: Path) -> CausalModel:
    """Returns the float32 model of a folder."""
    with open_checkpoint(folder) as checkpoint:
        return load_for_inference(checkpoint, dtype=torch.float32, kernels=torch_kernels)
