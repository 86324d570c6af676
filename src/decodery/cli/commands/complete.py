"""Implements the completion of a shell: prints what may stand at the end of a command line."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Any

from decodery.cli.candidates import Candidate, candidates, typed_line
from decodery.cli.flags.comparison_lines import PRESETS
from decodery.cli.flags.object_flags import STRATEGIES
from decodery.cli.terminal import emit
from decodery.decoding.request.processor_order import DEFAULT_ORDER
from decodery.learn import learn_pages


def names() -> dict[str, tuple[str, ...]]:
    """Returns the values of flags and arguments that are names, by the flag."""
    return {
        "strategy": tuple(STRATEGIES),
        "strategies": tuple(PRESETS),
        "processor_order": DEFAULT_ORDER,
        "method": tuple(page.name for page in learn_pages()),
    }


def complete(program: Any, shell: str, texts: Sequence[str]) -> None:
    """Prints a line for each candidate, as the script for the shell reads it.

    `texts` are the words after the program's name up to the cursor; for bash, the line up to the cursor and
    the characters at which it divides words.
    """
    if shell == "bash":
        line, breaks = texts
        words = typed_line(line)[1:]
        # bash replaces only the text after the last of its breaks.
        kept = max((words[-1].rfind(mark) for mark in breaks if mark in ":="), default=-1) + 1
        lines = [found.text[kept:] for found in candidates(program, words, names())]
    else:
        quote = _quoted if shell == "zsh" else str
        lines = [_described(found, quote(found.text)) for found in candidates(program, texts, names())]
    emit("".join(f"{line}\n" for line in lines))


def _described(candidate: Candidate, text: str) -> str:
    return f"{text}\t{candidate.help}" if candidate.help else text


def _quoted(text: str) -> str:
    """Returns the text with a backslash before each character that has a meaning in zsh; ~ keeps its own."""
    return re.sub(r"([^\w@%+=:,./~-])", r"\\\1", text)
