"""`decodery chat`: a conversation in the terminal, or line by line through a pipe."""

from __future__ import annotations

import signal
import sys
from collections.abc import Iterator
from contextlib import closing, contextmanager, suppress
from dataclasses import fields

from decodery.cli.flags.assignments import assigned, assignments
from decodery.cli.flags.generation_flags import DEFAULTS, GenerationFlags
from decodery.cli.flags.model_options import ModelOptions
from decodery.cli.input_text import decoded, piped_lines, terminal_input
from decodery.cli.load_llm import load
from decodery.cli.terminal import complain, emit, note
from decodery.decoding.request.params import GenerationParams
from decodery.errors import DecoderyError, ParameterError, RequestError
from decodery.kernels import PAGE_SIZE
from decodery.llm import LLM

HELP = """\
/reset               forget the conversation, but not the system message
/system TEXT         set the system message; /system alone takes it away
/params              show the parameters that differ from the defaults; /params all, every one
/params NAME=VALUE   set some, named as the flags are: /params temperature=0.7 stop="The end"; NAME= unsets
/help                this
/quit                leave, as Ctrl-D does
//TEXT               send a message that begins with a /
Ctrl-C stops a reply; what was said so far stays in the conversation."""


def chat(asked: GenerationFlags, options: ModelOptions, system: str | None) -> None:
    """Talk until the input ends. Raises `ParameterError` for parameters that make no sense here."""
    check_params(asked.params)
    llm = load(options)
    if llm.tokenizer.chat_template is None:
        raise RequestError("this model has no chat template: use decodery generate, or another model")
    session = Session(llm, asked, system)
    if terminal_input():
        note("/help tells what can be typed, Ctrl-D leaves")
        _talk(session)
    else:
        for line in piped_lines():
            if not session.take(line):
                return


def check_params(params: GenerationParams) -> None:
    """Raise `ParameterError` for what a conversation cannot show."""
    counts = {"n": params.n, "best_of": params.best_of or 1, "the number of completions": params.streams}
    for name, count in counts.items():
        if count != 1:
            raise ParameterError(f"{name} must be 1 in a conversation, not {count}")
    for name in ("logprobs", "prompt_logprobs"):
        if getattr(params, name) is not None:
            raise ParameterError(f"{name} are not shown in a conversation: use decodery generate --json")


def _talk(session: Session) -> None:
    going = True
    for line in typed_lines():
        try:
            going = session.take(line)
        except DecoderyError as error:
            complain(str(error))
        if not going:
            return


def typed_lines() -> Iterator[str]:
    """What is typed, until Ctrl-D or a second Ctrl-C in a row."""
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
            complain(str(error))
            continue
        interrupted = False
        yield line


def shown_params(params: GenerationParams, *, everything: bool) -> str:
    """The parameters that differ from the defaults, or all of them, one a line."""
    lines = [
        f"{f.name} = {getattr(params, f.name)!r}"
        for f in fields(params)
        if everything or getattr(params, f.name) != getattr(DEFAULTS, f.name)
    ]
    return "\n".join(lines) or "all parameters are at their defaults"


class Session:
    """A conversation: the system message, what was said, and the parameters of the next reply."""

    def __init__(self, llm: LLM, asked: GenerationFlags, system: str | None) -> None:
        self.llm = llm
        self.asked = asked
        self.params = asked.over(llm.default_params)
        self.system = system
        self.turns: list[tuple[str, str]] = []
        # What the memory holds may be less than the context.
        self.capacity = min(llm.engine.limits.context_length, llm.engine.limits.pages * PAGE_SIZE)

    def take(self, line: str) -> bool:
        """Answer a message or carry out a command; False when it is the last. Raises `DecoderyError`."""
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
            note("the system message is set" if rest else "there is no system message now")
        elif name == "/params":
            if rest and rest != "all":
                self.set_params(rest)
            note(shown_params(self.params, everything=rest == "all"))
        else:
            raise ParameterError(f"unknown command {name}: /help lists them, and //... sends it as a message")
        return True

    def set_params(self, text: str) -> None:
        """Change parameters as `name=value name="two words"` says. Raises `ParameterError`, all unchanged."""
        asked = assigned(self.asked, assignments(text))
        params = asked.over(self.llm.default_params)
        check_params(params)
        self.asked, self.params = asked, params

    def reply(self, message: str) -> None:
        """Stream the reply to a message and remember both. Ctrl-C ends it; what was said by then counts."""
        wanted = self.params.max_tokens
        text, finish = "", None
        with interruptible() as interrupted:
            ids = self._fitted(message)
            room = self.capacity - len(ids)
            params = self.params.replace(max_tokens=room if wanted is None else min(wanted, room))
            if interrupted:
                return
            events = self.llm.stream(ids, params)
            with closing(events):
                for event in events:
                    emit(event.text)
                    text += event.text
                    finish = event.finish_reason
                    if interrupted:
                        break
        emit("" if text.endswith("\n") else "\n")
        if text or finish is not None:
            self.turns.append((message, text))
        if finish == "length":
            why = f"max_tokens is {wanted}" if params.max_tokens == wanted else "the context is full"
            note(f"(cut short: {why})")

    def _fitted(self, message: str) -> list[int]:
        """The prompt's tokens, once the oldest turns that leave too little room for a reply are forgotten.

        Raises `RequestError`, and forgets nothing, when the message does not fit even alone.
        """
        needed = max(self.params.min_tokens, 1)
        hoped = max(needed, min(self.params.max_tokens or self.capacity, self.capacity // 4))
        for forgotten in range(len(self.turns) + 1):
            ids = self._prompt(self.turns[forgotten:], message)
            room = self.capacity - len(ids)
            if room >= hoped or (forgotten == len(self.turns) and room >= needed):
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
        for said, answered in turns:
            messages.append({"role": "user", "content": said})
            messages.append({"role": "assistant", "content": answered})
        return self.llm.chat_prompt([*messages, {"role": "user", "content": message}])


@contextmanager
def interruptible() -> Iterator[list[int]]:
    """While entered, the first Ctrl-C is only put in the list, so that no step is cut in half.

    A second one interrupts, as ever.
    """
    seen: list[int] = []

    def handle(number: int, frame: object) -> None:
        if seen:
            raise KeyboardInterrupt
        seen.append(number)

    before = signal.signal(signal.SIGINT, handle)
    try:
        yield seen
    finally:
        signal.signal(signal.SIGINT, before)
