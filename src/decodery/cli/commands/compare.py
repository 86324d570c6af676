"""Implements `decodery compare`: generates from one prompt with several strategies and shows the texts."""

from __future__ import annotations

import textwrap
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from time import perf_counter
from typing import Any

from rich.cells import cell_len, set_cell_size
from rich.console import Console
from rich.text import Text

from decodery.cli.flags.comparison_lines import Line
from decodery.cli.flags.model_options import TextModelOptions
from decodery.cli.load_text_model import load
from decodery.cli.output_json import output_as_json
from decodery.cli.terminal import emit_json
from decodery.cli.text_model import TextModel
from decodery.decoding.event import Event
from decodery.decoding.request.params import GenerationParams
from decodery.errors import DecoderyError, RequestError
from decodery.outputs import Completion, RequestOutput

# Cells of the column of names and of the other columns, and the most cells of a line.
NAME = 16
HEADINGS = ("tokens", "logprob", "dist-1", "dist-2", "seconds", "end")
WIDTHS = (6, 8, 6, 6, 7, 6)
WIDEST = 100


@dataclass
class Outcome:
    """Holds the result of a line: its output, or the error because of which there is none.

    `seconds` are those from the start to the line's last token.
    """

    name: str
    params: GenerationParams | None = None
    output: RequestOutput | None = None
    error: str | None = None
    seconds: float = 0.0


def compare(prompt: str, lines: Sequence[Line], options: TextModelOptions, *, as_json: bool) -> None:
    """Runs the lines in one batch and prints their texts and figures, or JSON.

    A line that fails has its error in the table; the others run. Raises `RequestError` when all lines fail.
    """
    llm = load(options)
    outcomes, seconds = run_lines(prompt, lines, llm)
    if as_json:
        emit_json(_as_json(prompt, outcomes, seconds, llm))
    else:
        console = Console(highlight=False)
        console.print(table(outcomes, seconds, min(console.width, WIDEST)), end="")
    if all(outcome.output is None for outcome in outcomes):
        raise RequestError("no strategy could be run")


def run_lines(
    prompt: str, lines: Sequence[Line], llm: TextModel, clock: Callable[[], float] = perf_counter
) -> tuple[list[Outcome], float]:
    """Returns the outcome of each line, and the seconds that all of them took together."""
    ids = llm.tokenizer.encode(prompt)
    outcomes = [_prepared(line, llm) for line in lines]
    runnable = [outcome for outcome in outcomes if outcome.params is not None]
    last: dict[int, float] = {}

    def observe(event: Event) -> None:
        if event.tokens:
            last[event.request] = clock()

    started = clock()
    params = [outcome.params for outcome in runnable if outcome.params is not None]
    outputs: list[RequestOutput] = []
    try:
        outputs = llm.generate([ids] * len(runnable), params, observer=observe, candidates=0, progress=False)
    except DecoderyError as error:
        # `generate` raises for a single request; of several, one that fails has the error in its output.
        runnable[0].error = str(error)
    seconds = clock() - started
    # Requests are numbered in the order of the lines.
    times = iter(last[request] for request in sorted(last))
    for outcome, output in zip(runnable, outputs, strict=bool(outputs)):
        if any(completion.token_ids for completion in output.completions):
            outcome.seconds = next(times) - started
        outcome.error = output.error
        outcome.output = output if output.error is None else None
    return outcomes, seconds


def _prepared(line: Line, llm: TextModel) -> Outcome:
    """Returns an outcome with the line's parameters over the model's defaults, or with the line's error."""
    if line.error is not None:
        return Outcome(line.name, error=line.error)
    try:
        return Outcome(line.name, line.flags.params_over(llm.default_params).replace(logprobs=0))
    except DecoderyError as error:
        return Outcome(line.name, error=str(error))


def mean_logprob(completion: Completion) -> float | None:
    """Returns the mean log-probability of a completion's tokens in nats; None if there are none."""
    total = completion.cumulative_logprob
    return None if total is None or not completion.token_ids else total / len(completion.token_ids)


