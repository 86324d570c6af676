"""Defines the errors that a client sees, and makes them of the package's own."""

from __future__ import annotations

import re
from typing import Any

from decodery.errors import DecoderyError, ModelError, ParameterError, RequestError

LONGEST_MESSAGE = 1000
# The part of a message that repeats what the caller gave; a client knows it, and a log should not.
_GIVEN = re.compile(r",? (?:not|got) (?:'|\"|\[|\{|\(|-?\d|None|True|False|nan|inf|<).*", re.DOTALL)
# What messages about a prompt or a text that is too long have in common.
_TOO_LONG = re.compile(r"the context|key/value memory|tokens.*\b\d+ fit\b")
# Quoted texts that are no names of fields.
_QUOTED = re.compile(r"'(?![A-Za-z_][\w.]{0,40}')[^']*'")

_TYPES = {
    400: "invalid_request_error",
    401: "authentication_error",
    403: "permission_error",
    404: "not_found_error",
    413: "invalid_request_error",
    429: "rate_limit_error",
}


class ApiError(Exception):
    """Is an answer with an error: an HTTP status, and what OpenAI's error object holds.

    `param` is the place in the request, `code` a name that programs test. `retry_after` is in seconds.
    """

    def __init__(
        self,
        status: int,
        message: str,
        *,
        param: str | None = None,
        code: str | None = None,
        retry_after: int | None = None,
    ) -> None:
        super().__init__(message)
        self.status = status
        self.message = message[:LONGEST_MESSAGE]
        self.param = None if param is None else param[:100]
        self.code = code
        self.retry_after = retry_after

    @property
    def kind(self) -> str:
        """Returns the `type` of OpenAI's error object."""
        if self.status >= 500:
            return "server_error"
        return _TYPES.get(self.status, "invalid_request_error")

    def body(self) -> dict[str, Any]:
        """Returns OpenAI's error object."""
        error = {"message": self.message, "type": self.kind, "param": self.param, "code": self.code}
        return {"error": error}


_ANTHROPIC_TYPES = {
    401: "authentication_error",
    403: "permission_error",
    404: "not_found_error",
    413: "request_too_large",
    429: "rate_limit_error",
    503: "overloaded_error",
    504: "timeout_error",
}
ANTHROPIC_PATH = "/v1/messages"


def anthropic_body(error: ApiError) -> dict[str, Any]:
    """Returns Anthropic's error object, which has the place in the request in its message."""
    kind = _ANTHROPIC_TYPES.get(error.status, "api_error" if error.status >= 500 else "invalid_request_error")
    known = error.param is None or error.message.startswith(error.param)
    message = error.message if known else f"{error.param}: {error.message}"
    return {"type": "error", "error": {"type": kind, "message": message}}


def is_anthropic(path: str) -> bool:
    """True if a path belongs to Anthropic's interface."""
    return path == ANTHROPIC_PATH or path.startswith(f"{ANTHROPIC_PATH}/")


def body_for(path: str, error: ApiError) -> dict[str, Any]:
    """Returns an error in the form of the interface that a path belongs to."""
    return anthropic_body(error) if is_anthropic(path) else error.body()


def invalid(message: str, param: str | None = None, code: str | None = None) -> ApiError:
    """Returns the error of a request that is wrong in itself."""
    return ApiError(400, message, param=param, code=code)


def api_error(error: DecoderyError, param: str | None = None) -> ApiError:
    """Returns the answer for an error of the package, without the value that the caller gave.

    `param` is the place in the request, unless the error names it or its message begins with a parameter.
    """
    message = _QUOTED.sub("...", _GIVEN.sub("", str(error)))
    found = error.param or param
    if isinstance(error, ParameterError):
        return invalid(message, error.param or _leading_name(message) or param)
    if isinstance(error, RequestError):
        too_long = _TOO_LONG.search(message)
        return invalid(message, found, "context_length_exceeded" if too_long else None)
    if isinstance(error, ModelError):
        return invalid(message, found)
    return ApiError(500, "the server failed; its log says more")


def _leading_name(message: str) -> str | None:
    """Returns the parameter that a message begins with; messages about parameters begin with its name."""
    if re.match(r"(?:Regex|Choice|JsonSchema|JsonObject|Lark|Gbnf)\b", message):
        return "grammar"
    found = re.match(
        r"[a-z][a-z0-9]*(?:_[a-z0-9]+)+|temperature|seed|stop|logprobs|grammar|strategy|n\b", message
    )
    return found[0] if found else None
