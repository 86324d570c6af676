"""Answers `/v1/completions`."""

from __future__ import annotations

import secrets
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import Any

from starlette.requests import Request
from starlette.types import ASGIApp

from decodery.decoding.request.params import GenerationParams
from decodery.decoding.rows import TokenLogprobs
from decodery.intake import Intake, Prepared
from decodery.serving.bodies import read_json
from decodery.serving.errors import invalid
from decodery.serving.generation import Addition, Generation
from decodery.serving.models import ServedModel
from decodery.serving.openai.choices import Choice, Delta, Entry
from decodery.serving.openai.fields import Fields
from decodery.serving.openai.logprobs import completion_logprobs, prompt_entries
from decodery.serving.openai.params import StreamOptions, generation_params, stream_options
from decodery.serving.openai.usage import told_progress, usage
from decodery.serving.service import ActiveRequest, Service, json_response
from decodery.serving.settings import ServerSettings
from decodery.serving.sse import DONE, data
from decodery.text.streaming.detokenizer import start

# OpenAI's default for completions.
DEFAULT_MAX_TOKENS = 16
FINISH = {"stop": "stop", "length": "length", "time": "length", "abort": "length"}


@dataclass(frozen=True, slots=True)
class CompletionRequest:
    """Holds what a client asks of `/v1/completions`.

    `keeps_text` is False where only the prompt is scored: then the generated token is left out.
    """

    prompts: Sequence[str | list[int]]
    suffix: str | None
    params: GenerationParams
    options: StreamOptions
    echo: bool
    keeps_text: bool
    logprobs: int | None
    token_ids: bool
    cache_salt: str | None
    priority: int

    def prepared(self, intake: Intake, salt: bytes) -> list[Prepared]:
        """Returns the requests for an engine. Raises the errors of `Intake`."""
        found = []
        for prompt in self.prompts:
            params = self.params
            if self.suffix is not None:
                prompt, ends = intake.infill_prompt(_text(prompt), self.suffix)
                params = params.replace(stop_token_ids=(*params.stop_token_ids, *ends))
            found.append(intake.prepare(prompt, params, salt=salt))
        return found


def _text(prompt: str | list[int]) -> str:
    if not isinstance(prompt, str):
        raise invalid("with a suffix the prompt must be a text", "prompt")
    return prompt


def read_request(
    body: Mapping[str, Any], defaults: GenerationParams, settings: ServerSettings
) -> CompletionRequest:
    """Returns the request that a body describes. Raises `ApiError`."""
    fields = Fields(body)
    fields.raw("model")
    prompts = _prompts(fields.raw("prompt"), settings.limits.prompts)
    suffix = fields.raw("suffix")
    if suffix is not None and not isinstance(suffix, str):
        raise invalid("suffix must be a text", "suffix")
    options = stream_options(fields, lenient=settings.lenient)
    echo = fields.take("echo", bool, False)
    token_ids = fields.take("return_token_ids", bool, False)
    cache_salt = fields.take("cache_salt", str, "") or None
    priority = fields.take("priority", int, 0)
    plain = fields.parameters()
    logprobs = plain.get("logprobs")
    if logprobs is False:
        plain["logprobs"] = logprobs = None
    keeps_text = not (echo and plain.get("max_tokens") == 0)
    if not keeps_text:
        plain["max_tokens"] = 1
    plain.setdefault("max_tokens", DEFAULT_MAX_TOKENS)
    if echo and logprobs is not None:
        plain.setdefault("prompt_logprobs", logprobs)
    params = generation_params(plain, fields, defaults, settings.limits)
    fields.close(lenient=settings.lenient)
    if suffix is not None and echo:
        raise invalid("echo and suffix do not go together", "echo")
    return CompletionRequest(
        prompts, suffix, params, options, echo, keeps_text, logprobs, token_ids, cache_salt, priority
    )


def _prompts(given: Any, most: int) -> list[str | list[int]]:
    if given is None:
        raise invalid("a prompt is needed: a text, token ids, or a list of those", "prompt")
    several = isinstance(given, list) and bool(given) and isinstance(given[0], (str, list))
    prompts = given if several else [given]
    if len(prompts) > most:
        raise invalid(f"a request has at most {most} prompts here", "prompt")
    for place, prompt in enumerate(prompts):
        name = f"prompt[{place}]" if several else "prompt"
        if isinstance(prompt, str) and prompt:
            continue
        if not isinstance(prompt, list) or not prompt:
            raise invalid("a prompt must be a text that is not empty, or a list of token ids", name)
        if any(type(token) is not int for token in prompt):
            raise invalid("a prompt's token ids must be whole numbers", name)
    return list(prompts)