def distinct(tokens: Sequence[int], n: int) -> float | None:
    """Returns the share of different n-grams among all n-grams (Li et al. 2016); None if there are none."""
    ngrams = [tuple(tokens[k : k + n]) for k in range(len(tokens) - n + 1)]
    return len(set(ngrams)) / len(ngrams) if ngrams else None


def table(outcomes: Sequence[Outcome], seconds: float, width: int) -> Text:
    """Returns the figures and texts of all lines, `width` cells wide."""
    text = Text()
    heads = [heading.rjust(cells) for heading, cells in zip(HEADINGS, WIDTHS, strict=True)]
    text.append("  ".join(["strategy".ljust(NAME), *heads]).rstrip() + "\n", "dim")
    for outcome in outcomes:
        name = set_cell_size(outcome.name, NAME) if cell_len(outcome.name) > NAME else outcome.name
        text.append("\n")
        if outcome.output is None:
            text.append(name.ljust(NAME), "bold")
            text.append("  failed\n", "red")
            text.append(_wrapped(outcome.error or "", width))
            continue
        for completion in outcome.output.completions:
            text.append(name + " " * (NAME - cell_len(name)), "bold")
            cells = _figures(completion, outcome.seconds)
            padded = [cell.rjust(cells_) for cell, cells_ in zip(cells, WIDTHS, strict=True)]
            text.append("  " + "  ".join(padded) + "\n")
            text.append(_wrapped(completion.text, width))
    count = _tokens(outcomes)
    text.append(
        f"\n{count} tokens in {seconds:.2f} s in one batch ({_rate(count, seconds)} tokens/s)\n", "dim"
    )
    text.append("logprob: mean per token; dist-1, dist-2: share of different tokens and pairs\n", "dim")
    return text


def _figures(completion: Completion, seconds: float) -> list[str]:
    tokens = completion.token_ids
    numbers = [(mean_logprob(completion), 3), (distinct(tokens, 1), 2), (distinct(tokens, 2), 2)]
    shown = ["-" if number is None else f"{number:.{digits}f}" for number, digits in numbers]
    return [str(len(tokens)), *shown, f"{seconds:.2f}", completion.finish_reason]


def _wrapped(text: str, width: int) -> str:
    lines = []
    for line in text.strip("\n").splitlines() or [""]:
        lines += _fold(line.expandtabs(4).strip(), width - 2) or [""]
    return "".join(f"  {line}".rstrip() + "\n" for line in lines)


def _fold(line: str, width: int) -> list[str]:
    """Returns the line cut into pieces of at most `width` cells, between words where that is possible."""
    pieces: list[str] = []
    for piece in textwrap.wrap(line, width, break_on_hyphens=False):
        while cell_len(piece) > width:
            cut = next(k for k in range(len(piece), 0, -1) if cell_len(piece[:k]) <= width)
            pieces.append(piece[:cut])
            piece = piece[cut:]
        pieces.append(piece)
    return pieces


def _tokens(outcomes: Sequence[Outcome]) -> int:
    return sum(len(c.token_ids) for o in outcomes if o.output is not None for c in o.output.completions)


def _rate(count: int, seconds: float) -> str:
    return f"{count / seconds:.1f}" if seconds > 0 else "-"


def _as_json(prompt: str, outcomes: Sequence[Outcome], seconds: float, llm: TextModel) -> dict[str, Any]:
    lines: list[dict[str, Any]] = []
    for outcome in outcomes:
        line: dict[str, Any] = {"name": outcome.name}
        if outcome.output is None:
            lines.append({**line, "error": outcome.error})
            continue
        content = output_as_json(outcome.output, llm.tokenizer)
        for entry, completion in zip(content["completions"], outcome.output.completions, strict=True):
            entry["mean_logprob"] = mean_logprob(completion)
            entry["distinct_1"] = distinct(completion.token_ids, 1)
            entry["distinct_2"] = distinct(completion.token_ids, 2)
        del content["prompt_token_ids"]
        lines.append({**line, "params": str(outcome.params), "seconds": outcome.seconds, **content})
    count = _tokens(outcomes)
    return {
        "prompt": prompt,
        "lines": lines,
        "tokens": count,
        "seconds": seconds,
        "tokens_per_second": count / seconds if seconds > 0 else None,
    }
