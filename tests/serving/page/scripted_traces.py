"""Makes answers of `/trace` with tokens that no model would write."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any

from tests.serving.live import LiveServer


def trace_of(pieces: Sequence[bytes], special: Sequence[int] = ()) -> str:
    """Returns the server-sent events of a run whose tokens have these bytes; a token's id is its place."""
    text = b"".join(pieces).decode("utf-8", "replace")
    ids = list(range(len(pieces)))
    request = {"prompt": "Once", "prompt_token_ids": [1], "seed": 1, "params": {}}
    lines: list[dict[str, Any]] = [
        {"kind": "trace", "version": 1, "model": "tiny", "vocab_size": 999, "requests": [request]},
        {
            "kind": "tokens",
            "tokens": [[place, piece.hex()] for place, piece in enumerate(pieces)],
            "special": list(special),
        },
        {
            "kind": "event",
            "event": {
                "request": 0,
                "stream": 0,
                "tokens": ids,
                "considered": [_choice(token) for token in ids],
                "finish": "length",
            },
        },
        {"kind": "text", "request": 0, "event": _text(text, ids)},
        {"kind": "output", "request": 0, "output": {}},
        {"kind": "end"},
    ]
    return "".join(f"data: {json.dumps(line)}\n\n" for line in lines)


def _choice(token: int) -> dict[str, Any]:
    candidates = [{"token": token, "before": 0.5, "after": 1.0}]
    return {
        "token": token,
        "before": 0.5,
        "after": 1.0,
        "rank": 1,
        "entropy": 1.0,
        "kept": 2,
        "candidates": candidates,
        "tail": 0.5,
    }


def _text(text: str, ids: Sequence[int]) -> dict[str, Any]:
    return {"index": 0, "text": text, "token_ids": ids, "finish_reason": "length"}


def open_with(page: Any, server: LiveServer, answer: str) -> None:
    """Opens the page such that its first text is this answer."""

    def fulfil(route: Any) -> None:
        if route.request.method == "POST":
            route.fulfill(content_type="text/event-stream", body=answer)
        else:
            route.continue_()

    page.route("**/trace", fulfil)
    page.goto(server.url)
    page.wait_for_selector("[data-state=done]")
