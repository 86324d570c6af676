"""Declares the commands with their flags, and runs a command line.

Modules that need torch are imported inside the commands, so that help and errors in flags come at once.
"""

from __future__ import annotations

import io
import os
import sys
import warnings
from collections.abc import Sequence
from pathlib import Path
from time import perf_counter
from typing import Annotated

import typer

from decodery.cli import encoder_commands as encoder_commands
from decodery.cli import eval_commands as eval_commands
from decodery.cli import recipe_commands as recipe_commands
from decodery.cli import search_commands as search_commands
from decodery.cli.command_registry import Debug, app, command
from decodery.cli.flags.comparison_lines import DEFAULT_SET, PRESETS, comparison_lines
from decodery.cli.flags.generation_flags import GenerationFlags
from decodery.cli.flags.model_options import (
    BACKENDS,
    DTYPES,
    KV_DTYPES,
    QUANTIZATIONS,
    ModelOptions,
    RunOptions,
    TextModelOptions,
)
from decodery.cli.flags.playground_options import PlaygroundOptions
from decodery.cli.flags.serve_options import ServeOptions
from decodery.cli.input_text import given_prompt, given_text, prompt_arguments
from decodery.cli.terminal import (
    FAILED,
    INTERRUPTED,
    MISUSED,
    exit_on_error,
    print_error,
    silence_stdout,
)
from decodery.errors import ParameterError
from decodery.version import __version__

# The parent of typer's own errors about flags; typer does not export it in every version.
UsageError: type[Exception] = typer.BadParameter.__mro__[1]

ANY = GenerationFlags()
# The text does not follow the prompt, so that the prompt cannot be put before it.
WITHOUT_ECHO = GenerationFlags(hidden_flags=("echo",))
FEW_TOKENS = GenerationFlags(command_defaults={"max_tokens": 16})
# Each line of a comparison names its own strategy.
SHARED = GenerationFlags(command_defaults={"max_tokens": 40}, hidden_panels=("Strategy", "Output"))
MODEL = ModelOptions()
RUN = RunOptions()
TEXT_MODEL = TextModelOptions()
SERVER = ServeOptions()
PLAYGROUND = PlaygroundOptions()

FROM_STDIN = "without it or with -, read from stdin. The last line end of stdin is dropped."

Prompt = Annotated[str | None, typer.Argument(metavar="[PROMPT]", help=f"The prompt; {FROM_STDIN}")]
Text = Annotated[str | None, typer.Argument(metavar="[TEXT]", help=f"The text; {FROM_STDIN}")]
File = Annotated[
    Path | None,
    typer.Option(metavar="FILE", help="Read the input from this file; its last line end is dropped."),
]
Model = Annotated[
    str | None,
    typer.Argument(
        metavar="[MODEL]",
        help="The model: a folder, a .gguf file, a hub id or default; without it, the default model.",
    ),
]
Json = Annotated[
    bool, typer.Option("--json", help="Print the whole result as one JSON object.", rich_help_panel="Output")
]
System = Annotated[str | None, typer.Option(metavar="TEXT", help="The system message of the conversation.")]
Template = Annotated[
    str | None,
    typer.Option(
        metavar="NAME|FILE", help="The chat template: the name of one of the model's, or a file with one."
    ),
]
SpecialInContent = Annotated[
    bool,
    typer.Option(
        "--special-in-content",
        help="Let texts of control tokens in messages be such tokens, not plain text.",
    ),
]
Html = Annotated[
    Path | None,
    typer.Option(
        metavar="FILE", help="Write an HTML page of all choices to this file.", rich_help_panel="Output"
    ),
]
Svg = Annotated[
    Path | None,
    typer.Option(
        metavar="FILE", help="Write an SVG picture of all choices to this file.", rich_help_panel="Output"
    ),
]
Revision = Annotated[
    str | None, typer.Option(metavar="TEXT", help="The branch, tag or commit of a hub model.")
]
SHELLS = "bash|zsh|fish"
# Given last, these flags mean the user's own shell.
SHELL_FLAGS = ("--install-completion", "--show-completion")


