"""Runs a test, in a process that never runs the tested program, and tells its verdict.

Runs without the package: `scripts.py` sends this file's text to a fresh interpreter. The functions of the
program answer from another process, and only plain data comes back. So no object, frame or printed line of
the program is ever seen here.
"""

from __future__ import annotations

import ast
import builtins
import json
import os
import sys
from collections.abc import Callable, Iterable
from reprlib import Repr
from typing import Any, NoReturn

from decodery.evaluation.code.plain_values import Opaque, decoded, encoded

REPLIES, CALLS, VERDICT = 3, 4, 5
SHOWN = 200
# They end loops without an error: `all(map(f, xs))` would hold if the first call of f raised one.
ENDS_OF_LOOPS = {"StopIteration", "StopAsyncIteration"}


class NotPlainError(Exception):
    """Reports that a test passes an object to the program that is no plain data."""


class Program:
    """Calls functions of the tested program, which runs in another process.

    Ends this process with a verdict when the program ends or breaks the rules: an exception could be caught
    by the test.
    """

    def __init__(self, most_bytes: int) -> None:
        self.most_bytes = most_bytes
        self.replies = os.fdopen(REPLIES, "rb")
        self.raised: BaseException | None = None
        self.called = 0
        self.last = ""

    def wait_until_ready(self) -> None:
        """Reads what the program's process says before it runs the program, and passes it on."""
        if "ready" in self._reply():
            os.write(VERDICT, b"ready\n")

    def wait_until_loaded(self) -> None:
        """Ends with a verdict if the program could not be run to its end."""
        reply = self._reply()
        if "raised" in reply:
            error = self._exception(reply)
            conclude("limit" if isinstance(error, MemoryError) else "error", "", _line(reply))

    def function(self, name: str) -> Callable[..., object]:
        """Returns a function that calls the program's function of this name."""

        def call(*arguments: object, **options: object) -> object:
            return self._call(name, arguments, options)

        return call

    def _call(self, name: str, arguments: tuple[object, ...], options: dict[str, object]) -> object:
        self.called += 1
        named = (f"{key}={_shown(value)}" for key, value in options.items())
        self.last = f"{name}({', '.join([*map(_shown, arguments), *named])[:SHOWN]})"
        call = {"name": name, "arguments": encoded(arguments, _refuse), "options": encoded(options, _refuse)}
        try:
            _write(CALLS, (json.dumps(call) + "\n").encode())
        except BrokenPipeError:
            conclude("ended", f"the program ended before {self.last}")
        reply = self._reply()
        if "raised" in reply:
            self.raised = self._exception(reply)
            raise self.raised
        try:
            value = decoded(reply["value"])
            if "arguments" in reply:
                _update(arguments, decoded(reply["arguments"]))  # type: ignore[arg-type]
                _update(options.values(), decoded(reply["options"]).values())  # type: ignore[attr-defined]
        except Exception as error:
            conclude("error", f"{self.last} gave no value: {type(error).__name__}")
        self.last += f" = {_shown(value)[:SHOWN]}"
        if isinstance(value, Opaque):
            self.last += ", which is no plain data"
        return value

    def _reply(self) -> dict[str, object]:
        line = self.replies.readline(self.most_bytes)
        if len(line) == self.most_bytes:
            conclude("limit", f"the result of {self.last} is too large")
        if not line:
            conclude("ended", f"the program ended{self.last and ' in ' + self.last}")
        try:
            reply = json.loads(line)
            return {str(key): value for key, value in reply.items()}
        except Exception:
            conclude("error", "the program wrote to the pipe of its results")

    def _exception(self, reply: dict[str, object]) -> BaseException:
        names = reply["raised"] if isinstance(reply["raised"], list) else []
        for name in names:
            kind = getattr(builtins, str(name), None)
            if str(name) not in ENDS_OF_LOOPS and isinstance(kind, type) and issubclass(kind, Exception):
                try:
                    return kind(str(reply.get("text", "")))
                except TypeError:
                    continue  # Its constructor wants more, as that of UnicodeDecodeError does.
        return RuntimeError(_line(reply))


