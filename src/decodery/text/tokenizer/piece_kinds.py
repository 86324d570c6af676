"""Holds the kinds of pieces, with the numbers that SentencePiece models and GGUF files give them."""

from __future__ import annotations

NORMAL, UNKNOWN, CONTROL, USER_DEFINED, UNUSED, BYTE = range(1, 7)
