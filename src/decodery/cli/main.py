"""The commands with their flags, and how each ends.

What needs torch is imported inside the commands that run a model: help and wrong flags answer at once.
"""

from __future__ import annotations

import functools
import io
import os
import sys
import warnings
from collections.abc import Callable, Sequence
from pathlib import Path
from time import perf_counter
from typing import Annotated, Any

import typer

from decodery.cli.flags.compare_lines import DEFAULT_SET, PRESETS, chosen_lines
from decodery.cli.flags.field_flags import with_flags
from decodery.cli.flags.generation_flags import GenerationFlags
from decodery.cli.flags.grouped_help import GroupedCommand
from decodery.cli.flags.model_options import ModelOptions
from decodery.cli.input_text import given_text
from decodery.cli.terminal import (
    FAILED,
    INTERRUPTED,
    MISUSED,
    complain,
    reporting,
    silence_stdout,
)
from decodery.errors import ParameterError
from decodery.version import __version__

# The parent of typer's own errors about flags; typer does not export it in every version.
UsageError: type[Exception] = typer.BadParameter.__mro__[1]

ANY = GenerationFlags()
FEW_TOKENS = GenerationFlags(own={"max_tokens": 16})
# A comparison's lines say their strategies themselves.
SHARED = GenerationFlags(own={"max_tokens": 40}, without=("Strategy", "Output"))
MODEL = ModelOptions()

FROM_STDIN = "left out or -, it is read from stdin, without its last line end."

Prompt = Annotated[str | None, typer.Argument(metavar="[PROMPT]", help=f"The prompt; {FROM_STDIN}")]
Text = Annotated[str | None, typer.Argument(metavar="[TEXT]", help=f"The text; {FROM_STDIN}")]
File = Annotated[Path | None, typer.Option(metavar="FILE", help="Read a file in its place, in the same way.")]
Model = Annotated[
    str | None,
    typer.Argument(
        metavar="[MODEL]", help="A folder, a .gguf file or a hub id; left out, the default model."
    ),
]
Json = Annotated[
    bool, typer.Option("--json", help="Print all that is known, as JSON.", rich_help_panel="Output")
]
System = Annotated[str | None, typer.Option(metavar="TEXT", help="The system message of the conversation.")]
Html = Annotated[
    Path | None,
    typer.Option(
        metavar="FILE", help="Write a page that shows every choice to this file.", rich_help_panel="Output"
    ),
]
Svg = Annotated[
    Path | None,
    typer.Option(metavar="FILE", help="Write the same as one picture.", rich_help_panel="Output"),
]
Revision = Annotated[
    str | None, typer.Option(metavar="TEXT", help="The branch, tag or commit of a hub model.")
]
Debug = Annotated[bool, typer.Option("--debug", help="Show where an error came from.")]

app = typer.Typer(
    help="Every way to decode open-weight language models, on the machine you have.",
    epilog="decodery COMMAND --help tells all the flags of a command.",
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
    context_settings={"help_option_names": ["-h", "--help"]},
)


def _command(name: str) -> Callable[[Callable[..., None]], Callable[..., None]]:
    """Registers a function as a command: its dataclasses become flags, its errors lines on stderr."""

    def register(function: Callable[..., None]) -> Callable[..., None]:
        spread = with_flags(function)

        @functools.wraps(spread)
        def guarded(debug: bool, **values: Any) -> None:
            with reporting(debug):
                spread(debug=debug, **values)

        app.command(name, cls=GroupedCommand)(guarded)
        return function

    return register


@app.callback(invoke_without_command=True)
def _decodery(
    context: typer.Context,
    version: Annotated[bool, typer.Option("--version", help="Print the version.")] = False,
) -> None:
    if version:
        typer.echo(f"decodery {__version__}")
        raise typer.Exit
    if context.invoked_subcommand is None:
        typer.echo(context.get_help())
        raise typer.Exit(MISUSED)


@_command("generate")
def _generate(
    prompt: Prompt = None,
    file: File = None,
    chat: Annotated[bool, typer.Option("--chat", help="Send the prompt as a user's message.")] = False,
    system: System = None,
    json: Json = False,
    stats: Annotated[
        bool,
        typer.Option("--stats", help="Print times and counts on stderr.", rich_help_panel="Output"),
    ] = False,
    generation: GenerationFlags = ANY,
    model: ModelOptions = MODEL,
    debug: Debug = False,
) -> None:
    """Continue a prompt.

    The text comes on stdout as it grows, everything else on stderr. With --n above 1, the completions follow
    each other, with a heading for each on stderr.
    """
    started = perf_counter()
    if system is not None and not chat:
        raise ParameterError("system is a message of a conversation: give --chat too")
    _refuse_unshown(generation, json)
    text = given_text(prompt, file, "PROMPT")
    from decodery.cli.commands.generate import generate

    generate(text, generation, model, chat=chat, system=system, as_json=json, stats=stats, started=started)


@_command("chat")
def _chat(
    system: System = None,
    generation: GenerationFlags = ANY,
    model: ModelOptions = MODEL,
    debug: Debug = False,
) -> None:
    """Talk with a model.

    /help tells what else can be typed. Each line that is piped in is one message.
    """
    from decodery.cli.commands.chat import chat

    chat(generation, model, system)


