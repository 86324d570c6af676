"""Implements `decodery playground`: serves the page to the person at this machine, and opens it."""

from __future__ import annotations

import logging
import secrets
import sys
import threading
import webbrowser
from contextlib import suppress
from functools import partial

from decodery.cli.commands.serve import model_sources, not_installed
from decodery.cli.flags.model_options import RunOptions
from decodery.cli.flags.playground_options import USUAL_PORT, PlaygroundOptions
from decodery.cli.load_llm import check_options
from decodery.cli.terminal import note
from decodery.errors import ParameterError

HOST = "127.0.0.1"


def playground(options: PlaygroundOptions, how: RunOptions) -> None:
    """Serves the page with a new key until Control+C. Raises `ParameterError` for wrong options.

    The key is handed over in the fragment of the page's address, which browsers do not send.
    """
    try:
        from decodery.serving.logs import log_to
        from decodery.serving.run import listen, run
        from decodery.serving.settings import ServerSettings
    except ModuleNotFoundError as error:
        raise not_installed(error) from None
    check_options(how)
    port = options.port
    if port is None:
        port = 0
        with suppress(ParameterError):
            listen(HOST, USUAL_PORT).close()
            port = USUAL_PORT
    key = secrets.token_urlsafe(32)
    settings = ServerSettings(host=HOST, port=port, keys=(key,), drain_seconds=1.0)
    sources = model_sources(options.model, how, {}, {}, whole_paths=True)
    log_to(sys.stderr, whole=False)
    # The terminal shows the address and what goes wrong, and no line for each request of the page.
    logging.getLogger("decodery.serving").setLevel(logging.WARNING)
    logging.getLogger("uvicorn").setLevel(logging.CRITICAL)
    run(settings, sources, partial(_announce, key, options.open))


def _announce(key: str, opens: bool, address: str) -> None:
    page = f"{address}/#key={key}"
    note(f"The playground is at {page}")
    note("Control+C ends it.")
    if opens:
        # Some browsers run in the terminal, and the call returns when they end.
        threading.Thread(target=webbrowser.open, args=(page,), daemon=True).start()
