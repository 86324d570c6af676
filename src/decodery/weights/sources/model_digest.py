"""Computes a digest of a model's files."""

from __future__ import annotations

import hashlib
from pathlib import Path

from decodery.weights.sources.file_digests import file_digest

MODEL_FILES = (".json", ".safetensors", ".bin", ".pt", ".model", ".txt", ".jinja", ".gguf", ".metadata")


def model_digest(path: Path) -> str:
    """Returns a SHA-256 of a .gguf file, or of the files in a model's folder that outputs depend on."""
    digest = hashlib.sha256()
    files = [path] if path.is_file() else sorted(p for p in path.rglob("*") if _is_of_model(p))
    for file in files:
        name = "" if file == path else file.relative_to(path).as_posix()
        digest.update(f"{name}\n{file_digest(file)}\n".encode())
    return digest.hexdigest()


def _is_of_model(file: Path) -> bool:
    # The note of an output that is not finished may lie beside the model, and changes all the time.
    return file.suffix in MODEL_FILES and not file.name.endswith(".part.json")