async def completions(service: Service, request: Request) -> ASGIApp:
    """Answers a request of `/v1/completions`."""
    body = await read_json(request.scope, request.receive, service.settings.limits)
    model = service.models.get(body.get("model"))
    active = ActiveRequest(service, request, model)
    try:
        asked = read_request(body, model.llm.default_params, service.settings)
        salt = service.salt(request.scope, asked.cache_salt)
        prepared = await active.prepare(
            partial(asked.prepared, model.llm.intake, salt),
            grammar=asked.params.grammar is not None,
            param="prompt",
        )
        generation = await active.start(
            prepared, priority=asked.priority, tells_progress=asked.options.progress
        )
        writer = CompletionWriter(asked, prepared, generation, model)
        if asked.options.stream:
            return active.stream(generation, writer)
        await active.run(generation, writer.take)
        answer = json_response(writer.answer())
    except BaseException as error:
        active.leave(error)
        raise
    active.leave()
    return answer


@dataclass(slots=True)
class _State:
    """Holds what is written of one choice."""

    choice: Choice
    pieces: list[str] = field(default_factory=list)
    entries: list[Entry] = field(default_factory=list)
    token_ids: list[int] = field(default_factory=list)
    finish: str | None = None
    opened: bool = False


class CompletionWriter:
    """Writes the answer of `/v1/completions`, whole or as a stream of chunks with the same content."""

    def __init__(
        self,
        asked: CompletionRequest,
        prepared: Sequence[Prepared],
        generation: Generation,
        model: ServedModel,
    ) -> None:
        self._asked = asked
        self._prepared = prepared
        self._generation = generation
        self._tokenizer = model.llm.tokenizer
        self._head = {
            "id": f"cmpl-{secrets.token_hex(12)}",
            "object": "text_completion",
            "created": int(time.time()),
            "model": model.name,
        }
        self._states: dict[tuple[int, int], _State] = {}
        self._prompts: dict[int, tuple[str, list[int]]] = {}

    def _state(self, prompt: int, stream: int) -> _State:
        state = self._states.get((prompt, stream))
        if state is None:
            prepared = self._prepared[prompt]
            plain = start(self._tokenizer, (), skip_special_tokens=prepared.params.skip_special_tokens)
            state = self._states[prompt, stream] = _State(Choice(plain, prepared.end_ids))
        return state

    def take(self, additions: Sequence[Addition]) -> list[tuple[int, int, Delta]]:
        """Adds what a step added to the choices; returns it by prompt and completion."""
        found = []
        for prompt, event in ((a.prompt, a.event) for a in additions):
            state = self._state(prompt, event.index)
            delta = state.choice.add(event)
            if self._asked.keeps_text:
                state.pieces.append(delta.text)
                state.entries += delta.entries
                state.token_ids += delta.token_ids
            else:
                delta = Delta(finish_reason=delta.finish_reason)
            state.finish = delta.finish_reason or state.finish
            found.append((prompt, event.index, delta))
        return found

    def _prompt(self, prompt: int) -> tuple[str, list[int]]:
        """Returns the text of a prompt, and where each of its tokens begins in it."""
        if prompt not in self._prompts:
            prepared = self._prepared[prompt]
            prefix = len(self._tokenizer.prefix_ids) if prepared.text is not None else 0
            state, offsets, text = start(self._tokenizer, (), skip_special_tokens=False), [], ""
            for place, token in enumerate(prepared.token_ids):
                offsets.append(len(text))
                if place >= prefix:
                    state = state.after(token)
                    text += state.piece
            text += state.flush()
            if prepared.text is not None:
                text = prepared.text
                offsets = [min(offset, len(text)) for offset in offsets]
            self._prompts[prompt] = (text, offsets)
        return self._prompts[prompt]

    def _logprobs(self, prompt: int, entries: Sequence[Entry], *, first: bool) -> dict[str, Any] | None:
        """Returns the log-probabilities of entries, with those of an echoed prompt in front of the first."""
        asked = self._asked
        if asked.logprobs is None:
            return None
        text, offsets = self._prompt(prompt)
        found: list[tuple[TokenLogprobs | None, int, int]] = []
        if asked.echo and first:
            scored = self._generation.collectors[prompt].output.prompt_logprobs or ()
            found += zip(scored, self._prepared[prompt].token_ids, offsets, strict=True)
        found += [(e.logprobs, e.logprobs.token, len(text) + e.offset) for e in entries]
        return completion_logprobs(self._tokenizer, found, asked.logprobs)

    def _choice(
        self, prompt: int, stream: int, content: Mapping[str, Any], finish: str | None
    ) -> dict[str, Any]:
        width = self._prepared[prompt].params.n if self._prepared[prompt].params.best_of else None
        count = width or self._prepared[prompt].params.streams
        stop_reason = None
        if finish is not None:
            streams = self._generation.collectors[prompt].streams
            stop_reason = streams[stream].stop_reason if finish == "stop" else None
        return {
            "index": prompt * count + stream,
            **content,
            "finish_reason": None if finish is None else FINISH.get(finish, finish),
            "stop_reason": stop_reason,
        }

    def answer(self) -> dict[str, Any]:
        """Returns the whole answer."""
        choices = []
        for (prompt, stream), state in sorted(self._states.items()):
            text = "".join(state.pieces)
            if self._asked.echo:
                text = self._prompt(prompt)[0] + text
            content: dict[str, Any] = {
                "text": text,
                "logprobs": self._logprobs(prompt, state.entries, first=True),
            }
            if self._asked.params.prompt_logprobs is not None:
                scored = self._generation.collectors[prompt].output.prompt_logprobs
                content["prompt_logprobs"] = prompt_entries(self._tokenizer, scored or ())
            if self._asked.token_ids:
                content["token_ids"] = state.token_ids
                content["prompt_token_ids"] = self._prepared[prompt].token_ids
            choices.append(self._choice(prompt, stream, content, state.finish))
        return {**self._head, "choices": choices, "usage": self._usage()}

    def _usage(self) -> dict[str, Any]:
        outputs = [c.output for c in self._generation.collectors]
        return usage(outputs, sum(state.choice.completion_tokens for state in self._states.values()))

    def _chunk(self, choices: Sequence[Mapping[str, Any]], with_usage: bool) -> bytes:
        body: dict[str, Any] = {**self._head, "choices": choices}
        if with_usage:
            body["usage"] = self._usage()
        elif self._asked.options.include_usage:
            body["usage"] = None
        return data(body)

    def opening(self) -> bytes:
        """Returns nothing: completions have no role."""
        return b""

    def progress(self) -> bytes:
        """Returns how much of the prompts is computed, if that is asked for and new."""
        told = {} if not self._asked.options.progress else dict(self._generation.progress)
        self._generation.progress.clear()
        return b"".join(
            data({**self._head, "choices": [], "prompt_progress": told_progress(p)}) for p in told.values()
        )

    def written(self, additions: Sequence[Addition]) -> bytes:
        """Returns a chunk for each completion that grew, and one for each that ended."""
        chunks = []
        for prompt, stream, delta in self.take(additions):
            state = self._states[prompt, stream]
            first, state.opened = not state.opened, True
            text = delta.text
            if self._asked.echo and first:
                text = self._prompt(prompt)[0] + text
            if text or delta.entries or (self._asked.token_ids and delta.token_ids):
                content: dict[str, Any] = {
                    "text": text,
                    "logprobs": self._logprobs(prompt, delta.entries, first=first),
                }
                if self._asked.token_ids:
                    content["token_ids"] = list(delta.token_ids)
                choice = self._choice(prompt, stream, content, None)
                chunks.append(self._chunk([choice], self._asked.options.continuous_usage))
            if delta.finish_reason is not None:
                ending = self._choice(prompt, stream, {"text": "", "logprobs": None}, delta.finish_reason)
                chunks.append(self._chunk([ending], self._asked.options.continuous_usage))
        return b"".join(chunks)

    def closing(self) -> bytes:
        """Returns the chunk with the usage, if it is asked for, and the end mark."""
        return (self._chunk([], True) if self._asked.options.include_usage else b"") + DONE
