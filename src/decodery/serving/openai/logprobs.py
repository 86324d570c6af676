"""Writes log-probabilities in the two forms of OpenAI's API."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from decodery.decoding.chosen import TokenLogprobs
from decodery.serving.openai.choices import Entry
from decodery.text.tokenizer.tokenizer import Tokenizer


def token_text(tokenizer: Tokenizer, token: int) -> str:
    """Returns the text of one token, or `bytes:\\xNN...` if its bytes are no text."""
    data = tokenizer.token_bytes(token)
    try:
        return data.decode("utf-8")
    except UnicodeDecodeError:
        return "bytes:" + "".join(f"\\x{byte:02x}" for byte in data)


def chat_entries(tokenizer: Tokenizer, entries: Sequence[Entry], top: int) -> list[dict[str, Any]]:
    """Returns entries as `logprobs.content` of a chat completion, each with `top` alternatives.

    An end token adds no bytes to the text.
    """
    return [
        {
            **_candidate(tokenizer, e.logprobs.token, e.logprobs.logprob, silent=e.is_end),
            "top_logprobs": [_candidate(tokenizer, t, p) for t, p in e.logprobs.top[:top]],
        }
        for e in entries
    ]


def _candidate(tokenizer: Tokenizer, token: int, logprob: float, *, silent: bool = False) -> dict[str, Any]:
    data = [] if silent else list(tokenizer.token_bytes(token))
    return {
        "token": token_text(tokenizer, token),
        "token_id": token,
        "logprob": finite(logprob),
        "bytes": data,
    }


def completion_logprobs(
    tokenizer: Tokenizer, found: Sequence[tuple[TokenLogprobs | None, int, int]], top: int
) -> dict[str, Any]:
    """Returns the `logprobs` of a completion for (log-probabilities, token, offset); None has no numbers.

    Of two tokens with the same text the likelier one stays among the alternatives; the chosen one is added.
    """
    tops: list[dict[str, float] | None] = []
    for logprobs, token, _ in found:
        if logprobs is None:
            tops.append(None)
            continue
        best: dict[str, float] = {}
        for alternative, logprob in logprobs.top[:top]:
            best.setdefault(token_text(tokenizer, alternative), finite(logprob))
        best.setdefault(token_text(tokenizer, token), finite(logprobs.logprob))
        tops.append(best)
    return {
        "tokens": [token_text(tokenizer, token) for _, token, _ in found],
        "token_logprobs": [None if p is None else finite(p.logprob) for p, _, _ in found],
        "top_logprobs": tops,
        "text_offset": [offset for _, _, offset in found],
    }


def prompt_entries(
    tokenizer: Tokenizer, scored: Sequence[TokenLogprobs | None]
) -> list[dict[str, Any] | None]:
    """Returns `prompt_logprobs` as vLLM does: for each token its alternatives and itself by their ids."""
    found: list[dict[str, Any] | None] = []
    for logprobs in scored:
        if logprobs is None:
            found.append(None)
            continue
        ranked = [(t, p, rank) for rank, (t, p) in enumerate(logprobs.top, 1)]
        if all(token != logprobs.token for token, _, _ in ranked):
            ranked.append((logprobs.token, logprobs.logprob, logprobs.rank))
        found.append(
            {
                str(t): {"logprob": finite(p), "rank": rank, "decoded_token": token_text(tokenizer, t)}
                for t, p, rank in ranked
            }
        )
    return found


def finite(logprob: float) -> float:
    """Returns a log-probability that JSON can hold: -9999 stands for a token that is impossible."""
    return max(logprob, -9999.0)