@app.callback(invoke_without_command=True)
def _decodery(
    context: typer.Context,
    version: Annotated[bool, typer.Option("--version", help="Print the version.")] = False,
    install_completion: Annotated[
        str | None,
        typer.Option(metavar=SHELLS, help="Let a shell complete command lines; without a name, yours."),
    ] = None,
    show_completion: Annotated[
        str | None, typer.Option(metavar=SHELLS, help="Print the script that does so.")
    ] = None,
) -> None:
    if version:
        typer.echo(f"decodery {__version__}")
        raise typer.Exit
    if install_completion is not None or show_completion is not None:
        from decodery.cli.commands.completion_script import install, show

        with exit_on_error(debug=False):
            if install_completion is not None:
                install(install_completion)
            if show_completion is not None:
                show(show_completion)
        raise typer.Exit
    if context.invoked_subcommand is None:
        typer.echo(context.get_help())
        raise typer.Exit(MISUSED)


@command("generate")
def _generate(
    prompt: Prompt = None,
    file: File = None,
    token_ids: Annotated[
        str | None,
        typer.Option(metavar="ID,...", help="The prompt as token ids, in place of a text."),
    ] = None,
    generated: Annotated[
        int,
        typer.Option(metavar="N", help="The last N of --token-ids begin the text, which goes on from there."),
    ] = 0,
    chat: Annotated[bool, typer.Option("--chat", help="Send the prompt as a user's message.")] = False,
    system: System = None,
    template: Template = None,
    special_in_content: SpecialInContent = False,
    tools: Annotated[
        Path | None,
        typer.Option(metavar="FILE", help="With --chat, functions that the model may call, as OpenAI's API."),
    ] = None,
    tool_choice: Annotated[
        str,
        typer.Option(metavar="auto|none|required|NAME", help="Which function is called; NAME: this one."),
    ] = "auto",
    json: Json = False,
    stats: Annotated[
        bool,
        typer.Option("--stats", help="Print times and counts on stderr.", rich_help_panel="Output"),
    ] = False,
    generation: GenerationFlags = ANY,
    model: TextModelOptions = TEXT_MODEL,
    debug: Debug = False,
) -> None:
    """Continues a prompt.

    Writes the text to stdout as it grows, and everything else to stderr. With --n above 1, the completions
    follow each other; the heading of each is on stderr.
    """
    started = perf_counter()
    chat_only = {"system": system, "template": template, "special-in-content": special_in_content or None}
    for name, given in chat_only.items():
        if given is not None and not chat:
            raise ParameterError(f"{name} is only for conversations: give --chat too")
    _refuse_logprobs_without_json(generation, json)
    if tools is not None and not chat:
        raise ParameterError("tools are only for conversations: give --chat too")
    arguments = prompt_arguments(template, special_in_content)
    if token_ids is not None and chat:
        raise ParameterError(
            "token-ids are a whole prompt, and --chat makes one of a message: give one of them"
        )
    if generated and token_ids is None:
        raise ParameterError("generated counts the last of the prompt's token ids: give --token-ids too")
    asked = given_prompt(prompt, file, token_ids)
    if tools is not None:
        from decodery.cli.commands.call_tools import call_tools

        assert isinstance(asked, str)
        call_tools(
            asked,
            generation,
            model,
            tools=tools,
            tool_choice=tool_choice,
            system=system,
            template=arguments,
            as_json=json,
        )
        return
    from decodery.cli.commands.generate import generate

    generate(
        asked,
        generation,
        model,
        generated=generated,
        chat=chat,
        system=system,
        template=arguments,
        as_json=json,
        stats=stats,
        started=started,
    )


@command("chat")
def _chat(
    system: System = None,
    template: Template = None,
    special_in_content: SpecialInContent = False,
    generation: GenerationFlags = WITHOUT_ECHO,
    model: TextModelOptions = TEXT_MODEL,
    debug: Debug = False,
) -> None:
    """Starts a conversation with a model.

    /help lists the commands of the conversation. From a pipe, each line is one message.
    """
    from decodery.cli.commands.chat import chat

    chat(generation, model, system, prompt_arguments(template, special_in_content))


