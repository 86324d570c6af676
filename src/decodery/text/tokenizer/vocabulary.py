"""Holds what the files of a checkpoint, of any format, declare about its tokens and those around texts."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import tokenizers


@dataclass(frozen=True, slots=True)
class Vocabulary:
    """Holds a vocabulary: the encoder, the bytes of every token, and the tokens with a role.

    `spell` returns the bytes of an id below `size` (none for an id without a token). `prefix` and `suffix`
    are the tokens that the model expects around a whole prompt; `backend` does not add them. The
    `chat_templates` have names; a single one is the "default". `named_ids` are the ids of all roles that the
    files declare, by GGUF's names: `bos`, `mask`, `fim_pre` ... `literal_model` returns a model of the
    library that never finds a special token, where that of `backend` can (None: it cannot). `warnings` say
    which faults of the files were corrected.
    """

    backend: tokenizers.Tokenizer
    spell: Callable[[int], bytes]
    size: int
    special_ids: frozenset[int]
    bos_token_id: int | None
    eos_token_ids: tuple[int, ...]
    pad_token_id: int | None
    bos_token: str
    eos_token: str
    prefix: tuple[int, ...]
    suffix: tuple[int, ...]
    chat_templates: Mapping[str, str]
    named_ids: Mapping[str, int]
    literal_model: Callable[[], Any] | None = None
    warnings: tuple[str, ...] = ()


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
