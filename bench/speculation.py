"""Measures the engine's own drafts on eight kinds of text (`python -m bench.speculation [MODEL]`).

Plain decoding and `speculate="auto"` run in turn, task by task, with the same seeds, and must give the same
tokens. Each round has a salt of its own, so that no draft comes from the same text of an earlier round; under
each salt the engine first answers eight other prompts (`EARLIER`), as one that has been running. Tasks with
one stream count the tokens after the first one over the time since then, and tell the time to the first one
apart; those with many count everything. What counts are the medians of the ratios within a round.
"""

from __future__ import annotations

import argparse
import json
import math
import statistics
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from time import perf_counter
from typing import Any

import torch

from bench.peers.machine import processor
from decodery import LLM, GenerationParams, JsonSchema
from decodery.weights.sources.locate import resolve

CODE = '''def total(prices, taxes):
    """Return the sum of all prices with taxes."""
    result = 0
    for price, tax in zip(prices, taxes):
        result += price * (1 + tax)
    return result


def average(prices, taxes):
    """Return the mean price with taxes."""
    if not prices:
        return 0
    return total(prices, taxes) / len(prices)
'''
# A small model edits code where it has seen an edit.
EDIT = f"""Before:
```python
def area(width, height):
    return width * height
```
After, `width` is called `breadth`:
```python
def area(breadth, height):
    return breadth * height
```

Before:
```python
{CODE}```
After, `prices` is called `amounts`:
```python
"""
PASSAGE = (
    "The lighthouse on the northern cliff was built in 1874 by a company of masons from the nearby town. "
    "Its lamp could be seen from a distance of twenty miles, and for more than ninety years a keeper climbed "
    "the two hundred steps every evening to light it. In 1966 the lamp was replaced by an electric one, and "
    "the last keeper, Ada Harding, moved to the village, where she wrote a book about the storms of her life."
)
HOUSES = {
    "type": "object",
    "properties": {
        "houses": {
            "type": "array",
            "minItems": 4,
            "maxItems": 6,
            "items": {
                "type": "object",
                "properties": {
                    "name": {"type": "string", "maxLength": 20},
                    "width_in_metres": {"type": "integer"},
                    "length_in_metres": {"type": "integer"},
                    "has_garden": {"type": "boolean"},
                },
                "required": ["name", "width_in_metres", "length_in_metres", "has_garden"],
                "additionalProperties": False,
            },
        }
    },
    "required": ["houses"],
    "additionalProperties": False,
}


@dataclass(frozen=True)
class Task:
    """Holds a prompt, a message to chat with if `chat`, and how it is decoded."""

    name: str
    prompt: str
    params: dict[str, Any] = field(default_factory=dict)
    chat: bool = False


TASKS = (
    Task(
        "story",
        "Once upon a time, in a village by the sea, there lived",
        {"temperature": 0.8, "top_p": 0.95, "ignore_eos": True},
    ),
    Task(
        "essay",
        "The history of bridges\n\nBridges are among the oldest",
        {"temperature": 0, "repetition_penalty": 1.1, "ignore_eos": True},
    ),
    Task("chat: advice", "How can I sleep better? Give me five tips.", {"temperature": 0.7}, chat=True),
    Task(
        "chat: explanation",
        "Explain how a rainbow forms, to a child.",
        {"temperature": 0.7, "top_p": 0.9},
        chat=True,
    ),
    Task("code edit", EDIT, {"temperature": 0, "ignore_eos": True}),
    Task("quoting", f"Repeat this text word for word.\n\n{PASSAGE}", {"temperature": 0.7}, chat=True),
    Task(
        "JSON",
        "Describe some houses of a street as JSON.",
        {"temperature": 0.7, "grammar": JsonSchema(HOUSES)},
        chat=True,
    ),
    Task(
        "list",
        "English: one, French: un\nEnglish: two, French: deux\nEnglish: three, French: trois\nEnglish: four,",
        {"temperature": 0, "ignore_eos": True},
    ),
)


# What an engine has answered before: the same kinds of text about other things.
EARLIER = (
    Task("story", "In the mountains there was a small school where", {"temperature": 0.8, "top_p": 0.95}),
    Task("essay", "A short history of paper\n\nPaper was first made in", {"temperature": 0}),
    Task("advice", "What should I pack for a week by the sea?", {"temperature": 0.7}, chat=True),
    Task("explanation", "Why do leaves turn red in autumn?", {"temperature": 0.7}, chat=True),
    Task("code", "Write a Python function that counts the words of a text.", {"temperature": 0}, chat=True),
    Task("summary", "Say in two sentences what a library is for.", {"temperature": 0.7}, chat=True),
    Task("letter", "Write a letter to a neighbour about a lost cat.", {"temperature": 0.7}, chat=True),
    Task("list", "Name ten animals that live in forests, one on each line.", {"temperature": 0}, chat=True),
)


