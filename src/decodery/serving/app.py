"""Puts the routes of a server together."""

from __future__ import annotations

import logging
from collections.abc import Awaitable, Callable, Mapping
from contextlib import suppress

from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect, Request
from starlette.responses import PlainTextResponse, Response
from starlette.routing import BaseRoute, Route
from starlette.types import ASGIApp, Receive, Scope, Send

from decodery.errors import DecoderyError
from decodery.serving.anthropic.handlers import count_tokens, messages
from decodery.serving.encoders.classes import classify, predict
from decodery.serving.encoders.embeddings import embed, embed_all, embed_sparse, embeddings
from decodery.serving.encoders.ranking import rerank, rerank_either, score
from decodery.serving.errors import ApiError, api_error, body_for
from decodery.serving.gate import Gate, send_error
from decodery.serving.logs import RequestLog
from decodery.serving.openai.chat import chat_completions
from decodery.serving.openai.completions import completions
from decodery.serving.openai.listing import list_models, one_model
from decodery.serving.openai.tokens import apply_template, detokenize, tokenize, tokenizer_info
from decodery.serving.page.layers_route import layers
from decodery.serving.page.learn_files import learn_handlers
from decodery.serving.page.page_files import list_handler, page_handlers
from decodery.serving.page.run_page import run_page
from decodery.serving.responses.handlers import (
    cancel_response,
    create_response,
    delete_response,
    get_response,
)
from decodery.serving.schemas.document import openapi
from decodery.serving.service import Service, json_response
from decodery.serving.trace_route import describe_model, trace

log = logging.getLogger("decodery.serving")
Handler = Callable[[Service, Request], Awaitable[ASGIApp]]

HANDLERS: tuple[tuple[str, str, Handler], ...] = (
    ("GET", "/v1/models", list_models),
    ("GET", "/v1/models/{name:path}", one_model),
    ("POST", "/v1/completions", completions),
    ("POST", "/v1/chat/completions", chat_completions),
    ("POST", "/v1/responses", create_response),
    ("GET", "/v1/responses/{name}", get_response),
    ("DELETE", "/v1/responses/{name}", delete_response),
    ("POST", "/v1/responses/{name}/cancel", cancel_response),
    ("POST", "/v1/messages", messages),
    ("POST", "/v1/messages/count_tokens", count_tokens),
    ("POST", "/v1/embeddings", embeddings),
    ("POST", "/v1/rerank", rerank),
    ("POST", "/v2/rerank", rerank),
    ("POST", "/v1/score", score),
    ("POST", "/v1/classify", classify),
    ("POST", "/embed", embed),
    ("POST", "/embed_all", embed_all),
    ("POST", "/embed_sparse", embed_sparse),
    ("POST", "/rerank", rerank_either),
    ("POST", "/predict", predict),
    ("POST", "/tokenize", tokenize),
    ("POST", "/detokenize", detokenize),
    ("GET", "/tokenizer_info", tokenizer_info),
    ("POST", "/apply-template", apply_template),
    ("GET", "/trace", describe_model),
    ("POST", "/trace", trace),
    ("POST", "/trace/layers", layers),
    ("POST", "/trace/page", run_page),
)


def create_app(service: Service) -> ASGIApp:
    """Returns the application of a server whose worker runs."""
    own = (("/health", health), ("/ready", ready), ("/metrics", metrics), ("/openapi.json", document))
    files = (*page_handlers(), *learn_handlers())
    pages = (*files, list_handler(path for _, path, _ in files))
    handlers = (*HANDLERS, *pages, *(("GET", path, found) for path, found in own))
    paths: dict[str, dict[str, Handler]] = {}
    for method, path, handler in handlers:
        paths.setdefault(path, {})[method] = handler
    # One route a path, so that the answer to another method names all that there are.
    routes = [Route(path, _Endpoint(service, found), methods=list(found)) for path, found in paths.items()]
    app = Starlette(routes=routes, exception_handlers={HTTPException: _no_route})
    app.router.redirect_slashes = False
    return RequestLog(Gate(app, service.settings))


class _Endpoint:
    """Is an ASGI application that answers with a method's handler, and turns its errors into answers."""

    def __init__(self, service: Service, handlers: Mapping[str, Handler]) -> None:
        self._service = service
        self._handlers = handlers

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        method = "GET" if scope["method"] == "HEAD" else scope["method"]
        try:
            answer = await self._handlers[method](self._service, Request(scope, receive))
        except ClientDisconnect:
            scope["record"]["error"] = "ClientDisconnect"
            return
        except ApiError as error:
            await send_error(scope, send, error)
            return
        except DecoderyError as error:
            await send_error(scope, send, api_error(error))
            return
        except Exception:
            log.exception("a request failed")
            await send_error(scope, send, ApiError(500, "the server failed; its log says more"))
            return
        with suppress(ClientDisconnect):
            await answer(scope, receive, send)


async def _no_route(request: Request, error: Exception) -> Response:
    assert isinstance(error, HTTPException)
    messages = {404: "there is nothing at this path", 405: "this path does not take this method"}
    shown = ApiError(error.status_code, messages.get(error.status_code, "the request is not understood"))
    answer = json_response(body_for(request.url.path, shown), error.status_code)
    answer.headers.update(error.headers or {})
    return answer


async def health(service: Service, request: Request) -> Response:
    """Returns 200: the process lives."""
    return json_response({"status": "ok"})


async def ready(service: Service, request: Request) -> Response:
    """Returns 200 when requests can be served, else 503 with the reason."""
    reason = service.not_ready()
    if reason is not None:
        raise ApiError(503, reason, code="not_ready", retry_after=2)
    return json_response({"status": "ready"})


async def metrics(service: Service, request: Request) -> Response:
    """Returns the metrics in Prometheus' text format."""
    return PlainTextResponse(service.metrics.text(), media_type="text/plain; version=0.0.4; charset=utf-8")


async def document(service: Service, request: Request) -> Response:
    """Returns the OpenAPI document of this server."""
    routes = [(method, path) for route in request.app.routes for method, path in _methods(route)]
    return json_response(openapi(routes, service.settings))


def _methods(route: BaseRoute) -> list[tuple[str, str]]:
    assert isinstance(route, Route)
    return [(method, route.path) for method in route.methods or () if method != "HEAD"]
