"""Implements `decodery search`: finds the parts of files that are closest to a query."""

from __future__ import annotations

import dataclasses
import hashlib
import json
import os
import shutil
import sys
from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

from decodery.cli.flags.line_options import EncoderOptions
from decodery.cli.flags.search_options import SearchOptions
from decodery.cli.load_encoder import load_encoder
from decodery.cli.terminal import aligned, emit, emit_json, fetch_progress, note
from decodery.errors import ModelError, ParameterError
from decodery.pictures.svg_sheet import fitted
from decodery.search.baselines import Baseline, baseline_hits, checked_baseline
from decodery.search.index import SearchHit, SearchIndex
from decodery.search.keywords import keyword_library
from decodery.search.sparse_search import sparse_hits
from decodery.search.store import FILE
from decodery.search.text_files import text_paths
from decodery.search.text_vectors import EncoderEmbedder, LateEmbedder
from decodery.weights.sources.model_cache import cache_folder

NARROWEST = 20


def search(
    query: str, files: Sequence[Path], options: SearchOptions, model: EncoderOptions, *, as_json: bool
) -> None:
    """Prints the hits of a query in files, or in an index that is kept.

    Raises `ParameterError` without either of them, and before a model is loaded for what is wrong.
    """
    _check(query, files, options)
    text_paths(files)  # Raises for one that is not there.
    if options.with_ is not None:
        kind = _checked_baseline(files, options, model)
        _show(baseline_hits(query, files, kind, by=options.by, top=options.top), as_json=as_json)
        return
    if options.sparse:
        _check_sparse(files, options, model)
        found = sparse_hits(query, files, load_encoder(model), by=options.by, top=options.top)
        _show(found, as_json=as_json)
        return
    if options.hybrid:
        keyword_library()
    encoder = load_encoder(model)
    embedder = LateEmbedder(encoder) if options.late else EncoderEmbedder(encoder)
    folder = index_folder(files, options.index, options.by, embedder)
    reranker: Any = None
    if options.rerank is not None:
        reranker = load_encoder(dataclasses.replace(model, model=options.rerank))
    with SearchIndex(folder, embedder, by=options.by) as index:
        if files:
            with fetch_progress() as show:
                index.update(files, progress=partial(show, "reading files"))
        hits = index.search(query, top=options.top, hybrid=options.hybrid, reranker=reranker)
    _show(hits, as_json=as_json)


def _show(hits: Sequence[SearchHit], *, as_json: bool) -> None:
    if not hits:
        note("decodery: there is no text to search in these files, or none with a token of the query")
    if as_json:
        for rank, hit in enumerate(hits, 1):
            emit_json({"rank": rank, **_as_json(hit)})
    elif hits:
        emit(_table(hits))


def _check(query: str, files: Sequence[Path], options: SearchOptions) -> None:
    if not query.strip():
        raise ParameterError("the query is empty: give some text")
    if options.top < 1:
        raise ParameterError(f"top must be 1 or more, not {options.top}")
    if not files and options.index is None:
        raise ParameterError("name the files to search, or with --index a folder that holds an index of them")
    if not files and options.index is not None and not (Path(options.index) / FILE).is_file():
        raise ModelError(f"{options.index} holds no index: name the files to search, and it is made there")


def _checked_baseline(files: Sequence[Path], options: SearchOptions, model: EncoderOptions) -> Baseline:
    kind = checked_baseline(options.with_)
    check_alone(
        {
            "model": model.model,
            "index": options.index,
            "rerank": options.rerank,
            "hybrid": options.hybrid or None,
            "sparse": options.sparse or None,
            "late": options.late or None,
        }
    )
    _check_files(files)
    return kind


def _check_files(files: Sequence[Path]) -> None:
    if not files:
        raise ParameterError("name the files to search")


def _check_sparse(files: Sequence[Path], options: SearchOptions, model: EncoderOptions) -> None:
    if options.index is not None or options.hybrid or options.late or options.rerank is not None:
        raise ParameterError("--sparse goes without --index, --hybrid, --late and --rerank")
    if model.model is None:
        raise ParameterError("--sparse needs --model, an encoder whose head of masked tokens gives weights")
    _check_files(files)


def check_alone(others: Mapping[str, Any]) -> None:
    """Raises `ParameterError` that names another flag beside --with, if one is given."""
    for name, value in others.items():
        if value is not None:
            raise ParameterError(f"--{name} has no meaning with --with, whose vectors need no model")


def index_folder(files: Sequence[Path], named: str | None, by: str | None, embedder: EncoderEmbedder) -> Path:
    """Returns the folder that is named, else that in our cache for the index of these files by this model."""
    if named is not None:
        return Path(named)
    paths = sorted({os.path.abspath(file) for file in files})
    words = json.dumps([paths, by or "auto", embedder.limit, embedder.identity], sort_keys=True)
    return cache_folder() / "search" / hashlib.sha256(words.encode()).hexdigest()[:16]


def _as_json(hit: SearchHit) -> dict[str, Any]:
    found = {**dataclasses.asdict(hit), "file": shown(hit.file)}
    return {name: value for name, value in found.items() if value is not None}


def shown(path: Path) -> str:
    """Returns a path as it is shorter to write: from the current folder, if it is below it."""
    here = Path.cwd()
    return str(path.relative_to(here)) if path.is_relative_to(here) else str(path)


def _table(hits: Sequence[SearchHit]) -> str:
    """Returns the hits as a table, whose texts are cut off at the width of a terminal."""
    places = [f"{shown(hit.file)}:{hit.line}" for hit in hits]
    scores = [f"{hit.score:.4f}" for hit in hits]
    texts = [" ".join(f"{hit.heading}: {hit.text}".removeprefix(": ").split()) for hit in hits]
    cut = shortened(texts, max(map(len, places)) + max(map(len, scores)) + 4)
    return aligned(list(zip(places, scores, cut, strict=True)), right=(1,))


def shortened(texts: Sequence[str], taken: int) -> list[str]:
    """Returns texts cut off where a terminal's line ends, of which `taken` cells are used already.

    Where stdout is no terminal, the texts stay whole.
    """
    if not sys.stdout.isatty():
        return list(texts)
    width = max(NARROWEST, shutil.get_terminal_size().columns - taken - 1)
    return [fitted(text, width) for text in texts]
