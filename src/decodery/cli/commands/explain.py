"""`decodery explain`: why each token was chosen."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.text import Text

from decodery.cli.commands.generate import described, named
from decodery.cli.flags.generation_flags import GenerationFlags
from decodery.cli.flags.model_options import ModelOptions
from decodery.cli.load_llm import load
from decodery.cli.tables.beam_table import BeamTable
from decodery.cli.tables.choice_table import Table, shown
from decodery.cli.terminal import emit_json, note
from decodery.decoding.trace import BeamCandidate, Considered
from decodery.engine.request import Event
from decodery.errors import DecoderyError, RequestError
from decodery.llm import LLM
from decodery.outputs import Completion
from decodery.pictures.generation_trace import GenerationTrace, Step
from decodery.pictures.html_page import page, picture
from decodery.text.tokenizer.tokenizer import Tokenizer
from decodery.weights.sources.wheels import DEFAULT_MODEL

WIDEST = 120


def explain(
    prompt: str,
    asked: GenerationFlags,
    options: ModelOptions,
    *,
    top: int,
    as_json: bool,
    html: Path | None = None,
    svg: Path | None = None,
) -> None:
    """Generate, and tell for each token what was considered, with the `top` likeliest alternatives.

    A page and a picture go to files; without them and JSON, tables are printed.
    """
    for file in (html, svg):
        if file is not None and not file.absolute().parent.is_dir():
            raise DecoderyError(f"{file} cannot be written: there is no folder {file.absolute().parent}")
    if html is not None and svg is not None and html.resolve() == svg.resolve():
        raise DecoderyError(f"--html and --svg name the same file {html}: give each its own")
    llm = load(options)
    story = GenerationTrace(prompt, _model_name(options), asked.over(llm.default_params), llm.tokenizer)
    if html is None and svg is None and not as_json:
        _tell_in_tables(story, llm, top)
    else:
        _run(story, llm, top, lambda event: None)
    drawn = {html: page, svg: picture}
    for file, draw in drawn.items():
        if file is not None:
            _write(file, draw(story))
    if as_json:
        emit_json(_story_as_json(story, top))
    if story.output is not None and story.output.error is not None:
        raise RequestError(story.output.error)


def _model_name(options: ModelOptions) -> str:
    if options.model is None:
        return DEFAULT_MODEL.name
    return Path(options.model).name if Path(options.model).exists() else options.model


def _run(story: GenerationTrace, llm: LLM, top: int, show: Callable[[Event], None]) -> None:
    """Generate; each event is added to the story and then shown."""

    def observe(event: Event) -> None:
        story.take(event)
        show(event)

    ids = llm.tokenizer.encode(story.prompt)
    [story.output] = llm.generate([ids], story.params, observer=observe, candidates=max(top, 1))


def _write(file: Path, text: str) -> None:
    try:
        file.write_text(text, encoding="utf-8", errors="replace")
    except OSError as error:
        raise DecoderyError(f"{file} cannot be written: {error.strerror}") from None
    note(f"decodery: wrote {file}")


def _tell_in_tables(story: GenerationTrace, llm: LLM, top: int) -> None:
    console = Console(highlight=False)
    width = min(console.width, WIDEST)
    table, beams = Table(llm.tokenizer, width, top), BeamTable(llm.tokenizer, width, top)
    # What comes of several streams at once is told stream by stream, at the end.
    single = story.params.streams == 1
    told = 0

    def show(event: Event) -> None:
        nonlocal told
        if event.beams:
            if len(story.beams) == 1:
                console.print(beams.legend())
            console.print(beams.step(len(story.beams), event.beams))
        elif single and event.considered:
            if not told:
                console.print(table.legend())
            console.print(table.steps(told + 1, story.steps[event.stream or 0][-1]))
            told += len(event.tokens)

    _run(story, llm, top, show)
    for place, completion in enumerate(story.completions, 1):
        steps = story.steps.get(completion.index, [])
        if not single:
            if place == 1 and not story.beams:
                console.print(table.legend())
            console.print(Text(f"completion {place} of {len(story.completions)}\n", "bold"))
            number = 1
            for step in steps if not story.beams else []:
                console.print(table.steps(number, step))
                number += len(step.tokens)
        _print_ending(console, story, completion)


def _print_ending(console: Console, story: GenerationTrace, completion: Completion) -> None:
    labels = "".join(story.label(token) for token in completion.token_ids)
    score = "" if completion.score is None else f", score {completion.score:.4f}"
    seed = 0 if story.output is None else story.output.seed
    console.print(Text(labels, "bold"))
    console.print(Text(f"ended by {completion.finish_reason}{score}, seed {seed}\n", "dim"))


def _story_as_json(story: GenerationTrace, top: int) -> dict[str, Any]:
    if story.output is None:
        return {"prompt": story.prompt}
    tokenizer = story.tokenizer
    found = described(story.output, tokenizer)
    for entry, completion in zip(found["completions"], story.completions, strict=True):
        steps = story.steps.get(completion.index, [])
        entry["steps"] = [_as_json(c, tokenizer, top) for step in steps for c in step.considered]
        if any(step.drafts for step in steps):
            entry["drafts"] = [_drafts_as_json(step) for step in steps]
    beams = [[_beam_as_json(c, tokenizer) for c in step] for step in story.beams]
    return {"prompt": story.prompt, **found, **({"beams": beams} if beams else {})}


def _drafts_as_json(step: Step) -> dict[str, Any]:
    return {"tokens": step.tokens, "drafts": step.drafts, "accepted": step.accepted}


def _beam_as_json(candidate: BeamCandidate, tokenizer: Tokenizer) -> dict[str, Any]:
    return {
        **named(tokenizer, candidate.token),
        "parent": candidate.parent,
        "beam": candidate.beam,
        "logprob": candidate.logprob,
        "score": candidate.score,
        "fate": candidate.fate,
    }


def _weighed(considered: Considered, tokenizer: Tokenizer) -> list[dict[str, Any]]:
    return [
        {
            **named(tokenizer, w.token),
            "probability": w.probability,
            "similarity": w.similarity,
            "score": w.score,
        }
        for w in considered.weighed
    ]


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
        "stages": [{"name": stage.name, "kept": stage.kept} for stage in considered.stages],
        **({} if considered.allowed is None else {"allowed": considered.allowed}),
        "forced": considered.forced,
        **({"weighed": _weighed(considered, tokenizer)} if considered.weighed else {}),
    }
