"""Asks a server and the library the same, and brings both answers into one form."""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from decodery import LLM, DecoderyError, GenerationParams, RequestOutput
from decodery.decoding.request.plain import FUNCTIONS, params_to_plain
from decodery.serving.openai.answers import finish_name
from tests.combinations import Feature, features
from tests.mixed import random_request
from tests.serving.live import LiveServer, Stream


@dataclass(frozen=True)
class Asked:
    """Holds a prompt and its parameters."""

    prompt: str
    params: GenerationParams

    @property
    def body(self) -> dict[str, Any]:
        """Returns the body that asks a server for it."""
        plain = params_to_plain(self.params)
        return {
            "temperature": 1.0,
            "max_tokens": None,
            **plain,
            "prompt": self.prompt,
            "return_token_ids": True,
        }


def plain_features(second: str) -> list[Feature]:
    """Returns the features of `tests.combinations` that JSON can hold."""
    return [f for f in features(second) if not any(name in f.changes for name in FUNCTIONS)]


def random_asked(source: random.Random, listed: Sequence[Feature]) -> Asked:
    """Returns a random request, of any strategy."""
    return Asked(*random_request(source, listed))


Choice = dict[str, Any]
Answers = list[Choice] | str


def alone(llm: LLM, asked: Asked) -> Answers:
    """Returns what the library answers to a request alone; "error" if it refuses."""
    try:
        (output,) = llm.generate(asked.prompt, asked.params)
    except DecoderyError:
        return "error"
    return "error" if output.error is not None else _of_library(output, echo=asked.params.echo)


def _of_library(output: RequestOutput, *, echo: bool) -> list[Choice]:
    """Returns the choices; the server has the log-probabilities of an echoed prompt before the text's."""
    before = output.prompt_logprobs or [] if echo else []
    return [
        {
            "text": c.text,
            "token_ids": c.token_ids,
            "finish_reason": finish_name(c.finish_reason),
            "logprobs": None
            if c.logprobs is None
            else [None if p is None else max(p.logprob, -9999.0) for p in (*before, *c.logprobs)],
        }
        for c in output.completions
    ]


def answered(server: LiveServer, asked: Asked) -> Answers:
    """Returns a server's plain answer; "error" for one with status 400."""
    answer = server.post("/v1/completions", asked.body)
    if answer.status_code == 400:
        return "error"
    assert answer.status_code == 200, answer.text
    return [_of_choice(choice) for choice in answer.json()["choices"]]


def _of_choice(choice: dict[str, Any]) -> Choice:
    found = {name: choice[name] for name in ("text", "token_ids", "finish_reason")}
    logprobs = choice["logprobs"]
    return {**found, "logprobs": None if logprobs is None else logprobs["token_logprobs"]}


def streamed(server: LiveServer, asked: Asked) -> Answers:
    """Returns a server's stream, joined into the form of a plain answer."""
    return joined(server.stream(**asked.body), asked)


def joined(stream: Stream, asked: Asked) -> Answers:
    if stream.status == 400 or (stream.events and "error" in stream.events[-1]):
        return "error"
    assert stream.status == 200
    assert stream.done
    found: dict[int, Choice] = {}
    for chunk in stream.choices:
        empty = {"text": "", "token_ids": [], "finish_reason": None}
        choice = found.setdefault(chunk["index"], {**empty, "logprobs": None})
        assert choice["finish_reason"] is None, "a choice goes on after its end"
        choice["text"] += chunk["text"]
        choice["token_ids"] += chunk.get("token_ids", [])
        choice["finish_reason"] = chunk["finish_reason"]
        if asked.params.logprobs is not None:
            choice["logprobs"] = choice["logprobs"] or []
        if chunk["logprobs"] is not None:
            choice["logprobs"] += chunk["logprobs"]["token_logprobs"]
    return [found[index] for index in sorted(found)]


def same(server: Answers, library: Answers) -> bool:
    """True if a server's answers are the library's.

    An entry of log-probabilities whose token a stop string cuts off is left out by the server.
    """
    if isinstance(server, str) or isinstance(library, str) or len(server) != len(library):
        return server == library
    return all(_same(mine, theirs) for mine, theirs in zip(server, library, strict=True))


def _same(server: Choice, library: Choice) -> bool:
    fields = ("text", "token_ids", "finish_reason")
    if any(server[name] != library[name] for name in fields):
        return False
    mine, theirs = server["logprobs"], library["logprobs"]
    if mine is None or theirs is None:
        return bool(mine is theirs)
    stopped = library["finish_reason"] == "stop"
    return bool(mine == theirs or (stopped and mine == theirs[: len(mine)]))
