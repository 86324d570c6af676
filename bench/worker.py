"""Serves a contender in a process of its own over pipes: `python -m bench.worker MODULE MODEL THREADS`.

It loads the contender of the module and reports that in a line of JSON. Then it answers each line of JSON on
standard input, `{"call": NAME, ...}`, with one line: `{"result": ...}`, `{"missing": WHY}` if the contender
cannot do it, or `{"error": WHY}`. All that libraries print goes to standard error.
"""

from __future__ import annotations

import dataclasses
import importlib
import json
import os
import sys
import time
from pathlib import Path
from typing import Any

from bench.contenders.contender import Arrival, Writing


def memory() -> int:
    """Returns the peak memory of this process in bytes; 0 on a system without /proc.

    Read from the kernel's VmHWM, since the ru_maxrss of a child starts at its parent's memory at the fork.
    """
    try:
        lines = Path("/proc/self/status").read_text(encoding="ascii").splitlines()
        return next(int(line.split()[1]) * 1024 for line in lines if line.startswith("VmHWM"))
    except (OSError, StopIteration):
        return 0


def answer(contender: Any, request: dict[str, Any]) -> dict[str, Any]:
    """Returns the contender's answer to a request."""
    name = request.pop("call")
    if name == "memory":
        return {"result": memory()}
    if not hasattr(contender, name):
        return {"missing": f"it has no {name}"}
    if name == "serve":
        request = {"arrivals": [Arrival(*arrival) for arrival in request["arrivals"]]}
    if name == "write":
        request["writing"] = Writing(**request["writing"])
    try:
        result = getattr(contender, name)(**request)
    except NotImplementedError as why:
        return {"missing": str(why)}
    except Exception as error:  # Any error of a library; the other contenders are measured anyway.
        return {"error": f"{type(error).__name__}: {error}".splitlines()[0]}
    return {"result": dataclasses.asdict(result) if dataclasses.is_dataclass(result) else result}  # type: ignore[arg-type]


def main() -> None:
    """Answers requests until standard input ends."""
    replies = os.fdopen(os.dup(1), "w", encoding="utf-8")
    os.dup2(2, 1)

    def reply(content: dict[str, Any]) -> None:
        replies.write(json.dumps(content) + "\n")
        replies.flush()

    module = importlib.import_module(sys.argv[1])
    start = time.perf_counter()
    module.prepare()
    imported, taken = time.perf_counter() - start, memory()
    start = time.perf_counter()
    contender = module.load(Path(sys.argv[2]), int(sys.argv[3]))
    hello = {"importing": imported, "imported": taken, "loading": time.perf_counter() - start}
    reply({"result": {**hello, "serving": contender.serving}})
    for line in sys.stdin:
        reply(answer(contender, json.loads(line)))


if __name__ == "__main__":
    main()
