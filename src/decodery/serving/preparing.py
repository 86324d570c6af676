"""Runs what comes before an engine (templates, tokens, grammars) off the event loop, with a deadline."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any, TypeVar

from decodery.errors import DecoderyError
from decodery.serving.errors import ApiError, api_error, invalid

T = TypeVar("T")
# A grammar of fewer characters takes less than a second, a schema of the largest size half a minute.
LARGE = 16 << 10


class Preparation:
    """Runs functions in threads; grammars have threads of their own, large ones others than small ones.

    So large grammars delay each other alone. A function that runs cannot be stopped: past its deadline its
    client gets an error, and its thread is free when the function returns.
    """

    def __init__(self, seconds: float) -> None:
        self._seconds = seconds
        self._texts = ThreadPoolExecutor(2, "decodery-texts")
        self._small = ThreadPoolExecutor(2, "decodery-grammars")
        self._large = ThreadPoolExecutor(2, "decodery-large-grammars")

    async def run(self, function: Callable[[], T], *, grammar: int = 0, param: str | None = None) -> T:
        """Returns the function's result. `grammar` is the number of characters of what it may compile.

        Raises `ApiError` for an error of the package, with `param` unless the error names its place, and when
        time is over.
        """
        pool = self._texts if not grammar else self._small if grammar < LARGE else self._large
        job = pool.submit(function)
        future = asyncio.wrap_future(job)
        # Whatever comes of it, nobody may wait any more.
        future.add_done_callback(_ignore)
        try:
            done, _ = await asyncio.wait({future}, timeout=self._seconds)
        except asyncio.CancelledError:
            job.cancel()
            raise
        if not done:
            if job.cancel() or not grammar:
                raise ApiError(503, "the server is too busy to read the request", retry_after=5)
            raise invalid("this takes too long to compile", "grammar")
        try:
            return future.result()
        except DecoderyError as error:
            raise api_error(error, param) from None

    def close(self) -> None:
        """Ends the threads that run nothing."""
        for pool in (self._texts, self._small, self._large):
            pool.shutdown(wait=False, cancel_futures=True)


def _ignore(future: asyncio.Future[Any]) -> None:
    if not future.cancelled():
        future.exception()
