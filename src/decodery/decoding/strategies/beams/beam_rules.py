"""Holds the rules by which texts of beams end and searches stop: those of transformers 5, and of 4.48."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Protocol

import torch

from decodery.decoding.request.strategy_params import BeamSearch
from decodery.decoding.strategies.beams.beam_candidates import Candidate
from decodery.decoding.strategies.beams.beam_groups import Child, Group
from decodery.decoding.strategies.beams.hypotheses import Hypotheses


class BeamRules(Protocol):
    """Says which candidates of a group are its next beams, which end, and when the group stops."""

    def ranked(self, drawn: list[Candidate]) -> list[Candidate]:
        """Returns candidates, given in the order in which they were drawn, best first."""

    def sort_out(self, group: Group, candidates: list[Candidate]) -> bool:
        """Returns True if the candidates, best first, are enough; sets the group's `kept` and `ended`.

        A candidate that ends its sequence counts only among the best `size`, and is dropped otherwise.
        """

    def close(self, group: Group) -> None:
        """Adds the sequences that ended to the group's hypotheses, and stops it where its search is over.

        It is over when it is decided, when its beams reach a limit, and when no beam is left.
        """


class Rules5:
    """Implements the rules of transformers 5.

    A text that is cut off at the limit ends as one with an end token does: it counts among the best `size`.
    A search is decided by its best live beam.
    """

    def ranked(self, drawn: list[Candidate]) -> list[Candidate]:
        """Returns them in the order in which they were drawn."""
        return drawn

    def sort_out(self, group: Group, candidates: list[Candidate]) -> bool:
        """Returns True if they fill the beam, or if no text goes on."""
        last, size = group.ends_here, group.size
        group.candidates, group.kept, group.ended = candidates, [], []
        for rank, candidate in enumerate(candidates[:size] if last else candidates):
            child = group.child(candidate)
            if child.finish is None:
                group.kept.append(child)
            elif rank < size:
                group.ended.append(child)
            if len(group.kept) == size and not group.strategy.sample:
                return True
        # Drawn candidates are not in the order of their sums. This order is kept where sums are equal.
        group.kept = sorted(group.kept, key=lambda child: -child.candidate.total)[:size]
        return last or len(group.kept) == size

    def close(self, group: Group) -> None:
        """Adds the ended sequences, and stops the group where no beam may improve on them."""
        _add(group, group.ended)
        if group.kept and _decided(group, group.kept[0].candidate.total):
            group.kept = []
        _stop_without_beams(group)


class Rules4:
    """Implements the rules of transformers 4.48, the last version with groups and forced phrases.

    At the limit, texts that are cut off come after those that ended, and only if the search is not decided
    then. A search is decided by its best candidate, live or not.
    """

    def ranked(self, drawn: list[Candidate]) -> list[Candidate]:
        """Returns them with the largest sum first."""
        return sorted(drawn, key=lambda candidate: -candidate.total)

    def sort_out(self, group: Group, candidates: list[Candidate]) -> bool:
        """Returns True if they fill the beam."""
        group.candidates, group.kept, group.ended = candidates, [], []
        for rank, candidate in enumerate(candidates):
            child = group.child(candidate)
            if child.finish != "stop":
                group.kept.append(child)
            elif rank < group.size and child.complete:
                group.ended.append(child)
            if len(group.kept) == group.size:
                return True
        return False

    def close(self, group: Group) -> None:
        """Adds the ended sequences, and those cut off at the limit if the search is not decided by then."""
        _add(group, group.ended)
        best = max((candidate.total for candidate in group.candidates), default=-torch.inf)
        if _decided(group, best):
            group.kept = []
        elif group.kept and group.kept[0].finish is not None:
            cut = _returned_at_limit(group.kept, group.hypotheses)
            _add(group, cut)
            group.ended += cut
            group.kept = []
        _stop_without_beams(group)


def _add(group: Group, children: Sequence[Child]) -> None:
    """Adds ended children to the group's hypotheses."""
    for child in children:
        group.hypotheses = group.hypotheses.added(group.hypothesis(child))


def _decided(group: Group, total: float) -> bool:
    """True if no text that may still come from a candidate with this sum is awaited."""
    return group.hypotheses.decided(group.strategy, total, group.length, group.longest)


def _stop_without_beams(group: Group) -> None:
    if not group.kept:
        group.hypotheses = replace(group.hypotheses, done=True)


def _returned_at_limit(children: list[Child], hypotheses: Hypotheses) -> list[Child]:
    """Returns the beams, cut off at the limit, that may be returned: those with all forced phrases.

    If neither they nor the hypotheses have such a text, all may be, and are reported as incomplete.
    """
    complete = [child for child in children if child.complete]
    return complete if complete or hypotheses.found else children


_RULES: Mapping[str, BeamRules] = {"transformers-5": Rules5(), "transformers-4": Rules4()}


def rules_of(strategy: BeamSearch) -> BeamRules:
    """Returns the rules that a strategy names, or those that go with its other fields."""
    return _RULES[strategy.rules_in_force]
