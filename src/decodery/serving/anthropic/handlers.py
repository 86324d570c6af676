"""Answers `/v1/messages`, and counts what its prompts take."""

from __future__ import annotations

from functools import partial
from typing import Any

from starlette.requests import Request
from starlette.responses import Response
from starlette.types import ASGIApp

from decodery.intake import Intake
from decodery.serving.anthropic.reading import read_message_request
from decodery.serving.anthropic.writing import MessageAnswer
from decodery.serving.openai.chat import Conversation, read_conversation, start_reply
from decodery.serving.openai.fields import check_single
from decodery.serving.openai.origins import renamed
from decodery.serving.service import ActiveRequest, Service, json_response


async def messages(service: Service, request: Request) -> ASGIApp:
    """Answers a conversation."""
    body = await service.read(request)
    asked = read_message_request(body, lenient=service.settings.lenient)
    with ActiveRequest(service, request, asked.chat.get("model")) as active:
        with renamed(asked.places):
            started = await start_reply(
                service, request, active, asked.chat, tells_progress=asked.chat["stream"]
            )
            check_single(started.prepared.params)
        written = MessageAnswer(started)
        if asked.chat["stream"]:
            return active.stream(started.generation, written)
        await active.run(started.generation, written.take)
        return json_response(written.message())


async def count_tokens(service: Service, request: Request) -> Response:
    """Answers with the number of tokens that a conversation's prompt has."""
    body = await service.read(request)
    asked = read_message_request(body, lenient=service.settings.lenient, counts=True)
    name = service.models.check(asked.chat.get("model"), "decoder")
    with await service.use(request, name, "decoder") as model, renamed(asked.places):
        conversation = read_conversation(asked.chat, model.llm.default_params, service.settings)
        conversation.check_template(model.llm.tokenizer.chat_templates)
        work = partial(_prompt, model.llm.intake, conversation)
        ids: list[Any] = await service.prepare(request, work, param="messages")
        return json_response({"input_tokens": len(ids)})


def _prompt(intake: Intake, asked: Conversation) -> list[int]:
    return intake.chat_request(asked.messages, asked.params, **asked.tools, **asked.template).token_ids
