"""What bytes a token of a vocabulary file stands for, in each of the notations that vocabularies use."""

from __future__ import annotations

import re

SPACE_MARK = "▁"
_BYTE_TOKEN = re.compile(r"<0x([0-9A-Fa-f]{2})>")


def _byte_alphabet() -> dict[str, int]:
    """The printable character that stands for each byte in byte-level BPE (GPT-2's `bytes_to_unicode`)."""
    printable = [*range(0x21, 0x7F), *range(0xA1, 0xAD), *range(0xAE, 0x100)]
    hidden = [byte for byte in range(256) if byte not in printable]
    alphabet = {chr(byte): byte for byte in printable}
    alphabet.update({chr(0x100 + place): byte for place, byte in enumerate(hidden)})
    return alphabet


BYTE_OF_CHARACTER = _byte_alphabet()


def plain(token: str) -> bytes:
    """The token's own text."""
    return token.encode("utf-8", "replace")


def byte_level(token: str) -> bytes:
    """Undoes byte-level BPE's alphabet; a token that leaves the alphabet stands for its own text."""
    try:
        return bytes([BYTE_OF_CHARACTER[character] for character in token])
    except KeyError:
        return plain(token)


def spaced(token: str) -> bytes:
    """Undoes SentencePiece's space mark."""
    return plain(token.replace(SPACE_MARK, " "))


def byte_token(token: str) -> bytes | None:
    """The byte that a byte-fallback token such as `<0x0A>` names; None for any other token."""
    match = _BYTE_TOKEN.fullmatch(token)
    return bytes([int(match.group(1), 16)]) if match else None


def word_piece(token: str, prefix: str) -> bytes:
    """A WordPiece token in running text: a piece that begins a word brings the space before it."""
    return plain(token[len(prefix) :]) if token.startswith(prefix) else plain(f" {token}")


def label(data: bytes) -> str:
    """A one-line visible form: spaces as `␣`, bytes of a broken character as `\\xNN`, controls escaped."""
    text = data.decode("utf-8", "backslashreplace")
    return "".join(_visible(character) for character in text)


def _visible(character: str) -> str:
    if character == " ":
        return "␣"
    return character if character.isprintable() else character.encode("unicode_escape").decode("ascii")
