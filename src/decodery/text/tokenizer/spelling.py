"""Converts tokens to bytes in each of the notations that vocabulary files use."""

from __future__ import annotations

import re

# The kinds of pieces, with the numbers that SentencePiece models and GGUF files give them.
NORMAL, UNKNOWN, CONTROL, USER_DEFINED, UNUSED, BYTE = range(1, 7)
SPACE_MARK = "▁"
_BYTE_TOKEN = re.compile(r"<0x([0-9A-Fa-f]{2})>")


def _byte_alphabet() -> dict[str, int]:
    """Returns the byte of each character of byte-level BPE, the inverse of GPT-2's `bytes_to_unicode`."""
    printable = [*range(0x21, 0x7F), *range(0xA1, 0xAD), *range(0xAE, 0x100)]
    hidden = [byte for byte in range(256) if byte not in printable]
    alphabet = {chr(byte): byte for byte in printable}
    alphabet.update({chr(0x100 + place): byte for place, byte in enumerate(hidden)})
    return alphabet


BYTE_OF_CHARACTER = _byte_alphabet()
_CHARACTER_OF_BYTE = {byte: character for character, byte in BYTE_OF_CHARACTER.items()}


def plain(token: str) -> bytes:
    """Returns the token's own text in UTF-8."""
    return token.encode("utf-8", "replace")


def byte_level(token: str) -> bytes:
    """Returns the bytes of a byte-level BPE token; its text if a character is not in the alphabet."""
    try:
        return bytes([BYTE_OF_CHARACTER[character] for character in token])
    except KeyError:
        return plain(token)


def to_byte_alphabet(data: bytes) -> str:
    """Returns the bytes as a byte-level BPE token, the inverse of `byte_level`."""
    return "".join(map(_CHARACTER_OF_BYTE.__getitem__, data))


def spaced(token: str) -> bytes:
    """Returns the bytes of a SentencePiece token, with spaces for its space marks."""
    return plain(token.replace(SPACE_MARK, " "))


def byte_token(token: str) -> bytes | None:
    """Returns the byte of a byte-fallback token such as `<0x0A>`; None for any other token."""
    match = _BYTE_TOKEN.fullmatch(token)
    return bytes([int(match.group(1), 16)]) if match else None


def word_piece(token: str, prefix: str) -> bytes:
    """Returns the bytes of a WordPiece token within a text; a piece that begins a word has a space first."""
    return plain(token[len(prefix) :]) if token.startswith(prefix) else plain(f" {token}")


def label(data: bytes) -> str:
    """Returns a visible form on one line: spaces as `␣`, broken characters as `\\xNN`, controls escaped."""
    text = data.decode("utf-8", "backslashreplace")
    return "".join(_visible(character) for character in text)


def _visible(character: str) -> str:
    if character == " ":
        return "␣"
    return character if character.isprintable() else character.encode("unicode_escape").decode("ascii")
