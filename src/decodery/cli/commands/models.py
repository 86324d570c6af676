"""`decodery pull` and `decodery models`: the models on this machine."""

from __future__ import annotations

from decodery.cli.terminal import aligned, emit, emit_json, fetching, note, size
from decodery.weights.sources.locate import resolve
from decodery.weights.sources.model_cache import cached_models


def pull(model: str | None, revision: str | None) -> None:
    """Fetch a model if it is not here, and print where it is."""
    with fetching() as progress:
        path = resolve(model, revision=revision, progress=progress)
    emit(f"{path}\n")


def models(*, as_json: bool) -> None:
    """List the models in the caches."""
    found = cached_models()
    if as_json:
        emit_json(
            [{"name": m.name, "format": m.format, "bytes": m.bytes, "path": str(m.path)} for m in found]
        )
    elif found:
        rows = [(m.name, m.format, size(m.bytes), str(m.path)) for m in found]
        emit(aligned([("name", "format", "size", "path"), *rows], right=(2,)))
    else:
        note("no models are here yet: decodery pull fetches the default one")
