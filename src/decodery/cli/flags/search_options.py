"""Declares the flags of a search."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from decodery.cli.flags.flag_field import option

BASELINE = "bow|tfidf|ppmi"


@dataclass(frozen=True)
class IndexOptions:
    """Holds how files are divided and where their index is; each field is a flag."""

    with_: str | None = option(
        None,
        "Compare with vectors that need no model: counts of words, TF-IDF, or vectors of words learned from"
        " these files (PPMI). No index is kept.",
        metavar=BASELINE,
    )
    by: Literal["auto", "lines", "paragraphs", "sections"] | None = option(
        None,
        "How files are divided; auto: sections of Markdown files, paragraphs of others. Without it, what the"
        " index has, and auto for a new one.",
        metavar="auto|lines|paragraphs|sections",
    )
    index: str | None = option(
        None,
        "Keep the index in this folder; without it, in the cache folder, one for each set of FILES.",
        metavar="FOLDER",
    )


@dataclass(frozen=True)
class SearchOptions(IndexOptions):
    """Holds how files are searched, as it is written on the command line; each field is a flag."""

    hybrid: bool = option(False, "Rank by words (BM25) too, and fuse both rankings.")
    late: bool = option(
        False,
        "Read the parts of a file together, so that their vectors know the text around (late chunking).",
    )
    sparse: bool = option(
        False, "Rank by the sparse vectors (SPLADE) of --model. All files are read anew; no index is kept."
    )
    rerank: str | None = option(
        None, "Let this cross-encoder read the best hits and order them.", metavar="MODEL"
    )
    top: int = option(10, "The number of hits.", panel="Output")


@dataclass(frozen=True)
class ClusterOptions(IndexOptions):
    """Holds how files are grouped, as it is written on the command line; each field is a flag."""

    groups: int | None = option(
        None, "The number of groups; without it, that of 2 to 12 which divides the texts best."
    )
    seed: int = option(0, "The same seed gives the same groups and the same map.")
    html: str | None = option(
        None, "Write a page with a map of the texts to this file.", metavar="FILE", panel="Output"
    )
