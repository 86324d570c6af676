"""Completes a command line: which words may stand at its end."""

from __future__ import annotations

import os
import re
import shlex
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from decodery.weights.sources.model_cache import cached_models

# Words of a metavar in capitals stand for other texts, such as INTEGER.
WORD = re.compile(r"[a-z0-9][a-z0-9_-]*")


@dataclass(frozen=True)
class Candidate:
    """Holds a word that may stand at the end of a command line, and its help."""

    text: str
    help: str = ""


@dataclass
class _Typed:
    """Holds what the words before the last one say: the command, and the flag whose value comes next."""

    command: Any
    arguments: int = 0
    given: set[str] = field(default_factory=set)
    waiting: Any = None
    only_arguments: bool = False


def candidates(program: Any, words: Sequence[str], names: Mapping[str, Sequence[str]]) -> list[Candidate]:
    """Returns what may stand in place of the last word, which is perhaps incomplete, after the others.

    `program` is the command of typer that `words` are given to. `names` are the values of flags whose metavar
    is NAME, by the flag. Models and files are those of this machine.
    """
    *before, word = words
    typed = _typed(program, before)
    if typed is None:
        return []
    if typed.waiting is not None:
        return _values(typed.waiting, word, names)
    if not typed.only_arguments and word.startswith("--") and "=" in word:
        name, _, value = word.partition("=")
        flag = _flags(typed.command).get(name)
        found = [] if flag is None or flag.is_flag else _values(flag, value, names)
        return [replace(one, text=f"{name}={one.text}") for one in found]
    found = [] if word.startswith("-") else _words(typed, word, names)
    if not typed.only_arguments and (word.startswith("-") or not (found or word)):
        found += [one for one in _free_flags(typed) if one.text.startswith(word)]
    return found


def typed_line(line: str) -> list[str]:
    """Returns the words of a line as the shell reads it up to the cursor; the last may be empty."""
    for end in ("", "'", '"', "\\"):
        try:
            words = shlex.split(f"{line}\0{end}")
        except ValueError:  # A quote is open.
            continue
        return [*words[:-1], words[-1].replace("\0", "")]
    return [line]


def _typed(command: Any, words: Sequence[str]) -> _Typed | None:
    """Returns what the words say; None if they name a command that does not exist."""
    typed, flags = _Typed(command), _flags(command)
    for index, word in enumerate(words):
        if typed.waiting is not None:
            typed.waiting = None
        elif word == "--" and not typed.only_arguments:
            typed.only_arguments = True
        elif word.startswith("-") and word != "-" and not typed.only_arguments:
            name, equals, _ = word.partition("=")
            flag = flags.get(name)
            if flag is not None:
                typed.given.add(flag.name)
                typed.waiting = None if flag.is_flag or equals else flag
        elif hasattr(command, "commands"):
            inner = command.commands.get(word)
            return None if inner is None else _typed(inner, words[index + 1 :])
        else:
            typed.arguments += 1
    return typed


def _flags(command: Any) -> dict[str, Any]:
    options = [parameter for parameter in command.params if parameter.param_type_name == "option"]
    return {name: option for option in options for name in (*option.opts, *option.secondary_opts)}


def _free_flags(typed: _Typed) -> Iterator[Candidate]:
    """Yields the long names of the flags that may still be given."""
    for name, flag in _flags(typed.command).items():
        if name.startswith("--") and (flag.multiple or flag.name not in typed.given):
            yield Candidate(name, _first_sentence(flag.help))
    yield Candidate("--help", "Show the help.")


def _words(typed: _Typed, word: str, names: Mapping[str, Sequence[str]]) -> list[Candidate]:
    """Returns what a word that is no flag may be: a command, or the value of an argument."""
    commands = getattr(typed.command, "commands", None)
    if commands is not None:
        shown = [Candidate(name, _first_sentence(c.help)) for name, c in commands.items() if not c.hidden]
        return [one for one in shown if one.text.startswith(word)]
    arguments = [parameter for parameter in typed.command.params if parameter.param_type_name == "argument"]
    return _values(arguments[typed.arguments], word, names) if typed.arguments < len(arguments) else []


def _values(parameter: Any, word: str, names: Mapping[str, Sequence[str]]) -> list[Candidate]:
    """Returns the values of a flag or argument that begin with a word; its metavar says which it can have."""
    metavar = (parameter.metavar or "").strip("[]")
    kinds = metavar.split("|")
    name, equals, model = word.partition("=")
    if equals and "NAME=MODEL" in kinds:
        return [replace(one, text=f"{name}={one.text}") for one in _models(model)]
    if "MODEL" in kinds:
        return _models(word)
    kept = word.rfind(",") + 1 if metavar == "NAME,..." else 0
    known = [*names.get(parameter.name, ()), *filter(WORD.fullmatch, kinds)]
    found = [Candidate(word[:kept] + name) for name in known if name.startswith(word[kept:])]
    return found + (list(_paths(word, lambda name: True)) if "FILE" in kinds else [])


def _models(word: str) -> list[Candidate]:
    """Returns the models that may be named: those in the caches, and files and folders by their path."""
    cached = {model.name for model in cached_models() if model.format != "packed"}
    names = [Candidate("default", "The default model."), *map(Candidate, sorted(cached))]
    named = [name for name in names if name.text.startswith(word)]
    return [*named, *_paths(word, lambda name: name.endswith(".gguf"))]


def _paths(word: str, wanted: Callable[[str], bool]) -> Iterator[Candidate]:
    """Yields the paths of folders, with / at the end, and of wanted files that begin with a word."""
    folder, start = word[: word.rfind("/") + 1], word[word.rfind("/") + 1 :]
    try:
        entries = sorted(os.scandir(os.path.expanduser(folder) or "."), key=lambda entry: entry.name)
    except OSError:
        return
    for entry in entries:
        if entry.name.startswith(start) and (start or not entry.name.startswith(".")):
            if entry.is_dir():
                yield Candidate(f"{folder}{entry.name}/")
            elif wanted(entry.name):
                yield Candidate(folder + entry.name)


def _first_sentence(help: str | None) -> str:
    return " ".join((help or "").split()).partition(". ")[0].removesuffix(".")
