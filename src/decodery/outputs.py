"""Holds the outputs of a request. Needs no torch."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Literal

from decodery.decoding.chosen import FinishReason, TokenLogprobs
from decodery.decoding.event import Event
from decodery.text.chat.replies import ReplyFormat, ToolCall

Observer = Callable[[Event], None]
# The engine's reasons; the reply to a conversation may also end with calls, and a text may break its schema.
EndReason = FinishReason | Literal["tool_calls", "invalid"]


@dataclass(slots=True)
class Completion:
    """Holds one generated text, after the prompt if that is echoed.

    `token_ids` include the end token, or the tokens of the stop string, that ended it. `stop_reason` is the
    stop string or the id of the end token when `finish_reason` is "stop". `score` is the number by which a
    strategy that ranks whole sequences ranked this one. With the reason "invalid" the text has ended but does
    not satisfy its JSON schema, and `error` says why.

    The reply to a conversation has `reasoning`, if there is any, and the `tool_calls` that end it; its `text`
    is the visible content, and its finish reason may be "tool_calls".
    """

    index: int
    text: str
    token_ids: list[int]
    finish_reason: EndReason
    stop_reason: str | int | None = None
    logprobs: list[TokenLogprobs] | None = None
    score: float | None = None
    reasoning: str | None = None
    tool_calls: tuple[ToolCall, ...] = ()
    error: str | None = None

    def read(self, form: ReplyFormat) -> None:
        """Divides the raw text of a reply to a conversation."""
        reply = form.reply(self.text, self.finish_reason)
        self.text = reply.content or ""
        self.reasoning, self.tool_calls = reply.reasoning, reply.tool_calls
        if reply.finish_reason == "tool_calls":
            self.finish_reason = "tool_calls"

    @property
    def cumulative_logprob(self) -> float | None:
        """Returns the sum of the tokens' unprocessed log-probabilities, or None without `logprobs`."""
        return None if self.logprobs is None else sum(t.logprob for t in self.logprobs)


@dataclass(slots=True)
class RequestOutput:
    """Holds the completions of one prompt.

    The same request with `seed` gives the same completions. If the request failed, or one of its completions,
    `error` is the reason, and the other fields hold what there was until then. It is also set if no
    completion satisfies the JSON schema; if some do, the others are left out. `cached_tokens` is the number
    of prompt tokens that the prefix cache had. `warnings` say which part of the request has no effect.
    """

    prompt: str | None
    prompt_token_ids: list[int]
    completions: list[Completion]
    seed: int
    prompt_logprobs: list[TokenLogprobs | None] | None = None
    error: str | None = None
    cached_tokens: int = 0
    warnings: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class StreamEvent:
    """Holds what a step added to one completion.

    `text` never ends inside a character, or inside what may become a stop string. `stop_reason` and `error`
    are those of `Completion`, when the completion ends. The first event of a request has its `warnings`.
    """

    index: int
    text: str
    token_ids: tuple[int, ...]
    logprobs: tuple[TokenLogprobs, ...] = ()
    finish_reason: EndReason | None = None
    stop_reason: str | int | None = None
    error: str | None = None
    warnings: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class TextScore:
    """Holds the log-probability of each token of a text given those before it.

    The first token has none, unless the text follows a prefix. `ranks` count from 1, the likeliest token.
    """

    token_ids: list[int]
    logprobs: list[float | None]
    ranks: list[int | None] = field(default_factory=list)

    @property
    def total(self) -> float:
        """Returns the log-probability of the text, without that of a first token that has none."""
        return sum(x for x in self.logprobs if x is not None)

    @property
    def perplexity(self) -> float:
        """Returns exp of the mean negative log-probability; infinity if no token has one."""
        return math.exp(min(-self.total / self.count, 700)) if self.count else math.inf

    @property
    def count(self) -> int:
        """Returns how many tokens have a log-probability."""
        return sum(x is not None for x in self.logprobs)
