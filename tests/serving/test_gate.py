"""Checks who may come in: keys, Host, Origin, preflights, and paths that do not exist."""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import Iterator
from typing import Any

import pytest

from decodery import LLM
from decodery.serving.app import create_app
from decodery.serving.gate import OPEN_PATHS
from tests.serving.live import LiveServer, raw_request, serving

KEYS = ("sk-alpha", "sk-beta")
ORIGIN = "https://a.example"
PATHS = (
    *("/v1/models", "/v1/models/tiny", "/v1/models/", "/v1/completions", "/v1/chat/completions", "/tokenize"),
    *("/detokenize", "/tokenizer_info", "/apply-template", "/metrics", "/openapi.json", "/docs", "/redoc"),
    *("/v1/messages", "/v1/responses", "/trace", "/invocations", "/score", "/v2/embed", "/v1", "/nothing"),
    *("//v1/models", "/./v1/models", "/health/", "/health/x", "/healthz", "/ready/../v1/models", "/HEALTH"),
    *("/%2fv1/models", "/v1%2Fmodels", "/health%2f..%2fv1%2fmodels", "/assets", "//health", "/?x=/health"),
)
METHODS = ("GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS", "TRACE", "PROPFIND")


@pytest.fixture(scope="module")
def guarded(served_llm: LLM) -> Iterator[LiveServer]:
    """Returns a server with keys, which pages of one origin may call."""
    with serving(served_llm, keys=KEYS, origins=(ORIGIN,)) as found:
        yield found


def ask(server: LiveServer, *lines: str | bytes, method: str = "GET", path: str = "/v1/models") -> Any:
    head = [f"{method} {path} HTTP/1.1", f"host: 127.0.0.1:{server.port}", *lines]
    return raw_request(server.port, [h.encode("latin-1") if isinstance(h, str) else h for h in head])


@pytest.mark.parametrize("method", METHODS)
def test_every_path_and_method_needs_a_key_whether_it_exists_or_not(guarded: LiveServer, method: str) -> None:
    for path in PATHS:
        if path == "/?x=/health":
            continue  # It is the page's path, with a query.
        answer = ask(guarded, method=method, path=path)
        assert answer.status == 401, (method, path)
        assert answer.headers["www-authenticate"] == "Bearer"
        if method != "HEAD":
            assert json.loads(answer.body)["error"]["type"] == "authentication_error"


def test_the_paths_without_a_key_are_one_list() -> None:
    assert frozenset({"/", "/health", "/ready"}) == OPEN_PATHS


@pytest.mark.parametrize("path", ["/health", "/ready"])
def test_health_needs_no_key(guarded: LiveServer, path: str) -> None:
    assert ask(guarded, path=path).status == 200


@pytest.mark.parametrize(
    "line",
    [
        "authorization: Bearer sk-alpha",
        "authorization: bearer sk-beta",
        "authorization: BEARER   sk-beta",
        "x-api-key: sk-alpha",
        "X-API-KEY: sk-beta",
    ],
)
def test_a_key_comes_in_two_headers(guarded: LiveServer, line: str) -> None:
    assert ask(guarded, line).status == 200


@pytest.mark.parametrize(
    "line",
    [
        "authorization: Bearer sk-alph",
        "authorization: Bearer sk-alphaa",
        "authorization: Bearer SK-ALPHA",
        "authorization: Bearer",
        "authorization: Bearer ",
        "authorization: sk-alpha",
        "authorization: Basic sk-alpha",
        "authorization: Bearer sk-alpha,sk-beta",
        "authorization: Bearer sk-alpha sk-beta",
        b"authorization: Bearer caf\xe9",
        b"authorization: Bearer \xff\xfe",
        b"x-api-key: \xc3\xa9",
        "x-api-key:",
        "x-api-key: sk-",
        "cookie: sk-alpha",
    ],
)
def test_a_wrong_key_is_a_401(guarded: LiveServer, line: str | bytes) -> None:
    assert ask(guarded, line).status == 401


def test_a_right_key_beside_a_wrong_one_is_enough(guarded: LiveServer) -> None:
    assert ask(guarded, "authorization: Bearer wrong", "x-api-key: sk-alpha").status == 200
    assert ask(guarded, "x-api-key: wrong", "authorization: Bearer sk-alpha").status == 200


def test_a_key_in_the_url_is_none(guarded: LiveServer) -> None:
    assert ask(guarded, path="/v1/models?api_key=sk-alpha&key=sk-alpha").status == 401


@pytest.mark.parametrize(
    "host", ["evil.example", "evil.example:80", "127.0.0.1.evil.example", "", "localhost@x"]
)
def test_without_keys_a_foreign_host_is_refused(server: LiveServer, host: str) -> None:
    answer = raw_request(server.port, [b"GET /health HTTP/1.1", f"host: {host}".encode()])
    assert answer.status == 403
    assert "evil" not in answer.body.decode()


@pytest.mark.parametrize("host", ["localhost", "LOCALHOST:80", "127.0.0.1", "127.9.9.9:1", "[::1]:8000"])
def test_without_keys_the_names_of_this_machine_come_in(server: LiveServer, host: str) -> None:
    assert raw_request(server.port, [b"GET /health HTTP/1.1", f"host: {host}".encode()]).status == 200


