"""Implements `decodery eval lm-eval` and `decodery eval mteb`."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

from decodery.cli.flags.harness_options import LmEvalOptions, MtebOptions
from decodery.cli.flags.model_options import ModelOptions
from decodery.cli.load_llm import load
from decodery.errors import DecoderyError, ParameterError
from decodery.evaluation.harness.lm_eval import HarnessSettings, evaluate, library, tables
from decodery.evaluation.harness.mteb import evaluate as evaluate_encoder
from decodery.evaluation.harness.mteb import main_scores, mteb_module
from decodery.weights.sources.wheels import MINILM


def lm_eval(how: LmEvalOptions, model: ModelOptions) -> None:
    """Runs lm-eval and prints its tables. Raises `ParameterError` for wrong flags before the model loads."""
    settings = HarnessSettings(
        names_of(how.tasks),
        include_path=how.include_path,
        num_fewshot=how.num_fewshot,
        limit=how.limit,
        apply_chat_template=how.apply_chat_template,
        fewshot_as_multiturn=how.fewshot_as_multiturn,
        system_instruction=how.system_instruction,
        bootstrap_iters=how.bootstrap_iters,
        seed=how.seed,
    )
    if how.include_path is not None and not Path(how.include_path).is_dir():
        raise ParameterError(f"include_path {how.include_path} is no folder")
    plain: Any = library("lm_eval.utils").handle_non_serializable
    found = evaluate(settings, load(model), name=Path(model.model or "default").name, bos=how.bos)
    if how.out is not None:
        try:
            Path(how.out).write_text(json.dumps(found, default=plain, ensure_ascii=False), encoding="utf-8")
        except OSError as error:
            raise DecoderyError(f"{how.out} cannot be written: {error.strerror or error}") from error
    if how.json:
        shown = {name: value for name, value in found.items() if name != "samples"}
        print(json.dumps(shown, default=plain, ensure_ascii=False))
    else:
        print(tables(found))


def mteb(how: MtebOptions, model: ModelOptions) -> None:
    """Runs mteb and prints the main score of each task. Raises `ParameterError` as `lm_eval` does."""
    names = names_of(how.tasks)
    if how.batch_size < 1:
        raise ParameterError(f"batch_size must be 1 or more, not {how.batch_size}")
    mteb_module("mteb")  # Raises before the model loads.
    llm = load(replace(model, model=model.model or MINILM.short_name))
    found = evaluate_encoder(
        names, llm, name=Path(model.model or MINILM.short_name).name, batch_size=how.batch_size
    )
    if how.json:
        print(json.dumps([one.to_dict() for one in found.task_results], ensure_ascii=False, default=str))
        return
    for task, scores in main_scores(found).items():
        for split, score in scores.items():
            print(f"{task:<32} {split:<12} {score:.4f}")


def names_of(tasks: str) -> tuple[str, ...]:
    """Returns the names between commas. Raises `ParameterError` if there are none."""
    found = tuple(name.strip() for name in tasks.split(",") if name.strip())
    if not found:
        raise ParameterError("tasks names no task: give --tasks NAME,...")
    return found
