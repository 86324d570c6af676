"""The beams of a search as a tree over time: who came from whom, who lived, and where each is drawn."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from decodery.decoding.trace import BeamCandidate
from decodery.outputs import Completion


@dataclass
class Node:
    """One candidate of a step; `parent` is the index of a node of the step before, None for the prompt.

    `lane` is its place from the top: kept beams have their own, others stand below in the order of their
    scores. `share` is its probability relative to the step's likeliest. `completion` is the place among the
    returned completions of the one that ends here, `chosen` whether it is on the way to one. `pruned` is the
    step, from 1, in which it was given up; None while it lived.
    """

    step: int
    lane: int
    parent: int | None
    candidate: BeamCandidate
    share: float
    chosen: bool = False
    completion: int | None = None
    pruned: int | None = None


@dataclass(frozen=True)
class Tree:
    """All nodes in the order of their steps; `beams` lanes are for kept ones, of `lanes` in all."""

    nodes: list[Node]
    steps: int
    beams: int
    lanes: int

    def path(self, index: int) -> list[int]:
        """The indices from the root to a node."""
        found: list[int] = []
        at: int | None = index
        while at is not None:
            found.append(at)
            at = self.nodes[at].parent
        return found[::-1]

    def tokens(self, index: int) -> list[int]:
        """The tokens from the prompt to a node."""
        return [self.nodes[i].candidate.token for i in self.path(index)]


def grown(beams: Sequence[Sequence[BeamCandidate]], completions: Sequence[Completion]) -> Tree:
    """The tree of these steps, with the completions found in it."""
    width = max((c.beam + 1 for step in beams for c in step if c.beam is not None), default=1)
    nodes: list[Node] = []
    living: dict[int, int] = {}
    for number, step in enumerate(beams):
        best = max((c.score for c in step), default=0.0)
        after: dict[int, int] = {}
        # A step that keeps none leaves the beams' lanes to those that ended.
        below = width if any(c.fate == "kept" for c in step) else 0
        for candidate in sorted(step, key=lambda c: (below == 0 and c.fate == "pruned", -c.score)):
            if candidate.fate == "kept" and candidate.beam is not None:
                lane = candidate.beam
                after[lane] = len(nodes)
            else:
                lane = max(below, width) if candidate.fate == "pruned" else below
                below = lane + 1
            pruned = number + 1 if candidate.fate == "pruned" else None
            share = math.exp(max(candidate.score - best, -700.0))
            nodes.append(Node(number, lane, living.get(candidate.parent), candidate, share, pruned=pruned))
        living = after
    tree = Tree(nodes, len(beams), width, max((node.lane + 1 for node in nodes), default=1))
    _mark_returned(tree, completions)
    _mark_abandoned(tree)
    return tree


def _mark_returned(tree: Tree, completions: Sequence[Completion]) -> None:
    wanted = {tuple(c.token_ids): place for place, c in reversed(list(enumerate(completions)))}
    lengths = {len(tokens) for tokens in wanted}
    found: set[int] = set()
    for index, node in enumerate(tree.nodes):
        ends = node.candidate.fate == "finished" or (node.pruned is None and node.step == tree.steps - 1)
        if not ends or not lengths & {node.step, node.step + 1}:
            continue
        tokens = tuple(tree.tokens(index))
        # A completion may be told with or without the token that ended it.
        place = wanted.get(tokens, wanted.get(tokens[:-1]))
        if place is None or place in found:
            continue
        found.add(place)
        node.completion = place
        for i in tree.path(index):
            tree.nodes[i].chosen = True


def _mark_abandoned(tree: Tree) -> None:
    """Kept beams that no kept or finished one continues were given up in the step after."""
    parents = {n.parent for n in tree.nodes if n.candidate.fate != "pruned"}
    for index, node in enumerate(tree.nodes):
        last = node.step == tree.steps - 1
        if node.candidate.fate == "kept" and not last and index not in parents and node.completion is None:
            node.pruned = node.step + 2
