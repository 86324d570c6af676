"""`decodery generate`: one prompt, its completions."""

from __future__ import annotations

import secrets
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from time import perf_counter
from typing import Any

from decodery.cli.flags.generation_flags import GenerationFlags
from decodery.cli.flags.model_options import ModelOptions
from decodery.cli.load_llm import load
from decodery.cli.terminal import emit, emit_json, note
from decodery.decoding.rows import TokenLogprobs
from decodery.errors import RequestError
from decodery.outputs import RequestOutput, StreamEvent
from decodery.text.tokenizer.tokenizer import Tokenizer


@dataclass
class Timing:
    """When what happened, in seconds of `perf_counter`, and how many tokens it took."""

    started: float
    loaded: float
    prompt_tokens: int
    first_token: float | None = None
    ended: float = 0.0
    tokens: int = 0

    def watching(self, events: Iterable[StreamEvent]) -> Iterator[StreamEvent]:
        """The same events, counted."""
        for event in events:
            self.first_token = self.first_token or perf_counter()
            self.tokens += len(event.token_ids)
            yield event

    @property
    def seconds(self) -> float:
        """How long generating took, the prompt included."""
        return self.ended - self.loaded

    def as_json(self) -> dict[str, Any]:
        """Counts under `usage`, seconds under `timings`."""
        return {
            "usage": {"prompt_tokens": self.prompt_tokens, "completion_tokens": self.tokens},
            "timings": {
                "load_seconds": self.loaded - self.started,
                "generate_seconds": self.seconds,
                "tokens_per_second": self.tokens / self.seconds,
            },
        }

    def summary(self) -> str:
        """The same for a person."""
        first = (
            "" if self.first_token is None else f"first token after {self.first_token - self.loaded:.2f} s, "
        )
        return (
            f"{self.prompt_tokens} prompt tokens, {self.tokens} tokens in {self.seconds:.2f} s"
            f" ({self.tokens / self.seconds:.1f} tokens/s), {first}load {self.loaded - self.started:.2f} s"
        )


def generate(
    prompt: str,
    asked: GenerationFlags,
    options: ModelOptions,
    *,
    chat: bool,
    system: str | None,
    as_json: bool,
    stats: bool,
    started: float,
) -> None:
    """Stream the completions of a prompt, or print them as JSON; `started` is when the command began."""
    llm = load(options)
    params = asked.over(llm.default_params)
    timing = Timing(started, perf_counter(), 0)
    ids = llm.chat_prompt(conversation(system, prompt)) if chat else llm.tokenizer.encode(prompt)
    timing.prompt_tokens = len(ids)
    if params.seed is None:
        params = params.replace(seed=secrets.randbits(63))
    if as_json:
        [output] = llm.generate([ids], params)
        timing.tokens = sum(len(completion.token_ids) for completion in output.completions)
        timing.ended = perf_counter()
        emit_json({"prompt": prompt, **described(output, llm.tokenizer), **timing.as_json()})
        if output.error is not None:
            raise RequestError(output.error)
    elif params.best_of is not None:
        # Which are the best is known at the end only.
        [output] = llm.generate([ids], params)
        timing.ended = perf_counter()
        timing.tokens = sum(len(completion.token_ids) for completion in output.completions)
        for place, completion in enumerate(output.completions):
            heading(place, params.n)
            emit(completion.text + ("" if completion.text.endswith("\n") else "\n"))
        if output.error is not None:
            raise RequestError(output.error)
    else:
        write_in_order(timing.watching(llm.stream(ids, params)), params.streams)
        timing.ended = perf_counter()
    if stats:
        note(f"{timing.summary()}, seed {params.seed}")


def conversation(system: str | None, message: str) -> list[dict[str, str]]:
    """One message of a user, after that of the system if there is one."""
    first = [] if system is None else [{"role": "system", "content": system}]
    return [*first, {"role": "user", "content": message}]


def write_in_order(events: Iterable[StreamEvent], count: int) -> None:
    """Write the texts of `count` completions to stdout one after the other, each line ended.

    The first one that has not ended is written as it grows; what comes of later ones is held back.
    """
    held = [""] * count
    ended = [False] * count
    current, last = 0, "\n"
    heading(current, count)
    try:
        for event in events:
            held[event.index] += event.text
            ended[event.index] |= event.finish_reason is not None
            while current < count:
                if text := held[current]:
                    # Before it is written: an interrupt can come right after.
                    last, held[current] = text[-1], ""
                    emit(text)
                if not ended[current]:
                    break
                if last != "\n":
                    emit("\n")
                current, last = current + 1, "\n"
                heading(current, count)
    finally:
        if last != "\n":
            emit("\n")


def heading(index: int, count: int) -> None:
    """Says on stderr which completion follows, when there are several."""
    if count > 1 and index < count:
        note(f"--- {index + 1} of {count} ---")


def described(output: RequestOutput, tokenizer: Tokenizer) -> dict[str, Any]:
    """An output as JSON shows it."""
    found: dict[str, Any] = {
        "prompt_token_ids": output.prompt_token_ids,
        "completions": [
            {
                "index": completion.index,
                "text": completion.text,
                "token_ids": completion.token_ids,
                "finish_reason": completion.finish_reason,
                "stop_reason": completion.stop_reason,
                **({} if completion.score is None else {"score": completion.score}),
                **_logprobs("logprobs", completion.logprobs, tokenizer),
            }
            for completion in output.completions
        ],
        "seed": output.seed,
        **_logprobs("prompt_logprobs", output.prompt_logprobs, tokenizer),
    }
    return found if output.error is None else {**found, "error": output.error}


def _logprobs(
    name: str, logprobs: Iterable[TokenLogprobs | None] | None, tokenizer: Tokenizer
) -> dict[str, Any]:
    if logprobs is None:
        return {}
    return {name: [None if entry is None else _logprob(entry, tokenizer) for entry in logprobs]}


def _logprob(entry: TokenLogprobs, tokenizer: Tokenizer) -> dict[str, Any]:
    top = [{**named(tokenizer, token), "logprob": logprob} for token, logprob in entry.top]
    return {**named(tokenizer, entry.token), "logprob": entry.logprob, "rank": entry.rank, "top": top}


def named(tokenizer: Tokenizer, token: int) -> dict[str, Any]:
    """A token by its id and its text."""
    return {"token_id": token, "token": tokenizer.decode([token], skip_special_tokens=False)}
