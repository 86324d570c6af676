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

    `ready` is called with each request and its result as soon as the result is there.
    """

    def __init__(self, subject: Subject, *, seed: int = 0) -> None:
        self._subject = subject
        self._seed = seed

    def loglikelihood(self, requests: Sequence[Asked], ready: Ready) -> list[tuple[float, bool]]:
        """Returns for each context and continuation the log-probability, and True if it is the greedy text.

        An empty context is the token of the beginning, else of the end.
        """
        prepared = []
        for one in requests:
            context, continuation = one.arguments
            asked = Continuation(Prompt(context, delimiter=""), continuation)
            prepared.append(self._subject.prepare(asked, one.place, self._seed))

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
        renderer, size = self._subject.renderer, self._subject.llm.capacity
        ids = renderer.whole_ids(text)
        if ids[:1] == (renderer.prefix_token,):
            ids = ids[1:]
        asked = Continuation(Prompt(text), "")
        if ids:
            yield Prepared("", asked, (renderer.prefix_token,), ids[:size])
        for begin in range(size, len(ids), size):
            window = ids[begin : begin + size]
            before = ids[begin + len(window) - size - 1 : begin]
            yield Prepared("", asked, before, window)

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
            asked = Generation(Prompt(context), self.params(given, one.place), sample)
            seed = seed_of(self._seed, one.place, context, sample) % 2**31
            prepared.append(self._subject.prepare(asked, one.place, seed))

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
        tokenizer = self._subject.llm.tokenizer
        ids = tokenizer.encode(text, add_special_tokens=False)
        return ids[0] if len(ids) == 1 and ids[0] in tokenizer.special_ids else None

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


def _finite(asked: Asked, logprob: float) -> float:
    if math.isnan(logprob):
        raise ParameterError(f"{asked.place}: a log-probability is NaN")
    return logprob
