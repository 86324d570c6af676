"""Rewrites text by the character rules that a SentencePiece model was trained with."""

from __future__ import annotations

import sys
from array import array

from tokenizers import NormalizedString, Regex

from decodery.errors import CheckpointError

_UNIT_BYTES = 4
# The parts of a unit: a value or a node's label, and for a node whether a value is below it.
_IS_VALUE = 1 << 31
_VALUE = _IS_VALUE - 1
_HAS_VALUE = 1 << 8


class CharacterRules:
    """Replaces the longest known beginning of the rest of a text, as SentencePiece's normalizer does.

    `data` is a compiled character map: the size of a trie in bytes (4 bytes, little-endian), the trie as a
    double array of 32-bit units (Yata et al. 2007, in the form of the library Darts-clone), and the
    replacements, each with a zero byte at its end. Raises `CheckpointError` when it is damaged.
    """

    def __init__(self, data: bytes) -> None:
        size = int.from_bytes(data[:_UNIT_BYTES], "little")
        if size < _UNIT_BYTES or size % _UNIT_BYTES or len(data) <= _UNIT_BYTES + size:
            raise CheckpointError("the vocabulary's character map is damaged: its trie has no valid size")
        self._units = array("I", data[_UNIT_BYTES : _UNIT_BYTES + size])
        if sys.byteorder == "big":
            self._units.byteswap()
        self._replacements = data[_UNIT_BYTES + size :]
        self._known: dict[str, bool] = {}
        starts = [unit & _VALUE for unit in self._units if unit & _IS_VALUE]
        if not self._replacements.endswith(b"\0") or max(starts, default=0) >= len(self._replacements):
            raise CheckpointError("the vocabulary's character map is damaged: a replacement has no end")

    def __call__(self, text: str) -> str:
        """Returns the rewritten text."""
        if not any(map(self._begins_a_rule, text)):
            return text
        parts: list[str] = []
        place = 0
        while place < len(text):
            count, replacement = 0, ""
            if self._begins_a_rule(text[place]):
                count, replacement = self._longest_rule(text, place)
            parts.append(replacement if count else text[place])
            place += count or 1
        return "".join(parts)

    def normalize(self, text: NormalizedString) -> None:
        """Rewrites a text of the tokenizers library, for `Normalizer.custom`."""
        before = text.normalized
        after = self(before)
        if not after:
            text.clear()
        elif after != before:
            text.replace(Regex("(?m:.+)"), after)

    def _begins_a_rule(self, character: str) -> bool:
        known = self._known.get(character)
        if known is None:
            known = self._known[character] = self._descend(self._offset(0), character.encode()) is not None
        return known

    def _longest_rule(self, text: str, place: int) -> tuple[int, str]:
        """Returns the number of characters that the longest rule replaces (0: none), and the replacement."""
        base = self._offset(0)
        found: tuple[int, str] = (0, "")
        for end in range(place, len(text)):
            node = self._descend(base, text[end].encode())
            if node is None:
                break
            base = node ^ self._offset(node)
            if self._units[node] & _HAS_VALUE and base < len(self._units):
                found = (end + 1 - place, self._replacement(self._units[base] & _VALUE))
        return found

    def _descend(self, base: int, label: bytes) -> int | None:
        """Returns the node below `base` at the end of a path of bytes; None if there is none."""
        node = base
        for place, byte in enumerate(label):
            if place:
                node ^= self._offset(node)
            node ^= byte
            if byte == 0 or node >= len(self._units) or self._units[node] & (_IS_VALUE | 0xFF) != byte:
                return None
        return node

    def _offset(self, node: int) -> int:
        unit = self._units[node]
        return unit >> 10 << ((unit & 0x200) >> 6)

    def _replacement(self, start: int) -> str:
        return self._replacements[start : self._replacements.find(b"\0", start)].decode("utf-8", "replace")
