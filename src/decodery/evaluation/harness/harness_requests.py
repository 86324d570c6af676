"""Answers the requests of lm-eval with an open model. Does not need lm-eval."""

from __future__ import annotations

import json
import math
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from decodery.decoding.request.params import GenerationParams
from decodery.errors import ParameterError
from decodery.evaluation.contract import (
    Answer,
    Continuation,
    ContinuationAnswer,
    Generation,
    GenerationAnswer,
    Prompt,
)
from decodery.evaluation.shots import seed_of
from decodery.evaluation.subject import Prepared, Subject

# Requests that are asked together.
BLOCK = 1024
DEFAULT_TOKENS = 256
# The names of the number of tokens, the first one that is given counts.
TOKENS = ("max_gen_toks", "max_new_tokens", "max_tokens", "max_completion_tokens")


@dataclass(frozen=True, slots=True)
class Asked:
    """Holds a request of lm-eval: its arguments, and the place that names it in errors."""

    arguments: tuple[Any, ...]
    place: str


Ready = Callable[[Asked, Any], None]


class HarnessRequests:
    """Answers requests, each kind in one call. Results are in the order of the requests.

    `ready` is called with each request and its result as soon as the result is there. Contexts are taken as
    they are, since lm-eval has rendered them: the texts of special tokens in them are these tokens. They
    begin with the token of the beginning as `bos` of `Renderer` says. One that is too long loses its
    beginning.
    """

    def __init__(self, subject: Subject, *, seed: int = 0) -> None:
        self._subject = subject
        self._tokenizer = subject.llm.tokenizer
        self._size = subject.llm.capacity
        self._seed = seed

    def loglikelihood(self, requests: Sequence[Asked], ready: Ready) -> list[tuple[float, bool]]:
        """Returns for each context and continuation the log-probability, and True if it is the greedy text.

        An empty context is the token of the beginning, else of the end.
        """
        prepared = [self._pair(one) for one in requests]

        def result(asked: Asked, answer: Answer) -> tuple[float, bool]:
            assert isinstance(answer, ContinuationAnswer)
            return _finite(asked, answer.logprob), answer.greedy

        return self._answered(requests, prepared, result, ready)

    def loglikelihood_rolling(self, requests: Sequence[Asked], ready: Ready) -> list[float]:
        """Returns the log-probability of each text. An empty text has 0.

        The windows are those of lm-eval: the first one begins with the prefix token, each later one with the
        last token of the one before, and the last one is as long as the others.
        """
        totals = [0.0] * len(requests)
        left = Counter[int]()
        windows: list[tuple[int, Prepared]] = []
        for place, one in enumerate(requests):
            (text,) = one.arguments
            found = list(self._windows(text))
            windows += [(place, window) for window in found]
            left[place] = len(found)
            if not found:
                ready(one, 0.0)
        for begin in range(0, len(windows), BLOCK):
            block = windows[begin : begin + BLOCK]
            answers: list[Answer | None] = [None] * len(block)
            self._subject.answer([window for _, window in block], answers.__setitem__)
            for (place, _), answer in zip(block, answers, strict=True):
                assert isinstance(answer, ContinuationAnswer)
                totals[place] += _finite(requests[place], answer.logprob)
                left[place] -= 1
                if not left[place]:
                    ready(requests[place], totals[place])
        return totals

    def _windows(self, text: str) -> Iterator[Prepared]:
        prefix, size = self._subject.renderer.prefix_token, self._size
        ids = self._encoded(text)
        ids = ids[1:] if ids[:1] == [prefix] else ids
        if ids:
            yield _scored([prefix], ids[:size])
        for begin in range(size, len(ids), size):
            window = ids[begin : begin + size]
            yield _scored(ids[begin + len(window) - size - 1 : begin], window)

    def generate_until(self, requests: Sequence[Asked], ready: Ready) -> list[str]:
        """Returns the text after each context, cut before the first stop string.

        A request that is there several times is asked with as many seeds.
        """
        times = Counter[str]()
        prepared = []
        for one in requests:
            context, given = one.arguments
            same = json.dumps([one.place, context, given], default=str)
            sample = times[same]
            times[same] += 1
            seed = seed_of(self._seed, one.place, context, sample) % 2**31
            params = self.params(given, one.place).replace(seed=seed)
            limit = self._size - (params.max_tokens or 1)
            if limit < 1:
                raise ParameterError(
                    f"{one.place}: max_tokens is {params.max_tokens}, and the context holds {self._size}"
                )
            ids = self._text_ids(context)[-limit:]
            prepared.append(Prepared("", Generation(Prompt(context), params, sample), ids, params=params))

        def result(asked: Asked, answer: Answer) -> str:
            assert isinstance(answer, GenerationAnswer)
            return answer.text

        return self._answered(requests, prepared, result, ready)

    def params(self, given: Mapping[str, Any], place: str = "") -> GenerationParams:
        """Returns the parameters of a text; names and defaults are those of transformers.

        Without `do_sample` and a temperature, a text is greedy. `until` is a stop string or several; that of
        a special token stops at the token. Raises `ParameterError` for a parameter that has no counterpart.
        """
        values = {name: value for name, value in given.items() if value is not None}
        until = values.pop("until", ())
        lengths = [values.pop(name) for name in TOKENS if name in values]
        temperature = values.pop("temperature", None)
        sampled = values.pop("do_sample", bool(temperature)) and temperature != 0
        if sampled:
            values |= {"do_sample": True, "temperature": 1.0 if temperature is None else temperature}
        stops = [stop for stop in ([until] if isinstance(until, str) else until) if stop]
        tokens = {stop: self._special_token(stop) for stop in stops}
        try:
            return GenerationParams.from_hf(
                values,
                max_tokens=lengths[0] if lengths else DEFAULT_TOKENS,
                stop=tuple(stop for stop in stops if tokens[stop] is None),
                stop_token_ids=tuple(token for token in tokens.values() if token is not None),
            )
        except ParameterError as error:
            raise ParameterError(f"{place}: {error}") from error

    def _special_token(self, text: str) -> int | None:
        ids = self._encoded(text)
        return ids[0] if len(ids) == 1 and ids[0] in self._tokenizer.special_ids else None

    def _pair(self, asked: Asked) -> Prepared:
        """Returns what scores a continuation. White space at the end of the context belongs to it.

        The two are encoded as one, unless the tokens of the context would change.
        """
        context, continuation = asked.arguments
        kept = context.rstrip()
        rest = context[len(kept) :] + continuation
        if kept:
            before, whole = self._text_ids(kept), self._text_ids(kept + rest)
            together = whole[: len(before)] == before
            ids = whole[len(before) :] if together else tuple(self._tokenizer.continuing_ids(rest))
        else:
            before, ids = (self._subject.renderer.prefix_token,), tuple(self._encoded(rest))
            ids = ids[1:] if ids[:1] == before else ids
        # The last token is not computed, so that the context may be one token longer than what is computed.
        limit = self._size + 1 - len(ids)
        if limit < 1:
            raise ParameterError(
                f"{asked.place}: the continuation has {len(ids)} tokens, and the context holds {self._size}"
            )
        if not ids:
            raise ParameterError(f"{asked.place}: the continuation {continuation!r} has no tokens")
        return _scored(before[-limit:], ids)

    def _text_ids(self, text: str) -> tuple[int, ...]:
        return self._subject.renderer.begun([*self._tokenizer.prefix_ids, *self._encoded(text)])

    def _encoded(self, text: str) -> list[int]:
        return self._tokenizer.encode(text, add_special_tokens=False)

    def _answered(
        self,
        requests: Sequence[Asked],
        prepared: Sequence[Prepared],
        result: Callable[[Asked, Answer], Any],
        ready: Ready,
    ) -> list[Any]:
        found: list[Any] = [None] * len(requests)
        for begin in range(0, len(requests), BLOCK):

            def keep(place: int, answer: Answer, begin: int = begin) -> None:
                asked = requests[begin + place]
                found[begin + place] = result(asked, answer)
                ready(asked, found[begin + place])

            self._subject.answer(prepared[begin : begin + BLOCK], keep)
        return found


def _scored(before: Sequence[int], ids: Sequence[int]) -> Prepared:
    return Prepared("", Continuation(Prompt(""), ""), tuple(before), tuple(ids))


def _finite(asked: Asked, logprob: float) -> float:
    if math.isnan(logprob):
        raise ParameterError(f"{asked.place}: a log-probability is NaN")
    return logprob
