"""What a request asks for. Importing this needs no torch."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

from decodery.errors import ParameterError


@dataclass(frozen=True)
class Sampling:
    """Draw each token from the processed distribution; with `temperature=0`, take its most likely token."""


Strategy = Sampling


# Logits are float32: what is larger, or divides by less, leaves its range.
LARGEST = 1e9
COLDEST = 1e-6


def _field(default: Any, help: str) -> Any:
    return field(default=default, metadata={"help": help})


_SAMPLING = Sampling()


@dataclass(frozen=True)
class GenerationParams:
    """How one request is decoded; immutable, validated when built.

    Raises `ParameterError` naming the field. What depends on the model (token ids against its vocabulary,
    lengths against its context) is checked when the request is added.
    """

    max_tokens: int | None = _field(256, "Most tokens to generate; None generates until the context is full.")
    min_tokens: int = _field(0, "Tokens to generate before an end token or stop string may end the text.")
    temperature: float = _field(1.0, "Divides the logits; 0 takes the most likely token (greedy).")
    top_k: int = _field(0, "Keep the k most likely tokens; 0 keeps all.")
    top_p: float = _field(1.0, "Keep the fewest tokens whose probabilities sum to at least this.")
    min_p: float = _field(0.0, "Keep tokens at least this fraction as likely as the most likely one.")
    repetition_penalty: float = _field(
        1.0, "Divide positive and multiply negative logits of tokens seen in prompt or text."
    )
    presence_penalty: float = _field(0.0, "Subtract this from the logit of every token already generated.")
    frequency_penalty: float = _field(0.0, "Subtract this times its count from a generated token's logit.")
    logit_bias: Mapping[int, float] | tuple[tuple[int, float], ...] = _field(
        (), "Add to the logits of token ids (-inf bans one)."
    )
    stop: str | tuple[str, ...] = _field((), "Strings that end the text; the text is cut before them.")
    include_stop: bool = _field(False, "Leave the stop string that was met in the text.")
    stop_token_ids: tuple[int, ...] = _field((), "Token ids that end the text, besides the model's own.")
    ignore_eos: bool = _field(False, "Let the model's end tokens pass as ordinary ones.")
    skip_special_tokens: bool = _field(True, "Leave special tokens out of the text.")
    n: int = _field(1, "How many independent completions of the prompt.")
    seed: int | None = _field(None, "Makes draws repeatable; None picks one and reports it.")
    logprobs: int | None = _field(None, "Report log-probabilities: of the token and this many alternatives.")
    prompt_logprobs: int | None = _field(None, "The same for the prompt's tokens.")
    strategy: Strategy = field(default=_SAMPLING, metadata={"help": "How tokens are chosen."})

    def __post_init__(self) -> None:
        for name in ("logit_bias", "stop", "stop_token_ids"):
            object.__setattr__(self, name, _CANONICAL[name](getattr(self, name)))
        _whole("max_tokens", self.max_tokens, 1, none=True)
        _whole("min_tokens", self.min_tokens, 0)
        _whole("top_k", self.top_k, 0)
        _whole("n", self.n, 1)
        _whole("seed", self.seed, -(2**63), 2**64 - 1, none=True)
        _whole("logprobs", self.logprobs, 0, none=True)
        _whole("prompt_logprobs", self.prompt_logprobs, 0, none=True)
        _real("temperature", self.temperature, f"0, or {COLDEST} or more", lambda x: x == 0 or x >= COLDEST)
        _real("top_p", self.top_p, "above 0 and at most 1", lambda x: 0 < x <= 1)
        _real("min_p", self.min_p, "from 0 to 1", lambda x: 0 <= x <= 1)
        _real("repetition_penalty", self.repetition_penalty, "above 0", lambda x: x > 0)
        _real("presence_penalty", self.presence_penalty, "a finite number", lambda x: True)
        _real("frequency_penalty", self.frequency_penalty, "a finite number", lambda x: True)
        for name in ("include_stop", "ignore_eos", "skip_special_tokens"):
            if not isinstance(getattr(self, name), bool):
                raise ParameterError(f"{name} must be True or False, not {getattr(self, name)!r}")
        if not isinstance(self.strategy, Sampling):
            raise ParameterError(f"strategy must be a strategy such as Sampling(), not {self.strategy!r}")
        if self.max_tokens is not None and self.min_tokens > self.max_tokens:
            raise ParameterError(f"min_tokens is {self.min_tokens}, more than max_tokens {self.max_tokens}")

    @property
    def greedy(self) -> bool:
        """Whether each token is the most likely one and no noise is drawn."""
        return self.temperature == 0

    def replace(self, **changes: Any) -> GenerationParams:
        """A copy with these fields changed, validated again."""
        unknown = set(changes) - {f.name for f in dataclasses.fields(self)}
        if unknown:
            raise ParameterError(f"unknown parameter: {', '.join(sorted(unknown))}")
        return dataclasses.replace(self, **changes)

    def check_vocabulary(self, size: int) -> None:
        """Raise `ParameterError` if a field speaks of token ids or counts that `size` tokens don't have."""
        ids = [("logit_bias", token) for token, _ in self.logit_bias]  # type: ignore[misc]
        ids += [("stop_token_ids", token) for token in self.stop_token_ids]
        for name, token in ids:
            if not 0 <= token < size:
                raise ParameterError(f"{name} names token {token}; this vocabulary has ids 0 to {size - 1}")
        for name in ("top_k", "logprobs", "prompt_logprobs"):
            count = getattr(self, name)
            if count is not None and count > size:
                raise ParameterError(f"{name} is {count}; this vocabulary has {size} tokens")


