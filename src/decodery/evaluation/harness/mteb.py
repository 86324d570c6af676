"""Runs mteb, the benchmark of text embeddings, over an open encoder."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from importlib import import_module
from typing import Any

import numpy as np

from decodery.errors import DecoderyError, ParameterError
from decodery.evaluation.vectors.contract import Floats, Role
from decodery.evaluation.vectors.encoder_subject import EncoderSubject
from decodery.llm import LLM


def evaluate(tasks: Sequence[str], model: LLM, *, name: str = "encoder", batch_size: int = 32) -> Any:
    """Returns the results of `mteb.evaluate`, a `ModelResult`. mteb's cache of results is not used.

    Raises `ParameterError` for an unknown task and for a model that writes texts, and `DecoderyError` without
    mteb.
    """
    library: Any = mteb_module("mteb")
    encoder = harness_encoder(model, name=name)
    found = []
    for task in tasks:
        try:
            found.append(library.get_task(task))
        except (KeyError, ValueError) as error:
            raise ParameterError(f"mteb has no task {task}: {error}") from error
    return measured(encoder, found, batch_size=batch_size)


def measured(encoder: Any, tasks: Sequence[Any], *, batch_size: int = 32) -> Any:
    """Returns the results of `mteb.evaluate` for a model and tasks of mteb."""
    return mteb_module("mteb").evaluate(
        encoder,
        list(tasks),
        encode_kwargs={"batch_size": batch_size},
        cache=None,
        overwrite_strategy="always",
        co2_tracker=False,
    )


def main_scores(results: Any) -> dict[str, dict[str, float]]:
    """Returns the main score of each split of each task, by the task's name."""
    return {
        one.task_name: {
            split: float(np.mean([score["main_score"] for score in scores]))
            for split, scores in one.scores.items()
        }
        for one in results.task_results
    }


def harness_encoder(model: LLM, *, name: str = "encoder") -> Any:
    """Returns an encoder of mteb, for `mteb.evaluate(model=...)`; texts that are too long are cut.

    Queries and documents get the prompts that the folder of the model has for them. Raises `ParameterError`
    for a model that writes texts, and `DecoderyError` without mteb.
    """
    base: Any = mteb_module("mteb.models.abs_encoder").AbsEncoder
    meta: Any = mteb_module("mteb.models").ModelMeta
    subject = EncoderSubject(model, name=name)
    embed = subject.embedder()
    kept = {"name": f"decodery/{name.replace('/', '_')}", "revision": subject.identity["files"]}

    class HarnessEncoder(base):  # type: ignore[misc]
        """Gives mteb the vectors of texts."""

        mteb_model_meta = meta.create_empty(kept)

        def encode(self, inputs: Any, *, prompt_type: Any = None, **more: Any) -> Floats:
            """Returns the vectors [texts, width] of the texts of all batches."""
            kind = None if prompt_type is None else str(getattr(prompt_type, "value", prompt_type))
            roles: Mapping[str | None, Role] = {"query": "query", "document": "document"}
            texts = [text for batch in inputs for text in batch["text"]]
            return embed(texts, roles.get(kind, "text")).vectors

    return HarnessEncoder()


def mteb_module(module: str) -> Any:
    """Returns a module of mteb. Raises `DecoderyError` that says how to install it."""
    try:
        return import_module(module)
    except ImportError as error:
        raise DecoderyError(f'mteb is needed: pip install "decodery[harness]" ({error})') from None