@_command("score")
def _score(
    text: Text = None,
    file: File = None,
    json: Json = False,
    model: ModelOptions = MODEL,
    debug: Debug = False,
) -> None:
    """Tell how likely a text is.

    Prints the log-probability of each token given those before it, their sum, and the perplexity.
    """
    given = given_text(text, file, "TEXT")
    from decodery.cli.commands.score import score

    score(given, model, as_json=json)


@_command("explain")
def _explain(
    prompt: Prompt = None,
    file: File = None,
    top: Annotated[
        int, typer.Option(metavar="INTEGER", help="How many of the likeliest tokens to show.")
    ] = 5,
    json: Json = False,
    html: Html = None,
    svg: Svg = None,
    generation: GenerationFlags = FEW_TOKENS,
    model: ModelOptions = MODEL,
    debug: Debug = False,
) -> None:
    """Show why each token was chosen.

    Prints the likeliest tokens of each step, with their probabilities under the model and after processing,
    and what was cut away; for beams, which lived on. --html writes a page to look at, --svg a picture.
    """
    if top < 0:
        raise ParameterError(f"top must be 0 or more, not {top}")
    _refuse_unshown(generation, json)
    text = given_text(prompt, file, "PROMPT")
    from decodery.cli.commands.explain import explain

    explain(text, generation, model, top=top, as_json=json, html=html, svg=svg)


@_command("compare")
def _compare(
    prompt: Prompt = None,
    file: File = None,
    strategies: Annotated[
        str | None,
        typer.Option(metavar="NAME,...", help=f"Which of {', '.join(PRESETS)}.  [default: {DEFAULT_SET}]"),
    ] = None,
    extra: Annotated[
        list[str] | None,
        typer.Option(
            "--with",
            metavar="LINE",
            help='One more line: "NAME: FLAG=VALUE FLAG=VALUE", such as "warm: temperature=0.7 top-p=0.9".'
            " May be repeated.",
        ),
    ] = None,
    json: Json = False,
    generation: GenerationFlags = SHARED,
    model: ModelOptions = MODEL,
    debug: Debug = False,
) -> None:
    """Show what different strategies make of a prompt.

    They run side by side in one batch. The flags hold for all of them, except where a strategy says
    otherwise.
    """
    lines = chosen_lines(generation, strategies, extra or [])
    text = given_text(prompt, file, "PROMPT")
    from decodery.cli.commands.compare import compare

    compare(text, lines, model, as_json=json)


@_command("pull")
def _pull(model: Model = None, revision: Revision = None, debug: Debug = False) -> None:
    """Fetch a model unless it is here, and print its path."""
    from decodery.cli.commands.models import pull

    pull(model, revision)


@_command("models")
def _models(json: Json = False, debug: Debug = False) -> None:
    """List the models on this machine."""
    from decodery.cli.commands.models import models

    models(as_json=json)


@_command("inspect")
def _inspect(
    model: Model = None,
    dtype: Annotated[str, typer.Option(metavar="TEXT", help="The precision to reckon with.")] = "auto",
    backend: Annotated[str, typer.Option(metavar="TEXT", help="The backend to reckon with.")] = "auto",
    quantization: Annotated[
        str | None, typer.Option(metavar="TEXT", help="The packed weights to reckon with.")
    ] = None,
    context_length: Annotated[
        int | None,
        typer.Option(metavar="INTEGER", help="The context to reckon with; left out, the model's own."),
    ] = None,
    kv_dtype: Annotated[
        str, typer.Option(metavar="TEXT", help="The precision of the key/value cache to reckon with.")
    ] = "auto",
    revision: Revision = None,
    json: Json = False,
    debug: Debug = False,
) -> None:
    """Tell what a model is, what computes it here and the memory it needs; loads no weights."""
    from decodery.cli.commands.inspect import inspect

    options = ModelOptions(
        model=model,
        dtype=dtype,
        backend=backend,
        quantization=quantization,
        context_length=context_length,
        kv_dtype=kv_dtype,
        revision=revision,
    )
    inspect(options, as_json=json)


def _refuse_unshown(generation: GenerationFlags, as_json: bool) -> None:
    for name in ("logprobs", "prompt_logprobs"):
        if generation.values.get(name) is not None and not as_json:
            raise ParameterError(f"{name} are shown only with --json")


def run(arguments: Sequence[str]) -> int:
    """Run one command line and return its exit status."""
    if sys.stderr is None:
        # It was closed: without this, print and traceback would turn to stdout.
        sys.stderr = open(os.devnull, "w")  # noqa: SIM115  (for as long as the process lives)
    if sys.stdout is None:
        complain("there is no standard output: it is closed")
        return FAILED
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(encoding="utf-8", errors="replace")
    try:
        with warnings.catch_warnings():
            warnings.showwarning = _warned
            status = typer.main.get_command(app).main(list(arguments), "decodery", standalone_mode=False)
    except UsageError as error:
        complain(getattr(error, "format_message", error.__str__)())
        return MISUSED
    except (typer.Abort, KeyboardInterrupt):
        return INTERRUPTED
    status = status if isinstance(status, int) else 0
    return status if _flushed() else status or FAILED


def _warned(message: Warning | str, category: type[Warning], *where: object, **more: object) -> None:
    """A warning as one line; where in the code it came from helps nobody."""
    complain(str(message))


def _flushed() -> bool:
    try:
        sys.stdout.flush()
    except OSError:
        silence_stdout()
        return False
    return True