def _whole(name: str, value: Any, low: int, high: int | None = None, *, none: bool = False) -> None:
    if none and value is None:
        return
    if isinstance(value, bool) or not isinstance(value, int):
        raise ParameterError(f"{name} must be a whole number, not {value!r}")
    if value < low or (high is not None and value > high):
        bound = f"{low} or more" if high is None else f"from {low} to {high}"
        raise ParameterError(f"{name} must be {bound}, not {value}")


def _real(name: str, value: Any, bound: str, holds: Any) -> None:
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        raise ParameterError(f"{name} must be a number, not {value!r}")
    if not abs(value) <= LARGEST or not holds(value):
        raise ParameterError(f"{name} must be {bound}, not {value}")


def _token_ids(name: str, values: Any) -> tuple[int, ...]:
    if isinstance(values, (str, bytes)) or not isinstance(values, Iterable):
        raise ParameterError(f"{name} must be a list of token ids, not {values!r}")
    ids = tuple(values)
    for token in ids:
        _whole(name, token, 0)
    return ids


def _stop(value: Any) -> tuple[str, ...]:
    strings = (value,) if isinstance(value, str) else value
    if not isinstance(strings, Iterable) or isinstance(strings, bytes):
        raise ParameterError(f"stop must be a string or a list of strings, not {value!r}")
    strings = tuple(strings)
    for string in strings:
        if not isinstance(string, str):
            raise ParameterError(f"stop must hold strings, not {string!r}")
        if not string:
            raise ParameterError("stop holds an empty string, which would end every text at once")
    return strings


def _logit_bias(value: Any) -> tuple[tuple[int, float], ...]:
    pairs = value.items() if isinstance(value, Mapping) else value
    try:
        items = [(token, bias) for token, bias in pairs]
    except (TypeError, ValueError):
        raise ParameterError(f"logit_bias must map token ids to numbers, not {value!r}") from None
    biases: dict[int, float] = {}
    for token, bias in items:
        if isinstance(token, str) and token.isascii() and token.isdigit():
            token = int(token)
        _whole("logit_bias", token, 0)
        if isinstance(bias, bool) or not isinstance(bias, (int, float)):
            raise ParameterError(f"logit_bias of token {token} must be a number, not {bias!r}")
        if not (abs(bias) <= LARGEST or bias == -math.inf):
            raise ParameterError(f"logit_bias of token {token} must be finite or -inf, not {bias}")
        if token in biases:
            raise ParameterError(f"logit_bias names token {token} twice")
        biases[token] = float(bias)
    return tuple(sorted(biases.items()))


_CANONICAL: dict[str, Callable[[Any], Any]] = {
    "logit_bias": _logit_bias,
    "stop": _stop,
    "stop_token_ids": lambda value: _token_ids("stop_token_ids", value),
}
