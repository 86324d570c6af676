"""Embeds sentences with Decodery, its weights in int8."""

from __future__ import annotations

from pathlib import Path

from bench.contenders.encoders.decodery import Decodery, prepare

__all__ = ["load", "prepare"]


def load(model: Path, threads: int) -> Decodery:
    """Loads the model in int8."""
    return Decodery(model, threads, "int8")
