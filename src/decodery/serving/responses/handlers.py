"""Answers `/v1/responses`: new responses, and those that are stored."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Mapping
from typing import Any

from starlette.requests import Request
from starlette.responses import Response
from starlette.types import ASGIApp

from decodery.serving.errors import ApiError, invalid
from decodery.serving.openai.chat import start_reply
from decodery.serving.openai.fields import check_single
from decodery.serving.openai.origins import ORIGIN, renamed, separated
from decodery.serving.responses.reading import ResponseRequest, read_response_request
from decodery.serving.responses.writing import ResponseAnswer, new_response
from decodery.serving.service import ActiveRequest, Service, json_response
from decodery.serving.sse import FAILED

log = logging.getLogger("decodery.serving")


async def create_response(service: Service, request: Request) -> ASGIApp:
    """Answers a request for a new response."""
    body = await service.read(request)
    asked = read_response_request(body, lenient=service.settings.lenient)
    owner = request.scope["identity"]
    messages, places = separated(_conversation(service, owner, asked))
    with ActiveRequest(service, request, asked.chat.get("model")) as active:
        chat = {**asked.chat, "messages": messages, "stream": asked.stream}
        with renamed({**asked.places, **places}):
            started = await start_reply(service, request, active, chat)
            check_single(started.prepared.params)
        response = new_response(asked.given, started.model.name)

        def ended(response: dict[str, Any]) -> None:
            if asked.stored:
                service.responses.put(owner, response, [*messages, *_turn(response)])

        written = ResponseAnswer(started, response, ended)
        if asked.background:
            service.responses.put(owner, response, messages)
            active.hand_over()
            service.in_background(response["id"], _run(active, written))
            return json_response(response)
        if asked.stream:
            return active.stream(started.generation, written)
        await active.run(started.generation, written.take)
        return json_response(written.response)


async def _run(active: ActiveRequest, written: ResponseAnswer) -> None:
    """Runs a response that nobody waits for."""
    failure: BaseException | None = None
    written.response["status"] = "in_progress"
    try:
        while not written.generation.done:
            written.take(await written.generation.additions() or ())
        written.generation.check_valid()
    except Exception as error:
        failure = error
        if not isinstance(error, ApiError):
            log.exception("a response in the background failed")
        written.fail(error if isinstance(error, ApiError) else ApiError(500, FAILED))
    except asyncio.CancelledError as error:
        failure = error
        raise
    finally:
        active.leave(failure)


def _conversation(service: Service, owner: bytes, asked: ResponseRequest) -> list[dict[str, Any]]:
    """Returns the messages of the conversation that a request goes on with, and its own."""
    if asked.previous is None:
        return asked.messages
    stored = service.responses.get(owner, asked.previous, "previous_response_id")
    if stored.response["status"] not in ("completed", "incomplete"):
        raise invalid("the previous response has not ended", "previous_response_id")
    # Instructions hold for one response.
    earlier = [
        {**message, ORIGIN: {"": "previous_response_id"}}
        for message in stored.messages[bool(stored.response["instructions"]) :]
    ]
    system = [m for m in asked.messages[:1] if m["role"] == "system"]
    return [*system, *earlier, *asked.messages[len(system) :]]


def _turn(response: Mapping[str, Any]) -> list[dict[str, Any]]:
    """Returns the messages of a response's output."""
    message: dict[str, Any] = {"role": "assistant", "content": None}
    for item in response["output"]:
        if item["type"] == "function_call":
            function = {"name": item["name"], "arguments": item["arguments"]}
            call = {"id": item["call_id"], "type": "function", "function": function}
            message.setdefault("tool_calls", []).append(call)
        else:
            name = "content" if item["type"] == "message" else "reasoning_content"
            message[name] = (message.get(name) or "") + item["content"][0]["text"]
    return [message] if len(message) > 2 or message["content"] is not None else []


async def get_response(service: Service, request: Request) -> Response:
    """Answers with a stored response."""
    stored = service.responses.get(request.scope["identity"], request.path_params["name"])
    return json_response(stored.response)


async def delete_response(service: Service, request: Request) -> Response:
    """Forgets a stored response; ends it first if it runs."""
    name = request.path_params["name"]
    service.responses.get(request.scope["identity"], name)
    service.cancel_background(name)
    service.responses.remove(name)
    return json_response({"id": name, "object": "response", "deleted": True})


async def cancel_response(service: Service, request: Request) -> Response:
    """Ends a response that runs in the background."""
    stored = service.responses.get(request.scope["identity"], request.path_params["name"])
    if not stored.response["background"]:
        raise invalid("only responses with background can be cancelled")
    if service.cancel_background(stored.response["id"]):
        stored.response["status"] = "cancelled"
    return json_response(stored.response)
