"""Implements `decodery explain`: shows why each token was chosen."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.text import Text

from decodery.cli.flags.generation_flags import GenerationFlags
from decodery.cli.flags.model_options import TextModelOptions
from decodery.cli.load_text_model import load
from decodery.cli.output_json import output_as_json, token_as_json
from decodery.cli.tables.beam_table import BeamTable
from decodery.cli.tables.choice_table import ChoiceTable, shown_candidates
from decodery.cli.terminal import emit_json, note
from decodery.cli.text_model import TextModel
from decodery.client.client import Client
from decodery.decoding.event import Event
from decodery.decoding.trace import BeamCandidate, Considered
from decodery.errors import DecoderyError, RequestError
from decodery.outputs import Completion
from decodery.pictures.generation_trace import GenerationTrace, Step
from decodery.pictures.html_page import html_page
from decodery.pictures.svg_picture import svg_picture
from decodery.text.streaming.token_texts import TokenTexts
from decodery.weights.sources.wheels import DEFAULT_MODEL

WIDEST = 120


def explain(
    prompt: str,
    flags: GenerationFlags,
    options: TextModelOptions,
    *,
    top: int,
    as_json: bool,
    html: Path | None = None,
    svg: Path | None = None,
) -> None:
    """Generates, and shows each token's choice with its `top` likeliest candidates.

    Writes a page to `html` and a picture to `svg` if they are given, and prints JSON with `as_json`; prints
    tables otherwise. Raises `DecoderyError` for a file that cannot be written, and `RequestError` when the
    request fails.
    """
    for file in (html, svg):
        if file is not None and not file.absolute().parent.is_dir():
            raise DecoderyError(f"{file} cannot be written: there is no folder {file.absolute().parent}")
    if html is not None and svg is not None and html.resolve() == svg.resolve():
        raise DecoderyError(f"--html and --svg name the same file {html}: give each its own")
    llm = load(options)
    trace = GenerationTrace(
        prompt, _model_name(options, llm), flags.params_over(llm.default_params), llm.tokenizer
    )
    if html is None and svg is None and not as_json:
        _print_tables(trace, llm, top)
    else:
        _run(trace, llm, top, lambda event: None)
    for file, draw in ((html, html_page), (svg, svg_picture)):
        if file is not None:
            _write(file, draw(trace))
    if as_json:
        emit_json(_trace_as_json(trace, top))
    if trace.output is not None and trace.output.error is not None:
        raise RequestError(trace.output.error)


def _model_name(options: TextModelOptions, llm: TextModel) -> str:
    if isinstance(llm, Client):
        return llm.name
    if options.model is None:
        return DEFAULT_MODEL.name
    return Path(options.model).name if Path(options.model).exists() else options.model


def _run(trace: GenerationTrace, llm: TextModel, top: int, show: Callable[[Event], None]) -> None:
    """Generates; adds each event to the trace, then passes it to `show`."""

    def observe(event: Event) -> None:
        trace.add(event)
        show(event)

    ids = llm.tokenizer.encode(trace.prompt)
    [trace.output] = llm.generate([ids], trace.params, observer=observe, candidates=max(top, 1))


def _write(file: Path, text: str) -> None:
    try:
        file.write_text(text, encoding="utf-8", errors="replace")
    except OSError as error:
        raise DecoderyError(f"{file} cannot be written: {error.strerror}") from None
    note(f"decodery: wrote {file}")


def _print_tables(trace: GenerationTrace, llm: TextModel, top: int) -> None:
    console = Console(highlight=False)
    width = min(console.width, WIDEST)
    table, beams = ChoiceTable(llm.tokenizer, width, top), BeamTable(llm.tokenizer, width, top)
    # The choices of a single stream are printed as they come; those of several, stream by stream at the end.
    single = trace.params.streams == 1
    printed = 0

    def show(event: Event) -> None:
        nonlocal printed
        if event.beams:
            if len(trace.beams) == 1:
                console.print(beams.legend())
            console.print(beams.step(len(trace.beams), event.beams))
        elif single and event.considered:
            if not printed:
                console.print(table.legend())
            console.print(table.step(printed + 1, trace.steps[event.stream or 0][-1]))
            printed += len(event.tokens)

    _run(trace, llm, top, show)
    for place, completion in enumerate(trace.completions, 1):
        steps = trace.steps.get(completion.index, [])
        if not single:
            if place == 1 and not trace.beams:
                console.print(table.legend())
            console.print(Text(f"completion {place} of {len(trace.completions)}\n", "bold"))
            number = 1
            for step in steps if not trace.beams else []:
                console.print(table.step(number, step))
                number += len(step.tokens)
        _print_ending(console, trace, completion)


def _print_ending(console: Console, trace: GenerationTrace, completion: Completion) -> None:
    labels = "".join(trace.label(token) for token in completion.token_ids)
    score = "" if completion.score is None else f", score {completion.score:.4f}"
    seed = 0 if trace.output is None else trace.output.seed
    console.print(Text(labels, "bold"))
    console.print(Text(f"ended by {completion.finish_reason}{score}, seed {seed}\n", "dim"))


def _trace_as_json(trace: GenerationTrace, top: int) -> dict[str, Any]:
    if trace.output is None:
        return {"prompt": trace.prompt}
    tokenizer = trace.tokenizer
    content = output_as_json(trace.output, tokenizer)
    for entry, completion in zip(content["completions"], trace.completions, strict=True):
        steps = trace.steps.get(completion.index, [])
        entry["steps"] = [_choice_as_json(c, tokenizer, top) for step in steps for c in step.considered]
        if any(step.drafts for step in steps):
            entry["drafts"] = [_drafts_as_json(step) for step in steps]
    beams = [[_beam_as_json(c, tokenizer) for c in step] for step in trace.beams]
    return {"prompt": trace.prompt, **content, **({"beams": beams} if beams else {})}


def _drafts_as_json(step: Step) -> dict[str, Any]:
    found = {"tokens": step.tokens, "drafts": step.drafts, "accepted": step.accepted}
    return {**found, "draft_sources": step.draft_sources} if step.draft_sources else found


def _beam_as_json(candidate: BeamCandidate, tokenizer: TokenTexts) -> dict[str, Any]:
    return {
        **token_as_json(tokenizer, candidate.token),
        "parent": candidate.parent,
        "beam": candidate.beam,
        "logprob": candidate.logprob,
        "score": candidate.score,
        "fate": candidate.fate,
    }


def _weighed_as_json(considered: Considered, tokenizer: TokenTexts) -> list[dict[str, Any]]:
    return [
        {
            **token_as_json(tokenizer, w.token),
            "probability": w.probability,
            "similarity": w.similarity,
            "score": w.score,
        }
        for w in considered.weighed
    ]


def _choice_as_json(considered: Considered, tokenizer: TokenTexts, top: int) -> dict[str, Any]:
    return {
        **token_as_json(tokenizer, considered.token),
        "before": considered.before,
        "after": considered.after,
        "rank": considered.rank,
        "entropy_bits": considered.entropy,
        "kept": considered.kept,
        "candidates": [
            {**token_as_json(tokenizer, c.token), "before": c.before, "after": c.after}
            for c in shown_candidates(considered, top)
        ],
        "stages": [{"name": stage.name, "kept": stage.kept} for stage in considered.stages],
        **({} if considered.allowed is None else {"allowed": considered.allowed}),
        "forced": considered.forced,
        **({"weighed": _weighed_as_json(considered, tokenizer)} if considered.weighed else {}),
    }
