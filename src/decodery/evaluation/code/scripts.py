"""Makes scripts that a fresh interpreter runs without this package."""

from __future__ import annotations

import os
import sys
from importlib.resources import files

OPTIONS = ("-s", "-S", "-P", "-B", "-u", "-")
SCRIPT = """\
import sys, types
for name, source in {sources!r}:
    module = sys.modules[name] = types.ModuleType(name)
    exec(compile(source, name, "exec", dont_inherit=True), module.__dict__)
module.main({job!r})
"""


def script(modules: tuple[str, ...], job: dict[str, object]) -> bytes:
    """Returns a script that holds modules of this package, in the order in which they import each other, and
    calls `main` of the last with a job of plain data.
    """
    folder = files(__package__)
    sources = [
        (f"{__package__}.{name}", folder.joinpath(f"{name}.py").read_text("utf-8")) for name in modules
    ]
    return SCRIPT.format(sources=sources, job=job).encode()


def interpreter() -> str:
    """Returns the path of the interpreter without its virtual environment."""
    return os.path.realpath(getattr(sys, "_base_executable", None) or sys.executable)


def interpreter_folders() -> list[str]:
    """Returns the folders that hold the interpreter and its standard library."""
    folders = [os.path.dirname(interpreter()), sys.base_prefix, sys.base_exec_prefix]
    return list(dict.fromkeys([*map(os.path.realpath, folders), *folders]))
