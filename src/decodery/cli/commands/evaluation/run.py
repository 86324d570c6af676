"""Implements `decodery eval TASK`."""

from __future__ import annotations

import json
import sys
from pathlib import Path

from decodery.cli.flags.eval_options import EvalOptions
from decodery.cli.flags.model_options import ModelOptions
from decodery.cli.load_llm import load
from decodery.cli.terminal import note
from decodery.evaluation.runs.run import Run, RunSettings
from decodery.evaluation.runs.run import run as run_task
from decodery.evaluation.runs.run_folder import plain_scores
from decodery.evaluation.subject import Subject
from decodery.evaluation.tasks.registry import find_task
from decodery.evaluation.variant import Variant, varied
from decodery.metrics.score import Score


def run(name: str, how: EvalOptions, model: ModelOptions) -> None:
    """Runs a task and prints its results. Raises `ParameterError` for a wrong one before the model loads."""
    task = varied(find_task(name, allow_code=how.allow_code), variant_of(how))
    settings = RunSettings(how.shots, how.limit, how.repeats, how.seed)
    # A model's path is no part of what its answers depend on.
    called = Path(model.model or "default").name
    try:
        subject = Subject(load(model), name=called, chat=how.chat, bos=how.bos)
        found = run_task(
            task,
            subject,
            data=how.data,
            out=how.out,
            cache=how.cache,
            settings=settings,
            workers=how.workers,
            progress=sys.stderr.isatty(),
        )
    except KeyboardInterrupt:
        if how.out or how.cache:
            note("decodery: stopped; the same command goes on from here")
        raise
    if how.json:
        plain = {"settings": found.settings, "results": plain_scores(found.results)}
        print(json.dumps(plain, ensure_ascii=False))
        return
    for line in table(found):
        print(line)


def variant_of(how: EvalOptions) -> Variant:
    """Returns what the flags change of a task. Raises `ParameterError` for a wrong value."""
    return Variant(
        options=how.options,
        method=how.method,
        ending=None if how.ending is None else how.ending.replace("\\n", "\n"),
        split=how.split,
        max_tokens=how.max_tokens,
        shuffle=how.shuffle,
    )


def table(found: Run) -> list[str]:
    """Returns the results as lines."""
    lines = [f"{found.task}: {len(found.samples)} documents, {found.settings['shots']} shots"]
    lines += [f"  {name:<12} {shown(score)}" for name, score in found.results.items()]
    counts = ", ".join(f"{name} {count}" for name, count in found.counts.items() if count)
    return [*lines, f"  counted: {counts}"] if counts else lines


def shown(score: Score) -> str:
    """Returns a score with its standard error, for people."""
    if score.value is None:
        return f"undefined ({score.unit}, {score.undefined} without a value)"
    error = "" if score.error is None else f" ± {score.error:.4f}"
    missing = f", {score.undefined} without a value" if score.undefined else ""
    return f"{score.value:.4f}{error}  {score.unit}{missing}"
