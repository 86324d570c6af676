"""Answers `/v1/completions`."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

from starlette.requests import Request
from starlette.types import ASGIApp

from decodery.decoding.chosen import TokenLogprobs
from decodery.decoding.request.params import GenerationParams
from decodery.intake import Intake, Prepared
from decodery.serving.errors import invalid
from decodery.serving.generation import Generation
from decodery.serving.models import ServedModel
from decodery.serving.openai.answers import Answer, Form, Written
from decodery.serving.openai.choices import Delta, Entry
from decodery.serving.openai.fields import Fields, grammar_size
from decodery.serving.openai.logprobs import completion_logprobs, prompt_entries
from decodery.serving.openai.params import generation_params, grammar_named, stream_options
from decodery.serving.service import ActiveRequest, Service, json_response
from decodery.serving.settings import ServerSettings
from decodery.text.streaming.prompt_text import prompt_text

# OpenAI's default for completions.
DEFAULT_MAX_TOKENS = 16


@dataclass(frozen=True, slots=True)
class CompletionRequest:
    """Holds what a client asks of `/v1/completions`.

    `keeps_text` is False where only the prompt is scored: then the generated token is left out.
    """

    prompts: Sequence[str | list[int]]
    suffix: str | None
    params: GenerationParams
    form: Form
    keeps_text: bool
    logprobs: int | None
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
    body: Mapping[str, Any],
    defaults: GenerationParams,
    settings: ServerSettings,
    models: Collection[str] = (),
) -> CompletionRequest:
    """Returns the request that a body describes; it may name these second models. Raises `ApiError`."""
    fields = Fields(body)
    fields.raw("model")
    prompts = _prompts(fields.raw("prompt"), settings.limits.prompts)
    suffix = fields.raw("suffix")
    if suffix is not None and not isinstance(suffix, str):
        raise invalid("suffix must be a text", "suffix")
    options = stream_options(fields, lenient=settings.lenient)
    token_ids = fields.take("return_token_ids", bool, False)
    cache_salt = fields.take("cache_salt", str, "") or None
    priority = fields.take("priority", int, 0)
    plain = fields.parameters()
    logprobs = plain.get("logprobs")
    if logprobs is False:
        plain["logprobs"] = logprobs = None
    keeps_text = not (plain.get("echo") is True and plain.get("max_tokens") == 0)
    if not keeps_text:
        plain["max_tokens"] = 1
    plain.setdefault("max_tokens", DEFAULT_MAX_TOKENS)
    params = generation_params(plain, fields, defaults, settings, models)
    logprobs = None if logprobs is None else params.logprobs
    fields.close(lenient=settings.lenient)
    most = settings.limits.completions
    if len(prompts) > 1 and len(prompts) * max(params.streams, params.width) > most:
        raise invalid(f"a request has at most {most} completions of all its prompts here", "prompt")
    if suffix is not None and params.echo:
        raise invalid("echo and suffix do not go together", "echo")
    form = Form("cmpl", "text_completion", "text_completion", options, token_ids)
    return CompletionRequest(prompts, suffix, params, form, keeps_text, logprobs, cache_salt, priority)


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
    body = await service.read(request)
    with ActiveRequest(service, request, body.get("model")) as active:
        model = await active.open()
        llm = model.llm
        with grammar_named(body):
            asked = read_request(body, llm.default_params, service.settings, llm.intake.second_models)
            salt = service.salt(request.scope, asked.cache_salt)
            prepared = await active.prepare(
                partial(asked.prepared, model.llm.intake, salt),
                grammar=grammar_size(asked.params.grammar),
                param="prompt",
            )
        options = asked.form.options
        generation = await active.start(prepared, priority=asked.priority, **options.wanted)
        written = CompletionAnswer(asked, prepared, generation, model)
        if options.stream:
            return active.stream(generation, written)
        await active.run(generation, written.take)
        return json_response(written.answer())


class CompletionAnswer(Answer):
    """Writes the answer of `/v1/completions`."""

    def __init__(
        self,
        asked: CompletionRequest,
        prepared: Sequence[Prepared],
        generation: Generation,
        model: ServedModel,
    ) -> None:
        super().__init__(asked.form, prepared, generation, model)
        self._asked = asked
        self._prompts: dict[int, tuple[str, Sequence[int]]] = {}

    def kept(self, choice: Written, delta: Delta) -> Delta:
        """Returns what the answer keeps of what a step added: the prompt alone where only that is scored."""
        if self._asked.keeps_text:
            return delta
        return Delta(self.prepared[choice.prompt].echoed, finish_reason=delta.finish_reason)

    def _prompt(self, prompt: int) -> tuple[str, Sequence[int]]:
        """Returns the text of a prompt, and where each of its tokens begins in it."""
        if prompt not in self._prompts:
            prepared = self.prepared[prompt]
            self._prompts[prompt] = prompt_text(self.tokenizer, prepared.token_ids, prepared.text)
        return self._prompts[prompt]

    def _logprobs(self, choice: Written, entries: Sequence[Entry], *, first: bool) -> dict[str, Any] | None:
        """Returns the log-probabilities of entries, with those of an echoed prompt in front of the first."""
        asked, prompt = self._asked, choice.prompt
        if asked.logprobs is None:
            return None
        text, offsets = self._prompt(prompt)
        found: list[tuple[TokenLogprobs | None, int, int]] = []
        if asked.params.echo and first:
            scored = self.generation.collectors[prompt].output.prompt_logprobs or ()
            found += zip(scored, self.prepared[prompt].token_ids, offsets, strict=True)
        found += [(e.logprobs, e.logprobs.token, len(text) + e.offset) for e in entries]
        return completion_logprobs(self.tokenizer, found, asked.logprobs)

    def content(self, choice: Written) -> dict[str, Any]:
        """Returns the text of a choice with its log-probabilities."""
        content: dict[str, Any] = {"text": "".join(choice.pieces)}
        content["logprobs"] = self._logprobs(choice, choice.entries, first=True)
        if self.prepared[choice.prompt].params.prompt_logprobs is not None:
            scored = self.generation.collectors[choice.prompt].output.prompt_logprobs
            content["prompt_logprobs"] = prompt_entries(self.tokenizer, scored or ())
        return content

    def deltas(self, choice: Written, delta: Delta) -> list[dict[str, Any]]:
        """Returns one chunk with text, or none if there is nothing to tell."""
        logprobs = self._logprobs(choice, delta.entries, first=not choice.opened)
        return [{"text": delta.text, "logprobs": logprobs}] if delta.text or delta.entries else []

    def ending(self, choice: Written) -> dict[str, Any]:
        """Returns an empty text."""
        return {"text": "", "logprobs": None}
