"""Tells how a token stands within a text."""

from __future__ import annotations

from decodery.text.tokenizer.tokenizer import Tokenizer

CONTINUED = "##"
"""The beginning of WordPiece's tokens that continue a word."""


def in_text(tokenizer: Tokenizer, token: int) -> str:
    """Returns the text of a token, with the space before it if it begins a word."""
    return tokenizer.token_bytes(token).decode("utf-8", "replace")


def continues_word(tokenizer: Tokenizer, token: int) -> bool:
    """True if a token of WordPiece continues the word of the token before it."""
    stored = tokenizer.token_text(token)
    return stored.startswith(CONTINUED) and in_text(tokenizer, token) == stored.removeprefix(CONTINUED)


def inserted(tokenizer: Tokenizer, token: int, before: str, after: str) -> str:
    """Returns a text with a token between two parts of it; a special token adds nothing.

    A token of WordPiece knows of no space, so the text keeps its own. Elsewhere a token that begins a word
    brings a space, and together with one of the text it is one. A token that continues a word has none before
    it.
    """
    piece = in_text(tokenizer, token)
    if token in tokenizer.special_ids:
        return before + after
    if piece == f" {tokenizer.token_text(token)}":
        return before + piece[1:] + after
    if not piece.startswith(" "):
        return before.rstrip() + piece + after
    spaced = not before or before[-1].isspace()
    return before + (piece[1:] if spaced else piece) + after
