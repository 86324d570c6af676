"""Collects what the rows of a step propose to run beyond their known tokens."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field

from torch import Tensor

from decodery.decoding.rows import Extension, Method, Row
from decodery.engine.drafts.speculator import Speculator
from decodery.engine.request import Request
from decodery.engine.second_model import SecondModel
from decodery.errors import CallbackError


@dataclass(slots=True)
class Proposals:
    """Holds tables by row: the branches that it runs beyond its known tokens, the processed logits from which
    its second model drew drafts, the number of its drafts that are given, and the sources of its drafts if
    the engine made them."""

    branches: dict[Row, tuple[tuple[int, ...], ...]] = field(default_factory=dict)
    drafted: dict[Row, Tensor] = field(default_factory=dict)
    given: dict[Row, int] = field(default_factory=dict)
    sources: dict[Row, tuple[str, ...]] = field(default_factory=dict)


def collect_proposals(
    running: Iterable[Request], context_length: int, speculator: Speculator | None = None
) -> Proposals:
    """Returns what the rows of the decoding requests propose. At most `context_length` tokens run of each.

    Rows that the engine may draft for get the drafts of the `speculator`.
    """
    proposals = Proposals()
    most_drafts: dict[Row, int] = {}
    members: dict[Method, list[tuple[Request, Row]]] = {}
    for request in running:
        if request.decoding:
            rows = [(request, s.row) for s in request.sequences]
            members.setdefault(request.method, []).extend(rows)
    for method, found in members.items():
        proposal = method.propose([row for _, row in found])
        for (_, row), branch in zip(found, proposal.branches, strict=True):
            # A draft beyond the limit or the context has no page.
            most = max(min(row.limit, context_length) - len(row.tokens), 0)
            proposals.branches[row] = tuple(draft[:most] for draft in branch)
        limits = zip(found, proposal.most_drafts, strict=False)
        most_drafts |= {row: count for (_, row), count in limits if count > 0}
        given = zip(found, proposal.given, strict=False)
        proposals.given |= {row: count for (_, row), count in given if count}
        if proposal.extension is not None:
            _extend(proposals, found, proposal.extension, context_length)
    if speculator is not None and most_drafts:
        _add_drafts(proposals, most_drafts, context_length, speculator)
    return proposals


def _add_drafts(
    proposals: Proposals, most_drafts: dict[Row, int], context_length: int, speculator: Speculator
) -> None:
    """Adds the speculator's drafts."""
    most = [min(count, context_length - len(row.tokens)) for row, count in most_drafts.items()]
    others = [branch for row, branch in proposals.branches.items() if row not in most_drafts]
    besides = sum(1 + len(draft) for branch in others for draft in branch)
    drafts = speculator.drafts(list(most_drafts), most, besides)
    for row, draft in zip(most_drafts, drafts, strict=True):
        if draft.tokens:
            proposals.branches[row] = (draft.tokens,)
            proposals.sources[row] = draft.sources


def _extend(
    proposals: Proposals,
    found: Sequence[tuple[Request, Row]],
    extension: Extension,
    context_length: int,
) -> None:
    """Adds the drafts of second models, and the processed logits that they were drawn from."""
    branches = proposals.branches
    asked: dict[int, tuple[SecondModel, list[tuple[Row, int]]]] = {}
    for (request, row), count in zip(found, extension.counts, strict=True):
        most = min(row.limit, context_length) - len(row.tokens) - len(branches[row][0])
        if request.draft_model is not None and min(count, most) > 0:
            entry = asked.setdefault(id(request.draft_model), (request.draft_model, []))
            entry[1].append((row, min(count, most)))
    for second_model, wanted in asked.values():
        while wanted:
            ahead = [_row_with(row, branches[row][0]) for row, _ in wanted]
            try:
                results = second_model.draft(ahead, [count for _, count in wanted], extension.draw)
            except CallbackError as error:
                # The callback fails again when the request is judged, and ends it then. Sequences with
                # incomplete drafts are freed.
                second_model.retain(())
                wanted = [(row, count) for row, count in wanted if row.request != error.request]
                continue
            for (row, _), (tokens, logits) in zip(wanted, results, strict=True):
                branches[row] = ((*branches[row][0], *tokens),)
                proposals.drafted[row] = logits
            break


def _row_with(row: Row, tokens: Sequence[int]) -> Row:
    for token in tokens:
        row = row.after(token)
    return row
