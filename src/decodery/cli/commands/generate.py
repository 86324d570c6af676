"""Implements `decodery generate`: prints the completions of one prompt."""

from __future__ import annotations

import secrets
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from time import perf_counter
from typing import Any

from decodery.cli.flags.generation_flags import GenerationFlags
from decodery.cli.flags.model_options import TextModelOptions
from decodery.cli.load_text_model import load
from decodery.cli.output_json import output_as_json
from decodery.cli.terminal import emit, emit_json, note
from decodery.errors import RequestError
from decodery.outputs import StreamEvent


@dataclass
class Timing:
    """Holds the times of one command, in seconds of `perf_counter`, and its counts of tokens."""

    started: float
    loaded: float
    prompt_tokens: int
    first_token: float | None = None
    ended: float = 0.0
    tokens: int = 0

    def counted(self, events: Iterable[StreamEvent]) -> Iterator[StreamEvent]:
        """Yields the same events; counts their tokens and notes the time of the first one."""
        for event in events:
            self.first_token = self.first_token or perf_counter()
            self.tokens += len(event.token_ids)
            yield event

    @property
    def seconds(self) -> float:
        """Returns the seconds that generating took, with the prompt and without loading."""
        return self.ended - self.loaded

    def as_json(self) -> dict[str, Any]:
        """Returns the counts under `usage` and the seconds under `timings`."""
        return {
            "usage": {"prompt_tokens": self.prompt_tokens, "completion_tokens": self.tokens},
            "timings": {
                "load_seconds": self.loaded - self.started,
                "generate_seconds": self.seconds,
                "tokens_per_second": self.tokens / self.seconds,
            },
        }

    def summary(self) -> str:
        """Returns counts and seconds as one line of text."""
        first = (
            "" if self.first_token is None else f"first token after {self.first_token - self.loaded:.2f} s, "
        )
        return (
            f"{self.prompt_tokens} prompt tokens, {self.tokens} tokens in {self.seconds:.2f} s"
            f" ({self.tokens / self.seconds:.1f} tokens/s), {first}load {self.loaded - self.started:.2f} s"
        )


def generate(
    prompt: str | list[int],
    flags: GenerationFlags,
    options: TextModelOptions,
    *,
    generated: int,
    chat: bool,
    system: str | None,
    template: Mapping[str, Any],
    as_json: bool,
    stats: bool,
    started: float,
) -> None:
    """Prints the completions of a prompt, a text or token ids, as they grow, or as JSON at the end.

    The last `generated` token ids begin the text. With `chat` the prompt is the text of a message. `template`
    has the arguments of `chat_prompt`. `started` is the time at which the command began. Raises
    `RequestError` when the request fails.
    """
    if chat:
        flags.params.check_conversation()
    llm = load(options)
    params = flags.params_over(llm.default_params)
    timing = Timing(started, perf_counter(), 0)
    if not isinstance(prompt, str):
        ids = prompt
    elif chat:
        ids = llm.chat_prompt(conversation(system, prompt), **template)
    else:
        ids = llm.tokenizer.encode(prompt)
    timing.prompt_tokens = len(ids)
    # An echo is the prompt as it was given.
    asked = prompt if params.echo else ids
    if params.seed is None:
        params = params.replace(seed=secrets.randbits(53))
    if as_json:
        [output] = llm.generate([asked], params, generated=generated)
        timing.tokens = sum(len(completion.token_ids) for completion in output.completions)
        timing.ended = perf_counter()
        warn(output.warnings)
        text = prompt if isinstance(prompt, str) else None
        emit_json({"prompt": text, **output_as_json(output, llm.tokenizer), **timing.as_json()})
        if output.error is not None:
            raise RequestError(output.error)
    elif params.best_of is not None:
        # The best completions are known only when all have ended.
        [output] = llm.generate([asked], params, generated=generated)
        timing.ended = perf_counter()
        timing.tokens = sum(len(completion.token_ids) for completion in output.completions)
        warn(output.warnings)
        for place, completion in enumerate(output.completions):
            heading(place, params.n)
            emit(completion.text + ("" if completion.text.endswith("\n") else "\n"))
        if output.error is not None:
            raise RequestError(output.error)
    else:
        events = llm.stream(asked, params, generated=generated)
        write_in_order(timing.counted(events), params.streams)
        timing.ended = perf_counter()
    if stats:
        note(f"{timing.summary()}, seed {params.seed}")


def conversation(system: str | None, message: str) -> list[dict[str, str]]:
    """Returns a conversation: the system message, if there is one, and a user's message."""
    first = [] if system is None else [{"role": "system", "content": system}]
    return [*first, {"role": "user", "content": message}]


def write_in_order(events: Iterable[StreamEvent], count: int) -> None:
    """Writes the texts of `count` completions to stdout one after the other, each closed by a line end.

    The first completion that has not ended is written as it grows; the text of later ones waits for it.
    Raises `RequestError` at the end if one of them breaks its JSON schema.
    """
    pending = [""] * count
    ended = [False] * count
    error: str | None = None
    current, last = 0, "\n"
    heading(current, count)
    try:
        for event in events:
            warn(event.warnings)
            error = error or event.error
            pending[event.index] += event.text
            ended[event.index] |= event.finish_reason is not None
            while current < count:
                if text := pending[current]:
                    # Set before the text is written, since an interrupt can come right after.
                    last, pending[current] = text[-1], ""
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
    if error is not None:
        raise RequestError(error)


def warn(warnings: Iterable[str]) -> None:
    """Prints on stderr what has no effect."""
    for text in warnings:
        note(f"warning: {text}")


def heading(index: int, count: int) -> None:
    """Prints on stderr the number of the completion that follows, if there are several."""
    if count > 1 and index < count:
        note(f"--- {index + 1} of {count} ---")