def test_two_hosts_of_which_one_is_foreign_are_refused(server: LiveServer) -> None:
    for hosts in (("127.0.0.1", "evil.example"), ("evil.example", "127.0.0.1")):
        lines = [b"GET /health HTTP/1.1", *(f"host: {host}".encode() for host in hosts)]
        assert raw_request(server.port, lines).status in (400, 403)


@pytest.mark.parametrize(
    "origin", ["https://evil.example", "null", "http://127.0.0.1.evil.example", "file://"]
)
def test_a_foreign_origin_is_refused(server: LiveServer, origin: str) -> None:
    assert ask(server, f"origin: {origin}").status == 403


def test_two_origins_of_which_one_is_foreign_are_refused(guarded: LiveServer) -> None:
    key = "x-api-key: sk-alpha"
    for origins in ((ORIGIN, "https://evil.example"), ("https://evil.example", ORIGIN)):
        assert ask(guarded, key, *(f"origin: {o}" for o in origins)).status in (400, 403)


def test_the_servers_own_page_may_call_it(server: LiveServer) -> None:
    answer = ask(server, f"origin: http://127.0.0.1:{server.port}")
    assert answer.status == 200
    assert "access-control-allow-origin" not in answer.headers


def preflight(server: LiveServer, origin: str, *lines: str) -> Any:
    asked = (f"origin: {origin}", "access-control-request-method: POST", *lines)
    return ask(server, *asked, method="OPTIONS", path="/v1/completions")


def test_a_preflight_needs_no_key_but_an_origin_that_is_allowed(guarded: LiveServer) -> None:
    answer = preflight(guarded, ORIGIN)
    assert answer.status == 204
    assert answer.headers["access-control-allow-origin"] == ORIGIN
    assert answer.headers["vary"] == "Origin"
    assert "authorization" in answer.headers["access-control-allow-headers"]
    assert answer.body == b""
    assert preflight(guarded, "https://b.example").status == 403
    assert preflight(guarded, ORIGIN + ".evil.example").status == 403
    assert ask(guarded, method="OPTIONS", path="/v1/completions").status == 401
    assert ask(guarded, f"origin: {ORIGIN}", method="OPTIONS", path="/v1/completions").status == 401


def test_without_allowed_origins_no_preflight_passes(server: LiveServer) -> None:
    assert preflight(server, ORIGIN).status == 403
    assert preflight(server, server.url).status == 403


def test_answers_to_an_allowed_origin_name_it_errors_too(guarded: LiveServer) -> None:
    key = "x-api-key: sk-alpha"
    for path, status in (("/v1/models", 200), ("/nothing", 404)):
        answer = ask(guarded, key, f"origin: {ORIGIN}", path=path)
        assert (answer.status, answer.headers["access-control-allow-origin"]) == (status, ORIGIN)
    # A page can read why its key was refused.
    answer = ask(guarded, f"origin: {ORIGIN}")
    assert (answer.status, answer.headers.get("access-control-allow-origin")) == (401, ORIGIN)


@pytest.mark.parametrize("path", ["//v1/models", "/v1/models/", "/nothing", "/v1", "/V1/MODELS"])
def test_a_path_that_does_not_exist_is_a_404_and_never_a_redirect(server: LiveServer, path: str) -> None:
    answer = ask(server, path=path)
    assert answer.status == 404
    assert json.loads(answer.body)["error"]["type"] == "not_found_error"


def test_a_wrong_method_is_a_405_that_names_the_right_one(server: LiveServer) -> None:
    for method, path, allowed in (("GET", "/v1/completions", "POST"), ("POST", "/v1/models", "GET")):
        answer = ask(server, method=method, path=path)
        assert answer.status == 405
        assert allowed in answer.headers["allow"]
        assert json.loads(answer.body)["error"]["message"]


def test_head_is_get_without_a_body(server: LiveServer) -> None:
    answer = ask(server, method="HEAD", path="/health")
    assert (answer.status, answer.body) == (200, b"")


def test_a_websocket_is_no_way_in(guarded: LiveServer) -> None:
    upgrade = (
        "upgrade: websocket",
        "sec-websocket-version: 13",
        "sec-websocket-key: dGhlIHNhbXBsZSBub25jZQ==",
    )
    assert ask(guarded, *upgrade).status == 401


def test_scopes_other_than_http_reach_no_handler(guarded: LiveServer) -> None:
    sent: list[Any] = []

    async def receive() -> Any:
        return {"type": "websocket.connect"}

    async def send(message: Any) -> None:
        sent.append(message)

    app = create_app(guarded.service)
    scope = {
        "type": "websocket",
        "path": "/v1/models",
        "headers": [],
        "query_string": b"",
        "subprotocols": [],
    }
    asyncio.run(app(scope, receive, send))
    assert [message["type"] for message in sent] == ["websocket.close"]


def test_a_refused_request_is_answered_before_its_body_comes(guarded: LiveServer) -> None:
    began = time.monotonic()
    lines = ["content-type: application/json", "content-length: 1000000"]
    assert ask(guarded, *lines, method="POST", path="/v1/completions").status == 401
    assert time.monotonic() - began < 5


def test_a_served_models_name_is_looked_up_as_it_is(server: LiveServer) -> None:
    assert ask(server, path="/v1/models/tiny").status == 200
    for name in ("Tiny", "tiny/", "../tiny", "%2e%2e", "tiny%00", "/etc/passwd"):
        answer = ask(server, path=f"/v1/models/{name}")
        assert answer.status == 404
        assert b"passwd" not in answer.body
