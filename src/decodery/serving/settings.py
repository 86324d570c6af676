"""Holds what a person can set about a server."""

from __future__ import annotations

import ipaddress
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

from decodery.errors import ParameterError

TokenArrays = Literal["own", "cl100k"]
"""The vocabulary of token ids: the model's own, or that of OpenAI's encoding cl100k_base."""


@dataclass(frozen=True, slots=True)
class RequestLimits:
    """Holds the largest request that a server takes; sizes in bytes, times in seconds.

    `body` is what comes over the wire, `unpacked` what it may become. `completions` bounds the texts of
    all prompts together, `texts` those that an encoder reads for one request. `queued` is the number of
    requests that wait until their prompt is computed; one more is refused with 429. `seconds` bounds a
    request from its arrival to its last token, `body_seconds` the time that its body takes to arrive, and
    `preparing_seconds` that of its template, tokens and grammar.
    """

    body: int = 8 << 20
    unpacked: int = 32 << 20
    depth: int = 64
    prompts: int = 256
    prompt_tokens: int | None = None
    max_tokens: int | None = None
    n: int = 128
    completions: int = 512
    texts: int = 2048
    logprobs: int = 100
    stops: int = 64
    schema: int = 256 << 10
    queued: int = 256
    seconds: float = 600.0
    body_seconds: float = 30.0
    preparing_seconds: float = 10.0

    def __post_init__(self) -> None:
        for name in self.__dataclass_fields__:
            value = getattr(self, name)
            if value is not None and value <= 0:
                raise ParameterError(f"{name} must be above 0, not {value}")


@dataclass(frozen=True, slots=True)
class ServerSettings:
    """Holds the address of a server, who may come in, and its limits.

    `keys` are the keys of which each request must have one; without keys only this machine may come in, and
    `host` must be a loopback address. `origins` are the web pages that may call the server from a browser.
    `lenient` accepts unknown fields of requests. `token_arrays` says whose token ids may stand in place of
    texts for an encoder; None refuses them. `pings` is the number of seconds between comments that keep a
    waiting stream alive; None sends none. `drain_seconds` is how long requests may go on after SIGTERM.
    """

    host: str = "127.0.0.1"
    port: int = 8000
    keys: tuple[str, ...] = field(default=(), repr=False)
    origins: tuple[str, ...] = ()
    lenient: bool = False
    log_prompts: bool = False
    token_arrays: TokenArrays | None = None
    pings: float | None = 10.0
    drain_seconds: float = 30.0
    limits: RequestLimits = RequestLimits()

    def __post_init__(self) -> None:
        if not self.keys and not is_loopback(self.host):
            raise ParameterError(
                f"host {self.host} can be reached from other machines: give keys in a file"
                " (--api-key-file) or in DECODERY_API_KEY, or listen on 127.0.0.1"
            )
        if not 0 <= self.port < 65536:
            raise ParameterError(f"port must be from 0 to 65535, not {self.port}")
        for origin in self.origins:
            if not origin.startswith(("http://", "https://")) or origin.count("/") != 2:
                raise ParameterError(
                    f"allow_origin must be like https://example.org, without a path, not {origin!r}"
                )


def is_loopback(host: str) -> bool:
    """True if only this machine can reach the address."""
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


def read_keys(path: Path | None, given: str | None) -> tuple[str, ...]:
    """Returns the keys of a file, one a line (empty lines and lines with # aside), and the one `given`.

    Raises `ParameterError` if the file cannot be read or has no key, and for a key that is not ASCII.
    """
    lines: Iterable[str] = [given] if given else []
    if path is not None:
        try:
            text = path.read_text(encoding="utf-8")
        except (OSError, UnicodeDecodeError) as error:
            raise ParameterError(f"the key file cannot be read: {error}") from None
        found = [line.strip() for line in text.splitlines()]
        found = [line for line in found if line and not line.startswith("#")]
        if not found:
            raise ParameterError("the key file has no key: write one a line")
        lines = [*lines, *found]
    for key in lines:
        if not key.isascii() or not key.isprintable() or " " in key:
            raise ParameterError("a key must be printable ASCII without spaces")
    return tuple(dict.fromkeys(lines))
