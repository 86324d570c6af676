"""Holds back the batches of a served encoder."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from decodery import LLM
from decodery.encoding.text_batches import Batch
from tests.serving.live import LiveServer


class GatedBatches:
    """Makes each batch of an encoder wait: for so many seconds, or until `open`, or fail.

    `batches` are the numbers of texts of the batches that have begun.
    """

    def __init__(self, llm: LLM) -> None:
        self.seconds = 0.0
        self.failure: Exception | None = None
        self.open = threading.Event()
        self.open.set()
        self.batches: list[int] = []
        self._runner: Any = llm.encoder.runner
        self._run = self._runner.run
        self._runner.run = self._gated

    def _gated(self, texts: Any, **options: Any) -> Iterator[Batch]:
        self.batches.append(len(texts))
        assert self.open.wait(30)
        time.sleep(self.seconds)
        if self.failure is not None:
            failure, self.failure = self.failure, None
            raise failure
        yield from self._run(texts, **options)

    def restore(self) -> None:
        """Lets the batches run as before."""
        self.open.set()
        del self._runner.run


@contextmanager
def gated(server: LiveServer) -> Iterator[GatedBatches]:
    """Holds back the batches of a server's encoder inside the context."""
    batches = GatedBatches(server.llm)
    try:
        yield batches
    finally:
        batches.restore()
