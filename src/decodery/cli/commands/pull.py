"""Implements `decodery pull`: fetches a model into the cache."""

from __future__ import annotations

from decodery.cli.terminal import emit, fetch_progress
from decodery.weights.sources.locate import resolve


def pull(model: str | None, revision: str | None) -> None:
    """Fetches a model unless it is on this machine, and prints its path."""
    with fetch_progress() as progress:
        path = resolve(model, revision=revision, progress=progress)
    emit(f"{path}\n")
