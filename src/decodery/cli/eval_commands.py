"""Declares the commands that measure models: decodery eval TASK, and what works on runs."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer
from typer.core import TyperGroup

from decodery.cli.command_registry import Debug, app, command
from decodery.cli.flags.eval_options import EvalOptions
from decodery.cli.flags.harness_options import LmEvalOptions, MtebOptions
from decodery.cli.flags.judge_options import JudgeOptions
from decodery.cli.flags.line_options import EncoderOptions
from decodery.cli.flags.model_options import ModelOptions
from decodery.cli.flags.score_options import ScoreOptions


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
Json = Annotated[
    bool, typer.Option("--json", help="Print the results as one JSON object.", rich_help_panel="Output")
]
MODEL = ModelOptions()
HOW = EvalOptions()
JUDGING = JudgeOptions()
LM_EVAL = LmEvalOptions()
MTEB = MtebOptions()
SCORING = ScoreOptions()
ENCODER = EncoderOptions()


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
        list[Path] | None,
        typer.Argument(
            metavar="ANSWERS",
            help="Two sets of answers to the same questions (one with --rubric): JSON lines with a question,"
            " an answer and an id, or the folder of a run. None with --votes of a file that the page saved.",
        ),
    ] = None,
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

    run_judges(answers or [], judge or [], how)


@command("score", evaluation)
def _score(
    predictions: Annotated[
        Path,
        typer.Argument(
            metavar="TEXTS",
            help="The texts: one a line, or rows (.jsonl, .csv, .tsv, .parquet) with --prediction-field.",
        ),
    ],
    how: ScoreOptions = SCORING,
    json: Json = False,
    debug: Debug = False,
) -> None:
    """Scores texts in a file against references: summaries, translations, short answers.

    With --compare, says whether other texts are better or worse, and whether the difference is real.
    """
    from decodery.cli.commands.evaluation.score import score

    score(predictions, how, as_json=json)


@command("bertscore-baseline", evaluation)
def _bertscore_baseline(
    lines: Annotated[
        Path,
        typer.Argument(metavar="TEXTS", help="Sentences of the language: one a line, or rows with --field."),
    ],
    out: Annotated[Path, typer.Option(metavar="FILE", help="Write the baselines into this file.")],
    field: Annotated[str, typer.Option(metavar="NAME", help="The field of rows that has the text.")] = "text",
    layers: Annotated[str, typer.Option(metavar="all|N,...", help="The layers that are measured.")] = "all",
    limit: Annotated[int | None, typer.Option(metavar="N", help="Use the first N different texts.")] = None,
    seed: Annotated[int, typer.Option(metavar="N", help="Chooses the pairs.")] = 0,
    model: EncoderOptions = ENCODER,
    debug: Debug = False,
) -> None:
    """Measures the BERTScore of texts that have nothing in common, for each layer of an encoder.

    Scores that are rescaled by it (decodery eval score --baseline) have 0 for unrelated texts. The file has
    bert-score's layout. A million pairs are published; some thousands give three digits. A command that was
    stopped goes on where it was if it is given again.
    """
    from decodery.cli.commands.evaluation.bertscore_baseline import bertscore_baseline

    bertscore_baseline(lines, model, out, field=field, layers=layers, limit=limit, seed=seed)


@command("contamination", evaluation)
def _contamination(
    run: Annotated[Path, typer.Argument(metavar="RUN", help="The folder of a run.")],
    corpus: Annotated[
        list[Path],
        typer.Argument(metavar="CORPUS...", help="Files and folders of text that a model may have learnt."),
    ],
    words: Annotated[int, typer.Option(metavar="N", help="The number of words in a row.")] = 13,
    json: Json = False,
    debug: Debug = False,
) -> None:
    """Looks for the questions of a run in a corpus, and tells the results with and without those found."""
    from decodery.cli.commands.evaluation.contamination import contamination

    contamination(run, corpus, words, as_json=json)


@command("lm-eval", evaluation)
def _lm_eval(how: LmEvalOptions = LM_EVAL, model: ModelOptions = MODEL, debug: Debug = False) -> None:
    """Runs tasks of lm-eval, EleutherAI's harness, and prints its tables.

    Needs the extra: pip install "decodery[harness]". Other data than --include-path has is fetched by
    lm-eval.
    """
    from decodery.cli.commands.evaluation.harness import lm_eval

    lm_eval(how, model)


@command("mteb", evaluation)
def _mteb(how: MtebOptions = MTEB, model: ModelOptions = MODEL, debug: Debug = False) -> None:
    """Runs tasks of mteb, the benchmark of text embeddings, on an encoder.

    The encoder is MiniLM if none is named. Needs the extra: pip install "decodery[harness]". mteb fetches the
    data.
    """
    from decodery.cli.commands.evaluation.harness import mteb

    mteb(how, model)


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
    json: Json = False,
    debug: Debug = False,
) -> None:
    """Tells how often a model gives the same answer again."""
    from decodery.cli.commands.evaluation.consistency import consistency

    consistency(runs, as_json=json)


@command("compare", evaluation)
def _compare(
    one: Annotated[Path, typer.Argument(metavar="RUN", help="The folder of a run.")],
    other: Annotated[Path, typer.Argument(metavar="RUN", help="The folder of another run of the same task.")],
    show: Annotated[int, typer.Option(metavar="N", help="Print so many of the samples that differ.")] = 10,
    json: Json = False,
    debug: Debug = False,
) -> None:
    """Compares two runs sample by sample, and says whether their difference is real.

    The samples are paired. The interval is that of the paired bootstrap; the p-value is McNemar's where all
    samples are right or wrong, else the bootstrap's. A difference is real if it is below 5%.
    """
    from decodery.cli.commands.evaluation.compare import compare

    compare(one, other, show, as_json=json)


@command("report", evaluation)
def _report(
    run: Annotated[Path, typer.Argument(metavar="RUN", help="The folder of a run.")], debug: Debug = False
) -> None:
    """Writes the report of a run again, from its other files."""
    from decodery.cli.commands.evaluation.report import report

    report(run)


@command("leaderboard", evaluation)
def _leaderboard(
    runs: Annotated[list[Path], typer.Argument(metavar="RUN...", help="The folders of runs.")],
    out: Annotated[
        Path | None,
        typer.Option(
            metavar="FILE", help="Write the table to this .json or .html file.", rich_help_panel="Output"
        ),
    ] = None,
    json: Json = False,
    debug: Debug = False,
) -> None:
    """Aggregates runs of several models into one table.

    Scores are normalised: 0 is chance, 1 is all right. The mean is told for models that have all tasks.
    """
    from decodery.cli.commands.evaluation.leaderboard import leaderboard

    leaderboard(runs, out, as_json=json)
