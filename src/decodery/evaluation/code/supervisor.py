"""Starts the processes of a program and of its test, watches them, and ends all that they started.

Runs without the package: `scripts.py` sends this file's text to a fresh interpreter. This process runs
neither the program nor the test.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import select
import signal
import sys
import time
from collections.abc import Callable, Collection

from decodery.evaluation.code.fence import WORK, become_subreaper, end_with_parent, enter_namespaces, limit

BLOCK = 1 << 16
KEPT = 2000
"""The bytes of the program's output that are kept."""
WAIT = 1.0
"""Seconds that a program has to end after it closed its pipes."""
FIRST_FREE = 16
ENVIRONMENT = {"PATH": "/usr/bin:/bin", "LANG": "C.UTF-8", "HOME": WORK, "PYTHONHASHSEED": "0", "TZ": "UTC"}


def main(job: dict[str, object]) -> None:
    """Runs a job and prints what happened as a literal of a dict.

    `worker` and `grader` are descriptors of their scripts, `alive` is a pipe that ends when nobody waits for
    the result, `command` starts an interpreter, `limits` has the fields of `CodeLimits`, `fence` says how the
    processes are fenced, `root` and `interpreter` are those of `enter_namespaces`.
    """
    started = time.monotonic()
    if sys.platform == "linux":
        become_subreaper()
    output, calls, replies, verdict = os.pipe(), os.pipe(), os.pipe(), os.pipe()
    nothing = os.open(os.devnull, os.O_RDWR)
    trouble = verdict[1]
    worker = _start(job, trouble, [_number(job, "worker"), output[1], output[1], calls[0], replies[1]])
    grader = _start(
        job, trouble, [_number(job, "grader"), nothing, nothing, replies[0], calls[1], verdict[1]]
    )
    for descriptor in (output[1], *calls, *replies, verdict[1]):
        os.close(descriptor)
    limits: dict[str, float] = job["limits"]  # type: ignore[assignment]
    watch = _Watch(started + limits["wall_seconds"], int(limits["output_bytes"]))
    stopped = watch.run(_number(job, "alive"), verdict[0], output[0])
    ends = {} if stopped or watch.is_decided() else _ends([worker, grader], limits["cpu_seconds"])
    end_all([worker, grader], ends.keys())
    watch.read_rest(output[0])
    if stopped == "abandoned":
        with contextlib.suppress(OSError):
            os.rmdir(str(job["root"]))
    result = {
        "verdict": watch.verdict,
        "output": watch.output,
        "stopped": stopped,
        "worker": ends.get(worker),
        "grader": ends.get(grader),
        "seconds": time.monotonic() - started,
    }
    os.write(1, repr(result).encode())


def _number(job: dict[str, object], name: str) -> int:
    return int(str(job[name]))


def _start(job: dict[str, object], trouble: int, descriptors: list[int]) -> int:
    """Starts a fenced interpreter with these descriptors as its first; returns the id of its process.

    Behind namespaces that process only waits for the interpreter's.
    """
    process = os.fork()
    if process:
        return process
    try:
        _become(job, descriptors)
    except BaseException as error:
        os.write(trouble, f"broken {type(error).__name__}: {error}\n".encode())
    finally:
        os._exit(1)


def _become(job: dict[str, object], descriptors: list[int]) -> None:
    limits: dict[str, float] = job["limits"]  # type: ignore[assignment]
    chosen: dict[str, object] = job["fence"]  # type: ignore[assignment]
    command: list[str] = job["command"]  # type: ignore[assignment]
    if chosen["namespaces"]:
        interpreter: list[str] = job["interpreter"]  # type: ignore[assignment]
        enter_namespaces(str(job["root"]), interpreter, int(limits["file_bytes"]))
        end_with_parent()
        inner = os.fork()
        if inner:
            # The pipes end when the interpreter has ended, not this process.
            os.closerange(0, os.sysconf("SC_OPEN_MAX"))
            _, status = os.waitpid(inner, 0)
            code = os.waitstatus_to_exitcode(status)
            os._exit(code if code >= 0 else 128 - code)
    else:
        os.chdir(str(job["root"]))
        # Here the limit counts all processes of the user, and none can be told from another.
        limits = {**limits, "processes": 1}
    limit(limits, drop=bool(chosen["drop"]))
    _place(descriptors)
    os.execve(command[0], command, ENVIRONMENT)


