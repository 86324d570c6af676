"""Answers `/v1/chat/completions`."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

from starlette.requests import Request
from starlette.types import ASGIApp

from decodery.conversations.chat_request import ChatRequest
from decodery.conversations.prompt_options import with_options
from decodery.decoding.request.params import GenerationParams
from decodery.intake import Intake, Prepared
from decodery.serving.errors import invalid
from decodery.serving.generation import Addition, Generation
from decodery.serving.models import ServedModel
from decodery.serving.openai.answers import Answer, Form, Written, finish_name
from decodery.serving.openai.choices import Delta, Entry
from decodery.serving.openai.fields import Fields, check_schema, grammar_size
from decodery.serving.openai.logprobs import chat_entries, prompt_entries
from decodery.serving.openai.origins import renamed
from decodery.serving.openai.params import generation_params, grammar_named, stream_options
from decodery.serving.service import ActiveRequest, Service, json_response
from decodery.serving.settings import ServerSettings
from decodery.text.chat.call_reader import CallArguments, CallStart, Content, Part, Reasoning
from decodery.text.chat.messages import check_template_kwargs
from decodery.text.chat.named_templates import chosen_template
from decodery.text.chat.replies import ReplyParser, join

# Fields of prompts that every interface of conversations takes.
PROMPT_FIELDS = ("chat_template", "chat_template_kwargs", "special_in_content")


@dataclass(frozen=True, slots=True)
class Conversation:
    """Holds what a client asks of `/v1/chat/completions`.

    `template` has the arguments of the chat template, `tools` those of tool calls.
    """

    messages: list[Any]
    params: GenerationParams
    tools: Mapping[str, Any]
    template: Mapping[str, Any]
    form: Form
    top_logprobs: int | None
    cache_salt: str | None
    priority: int

    def check_template(self, templates: Mapping[str, str]) -> None:
        """Raises `ApiError` for a `reasoning_effort` that the chat template, one of these, does not read."""
        check_effort(self.template, templates, tools=bool(self.tools["tools"]))

    def prepared(self, intake: Intake, salt: bytes) -> tuple[ChatRequest, Prepared]:
        """Returns the conversation as a prompt with its reply format. Raises the errors of `Intake`."""
        chat = intake.chat_request(self.messages, self.params, **self.tools, **self.template)
        return chat, intake.prepare_chat(chat, salt=salt)


def read_conversation(
    body: Mapping[str, Any],
    defaults: GenerationParams,
    settings: ServerSettings,
    models: Collection[str] = (),
) -> Conversation:
    """Returns the conversation that a body describes; it may name these second models.

    Raises `ApiError`.
    """
    fields = Fields(body)
    fields.raw("model")
    messages = fields.take("messages", list, [])
    if not messages:
        raise invalid("messages are needed: a list of objects with role and content", "messages")
    options = stream_options(fields, lenient=settings.lenient)
    token_ids = fields.take("return_token_ids", bool, False)
    cache_salt = fields.take("cache_salt", str, "") or None
    priority = fields.take("priority", int, 0)
    tools = _tools(fields, settings)
    template = template_arguments(fields)
    wants = fields.take("logprobs", bool, False)
    top = fields.take("top_logprobs", int, 0)
    if top and not wants:
        raise invalid("top_logprobs needs logprobs", "top_logprobs")
    plain = fields.parameters()
    # A reply may be as long as the context.
    plain.setdefault("max_tokens", None)
    if wants:
        plain["logprobs"] = top
    params = generation_params(plain, fields, defaults, settings, models)
    fields.close(lenient=settings.lenient)
    form = Form("chatcmpl", "chat.completion", "chat.completion.chunk", options, token_ids)
    return Conversation(messages, params, tools, template, form, top if wants else None, cache_salt, priority)


def _tools(fields: Fields, settings: ServerSettings) -> dict[str, Any]:
    """Takes the declarations of tools, and what is said of their calls."""
    tools = fields.take("tools", list, [])
    check_schema(tools, "tools", settings.limits)
    return {
        "tools": tools,
        "tool_choice": fields.raw("tool_choice") or "auto",
        "parallel_tool_calls": fields.take("parallel_tool_calls", bool, True),
    }


def template_arguments(fields: Fields) -> dict[str, Any]:
    """Takes the arguments of a prompt, and the budget of reasoning.

    Raises `RequestError` for variables that are not the client's, and `ApiError`.
    """
    if fields.take("add_special_tokens", bool, False):
        raise invalid("a chat template writes the special tokens itself", "add_special_tokens")
    variables = dict(fields.take("chat_template_kwargs", dict, {}))
    check_template_kwargs(variables)
    template: dict[str, Any] = {"template_kwargs": variables}
    for name in ("add_generation_prompt", "continue_final_message", "special_in_content"):
        flag = fields.take(name, bool, None)
        if flag is not None:
            template[name] = flag
    template = with_options(template, "chat_template_kwargs")
    variables = template["template_kwargs"]
    named = fields.take("chat_template", str, None)
    if named is not None:
        template["chat_template"] = _named_template(named)
    if "reasoning_effort" in fields:
        variables["reasoning_effort"] = fields.take("reasoning_effort", str, "none")
    if "thinking_token_budget" in fields:
        budget = template["thinking_token_budget"] = fields.take("thinking_token_budget", int, 0)
        if budget < 0:
            raise invalid("thinking_token_budget must be 0 or more", "thinking_token_budget")
    return template


def _named_template(name: str) -> str:
    if "{{" in name or "{%" in name:
        raise invalid("give the name of one of the model's templates, not a template", "chat_template")
    return name


def check_effort(template: Mapping[str, Any], templates: Mapping[str, str], *, tools: bool) -> None:
    """Raises `ApiError` for a `reasoning_effort` that the chat template, one of these, does not read.

    `template` has the arguments of a prompt.
    """
    effort = template["template_kwargs"].get("reasoning_effort", "none")
    if effort == "none":
        return
    if "reasoning_effort" not in chosen_template(templates, template.get("chat_template"), tools=tools):
        raise invalid("this model's chat template takes no reasoning_effort", "reasoning_effort")


@dataclass(frozen=True, slots=True)
class Started:
    """Holds a conversation whose reply is being generated."""

    asked: Conversation
    chat: ChatRequest
    prepared: Prepared
    generation: Generation
    model: ServedModel


async def start_reply(
    service: Service, request: Request, active: ActiveRequest, body: Mapping[str, Any], **options: Any
) -> Started:
    """Queues the reply to a conversation in the form of `/v1/chat/completions`.

    `options` are those of `Generation`, besides those that the body asks for. Raises `ApiError`.
    """
    model = await active.open()
    llm = model.llm
    with grammar_named(body), renamed({"prompt": "messages"}):
        asked = read_conversation(body, llm.default_params, service.settings, llm.intake.second_models)
        asked.check_template(llm.tokenizer.chat_templates)
        salt = service.salt(request.scope, asked.cache_salt)
        size = grammar_size(asked.params.grammar, asked.tools["tools"])
        work = partial(asked.prepared, model.llm.intake, salt)
        chat, prepared = await active.prepare(work, grammar=size, param="messages")
        options = {**asked.form.options.wanted, **options}
        generation = await active.start([prepared], priority=asked.priority, **options)
    return Started(asked, chat, prepared, generation, model)


async def chat_completions(service: Service, request: Request) -> ASGIApp:
    """Answers a request of `/v1/chat/completions`."""
    body = await service.read(request)
    with ActiveRequest(service, request, body.get("model")) as active:
        started = await start_reply(service, request, active, body)
        written = ChatAnswer(started)
        if started.asked.form.options.stream:
            return active.stream(started.generation, written)
        await active.run(started.generation, written.take)
        return json_response(written.answer())


class ChatAnswer(Answer):
    """Writes the answer of `/v1/chat/completions`."""

    def __init__(self, started: Started) -> None:
        super().__init__(started.asked.form, [started.prepared], started.generation, started.model)
        self.top = started.asked.top_logprobs
        self._reply = started.chat.reply
        self._parsers: dict[int, ReplyParser] = {}
        self._parts: dict[int, list[Part]] = {}
        self._fresh: dict[int, list[Part]] = {}

    def opening(self) -> bytes:
        """Returns a chunk with the role for each choice."""
        count = self.prepared[0].params.choices
        return b"".join(self.chunk([self._opened(index)]) for index in range(count))

    def _opened(self, index: int) -> dict[str, Any]:
        return {
            "index": index,
            "delta": {"role": "assistant", "content": ""},
            "logprobs": None,
            "finish_reason": None,
        }

    def added(self, addition: Addition) -> tuple[Written, Delta]:
        """Adds what a step added to one choice, and reads what its text means."""
        choice, delta = super().added(addition)
        parser = self._parsers.get(choice.index)
        if parser is None:
            parser = self._parsers[choice.index] = self._reply.parser()
        parts = parser.feed(delta.text)
        if delta.finish_reason is not None:
            parts = [*parts, *parser.finish(delta.finish_reason)]
        self._fresh[choice.index] = parts
        self._parts.setdefault(choice.index, []).extend(parts)
        return choice, delta

    def fresh(self, index: int) -> list[Part]:
        """Returns the parts that the last addition to a choice completed."""
        return self._fresh[index]

    def parts(self, index: int) -> list[Part]:
        """Returns all parts of a choice so far."""
        return self._parts[index]

    def finish_reason(self, choice: Written) -> str | None:
        """Returns OpenAI's name of the reason for which a choice ended: "tool_calls" after calls."""
        return finish_name(self._parsers[choice.index].finish_reason)

    def _logprobs(self, entries: Sequence[Entry]) -> dict[str, Any] | None:
        if self.top is None:
            return None
        return {"content": chat_entries(self.tokenizer, entries, self.top), "refusal": None}

    def content(self, choice: Written) -> dict[str, Any]:
        """Returns the message of a choice."""
        reply = join(self._parts[choice.index], "")
        message: dict[str, Any] = {"role": "assistant", "content": reply.content, "refusal": None}
        if reply.reasoning is not None:
            message["reasoning_content"] = reply.reasoning
        if reply.tool_calls:
            message["tool_calls"] = [
                {"id": c.id, "type": "function", "function": {"name": c.name, "arguments": c.arguments}}
                for c in reply.tool_calls
            ]
        return {"message": message, "logprobs": self._logprobs(choice.entries)}

    def answer(self) -> dict[str, Any]:
        """Returns the whole answer; with the log-probabilities of the prompt, as vLLM, if they are wanted."""
        found = super().answer()
        if self.prepared[0].params.prompt_logprobs is not None:
            scored = self.generation.collectors[0].output.prompt_logprobs
            found["prompt_logprobs"] = prompt_entries(self.tokenizer, scored or ())
        return found

    def deltas(self, choice: Written, delta: Delta) -> list[dict[str, Any]]:
        """Returns a chunk for each part of a reply; the first has the log-probabilities of all."""
        contents = [{"delta": _delta(part), "logprobs": None} for part in self._fresh[choice.index]]
        if delta.entries and self.top is not None:
            contents = contents or [{"delta": {}, "logprobs": None}]
            contents[0]["logprobs"] = self._logprobs(delta.entries)
        return contents

    def ending(self, choice: Written) -> dict[str, Any]:
        """Returns an empty delta."""
        return {"delta": {}, "logprobs": None}


def _delta(part: Part) -> dict[str, Any]:
    """Returns a part of a reply in the form of OpenAI's chunks."""
    match part:
        case Content(text):
            return {"content": text}
        case Reasoning(text):
            return {"reasoning_content": text}
        case CallStart(index, call, name):
            function = {"name": name, "arguments": ""}
            return {"tool_calls": [{"index": index, "id": call, "type": "function", "function": function}]}
        case CallArguments(index, text):
            return {"tool_calls": [{"index": index, "function": {"arguments": text}}]}
