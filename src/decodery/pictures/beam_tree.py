"""Builds the tree of a beam search: each candidate's parent, its fate, and the lane where it is drawn."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from decodery.decoding.trace import BeamCandidate
from decodery.outputs import Completion


@dataclass
class Node:
    """Holds one candidate of a step; `parent` is the index of its parent's node, None for the prompt.

    `lane` is its row in the drawing, counted from the top. A kept beam has the lane of its number; the other
    candidates of the step follow below in the order of their scores. `share` is its probability divided by
    that of the step's likeliest candidate. `chosen` is true if a returned completion passes through this
    node. `completion` is the index of the returned completion that ends here. `pruned` is the number, from 1,
    of the step that pruned it; None if no step did.
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
    """Holds all nodes in the order of their steps.

    Of `lanes` lanes in all, the first `beams` belong to the kept beams.
    """

    nodes: list[Node]
    steps: int
    beams: int
    lanes: int

    def path(self, index: int) -> list[int]:
        """Returns the indices of the nodes from the first step to this node, which is the last one."""
        indices: list[int] = []
        current: int | None = index
        while current is not None:
            indices.append(current)
            current = self.nodes[current].parent
        return indices[::-1]

    def tokens(self, index: int) -> list[int]:
        """Returns the tokens that were generated up to this node and in it."""
        return [self.nodes[i].candidate.token for i in self.path(index)]


def build_tree(beams: Sequence[Sequence[BeamCandidate]], completions: Sequence[Completion]) -> Tree:
    """Returns the tree of the candidates of each step, in which the returned completions are marked."""
    width = max((c.beam + 1 for step in beams for c in step if c.beam is not None), default=1)
    nodes: list[Node] = []
    # The node of each beam after the step before, and after this one.
    parents: dict[int, int] = {}
    for number, step in enumerate(beams):
        best = max((c.score for c in step), default=0.0)
        kept: dict[int, int] = {}
        # In a step that keeps no beam, the finished candidates take the lanes of the beams.
        next_lane = width if any(c.fate == "kept" for c in step) else 0
        for candidate in sorted(step, key=lambda c: (next_lane == 0 and c.fate == "pruned", -c.score)):
            if candidate.fate == "kept" and candidate.beam is not None:
                lane = candidate.beam
                kept[lane] = len(nodes)
            else:
                lane = max(next_lane, width) if candidate.fate == "pruned" else next_lane
                next_lane = lane + 1
            pruned = number + 1 if candidate.fate == "pruned" else None
            share = math.exp(max(candidate.score - best, -700.0))
            nodes.append(Node(number, lane, parents.get(candidate.parent), candidate, share, pruned=pruned))
        parents = kept
    tree = Tree(nodes, len(beams), width, max((node.lane + 1 for node in nodes), default=1))
    _mark_returned(tree, completions)
    _mark_beams_without_child(tree)
    return tree


def _mark_returned(tree: Tree, completions: Sequence[Completion]) -> None:
    returned = {tuple(c.token_ids): place for place, c in reversed(list(enumerate(completions)))}
    lengths = {len(tokens) for tokens in returned}
    found: set[int] = set()
    for index, node in enumerate(tree.nodes):
        ends = node.candidate.fate == "finished" or (node.pruned is None and node.step == tree.steps - 1)
        if not ends or not lengths & {node.step, node.step + 1}:
            continue
        tokens = tuple(tree.tokens(index))
        # A completion's ids may or may not include the token that ended it.
        place = returned.get(tokens, returned.get(tokens[:-1]))
        if place is None or place in found:
            continue
        found.add(place)
        node.completion = place
        for i in tree.path(index):
            tree.nodes[i].chosen = True


def _mark_beams_without_child(tree: Tree) -> None:
    """Marks a kept beam as pruned by the next step if no kept or finished candidate continues it."""
    parents = {n.parent for n in tree.nodes if n.candidate.fate != "pruned"}
    for index, node in enumerate(tree.nodes):
        last = node.step == tree.steps - 1
        if node.candidate.fate == "kept" and not last and index not in parents and node.completion is None:
            node.pruned = node.step + 2
