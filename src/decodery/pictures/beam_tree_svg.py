"""Draws a tree of beams as SVG: a column for each step, a lane for each beam, in bands of `COLUMNS` steps."""

from __future__ import annotations

from decodery.pictures.beam_tree import Node, Tree
from decodery.pictures.generation_trace import GenerationTrace
from decodery.pictures.markup import Markup, element, joined
from decodery.pictures.svg_sheet import fitted, line

COLUMNS = 8
COLUMN = 136.0
BOX = 100.0
LEFT = 74.0
BEAM = 38.0
SMALL = 19.0
TOP = 22.0
# At most so many candidates of a step are drawn below the beams; the rest are only counted.
OTHERS = 10
WIDTH = LEFT + COLUMNS * COLUMN


def tree_svg(
    tree: Tree, trace: GenerationTrace, *, columns: int = COLUMNS, others: int = OTHERS
) -> tuple[Markup, float]:
    """Returns the drawing, in bands of `columns` steps, and its height; with all columns it is `WIDTH` wide.

    Below the beams of a step at most `others` candidates are drawn.
    """
    drawing = _Drawing(tree, trace, columns, others)
    return joined([drawing.band(first) for first in range(0, tree.steps, columns)]), drawing.tops[-1]


class _Drawing:
    """Draws the bands of a tree; `tops` has the y of each band's top, then that of the last one's bottom."""

    def __init__(self, tree: Tree, trace: GenerationTrace, columns: int, others: int) -> None:
        self.tree = tree
        self.trace = trace
        self.columns = columns
        self.others = others
        self.tops = [0.0]
        for first in range(0, tree.steps, columns):
            lanes = [n.lane + 1 for n in tree.nodes if first <= n.step < first + columns]
            small = min(max([*lanes, tree.beams]) - tree.beams, others + 1)
            self.tops.append(self.tops[-1] + TOP + tree.beams * BEAM + small * SMALL + 18)

    def band(self, first: int) -> Markup:
        """Draws the band of steps that begins with step `first`."""
        top = self.tops[first // self.columns]
        steps = range(first, min(first + self.columns, self.tree.steps))
        right = LEFT + self.columns * COLUMN
        parts = [element("line", class_="rule", x1=0.0, x2=right, y1=top + 0.5, y2=top + 0.5)]
        for step in steps:
            x = self._x(step)
            parts.append(line(x + BOX / 2, top + 15, str(step + 1), kind="dim small", anchor="middle"))
        shown = [(i, n) for i, n in enumerate(self.tree.nodes) if n.step in steps]
        visible = [(i, n) for i, n in shown if n.lane < self.tree.beams + self.others]
        # The lines of chosen and of living beams are drawn last, over the others.
        for index, node in sorted(visible, key=lambda item: (item[1].chosen, item[1].pruned is None)):
            parts.append(self._edge(index, node, first))
        parts += self._roots(first, [node for _, node in visible])
        parts += [self._node(index, node) for index, node in visible]
        for step in steps:
            hidden = sum(n.step == step and n.lane >= self.tree.beams + self.others for _, n in shown)
            if hidden:
                y = self._y(step, self.tree.beams + self.others) + 4
                parts.append(line(self._x(step), y, f"and {hidden} more", kind="dim small"))
        return joined(parts)

    def _x(self, step: int) -> float:
        return LEFT + step % self.columns * COLUMN

    def _y(self, step: int, lane: int) -> float:
        """Returns the y of the middle of a lane."""
        top = self.tops[step // self.columns] + TOP
        if lane < self.tree.beams:
            return top + lane * BEAM + BEAM / 2
        return top + self.tree.beams * BEAM + (lane - self.tree.beams) * SMALL + SMALL / 2 + 4

    def _edge_start(self, node: Node, first: int) -> tuple[float, float]:
        """Returns where the line to a node begins: at its parent, or at the left edge of its band."""
        parent = None if node.parent is None else self.tree.nodes[node.parent]
        if parent is None:
            return LEFT - 28, self._y(first, 0)
        if node.step == first:
            return LEFT - 28, self._y(first, parent.lane)
        return self._x(parent.step) + BOX, self._y(parent.step, parent.lane)

    def _edge(self, index: int, node: Node, first: int) -> Markup:
        x1, y1 = self._edge_start(node, first)
        x2, y2 = self._x(node.step), self._y(node.step, node.lane)
        bend = (x2 - x1) * 0.55
        shape = f"M{x1:.1f} {y1:.1f}C{x1 + bend:.1f} {y1:.1f} {x2 - bend:.1f} {y2:.1f} {x2:.1f} {y2:.1f}"
        thick = None if node.pruned == node.step + 1 else f"stroke-width:{1 + 3.5 * node.share:.2f}"
        return element("path", class_=f"edge {_kind(node)}", id=f"e{index}", d=shape, style=thick)

    def _roots(self, first: int, nodes: list[Node]) -> list[Markup]:
        """Draws the labels at a band's left edge: the prompt, or the last tokens of the band before."""
        if first == 0:
            y = self._y(0, 0)
            circle = element("circle", class_="box", cx=LEFT - 28, cy=y, r=5)
            return [circle, line(4, y + 4, "prompt", kind="dim small")]
        parents = {
            n.parent: self.tree.nodes[n.parent] for n in nodes if n.step == first and n.parent is not None
        }
        parts = []
        for parent in parents.values():
            label = fitted(self.trace.label(parent.candidate.token), 6)
            parts.append(
                line(LEFT - 32, self._y(first, parent.lane) + 4, label, kind="dim small", anchor="end")
            )
        return parts

    def _node(self, index: int, node: Node) -> Markup:
        x, y = self._x(node.step), self._y(node.step, node.lane)
        label = self.trace.label(node.candidate.token)
        kept = node.lane < self.tree.beams
        parts = [element("title", self._tooltip(index, node))]
        if kept:
            parts.append(element("rect", class_="box", x=x, y=y - 15, width=BOX, height=30, rx=6))
            parts.append(line(x + 8, y - 1, fitted(label, 11 if node.pruned is None else 8), kind="strong"))
            numbers = f"{node.candidate.score:.2f} ({node.candidate.logprob:.2f})"
            parts.append(line(x + 8, y + 11, numbers, kind="dim small"))
        elif node.candidate.fate == "finished":
            parts.append(element("rect", class_="box", x=x, y=y - 8, width=BOX + 16, height=16, rx=8))
            star = "" if node.completion is None else f"★{node.completion + 1} "
            parts.append(line(x + 8, y + 4, fitted(star + label, 10), kind="small strong"))
            parts.append(line(x + BOX + 10, y + 4, f"{self._score(node)}", kind="small", anchor="end"))
        else:
            parts.append(line(x + 2, y + 4, "✕", kind="small cross"))
            parts.append(line(x + 14, y + 4, fitted(label, 8), kind="small"))
            parts.append(line(x + BOX, y + 4, f"{node.candidate.score:.2f}", kind="small", anchor="end"))
        if kept and node.completion is not None:
            parts.append(self._flag(node, x, y))
        elif kept and node.pruned is not None:
            parts.append(line(x + BOX - 6, y - 1, f"✕{node.pruned}", kind="small cross", anchor="end"))
        return element(
            "g",
            parts,
            class_=f"node {_kind(node)}{' finished' if _finished(node) else ''}",
            id=f"n{index}",
            data_parent=node.parent,
            tabindex=0,
        )

    def _flag(self, node: Node, x: float, y: float) -> Markup:
        """Draws the number and the final score of the completion that ends in this node."""
        text = f"★{(node.completion or 0) + 1} {self._score(node)}"
        width = len(text) * 6.2 + 8
        left, top = x + BOX - width, y - 24
        return joined(
            [
                element("rect", class_="flag", x=left, y=top, width=width, height=13, rx=6.5),
                line(left + width / 2, top + 10, text, kind="flagged", anchor="middle"),
            ]
        )

    def _score(self, node: Node) -> str:
        """Returns the final score of a returned completion, otherwise the sum of log-probabilities."""
        score = None if node.completion is None else self.trace.completions[node.completion].score
        return f"{node.candidate.score:.2f}" if score is None else f"{score:.3f}"

    def _tooltip(self, index: int, node: Node) -> str:
        text = self.trace.tokenizer.decode(self.tree.tokens(index), skip_special_tokens=False)
        if node.completion is not None:
            fate = f"returned as completion {node.completion + 1}, score {self._score(node)}"
        elif node.pruned is not None:
            fate = f"pruned in step {node.pruned}"
        else:
            fate = node.candidate.fate
        numbers = f"log-probability {node.candidate.logprob:.3f}, sum {node.candidate.score:.3f}"
        return f"…{text[-200:]}\nstep {node.step + 1}, {numbers}\n{fate}"


def _kind(node: Node) -> str:
    """Returns the CSS class that says what became of a node."""
    if node.pruned == node.step + 1:
        return "pruned"
    if node.chosen:
        return "chosen"
    return "pruned-later" if node.pruned is not None else "kept"


def _finished(node: Node) -> bool:
    return node.candidate.fate == "finished" or node.completion is not None