def _place(descriptors: list[int]) -> None:
    """Makes these descriptors 0, 1, 2 and so on; all others are closed when the interpreter starts."""
    high = [fcntl.fcntl(descriptor, fcntl.F_DUPFD_CLOEXEC, FIRST_FREE) for descriptor in descriptors]
    for place, descriptor in enumerate(high):
        os.dup2(descriptor, place)


class _Watch:
    """Reads what the processes write, until the verdict, a limit or the deadline."""

    def __init__(self, deadline: float, most_output: int) -> None:
        self.deadline = deadline
        self.most_output = most_output
        self.printed = 0
        self.output = b""
        self.verdict = b""

    def run(self, alive: int, verdict: int, output: int) -> str:
        """Returns why the run must be stopped: "timeout", "limit", "abandoned", or "" if it ended."""
        poll = select.poll()
        for descriptor in (alive, verdict, output):
            poll.register(descriptor, select.POLLIN)
        while True:
            left = self.deadline - time.monotonic()
            if left <= 0:
                return "timeout"
            for descriptor, _ in poll.poll(left * 1000):
                block = os.read(descriptor, BLOCK)
                if not block and descriptor == output:
                    poll.unregister(output)
                if descriptor == alive:
                    return "abandoned"
                if descriptor == verdict:
                    self.verdict += block
                    if not block or self._is_complete():
                        return ""
                if descriptor == output:
                    self.printed += len(block)
                    self.output = (self.output + block)[:KEPT]
                    if self.printed > self.most_output:
                        return "limit"

    def read_rest(self, output: int) -> None:
        """Reads what the program printed before it ended, when no process can write to it any more."""
        os.set_blocking(output, False)
        # Without Linux's subreapers, a process may be left that holds the pipe.
        with contextlib.suppress(BlockingIOError):
            while block := os.read(output, BLOCK):
                self.output = (self.output + block)[:KEPT]

    def is_decided(self) -> bool:
        """True if the verdict is complete and does not depend on how the program ended."""
        return self._is_complete() and b'"reason": "ended"' not in self.verdict

    def _is_complete(self) -> bool:
        last = (self.verdict.splitlines(keepends=True) or [b""])[-1]
        return last.startswith((b"{", b"broken")) and last.endswith(b"\n")


def _ends(processes: list[int], cpu_seconds: float) -> dict[int, tuple[int, bool]]:
    """Returns the exit code of each process that ends soon, and if the kernel killed it for its CPU time."""
    found: dict[int, tuple[int, bool]] = {}
    deadline = time.monotonic() + WAIT
    for process in processes:
        while time.monotonic() < deadline:
            done, status, usage = os.wait4(process, os.WNOHANG)
            if done:
                code = os.waitstatus_to_exitcode(status)
                signaled = code - 128 if code > 128 else -code
                # The kernel counts a limit by ticks of its clock, which differ from the time that it reports.
                used = usage.ru_utime + usage.ru_stime > cpu_seconds / 2
                found[process] = (code, signaled == signal.SIGKILL and used)
                break
            time.sleep(0.002)
    return found


def end_all(processes: list[int], ended: Collection[int]) -> None:
    """Kills these children, their sessions and all descendants, and waits until none is left.

    `ended` are those of the children whose ids may be those of other processes by now.
    """
    for process in processes:
        _kill(os.killpg, process)
        if process not in ended:
            _kill(os.kill, process)
    while True:
        try:
            done, _ = os.waitpid(-1, os.WNOHANG)
        except ChildProcessError:
            return
        if not done:
            for child in _children():
                _kill(os.kill, child)
            time.sleep(0.001)


def _kill(kill: Callable[[int, int], None], process: int) -> None:
    with contextlib.suppress(ProcessLookupError, PermissionError):
        kill(process, signal.SIGKILL)


def _children() -> list[int]:
    """Returns the children of this process on Linux, with those that lost their parents."""
    found = []
    for name in os.listdir("/proc") if sys.platform == "linux" else []:
        if name.isdigit():
            try:
                with open(f"/proc/{name}/stat", "rb") as file:
                    fields = file.read().rpartition(b")")[2].split()
            except OSError:
                continue
            if int(fields[1]) == os.getpid():
                found.append(int(name))
    return found
