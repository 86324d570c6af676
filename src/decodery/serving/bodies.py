"""Reads the JSON body of a request within limits of size, depth and time."""

from __future__ import annotations

import asyncio
import json
import re
import zlib
from typing import Any

from starlette.requests import ClientDisconnect
from starlette.types import Message, Receive, Scope

from decodery.serving.errors import ApiError, invalid
from decodery.serving.settings import RequestLimits

# A string, which may contain brackets, or a bracket. A string without an end matches too, up to the end of
# the data: otherwise the search would begin again at each of its characters.
_TOKENS = re.compile(rb'"[^"\\]*(?:\\.[^"\\]*)*(?:"|\\?\Z)|[\[{]|[\]}]', re.DOTALL)
# An empty list takes two bytes of JSON, and fifty of memory.
MOST_CONTAINERS = 100_000
_UNPACK = {b"gzip": 16 + zlib.MAX_WBITS, b"x-gzip": 16 + zlib.MAX_WBITS, b"deflate": zlib.MAX_WBITS}
# Bodies above this size are parsed off the event loop.
LARGE = 64 << 10


async def read_json(scope: Scope, receive: Receive, limits: RequestLimits) -> dict[str, Any]:
    """Returns the object that the body contains.

    Raises `ApiError` for another content type (before the body is read), for a body that is too large, packed
    or not, too deep or too slow, and for JSON that is malformed or has values outside of JSON (NaN, numbers
    beyond float64, lone surrogates).
    """
    headers = dict(scope["headers"])
    kind = headers.get(b"content-type", b"").split(b";")[0].strip().lower()
    if kind != b"application/json":
        raise ApiError(415, "the content type must be application/json")
    length = headers.get(b"content-length", b"")
    if length.isdigit() and int(length) > limits.body:
        raise _too_large(limits.body)
    try:
        async with asyncio.timeout(limits.body_seconds):
            packed = await _read(receive, limits.body)
    except TimeoutError:
        raise ApiError(408, "the body came too slowly") from None
    data = _unpacked(packed, headers.get(b"content-encoding", b"").strip().lower(), limits.unpacked)
    if len(data) > LARGE:
        return await asyncio.get_running_loop().run_in_executor(None, parse_object, data, limits.depth)
    return parse_object(data, limits.depth)


async def _read(receive: Receive, most: int) -> bytes:
    parts: list[bytes] = []
    size = 0
    while True:
        message: Message = await receive()
        if message["type"] == "http.disconnect":
            raise ClientDisconnect
        part = message.get("body", b"")
        size += len(part)
        if size > most:
            raise _too_large(most)
        parts.append(part)
        if not message.get("more_body"):
            return b"".join(parts)


def _unpacked(data: bytes, encoding: bytes, most: int) -> bytes:
    if encoding in (b"", b"identity"):
        return data
    bits = _UNPACK.get(encoding)
    if bits is None:
        raise ApiError(415, "the content encoding must be gzip, deflate or identity")
    stream = zlib.decompressobj(bits)
    try:
        found = stream.decompress(data, most + 1)
    except zlib.error:
        raise invalid("the body is not packed as its content encoding says") from None
    if len(found) > most:
        raise _too_large(most)
    if not stream.eof or stream.unused_data:
        raise invalid("the packed body is cut, or something follows it")
    return found


def _too_large(most: int) -> ApiError:
    return ApiError(413, f"the body is larger than {most} bytes", code="request_too_large")


def parse_object(data: bytes, depth: int) -> dict[str, Any]:
    """Returns the JSON object; its values are finite, and its texts are Unicode without lone surrogates."""
    _check_depth(data, depth)
    try:
        text = data.decode("utf-8-sig")
    except UnicodeDecodeError:
        raise invalid("the body is not UTF-8") from None
    try:
        found = json.loads(text, parse_constant=_refuse_constant, parse_float=_finite)
    except ApiError:
        raise
    except (ValueError, RecursionError) as error:
        place = f" at character {error.pos}" if isinstance(error, json.JSONDecodeError) else ""
        raise invalid(f"the body is not JSON{place}") from None
    if not isinstance(found, dict):
        raise invalid("the body must be a JSON object")
    if b"\\u" in data:
        _check_surrogates(found, "")
    return found


def _check_depth(data: bytes, most: int) -> None:
    depth = count = 0
    for token in _TOKENS.finditer(data):
        first = data[token.start()]
        if first in b"[{":
            depth += 1
            count += 1
            if count > MOST_CONTAINERS:
                raise invalid(f"the body has more than {MOST_CONTAINERS} lists and objects")
            if depth > most:
                raise invalid(f"the body is nested deeper than {most} levels")
        elif first in b"]}":
            depth -= 1


def _refuse_constant(name: str) -> Any:
    raise invalid(f"the body contains {name}, which is not JSON")


def _finite(digits: str) -> float:
    value = float(digits)
    if value in (float("inf"), float("-inf")):
        raise invalid("the body contains a number that is too large")
    return value


def _check_surrogates(value: Any, path: str) -> None:
    if isinstance(value, str):
        if any("\ud800" <= c <= "\udfff" for c in value):
            raise invalid("a text contains a lone surrogate, which is no character", path or None)
    elif isinstance(value, dict):
        for key, item in value.items():
            _check_surrogates(key, path)
            _check_surrogates(item, f"{path}.{key}" if path else key)
    elif isinstance(value, list):
        for place, item in enumerate(value):
            _check_surrogates(item, f"{path}[{place}]")
