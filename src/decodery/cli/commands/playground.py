"""Implements `decodery playground`: serves the page to the person at this machine, and opens it."""

from __future__ import annotations

import html
import logging
import os
import secrets
import sys
import tempfile
import threading
import webbrowser
from collections.abc import Sequence
from contextlib import suppress
from functools import partial
from pathlib import Path

from decodery.cli.commands.serve import model_sources, not_installed
from decodery.cli.flags.model_options import RunOptions
from decodery.cli.flags.playground_options import USUAL_PORT, PlaygroundOptions
from decodery.cli.load_llm import check_options
from decodery.cli.terminal import note
from decodery.errors import ParameterError
from decodery.serving.models import ModelSource

HOST = "127.0.0.1"


def playground(options: PlaygroundOptions, how: RunOptions) -> None:
    """Serves the page with a new key until Control+C. Raises `ParameterError` for wrong options.

    The key is handed over in the fragment of the page's address, which browsers do not send. A browser is
    told to open a file that only this user reads, since other users see the arguments of a process.
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
    _check_writes(sources)
    log_to(sys.stderr, whole=False)
    # The terminal shows the address and what goes wrong, and no line for each request of the page.
    logging.getLogger("decodery.serving").setLevel(logging.WARNING)
    logging.getLogger("uvicorn").setLevel(logging.CRITICAL)
    if not options.open:
        run(settings, sources, partial(_announce, key))
        return
    with tempfile.TemporaryDirectory(prefix="decodery-") as folder:
        run(settings, sources, partial(_announce, key, folder=Path(folder)))


def _check_writes(sources: Sequence[ModelSource]) -> None:
    """Raises `ParameterError` if all models are known as encoders, of which the page shows nothing."""
    if all(source.kind == "encoder" for source in sources):
        names = ", ".join(source.name for source in sources)
        raise ParameterError(
            f"the playground shows how a model continues texts, and {names} reads them only (an encoder):"
            " give a decoder with -m, or ask the encoder with decodery embed, search, classify, fill-mask or"
            " rerank"
        )


def _announce(key: str, address: str, folder: Path | None = None) -> None:
    page = f"{address}/#key={key}"
    note(f"The playground is at {page}")
    note("Control+C ends it.")
    if folder is not None:
        file = _redirect(page, folder)
        # Some browsers run in the terminal, and the call returns when they end.
        threading.Thread(target=webbrowser.open, args=(file.as_uri(),), daemon=True).start()


def _redirect(page: str, folder: Path) -> Path:
    """Writes a file that leads a browser to the page, and that only its owner reads. Returns its path."""
    file = folder / "playground.html"
    address = html.escape(page)
    text = f'<!doctype html><meta charset="utf-8"><meta http-equiv="refresh" content="0;url={address}">'
    text += f'<title>Decodery</title><a href="{address}">Open the playground</a>'
    with open(os.open(file, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "w", encoding="utf-8") as stream:
        stream.write(text)
    return file
