"""Implements `decodery eval TASK`."""

from __future__ import annotations

import json
import sys
from dataclasses import replace
from pathlib import Path

from decodery.cli.flags.eval_options import EvalOptions
from decodery.cli.flags.model_options import ModelOptions
from decodery.cli.load_llm import load
from decodery.cli.terminal import note
from decodery.errors import ParameterError
from decodery.evaluation.contract import Task
from decodery.evaluation.runs.run import Run, RunSettings
from decodery.evaluation.runs.run import run as run_task
from decodery.evaluation.runs.run_folder import plain_scores
from decodery.evaluation.subject import Subject
from decodery.evaluation.tasks.registry import find_task
from decodery.evaluation.variant import Variant, varied
from decodery.evaluation.vectors.contract import VectorTask
from decodery.evaluation.vectors.encoder_subject import EncoderSubject
from decodery.metrics.score import Score
from decodery.weights.sources.wheels import MINILM


def run(name: str, how: EvalOptions, model: ModelOptions) -> None:
    """Runs a task and prints its results. Raises `ParameterError` for a wrong one before the model loads."""
    found_task = find_task(name, allow_code=how.allow_code)
    settings = RunSettings(how.shots, how.limit, how.repeats, how.seed)
    task: Task | VectorTask
    if isinstance(found_task, VectorTask):
        check_flags(found_task, how)
        task, model = found_task, replace(model, model=model.model or MINILM.short_name)
    else:
        task = varied(found_task, variant_of(how))
    # A model's path is no part of what its answers depend on.
    called = Path(model.model or "default").name
    try:
        subject: Subject | EncoderSubject
        if isinstance(task, VectorTask):
            subject = EncoderSubject(load(model), name=called)
        else:
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


def check_flags(task: VectorTask, how: EvalOptions) -> None:
    """Raises `ParameterError` for flags that mean nothing to vectors."""
    variant_of(how).only(task.name)
    given = {
        "shots": how.shots is not None,
        "repeats": how.repeats != 1,
        "chat": how.chat,
        "bos": how.bos is not None,
        "cache": how.cache is not None,
        "allow_code": how.allow_code,
    }
    if wrong := [name for name, is_given in given.items() if is_given]:
        raise ParameterError(f"{task.name} compares vectors, and takes no {', '.join(wrong)}: leave it out")


def variant_of(how: EvalOptions) -> Variant:
    """Returns what the flags change of a task. Raises `ParameterError` for a wrong value."""
    return Variant(
        options=how.options,
        method=how.method,
        ending=None if how.ending is None else how.ending.replace("\\n", "\n"),
        split=how.split,
        max_tokens=how.max_tokens,
        shuffle=how.shuffle,
        source_language=how.source_language,
        target_language=how.target_language,
    )


def table(found: Run) -> list[str]:
    """Returns the results as lines."""
    shots = f", {found.settings['shots']} shots" if "shots" in found.settings else ""
    lines = [f"{found.task}: {len(found.samples)} documents{shots}"]
    width = max(map(len, found.results), default=0)
    lines += [f"  {name:<{width}}  {shown(score)}" for name, score in found.results.items()]
    counts = ", ".join(f"{name} {count}" for name, count in found.counts.items() if count)
    return [*lines, f"  counted: {counts}"] if counts else lines


def shown(score: Score) -> str:
    """Returns a score with its standard error, for people."""
    if score.value is None:
        return f"undefined ({score.unit}, {score.undefined} without a value)"
    error = "" if score.error is None else f" ± {score.error:.4f}"
    missing = f", {score.undefined} without a value" if score.undefined else ""
    return f"{score.value:.4f}{error}  {score.unit}{missing}"
