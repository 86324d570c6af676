"""Runs a program in processes of its own, and tells if it passes a test."""

from __future__ import annotations

import ast
import json
import os
import re
import shutil
import subprocess
import tempfile
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import asdict, dataclass
from typing import IO, Any, cast

from decodery.errors import DecoderyError
from decodery.evaluation.code.outcome import CodeLimits, CodeOutcome, Reason
from decodery.evaluation.code.scripts import OPTIONS, interpreter, interpreter_folders, script

GRACE = 20.0
"""Seconds that the supervisor has beyond the program's, to end all that was started."""
SHOWN = 500


class CodeRunError(DecoderyError):
    """Reports that programs cannot be run here; it says nothing of the program."""


ADDRESS = re.compile(r"\b0x[0-9a-fA-F]{6,}")
# A name that the module tempfile draws.
NEW_FILE = re.compile(r"\btmp[a-z0-9_]{8}\b")
# Numbers in the message of an exception that may be a time, an identity, a process or drawn.
CHANGING = re.compile(r"\d{4,}(?:\.\d*)?|\d*\.\d{4,}(?:e-?\d+)?")


@dataclass(frozen=True)
class Fence:
    """Holds how programs are kept from the rest of the machine.

    `namespaces`: by those of Linux, else by audit hooks of Python, which only hinder a program. `drop`: as
    the user nobody, for a caller who is root.
    """

    namespaces: bool
    drop: bool


def run_program(
    program: str, test: str, entry_point: str, limits: CodeLimits, *, fence: Fence, given: str = ""
) -> CodeOutcome:
    """Returns what came of a program, which nobody needs to have read, and a test of its functions.

    The test runs in a process that the program never enters. There it sees `entry_point` and the program's
    other functions, which answer by plain data from their own process (`plain_values` lists its types;
    changes of lists, dicts and sets that are arguments come back too). If it defines `check`, as HumanEval's
    tests do, `check(entry_point)` is called. `given` is trusted text that runs before the test, for helper
    functions that the program must not replace. Both processes have an empty environment, no packages and a
    folder of their own, which is removed; when this returns, no process of theirs is left. Raises
    CodeRunError if the fence cannot be built.
    """
    worker = {"program": program}
    grader = {"given": given, "test": test, "entry_point": entry_point, "most_bytes": limits.output_bytes}
    with _folder(fence) as folder:
        worker["folder"] = None if fence.namespaces else folder  # type: ignore[assignment]
        found = _supervise(
            script(("plain_values", "worker"), worker),  # type: ignore[arg-type]
            script(("plain_values", "grader"), {**grader, "hidden": not fence.namespaces}),
            {"root": folder, "limits": asdict(limits), "fence": asdict(fence)},
        )
    return _outcome(found, folder, limits)


@contextmanager
def _folder(fence: Fence) -> Iterator[str]:
    """Yields an empty folder that is removed with all that it then holds."""
    folder = os.path.realpath(tempfile.mkdtemp(prefix="decodery-code-"))
    try:
        yield folder
    finally:
        if not fence.namespaces:
            for place, names, _ in os.walk(folder):
                for name in names:
                    with suppress(OSError):
                        os.chmod(os.path.join(place, name), 0o700, follow_symlinks=False)
        shutil.rmtree(folder, ignore_errors=True)


def _supervise(worker: bytes, grader: bytes, job: dict[str, object]) -> dict[str, Any]:
    """Runs the supervisor and returns its result. It ends all processes when this one ends."""
    alive, writer = os.pipe()
    command = [interpreter(), *OPTIONS]
    with os.fdopen(alive, "rb"), os.fdopen(writer, "wb") as waiting, ExitStack() as stack:
        worker_file, grader_file = (stack.enter_context(_script_file(text)) for text in (worker, grader))
        passed = {"worker": worker_file.fileno(), "grader": grader_file.fileno(), "alive": alive}
        whole = job | passed | {"command": command, "interpreter": interpreter_folders()}
        own = stack.enter_context(_script_file(script(("fence", "supervisor"), whole)))
        process = subprocess.Popen(
            command,
            stdin=own,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            env={},
            pass_fds=tuple(passed.values()),
            start_new_session=True,
        )
        limits = cast("dict[str, float]", job["limits"])
        output, errors = _communicate(process, waiting, limits["wall_seconds"] + GRACE)
    try:
        return cast("dict[str, Any]", ast.literal_eval(output.decode()))
    except (ValueError, SyntaxError):
        line = (errors.decode(errors="replace").strip().splitlines() or ["it gave no result"])[-1]
        raise CodeRunError(f"programs cannot be run here: {line}") from None


def _script_file(text: bytes) -> IO[bytes]:
    file = tempfile.TemporaryFile()  # noqa: SIM115
    file.write(text)
    file.seek(0)
    return file


def _communicate(process: subprocess.Popen[bytes], waiting: IO[bytes], seconds: float) -> tuple[bytes, bytes]:
    try:
        return process.communicate(timeout=seconds)
    except BaseException as error:
        waiting.close()
        try:
            process.wait(GRACE)
        finally:
            process.kill()
            process.communicate()
        if isinstance(error, subprocess.TimeoutExpired):
            raise CodeRunError("a program did not end in time; the machine may be too busy") from None
        raise


def _outcome(found: dict[str, Any], folder: str, limits: CodeLimits) -> CodeOutcome:
    lines = found["verdict"].decode(errors="replace").splitlines() or [""]
    output = found["output"].decode(errors="replace")
    if "ready" not in lines:
        broken = next((line for line in lines if line.startswith("broken ")), "")
        why = (
            broken.removeprefix("broken ")
            or output.strip().rpartition("\n")[2]
            or "the interpreter did not start"
        )
        raise CodeRunError(f"programs cannot be run here: {why}")
    reason, detail = _reason(found, json.loads(lines[-1]) if lines[-1].startswith("{") else {}, limits)
    return CodeOutcome(reason, _one_line(detail, folder), output, found["seconds"])


def _reason(found: dict[str, Any], verdict: dict[str, str], limits: CodeLimits) -> tuple[Reason, str]:
    if verdict and verdict["reason"] != "ended":
        # A name of a file may have digits, too.
        raised = CHANGING.sub("...", NEW_FILE.sub("tmp...", ADDRESS.sub("0x...", verdict.get("raised", ""))))
        return cast("Reason", verdict["reason"]), verdict["detail"] + raised
    if found["stopped"] == "timeout":
        return "timeout", f"not done after {limits.wall_seconds:g} s"
    if found["stopped"] == "limit":
        return "limit", f"printed more than {limits.output_bytes} bytes"
    ends = [found[name] for name in ("worker", "grader") if found[name] is not None]
    if any(used for _, used in ends):
        return "timeout", f"not done after {limits.cpu_seconds} s of computing"
    detail = verdict.get("detail", "the process of the test ended")
    code = ends[0][0] if ends else None
    how = (
        ""
        if code is None
        else f" by signal {abs(code) % 128}"
        if code < 0 or code > 128
        else f" with status {code}"
    )
    return "error", detail + how


def _one_line(text: str, folder: str) -> str:
    """Returns a text without what differs between two runs of a program: addresses and names of files."""
    text = ADDRESS.sub("0x...", text.replace(folder, "."))
    text = re.sub(r"(?<![\w.])/[\w.-]+(?:/[\w.-]+)+", "/...", text)
    text = NEW_FILE.sub("tmp...", text)
    return " ".join(text.encode("utf-8", "replace").decode().split())[:SHOWN]
