"""Follows the completions of a request: pairs each token's log-probabilities with the text it adds."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

from decodery.decoding.chosen import TokenLogprobs
from decodery.outputs import StreamEvent
from decodery.text.streaming.detokenizer import TextState


@dataclass(frozen=True, slots=True)
class Entry:
    """Holds a token's log-probabilities, and where its text begins: in characters after the prompt."""

    logprobs: TokenLogprobs
    offset: int
    is_end: bool


@dataclass(slots=True)
class Delta:
    """Holds what is new of a completion: text, and the entries of the tokens that it consists of."""

    text: str = ""
    token_ids: Sequence[int] = ()
    entries: list[Entry] = field(default_factory=list)
    finish_reason: str | None = None
    stop_reason: str | int | None = None


class Choice:
    """Follows one completion.

    An entry is held back until the text of its token is released, since a stop string may still cut it. The
    tokens of a stop string have no entry; the end token has one. `plain` is a state of the text that holds
    nothing back but partial characters, from before the first token. The text follows `echoed` characters of
    the prompt.
    """

    def __init__(self, plain: TextState, end_ids: frozenset[int], echoed: int = 0) -> None:
        self._plain = plain
        self._end_ids = end_ids
        self._spelled = 0
        self._released = -echoed
        self._held: list[Entry] = []
        self.completion_tokens = 0

    def add(self, event: StreamEvent) -> Delta:
        """Returns what an event adds."""
        self.completion_tokens += len(event.token_ids)
        for logprobs in event.logprobs:
            is_end = logprobs.token in self._end_ids
            self._held.append(Entry(logprobs, self._spelled, is_end))
            if not is_end:
                self._plain = self._plain.after(logprobs.token)
                self._spelled += len(self._plain.piece)
        self._released += len(event.text)
        return Delta(event.text, event.token_ids, self._free(event), event.finish_reason, event.stop_reason)

    def _free(self, event: StreamEvent) -> list[Entry]:
        ended = event.finish_reason is not None
        cut = isinstance(event.stop_reason, str) or self._spelled > self._released
        count = 0
        for entry in self._held:
            if not (entry.offset < self._released or (ended and (entry.is_end or not cut))):
                break
            count += 1
        freed, self._held = self._held[:count], self._held[count:]
        return freed
