"""Compares random requests for which the engine drafts with plain decoding: `python -m tests.drafted`.

Each request is decoded plainly and alone, then with the engine's drafts alone, then among others on few
pages, in small steps, as a stream that may be closed in the middle. All must give the same, bit for bit.
"""

from __future__ import annotations

import argparse
import random
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Generator, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import Any

from decodery import LLM, Choice, DecoderyError, GenerationParams, JsonSchema, ParameterError, Regex
from decodery.decoding.event import Event
from decodery.kernels.native.drafter import SOURCES
from decodery.outputs import StreamEvent
from tests.cli.conftest import write_model
from tests.combinations import Feature, features
from tests.engine.drafts.test_speculator import CheapRows
from tests.mixed import random_prompt, random_request

PAGES = 17
# So many requests run at once.
COMPANY = 8
SCHEMA = {
    "type": "object",
    "properties": {
        "kind": {"enum": ["first", "second"]},
        "numbers": {"type": "array", "items": {"type": "integer"}, "maxItems": 4},
        "yes": {"type": "boolean"},
    },
    "required": ["kind", "numbers", "yes"],
    "additionalProperties": False,
}
# What requests may ask for whose drafts one call of a kernel judges.
ASKED: dict[str, tuple[Any, ...]] = {
    "temperature": (0, 0, 0, 0.05, 0.3, 0.8, 1.0),
    "max_tokens": (1, 2, 3, 7, 16, 30, 60, 200),
    "logprobs": (None, None, 0, 3),
}
SOMETIMES: dict[str, tuple[Any, ...]] = {
    "top_k": (1, 5, 40),
    "top_p": (0.5, 0.9),
    "min_p": (0.05, 0.3),
    "repetition_penalty": (1.1, 1.5),
    "presence_penalty": (0.4, -0.5),
    "frequency_penalty": (0.3, -0.2),
    "penalty_range": (8,),
    "n": (2,),
    "best_of": (2,),
    "grammar": (
        Regex("([a-e]{2} )+"),
        Regex("(abcd|abef|xyz!)+"),
        Choice(("the same words again", "the same words at last", "no")),
        JsonSchema(SCHEMA),
    ),
    "stop": (("ab", "e"), ("\n", " "), ("aba", "cdc", "xx"), "zz"),
    "stop_token_ids": ((65, 66, 67), (250, 251, 252, 253)),
    "stop_regex": ("[a-f][a-z]", "[0-9]+"),
    "include_stop": (True,),
    "ignore_eos": (True,),
    "prompt_logprobs": (0, 2),
    "max_length": (40, 90),
    "echo": (True,),
    "token_healing": (True,),
    "skip_special_tokens": (False,),
}


@dataclass(frozen=True)
class Asked:
    """Holds a request. A stream of it is closed after `closed_after` events, if it has so many."""

    prompt: str
    params: GenerationParams
    candidates: int = 0
    salt: str | None = None
    closed_after: int | None = None


@dataclass
class Seen:
    """Holds what came of a request, by stream; floats are not rounded, so equal means equal in every bit.

    A choice is its text, since a probability may be nan where no token is possible.
    """

    tokens: dict[Any, list[int]] = field(default_factory=dict)
    # By stream and kind: log-probabilities, choices, beams.
    records: dict[tuple[Any, str], list[Any]] = field(default_factory=dict)
    texts: dict[int, str] = field(default_factory=dict)
    reasons: dict[int, Any] = field(default_factory=dict)
    error: str | None = None
    sourced: Counter[str] = field(default_factory=Counter)

    def observe(self, event: Event) -> None:
        """Adds all of an event but its drafts."""
        self.tokens.setdefault(event.stream, []).extend(event.tokens)
        kinds: dict[str, Sequence[Any]] = {
            "logprobs": event.logprobs,
            "choices": tuple(map(repr, event.considered)),
            "beams": event.beams,
        }
        for kind, new in kinds.items():
            self.records.setdefault((event.stream, kind), []).extend(new)
        if event.finish:
            self.records[event.stream, "end"] = [event.finish, event.error, event.score]
        if event.prompt_logprobs is not None:
            self.records[None, "prompt"] = list(event.prompt_logprobs)
        assert len(event.draft_sources) in (0, len(event.drafts))
        self.sourced.update(event.draft_sources[: event.accepted])

    def add(self, event: StreamEvent) -> None:
        """Adds what a step added to a text."""
        self.texts[event.index] = self.texts.get(event.index, "") + event.text
        if event.finish_reason is not None:
            self.reasons[event.index] = (event.finish_reason, event.stop_reason, event.error)

    def is_of(self, whole: Seen, *, closed: bool) -> bool:
        """True if this is `whole`, or its beginning where the stream was closed."""
        if not closed and whole.error is not None:
            # A stream ends with the error alone.
            ended = replace(self, texts=whole.texts, reasons=whole.reasons, sourced=whole.sourced)
            return ended == whole
        if not closed:
            return replace(self, sourced=whole.sourced) == whole
        return all(tokens == whole.tokens[s][: len(tokens)] for s, tokens in self.tokens.items()) and all(
            whole.texts[index].startswith(text) for index, text in self.texts.items()
        )


