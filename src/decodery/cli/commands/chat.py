"""Implements `decodery chat`: a conversation in the terminal, or one message a line through a pipe."""

from __future__ import annotations

import signal
import sys
from collections.abc import Iterator, Mapping
from contextlib import closing, contextmanager, suppress
from dataclasses import fields
from typing import Any

from decodery.cli.commands.generate import warn
from decodery.cli.flags.assignments import assignments, with_assignments
from decodery.cli.flags.generation_flags import DEFAULTS, GenerationFlags
from decodery.cli.flags.model_options import TextModelOptions
from decodery.cli.input_text import decoded, piped_lines, terminal_input
from decodery.cli.load_text_model import load
from decodery.cli.terminal import emit, note, print_error
from decodery.cli.text_model import TextModel
from decodery.decoding.request.params import GenerationParams
from decodery.errors import DecoderyError, ParameterError, RequestError

HELP = """\
/reset               forget the conversation, but keep the system message
/system TEXT         set the system message; without TEXT, remove it
/params              show the parameters that differ from the defaults
/params all          show all parameters
/params NAME=VALUE   set parameters, named as the flags: /params temperature=0.7 stop="The end"
/params NAME=        reset a parameter to its default
/help                show this help
/quit                leave; so does Ctrl-D
//TEXT               send a message that begins with a /
Ctrl-C stops a reply; the part that was written stays in the conversation."""


def chat(
    flags: GenerationFlags, options: TextModelOptions, system: str | None, template: Mapping[str, Any]
) -> None:
    """Answers messages until the input ends.

    `template` has the arguments of `chat_prompt`. Raises `ParameterError` for parameters that a conversation
    cannot have, and `RequestError` when the model has no chat template.
    """
    check_params(flags.params)
    llm = load(options)
    if not llm.has_chat_template and "chat_template" not in template:
        raise RequestError("this model has no chat template: use decodery generate, or another model")
    session = Session(llm, flags, system, template)
    if terminal_input():
        note("/help lists the commands, Ctrl-D leaves")
        _run_in_terminal(session)
    else:
        for line in piped_lines():
            if not session.handle_line(line):
                return


def check_params(params: GenerationParams) -> None:
    """Raises `ParameterError` for parameters with several completions or with log-probabilities."""
    counts = {"n": params.n, "best_of": params.best_of or 1, "the number of completions": params.streams}
    for name, count in counts.items():
        if count != 1:
            raise ParameterError(f"{name} must be 1 in a conversation, not {count}")
    params.check_conversation()
    for name in ("logprobs", "prompt_logprobs"):
        if getattr(params, name) is not None:
            raise ParameterError(f"{name} are not shown in a conversation: use decodery generate --json")


def _run_in_terminal(session: Session) -> None:
    go_on = True
    for line in typed_lines():
        try:
            go_on = session.handle_line(line)
        except DecoderyError as error:
            print_error(str(error))
        if not go_on:
            return


def typed_lines() -> Iterator[str]:
    """Yields the lines that a person types, until Ctrl-D or a second Ctrl-C in a row."""
    with suppress(ImportError):
        import readline  # noqa: F401  (gives `input` line editing and history)
    prompt = "> " if sys.stdout.isatty() else ""
    interrupted = False
    while True:
        try:
            line = decoded(input(prompt).encode("utf-8", "surrogateescape"), "the message")
        except EOFError:
            emit("\n")
            return
        except KeyboardInterrupt:
            emit("\n")
            if interrupted:
                return
            interrupted = True
            note("Ctrl-C again, or Ctrl-D, leaves")
            continue
        except DecoderyError as error:
            print_error(str(error))
            continue
        interrupted = False
        yield line


def shown_params(params: GenerationParams, *, everything: bool) -> str:
    """Returns the parameters one a line: those that differ from the defaults, or all."""
    lines = [
        f"{f.name} = {getattr(params, f.name)!r}"
        for f in fields(params)
        if everything or getattr(params, f.name) != getattr(DEFAULTS, f.name)
    ]
    return "\n".join(lines) or "all parameters are at their defaults"


