"""Implements `decodery models --supported`: lists the architectures that can be opened."""

from __future__ import annotations

from decodery.cli.terminal import aligned, emit, emit_json
from decodery.loading.supported import supported


def architectures(*, as_json: bool) -> None:
    """Prints the supported architectures by family."""
    found = supported()
    if as_json:
        emit_json(found)
        return
    rows = [
        (entry["family"], ", ".join(entry["safetensors"]), ", ".join(entry["gguf"]) or "-") for entry in found
    ]
    emit(aligned([("family", "safetensors", "GGUF"), *rows]))
