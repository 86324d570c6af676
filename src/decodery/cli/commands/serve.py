"""Implements `decodery serve`: answers OpenAI's API over HTTP."""

from __future__ import annotations

import logging
import os
import sys
from functools import partial
from pathlib import Path

from decodery.cli.flags.model_options import ModelOptions
from decodery.cli.flags.serve_options import ServeOptions
from decodery.cli.load_llm import check_options, load
from decodery.cli.terminal import note
from decodery.errors import DecoderyError, ParameterError

DEFAULT_NAME = "default"


def serve(options: ServeOptions, model: ModelOptions) -> None:
    """Serves a model until it is told to stop. Raises `ParameterError` for wrong options."""
    try:
        from decodery.serving.models import ModelSource
        from decodery.serving.run import run
        from decodery.serving.settings import RequestLimits, ServerSettings, read_keys
    except ModuleNotFoundError as error:
        raise DecoderyError(
            f"the server needs {error.name}, which is not installed: pip install 'decodery[serve]'"
        ) from None
    check_options(model)
    key_file = None if options.api_key_file is None else Path(options.api_key_file)
    limits = RequestLimits(
        prompt_tokens=options.max_prompt_tokens,
        max_tokens=options.max_tokens_limit,
        queued=options.max_queued,
        seconds=options.request_seconds,
    )
    settings = ServerSettings(
        host=options.host,
        port=options.port,
        keys=read_keys(key_file, os.environ.get("DECODERY_API_KEY")),
        origins=tuple(part.strip() for part in (options.allow_origin or "").split(",") if part.strip()),
        lenient=options.lenient,
        log_prompts=options.log_prompts,
        pings=options.pings or None,
        drain_seconds=options.drain_seconds,
        limits=limits,
    )
    name = options.name or name_of(model.model)
    logging.basicConfig(stream=sys.stderr, level=logging.INFO, format="%(message)s")
    logging.getLogger("uvicorn").setLevel(logging.WARNING)
    run(settings, [ModelSource(name, partial(load, model))], partial(_announce, name))


def name_of(model: str | None) -> str:
    """Returns the name under which a model is served: that of its file or folder, without the ending."""
    if model is None or model == DEFAULT_NAME:
        return DEFAULT_NAME
    last = Path(model).name
    found = last.removesuffix(".gguf")
    if not found:
        raise ParameterError("name cannot be made of the model's path: give --name")
    return found


def _announce(name: str, address: str) -> None:
    note(f"Serving {name} at {address}")
    body = f'{{"model": "{name}", "messages": [{{"role": "user", "content": "Hi"}}]}}'
    note(f"curl {address}/v1/chat/completions -H 'Content-Type: application/json' -d '{body}'")
    note(f"The routes and their fields: {address}/openapi.json")
