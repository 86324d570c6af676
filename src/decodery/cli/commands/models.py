"""Implements `decodery models`: lists the models on this machine."""

from __future__ import annotations

from decodery.cli.terminal import aligned, emit, emit_json, note, size
from decodery.weights.sources.model_cache import cached_models


def models(*, as_json: bool) -> None:
    """Prints the name, format, size and path of each model in the caches."""
    found = cached_models()
    if as_json:
        emit_json(
            [{"name": m.name, "format": m.format, "bytes": m.bytes, "path": str(m.path)} for m in found]
        )
    elif found:
        rows = [(m.name, m.format, size(m.bytes), str(m.path)) for m in found]
        emit(aligned([("name", "format", "size", "path"), *rows], right=(2,)))
    else:
        note("there are no models on this machine yet: decodery pull fetches the default model")
