"""Defines the limits of a program that is run, and what came of it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from decodery.errors import ParameterError

Reason = Literal["passed", "failed", "error", "timeout", "limit", "unsupported"]


@dataclass(frozen=True)
class CodeLimits:
    """Holds what a program may use before it is ended; its test has the same limits.

    `cpu_seconds` counts the work of one process, so that other load does not change an outcome;
    `wall_seconds` also ends a program that waits. `memory_bytes` is the address space of each of at most
    `processes` processes and threads. `output_bytes` is for all that it prints, and for one result.
    `file_bytes` is for its files. Raises ParameterError for a value that is not above 0.
    """

    cpu_seconds: int = 5
    wall_seconds: float = 30.0
    memory_bytes: int = 1 << 30
    output_bytes: int = 16 << 20
    file_bytes: int = 16 << 20
    processes: int = 8

    def __post_init__(self) -> None:
        for name, value in vars(self).items():
            kinds = (int, float) if name == "wall_seconds" else (int,)
            if isinstance(value, bool) or not isinstance(value, kinds) or not value > 0:
                kind = "a number" if float in kinds else "an integer"
                raise ParameterError(f"{name} must be {kind} above 0, not {value}", param=name)


@dataclass(frozen=True)
class CodeOutcome:
    """Holds what came of running a program against its test.

    `reason`: "passed"; "failed" (a check of the test does not hold); "error" (the program cannot run, raises
    or ends); "timeout"; "limit" (memory, output or the size of a result); "unsupported" (the test cannot be
    run here, so it says nothing of the program). `detail` is one line, `output` the beginning of what the
    program printed. `seconds` is the wall time.
    """

    reason: Reason
    detail: str
    output: str
    seconds: float

    @property
    def passed(self) -> bool:
        """True if the test holds."""
        return self.reason == "passed"