@command("infill")
def _infill(
    text: Text = None,
    file: File = None,
    mark: Annotated[
        str, typer.Option("--mark", metavar="TEXT", help="The text that marks the place.")
    ] = "<FILL_ME>",
    json: Json = False,
    generation: GenerationFlags = WITHOUT_ECHO,
    model: ModelOptions = MODEL,
    debug: Debug = False,
) -> None:
    """Fills in the text at a mark, with a model that was trained for it.

    The mark is <FILL_ME>, which the text holds once. Writes only the middle to stdout.
    """
    _refuse_logprobs_without_json(generation, json)
    given = given_text(text, file, "TEXT")
    from decodery.cli.commands.infill import infill

    infill(given, mark, generation, model, as_json=json)


@command("score")
def _score(
    text: Text = None,
    file: File = None,
    prefix: Annotated[
        str | None, typer.Option(metavar="TEXT", help="Score the text as it follows this one.")
    ] = None,
    json: Json = False,
    model: TextModelOptions = TEXT_MODEL,
    debug: Debug = False,
) -> None:
    """Prints how likely a text is.

    Shows the log-probability of each token given those before it, their sum, and the perplexity.
    """
    given = given_text(text, file, "TEXT")
    from decodery.cli.commands.score import score

    score(given, model, prefix=prefix, as_json=json)


@command("explain")
def _explain(
    prompt: Prompt = None,
    file: File = None,
    top: Annotated[
        int, typer.Option(metavar="INTEGER", help="The number of likeliest tokens to show for each choice.")
    ] = 5,
    json: Json = False,
    html: Html = None,
    svg: Svg = None,
    generation: GenerationFlags = FEW_TOKENS,
    model: TextModelOptions = TEXT_MODEL,
    debug: Debug = False,
) -> None:
    """Shows why each token was chosen.

    Prints the likeliest tokens of each step, their probabilities under the model and after processing, and
    the tokens that were cut away. For a beam search, prints which beams each step kept. With --html or --svg,
    draws this into a file instead.
    """
    if top < 0:
        raise ParameterError(f"top must be 0 or more, not {top}")
    _refuse_logprobs_without_json(generation, json)
    text = given_text(prompt, file, "PROMPT")
    from decodery.cli.commands.explain import explain

    explain(text, generation, model, top=top, as_json=json, html=html, svg=svg)


@command("compare")
def _compare(
    prompt: Prompt = None,
    file: File = None,
    strategies: Annotated[
        str | None,
        typer.Option(
            metavar="NAME,...",
            help=f"The strategies to run, out of {', '.join(PRESETS)}.  [default: {DEFAULT_SET}]",
        ),
    ] = None,
    extra: Annotated[
        list[str] | None,
        typer.Option(
            "--with",
            metavar="LINE",
            help='Add a line "NAME: FLAG=VALUE FLAG=VALUE", such as "warm: temperature=0.7 top-p=0.9".'
            " May be repeated.",
        ),
    ] = None,
    json: Json = False,
    generation: GenerationFlags = SHARED,
    model: TextModelOptions = TEXT_MODEL,
    debug: Debug = False,
) -> None:
    """Compares the texts of different strategies.

    Runs all strategies on one prompt in one batch. The flags hold for each of them, unless a strategy sets
    the flag itself.
    """
    lines = comparison_lines(generation, strategies, extra or [])
    text = given_text(prompt, file, "PROMPT")
    from decodery.cli.commands.compare import compare

    compare(text, lines, model, as_json=json)


@command("learn")
def _learn(
    method: Annotated[
        str | None,
        typer.Argument(metavar="[METHOD]", help="The page to show; without it, list the pages."),
    ] = None,
    debug: Debug = False,
) -> None:
    """Explains the ways to choose the next token.

    Each page has examples to run, what a method is for, and what it is not for.
    """
    from decodery.cli.commands.learn import learn

    learn(method)


@command("pull")
def _pull(model: Model = None, revision: Revision = None, debug: Debug = False) -> None:
    """Fetches a model and prints its path."""
    from decodery.cli.commands.pull import pull

    pull(model, revision)


