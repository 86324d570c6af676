"""Finds test documents whose words occur in a corpus, as training data may have held them."""

from __future__ import annotations

import hashlib
import re
from collections import deque
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

from decodery.errors import ParameterError

WORDS = 13
_WORD = re.compile(r"\w+")
State = Literal["contaminated", "clean", "not checkable"]


@dataclass(frozen=True, slots=True)
class Contamination:
    """Holds what was found of one document.

    A document with fewer words than a window is "not checkable". `found` counts the windows that the corpus
    has, of `windows` different ones, and `example` is the first of them.
    """

    document: str
    state: State
    windows: int = 0
    found: int = 0
    example: str = ""


def contaminated(
    documents: Mapping[str, str], corpus: Iterable[Iterable[str]], *, words: int = WORDS
) -> list[Contamination]:
    """Returns, for each document by its id, how many of its windows of `words` words occur in a corpus.

    Words are runs of letters and digits, in lower case: punctuation and white space do not count. The corpus
    is an iterable of texts, each of which is an iterable of lines; windows go across the lines of one text,
    and it is read once. Memory grows with the documents alone. Brown et al., Language Models are Few-Shot
    Learners (2020), appendix C. Raises `ParameterError` for `words` below 1.
    """
    if type(words) is not int or words < 1:
        raise ParameterError(f"words must be a whole number from 1 on, not {words!r}")
    wanted = {key: list(dict.fromkeys(_windows([text], words))) for key, text in documents.items()}
    digests = {_digest(window) for windows in wanted.values() for window in windows}
    seen: set[bytes] = set()
    for lines in corpus:
        seen.update(d for window in _windows(lines, words) if (d := _digest(window)) in digests)
    return [_state(key, windows, seen) for key, windows in wanted.items()]


def _state(document: str, windows: Sequence[tuple[str, ...]], seen: set[bytes]) -> Contamination:
    if not windows:
        return Contamination(document, "not checkable")
    found = [window for window in windows if _digest(window) in seen]
    if not found:
        return Contamination(document, "clean", len(windows))
    return Contamination(document, "contaminated", len(windows), len(found), " ".join(found[0]))


def _windows(lines: Iterable[str], words: int) -> Iterator[tuple[str, ...]]:
    """Yields each run of so many words of a text."""
    window: deque[str] = deque(maxlen=words)
    for line in lines:
        for word in _WORD.findall(line.casefold()):
            window.append(word)
            if len(window) == words:
                yield tuple(window)


def _digest(window: Sequence[str]) -> bytes:
    return hashlib.blake2b("\0".join(window).encode(), digest_size=12).digest()
