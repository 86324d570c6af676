"""`decodery explain`: why each token was chosen."""

from __future__ import annotations

from typing import Any

from rich.console import Console
from rich.text import Text

from decodery.cli.generate import described, named
from decodery.cli.loading import load
from decodery.cli.model_options import ModelOptions
from decodery.cli.report import emit_json
from decodery.decoding.params import GenerationParams
from decodery.decoding.trace import Candidate, Considered
from decodery.engine.request import Event
from decodery.errors import RequestError
from decodery.llm import LLM
from decodery.text.tokenizer import Tokenizer

WIDEST = 120
_EIGHTHS = " ▏▎▍▌▋▊▉"


def explain(prompt: str, params: GenerationParams, options: ModelOptions, *, top: int, as_json: bool) -> None:
    """Generate, and print for each token what was considered, with the `top` likeliest alternatives."""
    llm = load(options)
    if as_json:
        _explain_as_json(prompt, params, llm, top)
    else:
        _explain_in_tables(prompt, params, llm, top)


def _explain_as_json(prompt: str, params: GenerationParams, llm: LLM, top: int) -> None:
    steps: list[list[dict[str, Any]]] = [[] for _ in range(params.n)]

    def observe(event: Event) -> None:
        if event.stream is not None:
            steps[event.stream] += [_as_json(c, llm.tokenizer, top) for c in event.considered]

    [output] = llm.generate([llm.tokenizer.encode(prompt)], params, observer=observe, candidates=top)
    found = described(output, llm.tokenizer)
    for completion, considered in zip(found["completions"], steps, strict=True):
        completion["steps"] = considered
    emit_json({"prompt": prompt, **found})
    if output.error is not None:
        raise RequestError(output.error)


def _explain_in_tables(prompt: str, params: GenerationParams, llm: LLM, top: int) -> None:
    console = Console(highlight=False)
    table = Table(llm.tokenizer, min(console.width, WIDEST), top)
    seen: list[list[Considered]] = [[] for _ in range(params.n)]

    def observe(event: Event) -> None:
        if event.stream is None:
            return
        seen[event.stream] += event.considered
        if params.n == 1:
            for considered in event.considered:
                console.print(table.step(len(seen[0]), considered))

    console.print(table.legend())
    [output] = llm.generate([llm.tokenizer.encode(prompt)], params, observer=observe, candidates=top)
    for completion, steps in zip(output.completions, seen, strict=True):
        if params.n > 1:
            console.print(Text(f"completion {completion.index + 1} of {params.n}\n", "bold"))
            for number, considered in enumerate(steps, 1):
                console.print(table.step(number, considered))
        labels = "".join(llm.tokenizer.token_label(token) for token in completion.token_ids)
        console.print(Text(labels, "bold"))
        console.print(Text(f"ended by {completion.finish_reason}, seed {output.seed}\n", "dim"))
    if output.error is not None:
        raise RequestError(output.error)


class Table:
    """Draws what was considered, `width` cells wide, with the `top` likeliest tokens of each step.

    A line is a mark, the token, and twice a bar with its percentage: under the model, and after processing.
    """

    def __init__(self, tokenizer: Tokenizer, width: int, top: int) -> None:
        self.tokenizer = tokenizer
        self.top = top
        self.label = min(max(width // 5, 8), 20)
        # A mark and two gaps of two cells, and two numbers of six after a gap of one.
        self.bar = max((width - self.label - 2 - 4 - 14) // 2, 3)

    def legend(self) -> Text:
        """What the columns and marks mean."""
        text = Text("  " + " " * self.label + "  ")
        text.append("under the model".ljust(self.bar + 7)[: self.bar + 7] + "  ", "blue")
        text.append("after processing\n", "green")
        text.append("  ● chosen  ✗ cut away\n", "dim")
        return text

    def step(self, number: int, considered: Considered) -> Text:
        """The lines of one choice; an empty one ends them."""
        text = Text()
        text.append(f"{number:>3}  ", "dim")
        text.append(self.tokenizer.token_label(considered.token), "bold")
        text.append(f"  {_percent(considered.before)} → {_percent(considered.after)}")
        every = considered.kept == self.tokenizer.vocab_size
        kept = "all kept" if every else f"{considered.kept:,} kept"
        text.append(f"  rank {considered.rank:,}  entropy {considered.entropy:.2f} bits  {kept}\n", "dim")
        for candidate in shown(considered, self.top):
            text.append(self._line(candidate, candidate.token == considered.token))
        return text

    def _line(self, candidate: Candidate, chosen: bool) -> Text:
        cut = candidate.after == 0
        style = "bold" if chosen else "dim" if cut else ""
        label = Text(self.tokenizer.token_label(candidate.token))
        label.truncate(self.label, overflow="ellipsis", pad=True)
        line = Text()
        line.append("● " if chosen else "  ", style)
        line.append(label.plain, style)
        line.append("  " + bar(candidate.before, self.bar), "dim blue" if cut else "blue")
        line.append(f" {_percent(candidate.before):>6}  ", style)
        if cut:
            line.append("✗\n", "red")
        else:
            line.append(bar(candidate.after, self.bar), "green")
            line.append(f" {_percent(candidate.after):>6}\n", style)
        return line


def shown(considered: Considered, top: int) -> list[Candidate]:
    """The `top` likeliest candidates, and the chosen one after them if it is not among them."""
    listed = list(considered.candidates[:top])
    if top and all(c.token != considered.token for c in listed):
        listed += [c for c in considered.candidates[top:] if c.token == considered.token]
    return listed


def bar(share: float, width: int) -> str:
    """A bar that fills this share of `width` cells, to an eighth of a cell."""
    eighths = round(share * width * 8)
    full, rest = divmod(eighths, 8)
    return ("█" * full + (_EIGHTHS[rest] if rest else "")).ljust(width)


def _percent(share: float) -> str:
    return "<0.1%" if 0 < share < 0.0005 else f"{share:.1%}"


def _as_json(considered: Considered, tokenizer: Tokenizer, top: int) -> dict[str, Any]:
    return {
        **named(tokenizer, considered.token),
        "before": considered.before,
        "after": considered.after,
        "rank": considered.rank,
        "entropy_bits": considered.entropy,
        "kept": considered.kept,
        "candidates": [
            {**named(tokenizer, c.token), "before": c.before, "after": c.after}
            for c in shown(considered, top)
        ],
    }
