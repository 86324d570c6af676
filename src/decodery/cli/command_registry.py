"""Registers functions as commands of the `decodery` program."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Annotated, Any

import typer

from decodery.cli.flags.field_flags import with_flags
from decodery.cli.flags.grouped_help import GroupedCommand
from decodery.cli.terminal import exit_on_error

Debug = Annotated[bool, typer.Option("--debug", help="Print the traceback of an error.")]

app = typer.Typer(
    help="Every way to decode open-weight language models, on the machine you have.",
    epilog="decodery COMMAND --help lists the flags of a command.",
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
    context_settings={"help_option_names": ["-h", "--help"]},
)


def command(name: str, group: typer.Typer = app) -> Callable[[Callable[..., None]], Callable[..., None]]:
    """Registers a function as a command; its dataclasses become flags, its errors become lines on stderr."""

    def register(function: Callable[..., None]) -> Callable[..., None]:
        flagged = with_flags(function)

        @functools.wraps(flagged)
        def with_errors(debug: bool, **values: Any) -> None:
            with exit_on_error(debug):
                flagged(debug=debug, **values)

        group.command(name, cls=GroupedCommand)(with_errors)
        return function

    return register