def requests(source: random.Random, listed: Sequence[Feature], count: int) -> list[Asked]:
    """Returns random requests; many repeat an earlier one, so that drafts from it are right."""
    prompts = [random_prompt(source) for _ in range(40)]
    found: list[Asked] = []
    while len(found) < count:
        if found and source.random() < 0.35:
            asked = source.choice(found[-30:])
            most = max(source.choice(ASKED["max_tokens"]), asked.params.min_tokens)
            params = asked.params.replace(max_tokens=most)
        elif source.random() < 0.3:
            params = random_request(source, listed)[1]
            asked = Asked(source.choice(prompts), params)
        else:
            asked = Asked(source.choice(prompts), _drafted(source))
            params = asked.params
        found.append(
            Asked(
                asked.prompt,
                params,
                source.choice((0, 0, 3)),
                asked.salt if asked in found else source.choice((None, None, "a", "b")),
                source.randrange(12) if source.random() < 0.1 else None,
            )
        )
    return found


def _drafted(source: random.Random) -> GenerationParams:
    while True:
        changes = {name: source.choice(values) for name, values in ASKED.items()}
        rate = source.choice((0.0, 0.1, 0.25))
        changes |= {name: source.choice(v) for name, v in SOMETIMES.items() if source.random() < rate}
        try:
            return GenerationParams(seed=source.randrange(3), **changes)
        except ParameterError:
            continue


def generated(llm: LLM, asked: Asked, **changes: Any) -> Seen:
    """Returns what `generate` gives for a request alone."""
    seen = Seen()
    try:
        (output,) = llm.generate(
            asked.prompt,
            asked.params.replace(**changes),
            observer=seen.observe,
            candidates=asked.candidates,
            cache_salt=asked.salt,
        )
    except DecoderyError as error:
        seen.error = str(error)
        return seen
    seen.error = output.error
    for one in output.completions:
        seen.texts[one.index] = one.text
        seen.reasons[one.index] = (one.finish_reason, one.stop_reason, one.error)
    return seen


class Company:
    """Runs requests as streams, some at once, and compares each with what it must give."""

    def __init__(self, llm: LLM, source: random.Random) -> None:
        self._llm = llm
        self._source = source
        self._running: list[tuple[int, Seen, Generator[StreamEvent, None, None]]] = []
        self.found: dict[int, Seen] = {}
        self.closed: set[int] = set()

    def run(self, listed: Sequence[Asked]) -> None:
        """Runs all requests to their ends, or until they are closed."""
        waiting = list(enumerate(listed))
        while waiting or self._running:
            if waiting and len(self._running) < COMPANY:
                self._begin(*waiting.pop(0))
            elif self._running:
                self._advance(listed, self._source.randrange(len(self._running)))
            if self._source.random() < 0.02:
                self._llm.engine.check_integrity()

    def _begin(self, number: int, asked: Asked) -> None:
        seen = self.found[number] = Seen()
        try:
            stream = self._llm.stream(
                asked.prompt,
                asked.params,
                observer=seen.observe,
                candidates=asked.candidates,
                cache_salt=asked.salt,
            )
        except DecoderyError as error:
            seen.error = str(error)
            return
        self._running.append((number, seen, stream))

    def _advance(self, listed: Sequence[Asked], place: int) -> None:
        number, seen, stream = self._running[place]
        after = listed[number].closed_after
        if after is not None and self._source.random() * (after + 1) < 1:
            self.closed.add(number)
            stream.close()
            del self._running[place]
            return
        try:
            seen.add(next(stream))
        except (StopIteration, DecoderyError) as end:
            seen.error = str(end) if isinstance(end, DecoderyError) else None
            del self._running[place]


