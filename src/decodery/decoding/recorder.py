"""Records what choices considered, as `decodery.decoding.trace` defines it."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple, Protocol

import torch
from torch import Tensor

from decodery.decoding.trace import Candidate, Considered, Stage
from decodery.kernels.vocabulary.choices import ChoiceArgs, ChoiceDescription
from decodery.kernels.vocabulary.dispatch import copied, described


class Explained(Protocol):
    """Says how many candidates of its choices a row explains; 0 is none."""

    @property
    def explain(self) -> int:
        """Returns the number of candidates."""


class Choice(NamedTuple):
    """Holds a choice: the `token` of the row at `place`.

    `draw_key` is the key of the noise if the token was drawn, and `forced` says that it was not chosen.
    """

    place: int
    token: int
    draw_key: tuple[int, int] | None = None
    forced: bool = False


class Recorder:
    """Records what the processors did to the rows that explain; it is the `record` of one call of `process`.

    `raw` are the unprocessed logits `[rows, vocab]`. A row that does not explain costs nothing.
    """

    def __init__(self, raw: Tensor, rows: Sequence[Explained]) -> None:
        self._raw = raw
        self._counts = [min(row.explain, raw.shape[1]) for row in rows]
        self._names: list[str] = []
        self._after: list[Tensor] = []
        self._places: list[list[tuple[int, int]]] = [[] for _ in rows]
        self._allowed: dict[int, tuple[int, tuple[int, ...]]] = {}

    def __call__(self, name: str, using: Sequence[int], logits: Tensor) -> None:
        """Records the logits after stage `name` of the rows that it was applied to; keeps copies only."""
        explained = [i for i in using if self._counts[i]]
        if not explained:
            return
        if name == "grammar":
            self._allowed |= {i: _allowed(logits[i], self._counts[i]) for i in explained}
        for place, i in enumerate(explained):
            self._places[i].append((len(self._after), place))
        self._names.append(name)
        self._after.append(copied(logits, explained))

    def considered(self, choices: Sequence[Choice]) -> list[Considered]:
        """Returns what each of these choices of rows that explain considered."""
        args = [
            ChoiceArgs(place, token, self._counts[place], key, self._places[place])
            for place, token, key, _ in choices
        ]
        found = []
        for choice, description in zip(choices, described(self._raw, args, self._after), strict=True):
            if choice.place in self._allowed:
                allowed, tokens = self._allowed[choice.place]
                description = description._replace(allowed=allowed, allowed_tokens=tokens)
            names = [self._names[stage] for stage, _ in self._places[choice.place]]
            found.append(considered_from(description, names, choice))
        return found


def considered_from(description: ChoiceDescription, names: Sequence[str], choice: Choice) -> Considered:
    """Returns a description of a choice as `Considered`; `names` are those of the stages, by their index."""
    tokens, logits, before, noise, rank, entropy, tail, kept, stages, allowed, allowed_tokens = description
    after = stages[-1][2] if stages else before
    at = tokens.index(choice.token)
    each_noise: Sequence[float | None] = (None,) * len(tokens) if noise is None else noise
    return Considered(
        token=choice.token,
        before=before[at],
        after=after[at],
        rank=rank,
        entropy=entropy,
        kept=kept,
        candidates=tuple(map(Candidate, tokens, before, after, logits, each_noise)),
        stages=tuple([Stage(names[index], left, shares) for index, left, shares in stages]),
        allowed=allowed,
        forced=choice.forced or allowed == 1,
        allowed_tokens=allowed_tokens,
        tail=tail,
        draw_key=choice.draw_key,
    )


def _allowed(logits: Tensor, most: int) -> tuple[int, tuple[int, ...]]:
    """Returns how many tokens are possible, and which they are if there are no more than `most`."""
    possible = logits > -torch.inf
    count = int(possible.sum())
    return count, tuple(possible.nonzero()[:, 0].tolist()) if count <= most else ()