@dataclass(frozen=True)
class Turn:
    """Holds how one task ran: tokens per second, the seconds to the first token, and the tokens."""

    rate: float
    first: float
    texts: list[list[int]]


def prompt_of(llm: LLM, task: Task) -> list[int]:
    """Returns the tokens of a task's prompt."""
    message = {"role": "user", "content": task.prompt}
    found = llm.chat_prompt([message]) if task.chat else llm.tokenizer.encode(task.prompt)
    return list(map(int, found))


def run(llm: LLM, tasks: list[Task], tokens: int, seed: int, salt: str, speculate: Any) -> Turn:
    """Runs tasks at once, each with a seed of its own."""
    prompts = [prompt_of(llm, task) for task in tasks]
    params = [
        GenerationParams(max_tokens=tokens, seed=seed + i, speculate=speculate, **task.params)
        for i, task in enumerate(tasks)
    ]
    began = perf_counter()
    if len(prompts) == 1:
        text: list[int] = []
        first, last = began, began
        for event in llm.stream(prompts[0], params[0], cache_salt=salt):
            last = perf_counter()
            if not text:
                first, counted = last, len(event.token_ids)
            text += event.token_ids
        return Turn((len(text) - counted) / max(last - first, 1e-9), first - began, [text])
    found = llm.generate(prompts, params, cache_salt=salt, progress=False)
    seconds = perf_counter() - began
    texts = [list(one.completions[0].token_ids) for one in found]
    return Turn(sum(map(len, texts)) / seconds, math.nan, texts)


def measure(
    llm: LLM, tasks: dict[str, list[Task]], tokens: int, rounds: int
) -> dict[str, list[tuple[Turn, Turn]]]:
    """Returns the turns of each task in each counted round, plain and with drafts."""
    found: dict[str, list[tuple[Turn, Turn]]] = {name: [] for name in tasks}
    for number in range(-1, rounds):
        run(llm, list(EARLIER), tokens, 500, f"plain {number}", None)
        run(llm, list(EARLIER), tokens, 500, f"auto {number}", "auto")
        for name, together in tasks.items():
            seed = 1000 * (number + 1)
            plain = run(llm, together, tokens, seed, f"plain {number}", None)
            drafted = run(llm, together, tokens, seed, f"auto {number}", "auto")
            assert plain.texts == drafted.texts, f"{name}: the texts differ"
            if number >= 0:
                found[name].append((plain, drafted))
    return found


def main() -> None:
    """Measures everything, prints a table and writes the JSON."""
    parser = argparse.ArgumentParser(prog="python -m bench.speculation", description=__doc__)
    parser.add_argument("model", nargs="?")
    parser.add_argument("--rounds", type=int, default=5, help="counted rounds")
    parser.add_argument("--tokens", type=int, default=160)
    parser.add_argument("--streams", type=int, nargs="*", default=[8, 32])
    parser.add_argument("--json", type=Path, default=Path("bench/results/speculation.json"))
    asked = parser.parse_args()
    llm = LLM(asked.model or resolve(None))
    tasks = {task.name: [task] for task in TASKS}
    tasks |= {f"{count} streams": [TASKS[i % len(TASKS)] for i in range(count)] for count in asked.streams}
    found = measure(llm, tasks, asked.tokens, asked.rounds)
    print(f"{'task':>18}  plain tok/s   auto  ratio  first token")
    medians = {}
    for name, turns in found.items():
        plain, auto = (statistics.median(turn[i].rate for turn in turns) for i in (0, 1))
        medians[name] = statistics.median(b.rate / a.rate for a, b in turns)
        first = statistics.median(b.first / a.first for a, b in turns)
        print(f"{name:>18} {plain:12.0f} {auto:6.0f} {medians[name]:6.2f} {first:12.2f}")
    mean = math.exp(statistics.fmean(math.log(medians[task.name]) for task in TASKS))
    print(f"{'geometric mean':>18} {mean:26.2f}")
    statistics_ = llm.engine.statistics()
    print(f"{statistics_.accepted} of {statistics_.drafted} drafts were right")
    written = {
        "date": datetime.now(UTC).isoformat(timespec="seconds"),
        "machine": {"processor": processor(), "threads": torch.get_num_threads()},
        "rounds": {name: [(a.rate, b.rate) for a, b in turns] for name, turns in found.items()},
    }
    asked.json.parent.mkdir(parents=True, exist_ok=True)
    asked.json.write_text(json.dumps(written, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
