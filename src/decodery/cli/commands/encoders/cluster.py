"""Implements `decodery cluster`: groups the parts of files by their meaning."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from pathlib import Path

import numpy as np

from decodery.cli.commands.encoders.search import check_alone, index_folder, shortened, shown
from decodery.cli.flags.line_options import EncoderOptions
from decodery.cli.flags.search_options import ClusterOptions
from decodery.cli.load_encoder import load_encoder
from decodery.cli.terminal import aligned, emit, emit_json, fetch_progress, note
from decodery.errors import DecoderyError, ParameterError
from decodery.search.baselines import BaselineVectors, checked_baseline, file_chunks, in_words
from decodery.search.extras import extra
from decodery.search.group_page import group_page
from decodery.search.groups import TextGroup, map_places, text_groups
from decodery.search.index import SearchIndex
from decodery.search.ranking import Vectors
from decodery.search.store import StoredChunk
from decodery.search.text_files import text_paths
from decodery.search.text_vectors import EncoderEmbedder

NO_VECTORS = np.empty((0, 0), np.float32)


def cluster(files: Sequence[Path], options: ClusterOptions, model: EncoderOptions, *, as_json: bool) -> None:
    """Prints the groups of the files' parts, and writes a page with a map of them if it is asked for.

    Raises `ParameterError` for what is wrong, most of it before a model is loaded.
    """
    if options.groups is not None and options.groups < 1:
        raise ParameterError(f"groups must be 1 or more, not {options.groups}")
    html = None if options.html is None else Path(options.html)
    if html is not None and not html.parent.is_dir():
        raise DecoderyError(f"{html} cannot be written: there is no folder {html.parent}")
    text_paths(files)  # Raises for one that is not there.
    extra("sklearn.cluster", "grouping texts")
    chunks, vectors = _contents(files, options, model)
    texts = [chunk.above + chunk.text for chunk in chunks]
    groups = text_groups(texts, vectors, count=options.groups, seed=options.seed)
    labels = [f"{shown(Path(chunk.path))}:{chunk.line}" for chunk in chunks]
    if html is not None:
        page = group_page(groups, texts, labels, map_places(vectors, seed=options.seed))
        html.write_text(page, encoding="utf-8")
    if as_json:
        for number, group in enumerate(groups, 1):
            for place in group.members:
                chunk = chunks[place]
                emit_json(
                    {
                        "group": number,
                        "name": list(group.name),
                        "file": shown(Path(chunk.path)),
                        "line": chunk.line,
                        "end_line": chunk.end_line,
                        "heading": chunk.heading,
                        "text": chunk.text,
                    }
                )
    elif groups:
        emit(_table(groups, texts, labels))
    if not groups:
        note("decodery: there is no text in these files")


def _contents(
    files: Sequence[Path], options: ClusterOptions, model: EncoderOptions
) -> tuple[list[StoredChunk], Vectors]:
    """Returns the parts of files and their vectors."""
    if options.with_ is not None:
        kind = checked_baseline(options.with_)
        check_alone({"model": model.model, "index": options.index})
        chunks = file_chunks(files, in_words(options.by))
        texts = [chunk.above + chunk.text for chunk in chunks]
        return chunks, BaselineVectors(kind, texts).vectors(texts) if texts else NO_VECTORS
    embedder = EncoderEmbedder(load_encoder(model))
    folder = index_folder(files, options.index, options.by, embedder)
    with SearchIndex(folder, embedder, by=options.by) as index:
        with fetch_progress() as show:
            index.update(files, progress=partial(show, "reading files"))
        return index.contents()


def _table(groups: Sequence[TextGroup], texts: Sequence[str], labels: Sequence[str]) -> str:
    """Returns the groups as a table: number, size, name, and the text that is nearest to the centre."""
    rows = [
        (str(number), str(len(group.members)), ", ".join(group.name), labels[group.members[0]])
        for number, group in enumerate(groups, 1)
    ]
    nearest = [" ".join(texts[group.members[0]].split()) for group in groups]
    widths = [max(len(row[k]) for row in rows) for k in range(4)]
    cut = shortened(nearest, sum(widths) + 2 * len(widths))
    return aligned([(*row, text) for row, text in zip(rows, cut, strict=True)], right=(0, 1))
