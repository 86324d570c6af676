"""Reads token ids that stand in place of texts."""

from __future__ import annotations

from collections.abc import Sequence
from functools import cache
from typing import Any

from decodery.errors import ParameterError
from decodery.serving.errors import invalid
from decodery.serving.settings import TokenArrays

REFUSED = (
    "input has token ids, and this server reads texts: with LangChain's OpenAIEmbeddings set"
    " check_embedding_ctx_length=False, or start the server with --token-arrays own (ids of this model) or"
    " cl100k (ids of tiktoken)"
)


def text_of(ids: list[int], place: str, vocabulary: TokenArrays | None) -> str | list[int]:
    """Returns what the model reads for token ids: they themselves if they are its own, else their text.

    Raises `ApiError` where the server takes none.
    """
    if vocabulary is None:
        raise invalid(REFUSED, place, "token_arrays")
    return ids if vocabulary == "own" else _decoded(ids, place)


def _decoded(ids: Sequence[int], place: str) -> str:
    try:
        data: bytes = cl100k().decode_bytes(ids)
    except (KeyError, OverflowError):
        raise invalid("a token id is none of cl100k_base", place) from None
    # Clients cut long texts between tokens, which may be within a character.
    return data.decode("utf-8", "ignore")


def checked_token_arrays(name: str | None) -> TokenArrays | None:
    """Returns a setting of token ids. Raises `ParameterError` if it is none, or cannot be had here."""
    match name:
        case "cl100k":
            cl100k()
            return "cl100k"
        case "own" | None:
            return name
    raise ParameterError(f"token_arrays must be own or cl100k, not {name!r}")


@cache
def cl100k() -> Any:
    """Returns OpenAI's encoding cl100k_base. Raises `ParameterError` if it is not to be had."""
    try:
        import tiktoken
    except ModuleNotFoundError:
        raise ParameterError(
            "token_arrays cl100k needs tiktoken, which is not installed: pip install tiktoken"
        ) from None
    try:
        return tiktoken.get_encoding("cl100k_base")
    except Exception as error:
        raise ParameterError(
            f"token_arrays cl100k needs the vocabulary that tiktoken fetches ({type(error).__name__}):"
            " connect once, or set TIKTOKEN_CACHE_DIR to a folder that has it"
        ) from None
