"""Declares the tensors of a checkpoint that make each parameter of a module, and how they are stored."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

from decodery.weights.transforms import Transform


@dataclass(frozen=True)
class Rule:
    """Declares the tensors of a checkpoint that make one parameter, and so how the parameter is stored.

    `target` is the module's own name and `sources` the checkpoint's names; `{i}` in them is replaced by the
    layer's index. Each source goes through its transform (None: unchanged), and the results are concatenated
    along dimension 0. `rows` are the sizes of the results along it; None: equal sizes when the parameter is
    exported, any sizes when it is loaded.

    With `experts`, the parameter is a stack [experts, ...] and dimension 1 is the concatenated one. A source
    with `{e}` in its name is one tensor for each expert; any other source is a stack itself, or with `only`,
    the tensor of the only expert. A transform converts one expert's tensor.

    Several rules may have one target, for checkpoints that store it differently. Loading uses the first one
    whose sources all exist; exporting uses the first one. A rule whose target the module lacks is skipped,
    and its sources count as unexpected.
    """

    target: str
    sources: tuple[str, ...]
    transforms: tuple[Transform | None, ...]
    rows: tuple[int, ...] | None = None
    experts: int = 0
    optional: bool = False
    only: bool = False

    def __post_init__(self) -> None:
        if not self.sources or len(self.sources) != len(self.transforms):
            raise ValueError(
                f"rule for {self.target}: as many transforms as sources, and at least one of each"
            )
        if self.rows is not None and len(self.rows) != len(self.sources):
            raise ValueError(f"rule for {self.target}: as many numbers of rows as sources")

    @property
    def dimension(self) -> int:
        """Returns the dimension along which the sources are concatenated."""
        return 1 if self.experts else 0

    def parts(self, layer: int) -> tuple[Part, ...]:
        """Returns the stored tensors of one layer's parameter, those of a source side by side."""
        found: list[Part] = []
        for index, (source, transform) in enumerate(zip(self.sources, self.transforms, strict=True)):
            name = source.replace("{i}", str(layer))
            if "{e}" in name or self.only:
                each = range(self.experts)
                found += [Part(name.replace("{e}", str(e)), index, e, transform) for e in each]
            else:
                found.append(Part(name, index, None, transform))
        return tuple(found)


class Part(NamedTuple):
    """Holds the name of a stored tensor and its place in a parameter.

    `source` is the index among the rule's sources. `expert` is the index in a stack, None for all of it.
    """

    name: str
    source: int
    expert: int | None
    transform: Transform | None


def rename(target: str, source: str, transform: Transform | None = None, optional: bool = False) -> Rule:
    """Returns the rule that the parameter `target` is the tensor `source`."""
    return Rule(target, (source,), (transform,), optional=optional)


def merge(
    target: str,
    sources: Sequence[str],
    transforms: Sequence[Transform | None] | None = None,
    rows: Sequence[int] | None = None,
    optional: bool = False,
) -> Rule:
    """Returns the rule that the parameter `target` is the `sources` concatenated along dimension 0."""
    each = tuple(transforms or [None] * len(sources))
    return Rule(target, tuple(sources), each, None if rows is None else tuple(rows), optional=optional)


def stack(
    target: str, sources: Sequence[str], experts: int, transforms: Sequence[Transform | None] | None = None
) -> Rule:
    """Returns the rule that `target` [experts, ...] is the `sources` concatenated along dimension 1."""
    return Rule(target, tuple(sources), tuple(transforms or [None] * len(sources)), experts=experts)


def only_expert(target: str, sources: Sequence[str]) -> Rule:
    """Returns the rule that `target` [1, ...] is the `sources`, one under another."""
    return Rule(target, tuple(sources), (None,) * len(sources), experts=1, only=True)
