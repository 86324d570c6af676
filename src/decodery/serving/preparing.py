"""Runs what comes before an engine (templates, tokens, grammars) off the event loop, with a deadline."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

from decodery.errors import DecoderyError
from decodery.serving.errors import ApiError, api_error, invalid

T = TypeVar("T")


class Preparation:
    """Runs functions in threads; grammars have threads of their own, so that they delay nothing else.

    A function cannot be stopped: past its deadline its client gets an error, and its thread is free when the
    function returns.
    """

    def __init__(self, seconds: float) -> None:
        self._seconds = seconds
        self._texts = ThreadPoolExecutor(2, "decodery-texts")
        self._grammars = ThreadPoolExecutor(4, "decodery-grammars")

    async def run(self, function: Callable[[], T], *, grammar: bool, param: str | None = None) -> T:
        """Returns the function's result. `grammar` says that it may compile one.

        Raises `ApiError` for an error of the package, with `param` unless the error names its place, and when
        time is over.
        """
        pool = self._grammars if grammar else self._texts
        future = asyncio.get_running_loop().run_in_executor(pool, function)
        done, _ = await asyncio.wait({future}, timeout=self._seconds)
        if not done:
            # Whatever comes of it, nobody waits any more.
            future.add_done_callback(_ignore)
            if grammar:
                raise invalid("the grammar or schema takes too long to compile", "response_format")
            raise ApiError(503, "the server is too busy to read the prompt", retry_after=5)
        try:
            return future.result()
        except DecoderyError as error:
            raise api_error(error, param) from None

    def close(self) -> None:
        """Ends the threads that run nothing."""
        for pool in (self._texts, self._grammars):
            pool.shutdown(wait=False, cancel_futures=True)


def _ignore(future: asyncio.Future[T]) -> None:
    if not future.cancelled():
        future.exception()
