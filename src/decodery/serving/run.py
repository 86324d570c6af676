"""Runs a server in this process until it is told to stop."""

from __future__ import annotations

import asyncio
import contextlib
import gc
import logging
import os
import signal
import socket
from collections.abc import Callable, Generator, Sequence
from typing import Any

import uvicorn

from decodery.errors import DecoderyError, ModelError, ParameterError
from decodery.serving.app import create_app
from decodery.serving.errors import ApiError
from decodery.serving.models import ModelSource
from decodery.serving.service import Service
from decodery.serving.settings import ServerSettings

log = logging.getLogger("decodery.serving")
# How long a request that is ended at the drain's deadline may take to tell its client.
LAST_WORDS = 2.0


def run(
    settings: ServerSettings,
    sources: Sequence[ModelSource],
    announce: Callable[[str], None],
    memory: int | None = None,
) -> None:
    """Serves models until SIGTERM or SIGINT; then lets requests end, within the drain's deadline.

    Calls `announce` with the server's address once the models are open. Raises `ParameterError` if the
    address cannot be used, and the error of a model that cannot be opened. All open models together take at
    most `memory` bytes (None: no bound).
    """
    listener = listen(settings.host, settings.port)
    try:
        with asyncio.Runner(loop_factory=loop_factory()) as runner:
            runner.run(_serve(settings, sources, memory, listener, announce))
    finally:
        listener.close()


def listen(host: str, port: int) -> socket.socket:
    """Returns a socket that listens at an address; port 0 takes a free one."""
    try:
        family = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0][0]
        listener = socket.create_server((host, port), family=family, backlog=1024)
    except OSError as error:
        # The text of an error number alone: sockets add the address once more.
        reason = os.strerror(error.errno) if error.errno and error.errno > 0 else str(error)
        raise ParameterError(f"host {host} and port {port} cannot be used: {reason}") from None
    # Its connections inherit this. Otherwise the end of an answer waits for the client's acknowledgement of
    # its beginning, which takes 40 ms on Linux.
    listener.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    return listener


def loop_factory() -> Callable[[], asyncio.AbstractEventLoop]:
    """Returns the function that makes the event loop of a server."""
    try:
        import uvloop
    except ImportError:  # There is none for Windows.
        return asyncio.new_event_loop
    factory: Callable[[], asyncio.AbstractEventLoop] = uvloop.new_event_loop
    return factory


def http_server(service: Service) -> uvicorn.Server:
    """Returns a server of HTTP for a service whose worker runs. Signals are left to the caller."""
    config = uvicorn.Config(
        create_app(service),
        log_config=None,
        access_log=False,
        lifespan="off",
        ws="none",
        server_header=False,
        proxy_headers=False,
        timeout_graceful_shutdown=5,
    )
    return _Server(config)


class _Server(uvicorn.Server):
    """Is uvicorn's server without its signal handlers: a signal drains first."""

    @contextlib.contextmanager
    def capture_signals(self) -> Generator[None, None, None]:
        """Leaves the signals alone."""
        yield


async def _serve(
    settings: ServerSettings,
    sources: Sequence[ModelSource],
    memory: int | None,
    listener: socket.socket,
    announce: Callable[[str], None],
) -> None:
    loop = asyncio.get_running_loop()
    loop.set_exception_handler(_log_lost)
    service = Service(settings, sources, memory)
    service.start(loop)
    server = http_server(service)
    stopping = _Stopping(service, server)
    _on_signals(loop, stopping.begin)
    serving = asyncio.create_task(server.serve(sockets=[listener]))
    opening = asyncio.create_task(service.models.open_pinned())
    try:
        await asyncio.wait({serving, opening}, return_when=asyncio.FIRST_COMPLETED)
        if opening.done() and opening.exception() is None:
            # The models at the start live as long as the process.
            gc.freeze()
            gc.enable()
            announce(_address(listener))
        elif opening.done():
            server.should_exit = True
        await serving
    finally:
        await service.stop()
    if opening.done() and (error := opening.exception()) is not None:
        raise _known(error)
    opening.cancel()


def _log_lost(loop: asyncio.AbstractEventLoop, context: dict[str, Any]) -> None:
    """Logs an error that nobody awaits, without its message, which the event loop would log."""
    log.error("an error was lost", exc_info=context.get("exception"))


def _known(error: BaseException) -> BaseException:
    if isinstance(error, DecoderyError):
        return error
    return ModelError(f"the model cannot be opened: {error}")


def _safely(loop: asyncio.AbstractEventLoop, function: Callable[[], Any]) -> None:
    with contextlib.suppress(RuntimeError):  # The server has stopped meanwhile.
        loop.call_soon_threadsafe(function)


def _address(listener: socket.socket) -> str:
    host, port = listener.getsockname()[:2]
    return f"http://[{host}]:{port}" if ":" in host else f"http://{host}:{port}"


def _on_signals(loop: asyncio.AbstractEventLoop, function: Callable[[], None]) -> None:
    for number in (signal.SIGTERM, signal.SIGINT):
        try:
            loop.add_signal_handler(number, function)
        except (NotImplementedError, ValueError, RuntimeError):  # Windows, or not the main thread.
            with contextlib.suppress(ValueError):
                signal.signal(number, lambda *_: _safely(loop, function))


class _Stopping:
    """Stops a server at the first signal: lets requests end first; at the second one at once."""

    def __init__(self, service: Service, server: uvicorn.Server) -> None:
        self._service = service
        self._server = server
        self._task: asyncio.Task[None] | None = None

    def begin(self) -> None:
        """Begins to stop, or stops at once."""
        if self._task is None:
            self._task = asyncio.get_running_loop().create_task(self._drain())
        else:
            self._server.should_exit = self._server.force_exit = True

    async def _drain(self) -> None:
        self._service.admission.draining = True
        await self._emptied(self._service.settings.drain_seconds)
        for active in list(self._service.active):
            active.fail(ApiError(503, "the server is stopping", code="draining", retry_after=10))
        await self._emptied(LAST_WORDS)
        self._server.should_exit = True

    async def _emptied(self, seconds: float) -> None:
        end = asyncio.get_running_loop().time() + seconds
        while self._service.active and asyncio.get_running_loop().time() < end:
            await asyncio.sleep(0.01)
