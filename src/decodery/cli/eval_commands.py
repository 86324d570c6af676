"""Declares the commands that measure models: decodery eval TASK, and what works on runs."""

from __future__ import annotations

from typing import Annotated, Any

import typer
from typer.core import TyperGroup

from decodery.cli.command_registry import Debug, app, command
from decodery.cli.flags.eval_options import EvalOptions
from decodery.cli.flags.model_options import ModelOptions


class TaskGroup(TyperGroup):
    """Runs a task if the first word names no command."""

    def resolve_command(self, ctx: Any, args: list[str]) -> Any:
        """Returns the command of these words."""
        if args and self.get_command(ctx, args[0]) is None:
            args = ["run", *args]
        return super().resolve_command(ctx, args)


evaluation = typer.Typer(
    cls=TaskGroup,
    help="Measure a model: decodery eval TASK runs a task; decodery eval tasks lists them.",
    rich_markup_mode=None,
    context_settings={"help_option_names": ["-h", "--help"]},
)
app.add_typer(evaluation, name="eval")
MODEL = ModelOptions()
HOW = EvalOptions()


@command("run", evaluation)
def _run(
    task: Annotated[str, typer.Argument(metavar="TASK", help="A task's name, or a TOML file with one.")],
    how: EvalOptions = HOW,
    model: ModelOptions = MODEL,
    debug: Debug = False,
) -> None:
    """Runs a task on a model and prints its results.

    With --out, the answers, samples, results and a report go into that folder. The same command goes on with
    a run that was stopped.
    """
    from decodery.cli.commands.evaluation.run import run

    run(task, how, model)


@command("tasks", evaluation)
def _tasks(debug: Debug = False) -> None:
    """Lists the tasks."""
    from decodery.cli.commands.evaluation.tasks import tasks

    tasks()
