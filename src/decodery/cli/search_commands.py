"""Declares the commands that work on files of text with an encoder."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from decodery.cli.command_registry import Debug, command
from decodery.cli.flags.line_options import EncoderOptions
from decodery.cli.flags.search_options import ClusterOptions, SearchOptions

ENCODER = EncoderOptions()
SEARCH = SearchOptions()
CLUSTER = ClusterOptions()

Json = Annotated[
    bool, typer.Option("--json", help="Print a line of JSON for each text.", rich_help_panel="Output")
]


@command("search")
def _search(
    query: Annotated[str, typer.Argument(metavar="QUERY", help="What to search for.")],
    files: Annotated[
        list[Path] | None,
        typer.Argument(
            metavar="FILES",
            help="Files and folders to search; without them, those of --index as they were read.",
        ),
    ] = None,
    json: Json = False,
    options: SearchOptions = SEARCH,
    model: EncoderOptions = ENCODER,
    debug: Debug = False,
) -> None:
    """Finds the parts of files that are closest to a query in meaning.

    Keeps an index, so that only files that have changed are read again. Without --model, uses minilm, a small
    model of English sentences, which is fetched once.
    """
    from decodery.cli.commands.encoders.search import search

    search(query, files or [], options, model, as_json=json)


@command("cluster")
def _cluster(
    files: Annotated[list[Path], typer.Argument(metavar="FILES...", help="Files and folders to group.")],
    json: Json = False,
    options: ClusterOptions = CLUSTER,
    model: EncoderOptions = ENCODER,
    debug: Debug = False,
) -> None:
    """Groups the parts of files by their meaning.

    Names each group by the words that tell it from the others. With --html, writes a page with a map of all
    texts. Keeps an index, as decodery search does. Without --model, uses minilm.
    """
    from decodery.cli.commands.encoders.cluster import cluster

    cluster(files, options, model, as_json=json)
