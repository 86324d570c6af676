"""Measures a model with lm-eval over transformers."""

from __future__ import annotations

import os
import tempfile
import time
from pathlib import Path
from typing import Any


def prepare() -> None:
    """Imports the libraries. What they cache of data goes into a folder of its own."""
    os.environ["HF_DATASETS_CACHE"] = tempfile.mkdtemp()
    import lm_eval  # noqa: F401
    import torch  # noqa: F401
    import transformers  # noqa: F401


def load(model: Path, threads: int) -> Harness:
    """Loads the model in the precision of its folder."""
    return Harness(model, threads)


class Harness:
    """Runs a task of choices in ARC's columns over a model of transformers."""

    serving = ""

    def __init__(self, model: Path, threads: int) -> None:
        import torch
        from lm_eval.models.huggingface import HFLM

        torch.set_num_threads(threads)
        self._model: Any = HFLM(pretrained=str(model), device="cpu", dtype="auto", batch_size=1)

    def evaluate(self, data: str, shots: int, letters: bool, batch: int) -> dict[str, Any]:
        """Returns the seconds of a whole run over the data, and the accuracy."""
        import lm_eval

        self._model.batch_size_per_gpu = batch
        start = time.perf_counter()
        found: Any = lm_eval.simple_evaluate(
            self._model, tasks=[_task(data, letters)], num_fewshot=shots, bootstrap_iters=0, log_samples=False
        )
        seconds = time.perf_counter() - start
        (result,) = found["results"].values()
        return {"seconds": seconds, "accuracy": result["acc,none"]}


def _task(data: str, letters: bool) -> dict[str, Any]:
    listed = (
        "{% for mark in 'ABCD' %}\n{{mark}}. {{choices.text[loop.index0]}}{% endfor %}" if letters else ""
    )
    return {
        "task": f"questions_{abs(hash((data, letters)))}",
        "dataset_path": "json",
        "dataset_kwargs": {"data_files": {name: f"{data}/{name}.jsonl" for name in ("train", "test")}},
        "test_split": "test",
        "fewshot_split": "train",
        "output_type": "multiple_choice",
        "doc_to_text": f"Question: {{{{question}}}}{listed}\nAnswer:",
        "doc_to_target": "{{choices.label.index(answerKey)}}",
        "doc_to_choice": ["A", "B", "C", "D"] if letters else "{{choices.text}}",
        "metric_list": [{"metric": "acc", "aggregation": "mean", "higher_is_better": True}],
    }
