"""Declares the flags of a search."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, Literal


def _option(default: Any, help: str, **more: str) -> Any:
    return field(default=default, metadata={"help": help, "panel": "Options", **more})


@dataclass(frozen=True)
class SearchOptions:
    """Holds how files are searched, as it is written on the command line; each field is a flag."""

    by: Literal["auto", "lines", "paragraphs", "sections"] | None = _option(
        None,
        "What a hit is; auto: sections of Markdown files, paragraphs of others. Without it, what the index"
        " has, and auto for a new one.",
        metavar="auto|lines|paragraphs|sections",
    )
    index: str | None = _option(
        None,
        "Keep the index in this folder; without it, in the cache folder, one for each set of FILES.",
        metavar="FOLDER",
    )
    hybrid: bool = _option(False, "Rank by words (BM25) too, and fuse both rankings.")
    rerank: str | None = _option(
        None, "Let this cross-encoder read the best hits and order them.", metavar="MODEL"
    )
    top: int = _option(10, "The number of hits.", panel="Output")
