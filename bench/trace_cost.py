"""Measures what a trace costs: `python -m bench.trace_cost [MODEL]`.

A trace with candidates and the same run without one take turns, in the library and over HTTP, where both are
answers of `/trace`. What counts are the medians of the ratios within a round. Server, client and library run
on the same two cores, in turns.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
from collections.abc import Callable, Sequence
from time import perf_counter
from typing import Any

from bench.server import NAME, Prompts, Served, read_all, send
from decodery import LLM, GenerationParams
from decodery.decoding.event import Event
from decodery.weights.sources.locate import resolve

PARAMS: dict[str, Any] = {"temperature": 0.8, "top_p": 0.95, "seed": 1, "ignore_eos": True}
Tokens = Sequence[Sequence[int]]
# Runs prompts with so many tokens each, with candidates or without a trace.
Run = Callable[[Tokens, int, int | None], None]


def in_process(llm: LLM) -> Run:
    """Returns the run of the library."""

    def run(prompts: Tokens, tokens: int, candidates: int | None) -> None:
        params = GenerationParams(max_tokens=tokens, speculate=None, **PARAMS)
        asked = [list(prompt) for prompt in prompts]
        if candidates is None:
            llm.generate(asked, params, progress=False)
        else:
            llm.generate(asked, params, observer=_ignore, candidates=candidates, progress=False)

    return run


def _ignore(event: Event) -> None:
    """Takes an event."""


def over_http(served: Served) -> Run:
    """Returns the run of a server: a connection for each prompt."""

    def run(prompts: Tokens, tokens: int, candidates: int | None) -> None:
        asked = {"model": NAME, "texts": True, **({} if candidates is None else {"candidates": candidates})}
        params = {**PARAMS, "max_tokens": tokens, "speculate": "none"}
        bodies = [
            json.dumps({**asked, "requests": [{"prompt": list(prompt), "params": params}]}).encode()
            for prompt in prompts
        ]
        streams = [send(served.port, body, "/trace") for body in bodies]
        read_all(streams)
        for stream in streams:
            assert b'{"kind":"end"}' in stream.tail, stream.tail

    return run


def measure(run: Run, prompts: Prompts, streams: int, tokens: int, rounds: int, candidates: int) -> str:
    """Returns a line of the table: medians over the rounds, of which one more warms up."""
    rates: dict[int | None, list[float]] = {None: [], candidates: []}
    for number in range(-1, rounds):
        for asked, found in rates.items():
            began = perf_counter()
            run(prompts.next(streams, 32), tokens, asked)
            if number >= 0:
                found.append(streams * tokens / (perf_counter() - began))
    cost = statistics.median(1 - b / a for a, b in zip(rates[None], rates[candidates], strict=True))
    plain, traced = (statistics.median(found) for found in rates.values())
    return f"{streams} | {plain:.0f} | {traced:.0f} | {100 * cost:.1f} % |"


def main() -> None:
    """Measures and prints."""
    parser = argparse.ArgumentParser(prog="python -m bench.trace_cost", description=__doc__)
    parser.add_argument("model", nargs="?")
    parser.add_argument("--streams", default="1,8")
    parser.add_argument("--tokens", type=int, default=128)
    parser.add_argument("--rounds", type=int, default=9)
    parser.add_argument("--candidates", type=int, default=10)
    asked = parser.parse_args()
    if hasattr(os, "sched_setaffinity"):
        # The server inherits it.
        os.sched_setaffinity(0, sorted(os.sched_getaffinity(0))[:2])
    model = asked.model or str(resolve(None))
    llm = LLM(model)
    served = Served(model)
    prompts = Prompts(llm.model.vocab_size)
    try:
        print("| | streams | tokens/s without | with a trace | cost |\n|---|---|---|---|---|")
        for name, run in (("library", in_process(llm)), ("HTTP", over_http(served))):
            for count in map(int, asked.streams.split(",")):
                line = measure(run, prompts, count, asked.tokens, asked.rounds, asked.candidates)
                print(f"| {name} | {line}", flush=True)
    finally:
        served.close()


if __name__ == "__main__":
    main()
