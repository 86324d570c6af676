"""Measures the cost of each way to decode over greedy decoding (`python -m bench.decoding`).

Beam search is also compared with that of transformers. All variants run in turn, round after round; what
counts are the medians of the ratios within a round.
"""

from __future__ import annotations

import argparse
import json
import statistics
from collections.abc import Callable
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path
from time import perf_counter

import torch

from bench.contenders.decodery import SAMPLING, own_dtype
from bench.contenders.transformers import Transformers
from bench.peers.machine import processor
from bench.workloads import prompts
from decodery import LLM, BeamSearch, GenerationParams, JsonSchema, PromptLookup
from decodery.weights.sources.locate import resolve

GREEDY = GenerationParams(max_tokens=48, temperature=0, ignore_eos=True, speculate=None)
FULL = GREEDY.replace(**SAMPLING)
BEAMS = GREEDY.replace(strategy=BeamSearch(num_beams=4))
SCHEMA = {
    "type": "object",
    "properties": {
        "name": {"type": "string"},
        "age": {"type": "integer"},
        "tags": {"type": "array", "items": {"type": "string"}, "minItems": 20},
    },
    "required": ["name", "age", "tags"],
}
EDIT = """Copy this text without any change.

Text: The committee met on Tuesday to discuss the new bridge over the river. After two hours of debate the
members agreed that the bridge should be built of stone, that it should be wide enough for two carts, and that
the mayor should ask the neighbouring towns to share its cost. The committee will meet again on Friday to hear
what the neighbouring towns have answered.

Copy: The committee met on Tuesday to discuss the new bridge over the river."""

Action = Callable[[int], object]


def per_token(llm: LLM, params: GenerationParams, rows: int) -> Action:
    """Returns an action that generates after prompts of 16 random tokens, which differ in each call."""

    def run(seed: int) -> object:
        return llm.generate(prompts(rows, 16, seed), params, progress=False)

    return run


def measure(actions: dict[str, Action], rounds: int) -> dict[str, list[float]]:
    """Returns the seconds of each action in each round, without a warm-up round."""
    results: dict[str, list[float]] = {name: [] for name in actions}
    for number in range(-1, rounds):
        for name, action in actions.items():
            start = perf_counter()
            action(number + 1)
            if number >= 0:
                results[name].append(perf_counter() - start)
    return results


def ratio(results: dict[str, list[float]], above: str, below: str) -> float:
    """Returns the median over the rounds of one action's time divided by another's."""
    pairs = zip(results[above], results[below], strict=True)
    return statistics.median(a / b for a, b in pairs)


def variants(llm: LLM, peer: Transformers) -> dict[str, Action]:
    """Returns all actions that are measured, by name."""
    grammar = GREEDY.replace(grammar=JsonSchema(SCHEMA), ignore_eos=False)

    def edit(params: GenerationParams) -> Action:
        return lambda seed: llm.generate(f"{seed}. {EDIT}", params, progress=False)

    return {
        "greedy, 1 row": per_token(llm, GREEDY, 1),
        "processors, 1 row": per_token(llm, FULL, 1),
        "greedy, 8 rows": per_token(llm, GREEDY, 8),
        "processors, 8 rows": per_token(llm, FULL, 8),
        "4 beams": per_token(llm, BEAMS, 1),
        "4 beams, transformers": lambda seed: peer.beams(prompts(1, 16, seed)[0], 48, 4),
        "json schema, 1 row": per_token(llm, grammar, 1),
        "json schema, 8 rows": per_token(llm, grammar, 8),
        "edit, greedy": edit(GREEDY.replace(max_tokens=64)),
        "edit, prompt lookup": edit(GREEDY.replace(max_tokens=64, speculate=PromptLookup())),
    }


FIGURES = (
    ("processors over greedy, 1 row", "processors, 1 row", "greedy, 1 row", "at most 1.10"),
    ("processors over greedy, 8 rows", "processors, 8 rows", "greedy, 8 rows", "at most 1.10"),
    ("4 beams over 1 greedy stream", "4 beams", "greedy, 1 row", "at most 1.60"),
    ("transformers' 4 beams over ours", "4 beams, transformers", "4 beams", "at least 1.80"),
    ("json schema over greedy, 1 row", "json schema, 1 row", "greedy, 1 row", "at most 1.05"),
    ("json schema over greedy, 8 rows", "json schema, 8 rows", "greedy, 8 rows", "at most 1.05"),
    ("greedy over prompt lookup, edit", "edit, greedy", "edit, prompt lookup", "at least 1.50"),
)


def main() -> None:
    """Measures everything, prints the ratios and writes the JSON."""
    parser = argparse.ArgumentParser(prog="python -m bench.decoding", description=__doc__)
    parser.add_argument("--rounds", type=int, default=5, help="counted rounds")
    parser.add_argument("--dtype", default="bfloat16", choices=["float32", "bfloat16"])
    parser.add_argument("--backend", default="torch", choices=["torch", "native"])
    parser.add_argument("--json", type=Path, default=Path("bench/results/decoding.json"))
    arguments = parser.parse_args()
    model = resolve(None)
    llm = LLM(model, dtype=own_dtype(arguments.backend, arguments.dtype), backend=arguments.backend)
    results = measure(variants(llm, Transformers(model, dtype=arguments.dtype)), arguments.rounds)
    for name, times in results.items():
        print(f"{name:28} {statistics.median(times) * 1000:8.0f} ms")
    for name, above, below, aim in FIGURES:
        print(f"{name:36} {ratio(results, above, below):5.2f}   (aim: {aim})")
    written = {
        "date": datetime.now(UTC).isoformat(timespec="seconds"),
        "machine": {"processor": processor(), "threads": torch.get_num_threads()},
        "versions": {name: version(name) for name in ("decodery", "torch", "transformers")},
        "dtype": arguments.dtype,
        "backend": arguments.backend,
        "seconds": results,
    }
    arguments.json.parent.mkdir(parents=True, exist_ok=True)
    arguments.json.write_text(json.dumps(written, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
