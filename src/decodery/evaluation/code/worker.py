"""Runs an untrusted program in a process of its own and answers calls of its functions by value.

Runs without the package: `scripts.py` sends this file's text to a fresh interpreter. The process holds
nothing but the program, so whatever the program reads or replaces here, it can only choose its own answers.
"""

from __future__ import annotations

import json
import os
import sys
import types
from collections.abc import Callable
from functools import partial
from typing import Any

from decodery.evaluation.code.plain_values import decoded, encoded, opaque

CALLS, REPLIES = 3, 4
# Audit events of Python that reach beyond the process, by the beginning of their names.
FORBIDDEN = (
    *("socket.", "ctypes.", "subprocess.", "os.system", "os.exec", "os.posix_spawn", "os.spawn", "os.fork"),
    *("pty.spawn", "os.kill", "signal.pthread_kill", "os.startfile", "webbrowser."),
)
CHANGES = (
    *("os.remove", "os.rename", "os.rmdir", "os.mkdir", "os.link", "os.symlink", "os.truncate", "os.chmod"),
    *("os.chown", "os.utime", "os.setxattr", "os.removexattr", "os.chflags", "shutil.rmtree"),
)


def main(job: dict[str, object]) -> None:
    """Runs the program of a job, then answers each line of calls with a line of replies, until they end.

    `program` is its text. `folder` is None, or the folder outside which audit hooks forbid changes of files;
    they then also forbid sockets, other processes and ctypes.
    """
    os.close(0)  # The script, whose place the next file takes.
    os.open(os.devnull, os.O_RDONLY)
    os.set_inheritable(0, True)
    with os.fdopen(CALLS, "rb") as calls:
        _send({"ready": True})
        if job["folder"] is not None:
            sys.addaudithook(_guard(str(job["folder"])))
        module = types.ModuleType("program")
        sys.modules["program"] = module
        _send(_reply(partial(_load, str(job["program"]), module)))
        for line in calls:
            _send(_reply(partial(_call, module, json.loads(line))))
    os._exit(0)


def _load(program: str, module: types.ModuleType) -> dict[str, object]:
    exec(compile(program, "program", "exec", dont_inherit=True), module.__dict__)
    return {"value": None}


def _call(module: types.ModuleType, call: dict[str, object]) -> dict[str, object]:
    """Returns the code of a function's result, with those of its arguments if the call changed them."""
    function = getattr(module, str(call["name"]))
    given = [call["arguments"], call["options"]]
    arguments: Any = decoded(call["arguments"])
    options: Any = decoded(call["options"])
    value = function(*arguments, **options)
    reply: dict[str, object] = {"value": encoded(value, opaque)}
    after = [encoded(arguments, opaque), encoded(options, opaque)]
    if after != given:
        reply["arguments"], reply["options"] = after
    return reply


def _reply(work: Callable[[], dict[str, object]]) -> dict[str, object]:
    try:
        return work()
    except BaseException as error:
        try:
            text = str(error)[:1000]
        except BaseException:
            text = ""
        return {"raised": [kind.__name__ for kind in type(error).__mro__], "text": text}


def _send(reply: dict[str, object]) -> None:
    line = (json.dumps(reply) + "\n").encode()
    while line:
        line = line[os.write(REPLIES, line) :]


def _guard(folder: str) -> Callable[[str, tuple[object, ...]], None]:
    """Returns an audit hook: a fence for programs that mean no harm, since C code can pass it."""
    inside, realpath = os.path.realpath(folder) + os.sep, os.path.realpath

    def changes(path: object) -> bool:
        return not isinstance(path, (str, bytes, os.PathLike)) or not (
            realpath(os.fsdecode(path)).startswith(inside) or os.fsdecode(path) == os.devnull
        )

    def hidden(path: object) -> bool:
        return isinstance(path, (str, bytes, os.PathLike)) and realpath(os.fsdecode(path)).startswith(
            "/proc/"
        )

    def check(event: str, arguments: tuple[object, ...]) -> None:
        forbidden = event.startswith(FORBIDDEN)
        if event.startswith(CHANGES):
            both = event.startswith(("os.rename", "os.link", "os.symlink"))
            forbidden = any(changes(path) for path in arguments[: 2 if both else 1])
        elif event == "open" and not isinstance(arguments[0], int):
            flags = arguments[2]
            writes = isinstance(flags, int) and flags & (os.O_WRONLY | os.O_RDWR | os.O_CREAT | os.O_TRUNC)
            forbidden = changes(arguments[0]) if writes else hidden(arguments[0])
        if forbidden:
            raise PermissionError(f"{event} is forbidden to this program")

    return check