@command("models")
def _models(
    supported: Annotated[
        bool, typer.Option("--supported", help="List the architectures that can be opened instead.")
    ] = False,
    json: Json = False,
    debug: Debug = False,
) -> None:
    """Lists the models on this machine."""
    if supported:
        from decodery.cli.commands.architectures import architectures

        architectures(as_json=json)
    else:
        from decodery.cli.commands.models import models

        models(as_json=json)


@command("serve")
def _serve(options: ServeOptions = SERVER, how: RunOptions = RUN, debug: Debug = False) -> None:
    """Serves models over HTTP, as OpenAI's API does."""
    from decodery.cli.commands.serve import serve

    serve(options, how)


@command("playground")
def _playground(options: PlaygroundOptions = PLAYGROUND, how: RunOptions = RUN, debug: Debug = False) -> None:
    """Opens a page on which one sees how texts are decoded.

    Serves it to this machine alone, with a key of its own.
    """
    from decodery.cli.commands.playground import playground

    playground(options, how)


@command("inspect")
def _inspect(
    model: Model = None,
    dtype: Annotated[str, typer.Option(metavar=DTYPES, help="Assume this precision.")] = "auto",
    backend: Annotated[str, typer.Option(metavar=BACKENDS, help="Assume this backend.")] = "auto",
    quantization: Annotated[
        str | None, typer.Option(metavar=QUANTIZATIONS, help="Assume weights that are packed in this form.")
    ] = None,
    context_length: Annotated[
        int | None,
        typer.Option(metavar="INTEGER", help="Assume this length of context; without it, the model's limit."),
    ] = None,
    kv_dtype: Annotated[
        str, typer.Option(metavar=KV_DTYPES, help="Assume this precision of the key/value cache.")
    ] = "auto",
    revision: Revision = None,
    json: Json = False,
    debug: Debug = False,
) -> None:
    """Describes a model without loading it.

    Prints the sizes of the model, the backend that would run it on this machine, and the memory it needs.
    Reads only the headers of its files.
    """
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


@app.command("complete", hidden=True)
def _complete(shell: str, texts: list[str]) -> None:
    """Prints what may stand at the end of a command line; the script of a shell calls it."""
    from decodery.cli.commands.complete import complete

    complete(typer.main.get_command(app), shell, texts)


def _refuse_logprobs_without_json(generation: GenerationFlags, as_json: bool) -> None:
    for name in ("logprobs", "prompt_logprobs"):
        if generation.values.get(name) is not None and not as_json:
            raise ParameterError(f"{name} are shown only with --json")


def run(arguments: Sequence[str]) -> int:
    """Runs one command line and returns its exit status."""
    if sys.stderr is None:
        # Stderr is closed. Without a replacement, print and traceback would write to stdout.
        sys.stderr = open(os.devnull, "w")  # noqa: SIM115  (for as long as the process lives)
    arguments = list(arguments)
    if len(arguments) == 1 and arguments[0] in SHELL_FLAGS:
        arguments.append(Path(os.environ.get("SHELL", "")).name)
    if sys.stdout is None:
        print_error("there is no standard output: it is closed")
        return FAILED
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(encoding="utf-8", errors="replace")
    try:
        with warnings.catch_warnings():
            warnings.showwarning = _print_warning
            status = typer.main.get_command(app).main(arguments, "decodery", standalone_mode=False)
    except UsageError as error:
        print_error(getattr(error, "format_message", error.__str__)())
        return MISUSED
    except (typer.Abort, KeyboardInterrupt):
        return INTERRUPTED
    status = status if isinstance(status, int) else 0
    return status if _flush_stdout() else status or FAILED


def _print_warning(message: Warning | str, category: type[Warning], *where: object, **more: object) -> None:
    """Prints a warning as one line, without the place in the code, which does not help a user."""
    print_error(str(message))


def _flush_stdout() -> bool:
    """Returns False if the rest of stdout cannot be written."""
    try:
        sys.stdout.flush()
    except OSError:
        silence_stdout()
        return False
    return True