class Session:
    """Holds a conversation: the system message, the turns so far, and the parameters of the next reply.

    A turn is a user's message and the model's reply. `capacity` is how many tokens a prompt and its reply
    may have together. `template` has the arguments of `chat_prompt`.
    """

    def __init__(
        self,
        llm: TextModel,
        flags: GenerationFlags,
        system: str | None,
        template: Mapping[str, Any] | None = None,
    ) -> None:
        self.llm = llm
        self.flags = flags
        self.params = flags.params_over(llm.default_params)
        self.system = system
        self.template = template or {}
        self.turns: list[tuple[str, str]] = []
        self.capacity = llm.capacity

    def handle_line(self, line: str) -> bool:
        """Answers a message or runs a command, and returns False after the command that leaves.

        Raises `DecoderyError` for a wrong command and for a message that cannot be answered.
        """
        line = line.strip()
        if not line.startswith("/"):
            if line:
                self.reply(line)
        elif line.startswith("//"):
            self.reply(line[1:])
        else:
            name, _, rest = line.partition(" ")
            return self._command(name, rest.strip())
        return True

    def _command(self, name: str, rest: str) -> bool:
        if name in ("/quit", "/exit"):
            return False
        if name == "/help":
            note(HELP)
        elif name == "/reset":
            self.turns.clear()
            note("the conversation is forgotten")
        elif name == "/system":
            self.system = rest or None
            note("the system message is set" if rest else "the system message is removed")
        elif name == "/params":
            if rest and rest != "all":
                self.set_params(rest)
            note(shown_params(self.params, everything=rest == "all"))
        else:
            raise ParameterError(f"unknown command {name}: /help lists them, and //... sends it as a message")
        return True

    def set_params(self, text: str) -> None:
        """Sets parameters from a text such as `top_k=3 stop="two words"`.

        Raises `ParameterError`, and then changes none of them.
        """
        flags = with_assignments(self.flags, assignments(text))
        params = flags.params_over(self.llm.default_params)
        check_params(params)
        self.flags, self.params = flags, params

    def reply(self, message: str) -> None:
        """Prints the reply to a message as it grows, and adds both to the conversation.

        Ctrl-C ends the reply; the part that was written is kept.
        """
        max_tokens = self.params.max_tokens
        text, finish, error = "", None, None
        with interruptible() as interrupted:
            ids = self._fitting_prompt(message)
            free = self.capacity - len(ids)
            params = self.params.replace(max_tokens=free if max_tokens is None else min(max_tokens, free))
            if interrupted:
                return
            events = self.llm.stream(ids, params)
            with closing(events):
                for event in events:
                    emit(event.text)
                    text += event.text
                    finish = event.finish_reason
                    error = event.error
                    warn(event.warnings)
                    if interrupted:
                        break
        emit("" if text.endswith("\n") else "\n")
        if text or finish is not None:
            self.turns.append((message, text))
        if finish == "length":
            limit = (
                f"max_tokens is {max_tokens}" if params.max_tokens == max_tokens else "the context is full"
            )
            note(f"(cut short: {limit})")
        if error is not None:
            note(f"({error})")

    def _fitting_prompt(self, message: str) -> list[int]:
        """Returns the prompt's token ids; forgets the oldest turns while too few tokens are left for a reply.

        Raises `RequestError`, and forgets nothing, when the message does not fit even alone.
        """
        required = max(self.params.min_tokens, 1)
        preferred = max(required, min(self.params.max_tokens or self.capacity, self.capacity // 4))
        for forgotten in range(len(self.turns) + 1):
            ids = self._prompt(self.turns[forgotten:], message)
            free = self.capacity - len(ids)
            if free >= preferred or (forgotten == len(self.turns) and free >= required):
                break
        else:
            raise RequestError(
                f"this message makes a prompt of {len(ids)} tokens and the context holds {self.capacity}:"
                " shorten it"
            )
        if forgotten:
            turns = "turn is" if forgotten == 1 else f"{forgotten} turns are"
            note(f"(the conversation no longer fits the context: its oldest {turns} forgotten)")
            del self.turns[:forgotten]
        return ids

    def _prompt(self, turns: list[tuple[str, str]], message: str) -> list[int]:
        messages = [] if self.system is None else [{"role": "system", "content": self.system}]
        for question, answer in turns:
            messages.append({"role": "user", "content": question})
            messages.append({"role": "assistant", "content": answer})
        return self.llm.chat_prompt([*messages, {"role": "user", "content": message}], **self.template)


@contextmanager
def interruptible() -> Iterator[list[int]]:
    """Yields a list to which the first Ctrl-C is only added, so that no step of the engine is interrupted.

    A second Ctrl-C raises `KeyboardInterrupt`.
    """
    signals: list[int] = []

    def handle(number: int, frame: object) -> None:
        if signals:
            raise KeyboardInterrupt
        signals.append(number)

    before = signal.signal(signal.SIGINT, handle)
    try:
        yield signals
    finally:
        signal.signal(signal.SIGINT, before)
