"""Converts the same weights into each contender's form, once; the folder of the results is not in git."""

from __future__ import annotations

import os
import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path

from bench.peers.catalogue import CATALOGUE, Entry
from bench.peers.environments import UnavailableError, python_of
from bench.remote import ROOT

CACHE = ROOT / ".bench-models"

# Given a function from a form to its path, and the path to write, returns the interpreter's arguments.
Command = Callable[[Callable[[str], Path], Path], list[str]]


def _dequantised(dtype: str) -> Command:
    return lambda at, target: ["-m", "bench.peers.dequantise", str(at("gguf")), dtype, str(target)]


FORMS: dict[str, Command] = {
    "float32": _dequantised("float32"),
    "bfloat16": _dequantised("bfloat16"),
    "q4_0": lambda at, target: ["-m", "bench.peers.requantise", str(at("gguf")), str(target)],
    "ctranslate2": lambda at, target: [
        *("-m", "ctranslate2.converters.transformers", "--model", str(at("float32"))),
        *("--output_dir", str(target), "--quantization", "int8"),
    ],
    "onnxruntime": lambda at, target: [
        *("-m", "onnxruntime_genai.models.builder", "-i", str(at("float32")), "-o", str(target)),
        *("-p", "int4", "-e", "cpu", "-c", str(target.parent / "onnxruntime-cache")),
        *("--extra_options", "int4_accuracy_level=4", "int4_block_size=32", "hf_token=false"),
    ],
    "openvino": lambda at, target: [
        *("-m", "optimum.commands.optimum_cli", "export", "openvino", "--model", str(at("float32"))),
        *("--task", "text-generation-with-past", "--weight-format", "int4", "--group-size", "32"),
        str(target),
    ],
}
# The form whose environment writes a form that no contender reads.
WRITERS = {"float32": "transformers"}


def weights_of(entry: Entry, gguf: Path, shape: str) -> Path:
    """Returns the path of the contender's weights, which are converted from the GGUF file where needed.

    Raises `UnavailableError` when the conversion fails.
    """
    return _converted(entry.form, gguf, CACHE / shape, entry)


def _converted(form: str, gguf: Path, folder: Path, wanted: Entry) -> Path:
    if form == "gguf":
        return gguf
    target = folder / form
    if target.exists():
        return target
    writer = next(e for e in CATALOGUE if e.name == WRITERS.get(form) or e.form == form)
    staged = folder / f"{form}.partial"
    _remove(staged)
    folder.mkdir(parents=True, exist_ok=True)
    arguments = FORMS[form](lambda other: _converted(other, gguf, folder, wanted), staged)
    log = ROOT / "bench" / "results" / f"convert-{form}.log"
    log.parent.mkdir(parents=True, exist_ok=True)
    print(f"converting to {form} (what the converter says is in {log}) ...")
    settings = {"PYTHONPATH": str(ROOT), "HF_HUB_OFFLINE": "1", "TOKENIZERS_PARALLELISM": "false"}
    with log.open("wb") as output:
        done = subprocess.run(
            [str(python_of(writer)), *arguments],
            stdout=output,
            stderr=output,
            env={**os.environ, **settings},
            cwd=ROOT,
            check=False,
        )
    if done.returncode or not staged.exists():
        raise UnavailableError(f"{wanted.name}: no conversion to {form}: bench/results/{log.name} says why")
    staged.rename(target)
    return target


def _remove(path: Path) -> None:
    if path.is_dir():
        shutil.rmtree(path)
    else:
        path.unlink(missing_ok=True)
