"""Calls a contender that runs in another process and another environment, which `bench.worker` serves."""

from __future__ import annotations

import json
import os
import select
import signal
import subprocess
from collections.abc import Sequence
from dataclasses import asdict, astuple
from pathlib import Path
from types import TracebackType
from typing import Any

from bench.contenders.contender import Arrival, Prompt, Timing, Writing

ROOT = Path(__file__).parent.parent
REPLY_TIMEOUT = 300.0


class WorkerError(Exception):
    """Says in one line why a worker died, hung or failed."""


class MissingError(Exception):
    """Says that the contender does not have the method that was called."""


class Remote:
    """Runs a `Contender` in a process of its own, which is stopped (SIGSTOP) except during a call."""

    def __init__(self, python: Path, module: str, model: Path, threads: int, log: Path) -> None:
        self.log = log
        paths = [str(ROOT), str(ROOT / "src"), os.environ.get("PYTHONPATH", "")]
        settings = {
            "PYTHONPATH": os.pathsep.join(paths),
            "OMP_NUM_THREADS": str(threads),
            "HF_HUB_OFFLINE": "1",
            "TOKENIZERS_PARALLELISM": "false",
        }
        with log.open("ab") as errors:
            self.process = subprocess.Popen(
                [str(python), "-m", "bench.worker", module, str(model), str(threads)],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=errors,
                env={**os.environ, **settings},
                cwd=ROOT,
            )
        self.hello: dict[str, Any] = self._reply()
        self.serving: str = self.hello["serving"]
        self.process.send_signal(signal.SIGSTOP)

    def __enter__(self) -> Remote:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        where: TracebackType | None,
    ) -> None:
        self.close()

    def close(self) -> None:
        """Ends the process."""
        self.process.kill()
        self.process.wait()
        for pipe in (self.process.stdin, self.process.stdout):
            if pipe is not None:
                pipe.close()

    def call(self, name: str, **arguments: Any) -> Any:
        """Returns the worker's answer. Raises `MissingError` and `WorkerError`."""
        if self.process.poll() is not None:
            raise WorkerError(f"its process has ended; see {self.log}")
        assert self.process.stdin is not None
        self.process.send_signal(signal.SIGCONT)
        try:
            self.process.stdin.write(json.dumps({"call": name, **arguments}).encode() + b"\n")
            self.process.stdin.flush()
            return self._reply()
        except BrokenPipeError as error:
            raise WorkerError(f"its process has ended; see {self.log}") from error
        finally:
            self.process.send_signal(signal.SIGSTOP)

    def _reply(self) -> Any:
        assert self.process.stdout is not None
        ready, _, _ = select.select([self.process.stdout], [], [], REPLY_TIMEOUT)
        if not ready:
            self.process.kill()
            raise WorkerError(f"no answer within {REPLY_TIMEOUT:.0f} seconds")
        line = self.process.stdout.readline()
        if not line:
            raise WorkerError(f"its process has ended; see {self.log}")
        content = json.loads(line)
        if "missing" in content:
            raise MissingError(content["missing"])
        if "error" in content:
            raise WorkerError(content["error"])
        return content["result"]

    def run(self, prompts: Sequence[Prompt], tokens: int) -> Timing:
        return Timing(**self.call("run", prompts=[list(p) for p in prompts], tokens=tokens))

    def sampled(self, prompts: Sequence[Prompt], tokens: int) -> Timing:
        return Timing(**self.call("sampled", prompts=[list(p) for p in prompts], tokens=tokens))

    def write(self, writing: Writing, drafts: bool) -> Timing:
        return Timing(**self.call("write", writing=asdict(writing), drafts=drafts))

    def beams(self, prompt: Prompt, tokens: int, beams: int) -> float:
        return float(self.call("beams", prompt=list(prompt), tokens=tokens, beams=beams))

    def serve(self, arrivals: Sequence[Arrival]) -> list[list[float]]:
        times: list[list[float]] = self.call("serve", arrivals=[astuple(arrival) for arrival in arrivals])
        return times
