"""Sends requests to a server over HTTP, and reads its answers."""

from __future__ import annotations

import http.client
import json
import socket
from collections.abc import Generator, Mapping
from contextlib import contextmanager
from typing import Any
from urllib.parse import urlencode, urlsplit

from decodery.errors import DecoderyError, ParameterError, RequestError

CONNECT_SECONDS = 10.0
LONGEST_LINE = 1 << 28
LONGEST_MESSAGE = 1000


class Connection:
    """Sends requests to one server; each has a connection of its own, which is closed after the answer.

    `url` is like "http://localhost:8000" or "https://[::1]:8000/prefix". `timeout` is the number of seconds
    without a byte from the server after which a request fails; None waits for ever. Raises `ParameterError`
    for an address or a key that cannot be used.
    """

    def __init__(self, url: str, api_key: str | None = None, timeout: float | None = None) -> None:
        self._url = url
        self._timeout = timeout
        wrong = ParameterError(f"server must be an address like http://localhost:8000, not {url[:200]!r}")
        try:
            parts = urlsplit(url)
            host, port = parts.hostname, parts.port
        except ValueError:
            raise wrong from None
        if parts.scheme not in ("http", "https") or not host or parts.query or parts.fragment:
            raise wrong
        if "@" in parts.netloc or not url.isprintable() or " " in url:
            raise wrong
        if api_key is not None and not (api_key.isascii() and api_key.isprintable() and " " not in api_key):
            raise ParameterError("the server's key must be printable ASCII without spaces")
        self._secure = parts.scheme == "https"
        self._host, self._port = host, port
        self._path = parts.path.rstrip("/")
        self._headers = {"Accept": "application/json, text/event-stream", "Connection": "close"}
        if api_key is not None:
            self._headers["Authorization"] = f"Bearer {api_key}"

    def get(self, path: str, **query: str | None) -> dict[str, Any]:
        """Returns the object that the server answers. Raises `DecoderyError`."""
        given = urlencode({name: value for name, value in query.items() if value is not None})
        return self._object("GET", f"{path}?{given}" if given else path, None)

    def post(self, path: str, body: Mapping[str, Any]) -> dict[str, Any]:
        """Returns the object that the server answers to a body. Raises `DecoderyError`."""
        return self._object("POST", path, body)

    def _object(self, method: str, path: str, body: Mapping[str, Any] | None) -> dict[str, Any]:
        with self._answer(method, path, body) as response:
            found = _json(response.read())
        if not isinstance(found, dict):
            raise DecoderyError(f"the answer of {self._url} is not understood: is it a Decodery server?")
        return found

    def lines(self, path: str, body: Mapping[str, Any]) -> Generator[bytes, None, None]:
        """Yields the data of each server-sent event of an answer; closing it closes the connection.

        Raises `DecoderyError`.
        """
        with self._answer("POST", path, body) as response:
            while line := response.readline(LONGEST_LINE):
                if line.startswith(b"data:"):
                    yield line[5:].strip()

    @contextmanager
    def _answer(
        self, method: str, path: str, body: Mapping[str, Any] | None
    ) -> Generator[http.client.HTTPResponse, None, None]:
        connection = self._opened()
        try:
            data = None if body is None else json.dumps(body, allow_nan=False).encode()
            kind = {} if data is None else {"Content-Type": "application/json"}
            connection.request(method, self._path + path, data, {**self._headers, **kind})
            response = connection.getresponse()
            if response.status != 200:
                raise self._error(response)
            yield response
        except (OSError, http.client.HTTPException) as error:
            raise DecoderyError(f"the connection to the server {self._url} broke: {_reason(error)}") from None
        finally:
            connection.close()

    def _opened(self) -> http.client.HTTPConnection:
        kind = http.client.HTTPSConnection if self._secure else http.client.HTTPConnection
        connection = kind(self._host, self._port, timeout=CONNECT_SECONDS)
        try:
            connection.connect()
        except (OSError, UnicodeError) as error:
            connection.close()
            raise DecoderyError(
                f"no server answers at {self._url} ({_reason(error)}): start one with decodery serve,"
                " or leave --server out"
            ) from None
        assert isinstance(connection.sock, socket.socket)
        connection.sock.settimeout(self._timeout)
        connection.sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        return connection

    def _error(self, response: http.client.HTTPResponse) -> DecoderyError:
        """Returns the error that an answer reports, as the library raises it."""
        found = _json(response.read(1 << 20))
        error = found.get("error") if isinstance(found, dict) else None
        if not isinstance(error, dict) or not isinstance(error.get("message"), str):
            return DecoderyError(
                f"{self._url} answered {response.status} {response.reason}: is it a Decodery server?"
            )
        message = error["message"][:LONGEST_MESSAGE]
        if response.status == 404 and error.get("param") is None:
            return DecoderyError(f"the server {self._url} does not offer this: {message}")
        if response.status == 429:
            seconds = response.getheader("Retry-After")
            again = f"; try again in {seconds} s" if seconds else ""
            return RequestError(f"the server is busy: {message}{again}")
        if response.status == 401:
            return RequestError(
                f"the server wants another key: {message}: give --api-key-file or DECODERY_API_KEY"
            )
        return api_error(error, response.status)


def api_error(error: Mapping[str, Any], status: int = 500) -> DecoderyError:
    """Returns the library's error for one of the server's, of a parameter if that is the cause."""
    message = str(error.get("message"))[:LONGEST_MESSAGE]
    param = error.get("param")
    place = param if isinstance(param, str) else None
    of_prompt = place is None or place.endswith("prompt") or error.get("code") == "context_length_exceeded"
    if status != 400 or of_prompt:
        return RequestError(message, param=place)
    return ParameterError(message, param=place)


def _json(data: bytes) -> Any:
    try:
        return json.loads(data)
    except (ValueError, RecursionError):
        return None


def _reason(error: Exception) -> str:
    """Returns the reason of a failed connection, on one line."""
    if isinstance(error, TimeoutError):
        return "it was silent for too long"
    text = getattr(error, "strerror", None) or str(error) or type(error).__name__
    return " ".join(text.split())[:200]