def main(job: dict[str, object]) -> None:
    """Runs the test of a job and ends the process with a verdict.

    `given` is trusted text that runs first, `test` then sees its names, and the program's functions under
    theirs. If the test defines `check`, it is called with the function `entry_point`.
    """
    os.close(0)  # The script, whose place the next file takes.
    os.open(os.devnull, os.O_RDONLY)
    os.set_inheritable(0, True)
    if job["hidden"]:
        _hide()
    program = Program(int(str(job["most_bytes"])))
    program.wait_until_ready()
    program.wait_until_loaded()
    try:
        _run(program, str(job["given"]), str(job["test"]), str(job["entry_point"]))
    except BaseException as error:
        line = ": ".join(part for part in (type(error).__name__, str(error)[:1000]) if part)
        if isinstance(error, NotPlainError):
            conclude("unsupported", line)
        if error is program.raised:
            conclude("limit" if isinstance(error, MemoryError) else "error", f"{program.last} raised ", line)
        conclude("failed", f"{program.last or 'the test'}: {line}")
    if not program.called:
        conclude("unsupported", "the test does not call the program")
    conclude("passed", "")


def _run(program: Program, given: str, test: str, entry_point: str) -> None:
    scope: dict[str, object] = {"__name__": "test"}
    try:
        exec(compile(given, "given", "exec", dont_inherit=True), scope)
        tree = ast.parse(test, "test")
    except Exception as error:
        conclude("unsupported", f"the test cannot run: {type(error).__name__}: {error}")
    used = {node.id for node in ast.walk(tree) if isinstance(node, ast.Name)}
    for name in used - set(dir(builtins)) - scope.keys():
        scope[name] = program.function(name)
    candidate = scope[entry_point] = program.function(entry_point)
    exec(compile(tree, "test", "exec", dont_inherit=True), scope)
    check = scope.get("check")
    if any(isinstance(node, ast.FunctionDef) and node.name == "check" for node in tree.body) and callable(
        check
    ):
        check(candidate)


def conclude(reason: str, detail: str, raised: str = "") -> NoReturn:
    """Tells the verdict and ends the process; `raised` is the line of an exception of the program."""
    verdict = {"reason": reason, "detail": detail, "raised": raised}
    _write(VERDICT, (json.dumps(verdict) + "\n").encode())
    os._exit(0)


def _shown(value: object) -> str:
    """Returns a value as it is written in Python, cut if it is long."""
    short = Repr()
    short.maxlist = short.maxtuple = short.maxset = short.maxdict = 20
    short.maxstring = short.maxother = SHOWN
    try:
        return short.repr(value)
    except ValueError:
        return "a number of many digits"


def _line(reply: dict[str, object]) -> str:
    names = reply["raised"]
    name = names[0] if isinstance(names, list) and names else "Exception"
    return ": ".join(str(part) for part in (name, reply.get("text")) if part)


def _refuse(value: object) -> object:
    raise NotPlainError(f"the test passes an object of type {type(value).__name__}, which is no plain data")


def _update(before: Iterable[Any], after: Iterable[Any]) -> None:
    """Gives each mutable one of the values the content that it has after a call."""
    for value, new in zip(before, after, strict=True):
        for kind in (list, bytearray, dict, set):
            if isinstance(value, kind) and not isinstance(new, kind):
                raise TypeError("an argument changed its type")
        if isinstance(value, (list, bytearray)):
            value[:] = new
        elif isinstance(value, (dict, set)):
            value.clear()
            value.update(new)


def _write(descriptor: int, data: bytes) -> None:
    while data:
        data = data[os.write(descriptor, data) :]


def _hide() -> None:
    """Keeps other processes of the same user from reading this one's memory, where Linux can."""
    if sys.platform == "linux":
        import ctypes

        ctypes.CDLL(None).prctl(4, 0, 0, 0, 0)
