"""Declares the commands that measure models: decodery eval TASK, and what works on runs."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer
from typer.core import TyperGroup

from decodery.cli.command_registry import Debug, app, command
from decodery.cli.flags.eval_options import EvalOptions
from decodery.cli.flags.judge_options import JudgeOptions
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
JUDGING = JudgeOptions()


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


@command("judge", evaluation)
def _judge(
    answers: Annotated[
        list[Path],
        typer.Argument(
            metavar="ANSWERS...",
            help="Two sets of answers to the same questions (one with --rubric): JSON lines with a question,"
            " an answer and an id, or the folder of a run.",
        ),
    ],
    judge: Annotated[
        list[str] | None,
        typer.Option(
            metavar="MODEL|URL",
            help="A judge: a model as for --model, or the address of a server. Repeat it for several.",
        ),
    ] = None,
    how: JudgeOptions = JUDGING,
    debug: Debug = False,
) -> None:
    """Lets models judge which of two answers is better.

    Each pair is judged in both orders; a pair whose verdict changes with the order is inconsistent, and
    counts for neither. With --rubric, single answers get marks.
    """
    from decodery.cli.commands.evaluation.judge import judge as run_judges

    run_judges(answers, judge or [], how)


@command("contamination", evaluation)
def _contamination(
    run: Annotated[Path, typer.Argument(metavar="RUN", help="The folder of a run.")],
    corpus: Annotated[
        list[Path],
        typer.Argument(metavar="CORPUS...", help="Files and folders of text that a model may have learnt."),
    ],
    data: Annotated[
        str | None, typer.Option(metavar="PATH", help="The data of the run's task, as decodery eval got it.")
    ] = None,
    words: Annotated[int, typer.Option(metavar="N", help="The number of words in a row.")] = 13,
    json: Annotated[bool, typer.Option("--json", help="Print the results as one JSON object.")] = False,
    debug: Debug = False,
) -> None:
    """Looks for the questions of a run in a corpus, and tells the results with and without those found."""
    from decodery.cli.commands.evaluation.contamination import contamination

    contamination(run, corpus, data, words, as_json=json)


@command("consistency", evaluation)
def _consistency(
    runs: Annotated[
        list[Path],
        typer.Argument(
            metavar="RUN...",
            help="A run with --repeats, or runs of the same documents with other seeds or paraphrased"
            " questions.",
        ),
    ],
    json: Annotated[bool, typer.Option("--json", help="Print the results as one JSON object.")] = False,
    debug: Debug = False,
) -> None:
    """Tells how often a model gives the same answer again."""
    from decodery.cli.commands.evaluation.consistency import consistency

    consistency(runs, as_json=json)
