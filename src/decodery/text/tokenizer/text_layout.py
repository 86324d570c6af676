"""Finds the special tokens that a model expects around a text, and around and between the texts of a pair."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import tokenizers


@dataclass(frozen=True)
class Special:
    """Holds special tokens that stand together, and the segment of each."""

    ids: tuple[int, ...] = ()
    segments: tuple[int, ...] = ()


@dataclass(frozen=True)
class TextLayout:
    """Holds the special tokens around texts: `before` the first, `between` two, and `after` the last.

    `segments` are the segments of the texts' own tokens. A single text has nothing `between`.
    """

    before: Special
    between: Special
    after: Special
    segments: tuple[int, ...]

    @property
    def added(self) -> int:
        """Returns the number of special tokens."""
        return len(self.before.ids) + len(self.between.ids) + len(self.after.ids)

    def joined(self, *texts: Sequence[int]) -> tuple[tuple[int, ...], tuple[int, ...]]:
        """Returns the ids of one text or of a pair with their special tokens, and each token's segment.

        There must be as many texts as the layout has `segments`.
        """
        assert len(texts) == len(self.segments)
        ids, segments = [*self.before.ids], [*self.before.segments]
        for index, (text, segment) in enumerate(zip(texts, self.segments, strict=True)):
            if index:
                ids += self.between.ids
                segments += self.between.segments
            ids += text
            segments += [segment] * len(text)
        return (*ids, *self.after.ids), (*segments, *self.after.segments)


def layout_of_pairs(backend: tokenizers.Tokenizer) -> TextLayout | None:
    """Returns the layout of pairs in the backend's post-processor; None if it has nothing between them."""
    for probe in ("a", "1", "."):
        found = backend.encode(probe, probe)
        bare = backend.encode(probe, add_special_tokens=False).ids
        places = _places(found.ids, bare)
        if not bare or places is None:
            continue
        (first, second), size = places, len(bare)
        between = _special(found, first + size, second)
        if not between.ids:
            return None
        return TextLayout(
            _special(found, 0, first),
            between,
            _special(found, second + size, len(found.ids)),
            (found.type_ids[first], found.type_ids[second]),
        )
    return None


def layout_of_single(
    backend: tokenizers.Tokenizer, before: Sequence[int], after: Sequence[int]
) -> TextLayout:
    """Returns the layout of a text alone with these tokens before and after it.

    Their segments, and that of the text, are those of the backend's post-processor if it has as many tokens
    around a text, else 0.
    """
    types = backend.encode("a").type_ids
    inner = len(types) - len(before) - len(after)
    if inner < 1 or inner != len(backend.encode("a", add_special_tokens=False).ids):
        types = [0] * (len(before) + 1 + len(after))
    end = len(types) - len(after)
    return TextLayout(
        Special(tuple(before), tuple(types[: len(before)])),
        Special(),
        Special(tuple(after), tuple(types[end:])),
        (types[len(before)],),
    )


def _special(found: tokenizers.Encoding, start: int, end: int) -> Special:
    return Special(tuple(found.ids[start:end]), tuple(found.type_ids[start:end]))


def _places(ids: Sequence[int], part: Sequence[int]) -> tuple[int, int] | None:
    """Returns where the first two copies of a part begin that do not overlap."""
    size = len(part)
    found: list[int] = []
    start = 0
    while len(found) < 2 and start + size <= len(ids):
        if list(ids[start : start + size]) == list(part):
            found.append(start)
            start += size
        else:
            start += 1
    return (found[0], found[1]) if len(found) == 2 else None
