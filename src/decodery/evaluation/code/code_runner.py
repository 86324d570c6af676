"""Runs programs that a model wrote, for callers who allow it."""

from __future__ import annotations

import os
import sys

from decodery.errors import ParameterError
from decodery.evaluation.code.isolated_run import CodeRunError, Fence, run_program
from decodery.evaluation.code.outcome import CodeLimits, CodeOutcome


class CodeRunner:
    """Runs programs behind the best fence of this machine: see `run_program`.

    Raises ParameterError unless `allow_code` is True, and CodeRunError where no program can be run.
    """

    def __init__(self, *, allow_code: bool = False, limits: CodeLimits | None = None) -> None:
        if allow_code is not True:
            raise ParameterError(
                "this runs programs that a model wrote: allow it with --allow-code "
                "(in Python allow_code=True)",
                param="allow_code",
            )
        self.limits = limits or CodeLimits()
        self.fence = best_fence()

    def run(self, program: str, test: str, entry_point: str, *, given: str = "") -> CodeOutcome:
        """Returns what came of a program and its test."""
        return run_program(program, test, entry_point, self.limits, fence=self.fence, given=given)


def best_fence() -> Fence:
    """Returns the strongest fence that works here; it runs a program of one line behind each.

    Raises CodeRunError if none works.
    """
    if not hasattr(os, "fork"):
        raise CodeRunError("programs of models can be run on Linux and macOS only")
    drop = os.getuid() == 0
    choices = [
        Fence(namespaces, drop) for namespaces in (True, False) if sys.platform == "linux" or not namespaces
    ]
    for fence in choices:
        try:
            if run_program(
                "def one(): return 1", "assert one() == 1", "one", CodeLimits(), fence=fence
            ).passed:
                return fence
        except CodeRunError as error:
            reason = str(error)
    raise CodeRunError(f"{reason}; run as another user, or in a container that permits user namespaces")
