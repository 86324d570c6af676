"""Declares the commands that run recipes: small experiments that answer one question with a table."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from decodery.cli.command_registry import Debug, app, command
from decodery.cli.flags.model_options import ModelOptions

HELP = "Run a small experiment that answers one question with a table."
recipes = typer.Typer(
    help=HELP,
    rich_markup_mode=None,
    no_args_is_help=True,
    context_settings={"help_option_names": ["-h", "--help"]},
)
app.add_typer(recipes, name="recipe")
MODEL = ModelOptions()


# Without it, typer takes the name of the only recipe for the group's.
@recipes.callback(help=HELP)
def _recipe() -> None:
    """Groups the recipes."""


@command("classification", recipes)
def _classification(
    data: Annotated[
        Path | None,
        typer.Option(
            metavar="FILE",
            help="Labelled texts: .csv, .tsv, .jsonl or .parquet with the columns text and label; without it,"
            " 300 requests to a library.",
        ),
    ] = None,
    encoder: Annotated[
        str | None, typer.Option(metavar="MODEL", help="The encoder; without it, minilm.")
    ] = None,
    shots: Annotated[
        int, typer.Option(metavar="N", help="Examples of each label that the chat model is shown.")
    ] = 2,
    seed: Annotated[
        int, typer.Option(metavar="N", help="Chooses the half of the texts that are for the test.")
    ] = 0,
    show: Annotated[
        int, typer.Option(metavar="N", help="Print so many of the texts on which the ways differ.")
    ] = 5,
    out: Annotated[
        Path | None,
        typer.Option(
            metavar="FILE",
            help="Write the label that each way gives to each text into this file, as JSON lines.",
            rich_help_panel="Output",
        ),
    ] = None,
    markdown: Annotated[
        bool, typer.Option("--markdown", help="Print the table in Markdown.", rich_help_panel="Output")
    ] = False,
    json: Annotated[
        bool,
        typer.Option("--json", help="Print the results as one JSON object.", rich_help_panel="Output"),
    ] = False,
    model: ModelOptions = MODEL,
    debug: Debug = False,
) -> None:
    """Compares three ways to classify texts: accuracy, F1 and seconds of each on the same texts.

    The ways are the similarity to the labels (to their descriptions, where the texts are ours), a logistic
    regression on frozen vectors, and a prompted chat model. Half of the texts are for
    the test; the others are examples.
    """
    from decodery.cli.commands.recipes.classification import classification

    classification(data, encoder, model, shots, seed, show=show, out=out, markdown=markdown, as_json=json)