@dataclass
class Law:
    """Holds requests with what each gives plainly and alone, and the model's folder."""

    folder: str
    listed: list[Asked]
    plain: list[Seen]

    def open(self, **options: Any) -> LLM:
        """Returns an LLM whose steps hardly take longer with drafts, so that there are many."""
        llm = LLM(self.folder, dtype="float32", backend="native", **options)
        assert llm.engine._speculator is not None
        llm.engine._speculator._time = CheapRows()
        return llm

    def alone(self, **options: Any) -> LLM:
        """Runs each request alone with the engine's drafts, compares, and returns the LLM."""
        llm = self.open(**options)
        for asked, plain in zip(self.listed, self.plain, strict=True):
            assert generated(llm, asked).is_of(plain, closed=False), asked
        _check_end(llm)
        return llm

    def together(self, seed: int, **options: Any) -> LLM:
        """Runs the requests as streams, some at once, on few pages, compares, and returns the LLM."""
        page = self.open(kv_memory="1MB").engine.limits.page_bytes
        # A second model takes half of it.
        llm = self.open(kv_memory=2 * PAGES * page, token_budget=24, **options)
        company = Company(llm, random.Random(seed))
        company.run(self.listed)
        for number, (asked, plain) in enumerate(zip(self.listed, self.plain, strict=True)):
            assert company.found[number].is_of(plain, closed=number in company.closed), asked
        _check_end(llm)
        return llm


def _check_end(llm: LLM) -> None:
    """Raises `AssertionError` unless nothing of the requests is left."""
    assert not llm.engine.has_work()
    llm.engine.check_integrity()
    assert not len(llm.engine._speculator._drafter)  # type: ignore[union-attr]


def law(folder: str, count: int, seed: int) -> Law:
    """Returns so many random requests, decoded plainly and alone."""
    # Excluded: what rejection sampling draws may depend on which drafts run, as its documentation says.
    listed = [f for f in features(folder) if not f.name.endswith("rejection")]
    asked = requests(random.Random(seed), listed, count)
    llm = LLM(folder, dtype="float32", backend="native", prefix_cache=False)
    found = Law(folder, asked, [generated(llm, one, speculate=None) for one in asked])
    assert llm.engine.statistics().by_source == {}
    return found


def shares(llm: LLM) -> dict[str, float]:
    """Returns, for each source, the share of the generated tokens that were its drafts."""
    statistics = llm.engine.statistics()
    counts = {source: statistics.by_source.get(source, (0, 0))[1] for source in SOURCES}
    assert sum(counts.values()) <= statistics.accepted
    return {source: count / statistics.generated_tokens for source, count in counts.items()}


def main() -> None:
    """Runs the law and prints how much was drafted."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--requests", type=int, default=2000)
    parser.add_argument("--seed", type=int, default=0)
    asked = parser.parse_args()
    began = time.monotonic()
    with tempfile.TemporaryDirectory() as folder:
        found = law(write_model(Path(folder)), asked.requests, asked.seed)
        runs: dict[str, Callable[[], LLM]] = {
            "alone": found.alone,
            "together": partial(found.together, asked.seed),
        }
        for name, run in runs.items():
            llm = run()
            sys.stdout.write(
                f"{name}: {shares(llm)}, {llm.engine.statistics()}, {time.monotonic() - began:.0f} s\n"
            )


if __name__ == "__main__":
    main()
