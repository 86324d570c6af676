"""Forks a process that has used a model: `python -m tests.forked LAW BACKEND THREADS`, for `tests.test_fork`.

It is a process of its own, so that no other test runs in a process with these threads. The child is killed if
it takes longer than `SECONDS`, and the last line on stdout then names what it was doing.
"""

from __future__ import annotations

import os
import sys
import tempfile
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch

from decodery import LLM, GenerationParams, Regex
from tests.cli.conftest import write_model
from tests.combinations import features
from tests.kernels.native.borders import killed_by

SECONDS = 60
PROMPTS = ["abab cdcd abab ce", "the quick"]
KINDS = ("strategy", "grammar", "speculate", "guidance", "mirostat", "xtc")
# Large enough that torch, MKL and the native kernels share the work on a row of logits among threads.
ROWS = 24576

Texts = list[Any]


class Case:
    """Holds a model and one request of each kind, with the texts that the parent generates."""

    def __init__(self, folder: str, backend: str, threads: int) -> None:
        torch.set_num_threads(threads)
        self.llm = LLM(folder, dtype="float32", backend=backend, threads=threads, kv_memory="64MB")
        plain = GenerationParams(max_tokens=4, seed=3, ignore_eos=True)
        self.jobs = {
            feature.name: (PROMPTS, plain.replace(**feature.changes))
            for feature in features(folder)
            if feature.kind in KINDS
        }
        # More rows than the calling thread fills masks for by itself.
        self.jobs["16 rows of a grammar"] = (PROMPTS * 8, plain.replace(grammar=Regex("[a-z]{9,}")))
        # The thread pools exist from here on.
        matrix = torch.rand(600, 600)
        torch.log(matrix @ matrix).exp().sort()
        self.texts = {name: self.generated(name) for name in self.jobs}

    def generated(self, name: str) -> Texts:
        outputs = self.llm.generate(*self.jobs[name], progress=False)
        assert [output.error for output in outputs] == [None] * len(outputs)
        return [[(c.token_ids, c.text) for c in output.completions] for output in outputs]

    def check(self, *names: str) -> None:
        """Raises `AssertionError` unless this process generates what the parent did."""
        for name in names or self.jobs:
            sys.stdout.write(f"{name}\n")
            sys.stdout.flush()
            assert self.generated(name) == self.texts[name], name
        self.llm.engine.check_integrity()


def a_child(case: Case) -> None:
    """Checks all requests in a child, and afterwards in the parent."""
    assert killed_by(case.check, SECONDS) is None
    case.check()


def a_grandchild(case: Case) -> None:
    """Checks some requests in a child of a child that has used the model."""
    some = ("mirostat v1", "DoLa", "16 rows of a grammar", "contrastive search")

    def child() -> None:
        case.check(*some)
        assert killed_by(lambda: case.check(*some), SECONDS // 2) is None
        case.check(*some)

    assert killed_by(child, SECONDS) is None


def a_stream(case: Case) -> None:
    """Goes on with a stream in a child and in the parent, forked between two events and within a step."""
    params = GenerationParams(max_tokens=12, seed=3, ignore_eos=True)
    whole = [event.token_ids for event in case.llm.stream(PROMPTS[0], params)]
    stream = case.llm.stream(PROMPTS[0], params)
    begun = [next(stream).token_ids for _ in range(4)]

    def child() -> None:
        assert begun + [event.token_ids for event in stream] == whole
        case.check("sampling")

    assert killed_by(child, SECONDS) is None
    child()
    fork_at = 5
    parent = os.getpid()

    def fork(ids: list[int], logits: Any) -> Any:
        if len(ids) == len(case.llm.tokenizer.encode(PROMPTS[0])) + fork_at and os.getpid() == parent:
            children.append(os.fork())
        return logits

    children: list[int] = []
    found = [e.token_ids for e in case.llm.stream(PROMPTS[0], params.replace(logits_processors=(fork,)))]
    assert found == whole
    if os.getpid() != parent:
        case.check("sampling")
        os._exit(0)
    (forked,) = children
    assert os.waitpid(forked, 0)[1] == 0


def a_fork_beside_threads(case: Case) -> None:
    """Forks again and again while other threads generate; each child generates too."""
    names, stop = ("sampling", "beam search", "16 rows of a grammar", "mirostat v1"), threading.Event()
    wrong: list[str] = []

    def keep_busy(name: str) -> None:
        while not stop.is_set():
            if case.generated(name) != case.texts[name]:
                wrong.append(name)

    workers = [threading.Thread(target=keep_busy, args=(name,)) for name in names]
    for worker in workers:
        worker.start()
    try:
        for i in range(12):
            time.sleep(0.003 * i)
            assert killed_by(lambda: case.check(*names), SECONDS // 3) is None
    finally:
        stop.set()
        for worker in workers:
            worker.join()
    assert not wrong


LAWS: dict[str, Callable[[Case], None]] = {
    law.__name__: law for law in (a_child, a_grandchild, a_stream, a_fork_beside_threads)
}


def main() -> None:
    """Checks one law."""
    law, backend, threads = sys.argv[1:]
    with tempfile.TemporaryDirectory() as folder:
        LAWS[law](Case(write_model(Path(folder), rows=ROWS), backend, int(threads)))


if __name__ == "__main__":
    main()
