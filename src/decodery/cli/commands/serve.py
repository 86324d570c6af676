"""Implements `decodery serve`: answers OpenAI's API over HTTP."""

from __future__ import annotations

import dataclasses
import logging
import os
import sys
from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

from decodery.cli.commands.inspect import facts_of
from decodery.cli.flags.model_options import ModelOptions, RunOptions
from decodery.cli.flags.serve_options import ServeOptions
from decodery.cli.load_llm import check_options
from decodery.cli.terminal import fetch_progress, note
from decodery.errors import DecoderyError, ParameterError
from decodery.llm import LLM
from decodery.loading.describe import is_encoder
from decodery.loading.options import memory_size
from decodery.serving.models import Kind, ModelSource
from decodery.weights.formats.opening import open_checkpoint
from decodery.weights.sources.wheels import MINILM

DEFAULT_NAME = "default"
PIN = ",pin"
# The options of a model that change speed alone.
WITHOUT_EFFECT = ("threads", "packed_cache")


def serve(options: ServeOptions, how: RunOptions) -> None:
    """Serves models until it is told to stop. Raises `ParameterError` for wrong options."""
    try:
        from decodery.serving.encoders.token_arrays import checked_token_arrays
        from decodery.serving.logs import log_to
        from decodery.serving.run import run
        from decodery.serving.settings import RequestLimits, ServerSettings, read_keys
    except ModuleNotFoundError as error:
        raise not_installed(error) from None
    check_options(how)
    key_file = None if options.api_key_file is None else Path(options.api_key_file)
    limits = RequestLimits(
        prompt_tokens=options.max_prompt_tokens,
        max_tokens=options.max_tokens_limit,
        queued=options.max_queued,
        seconds=options.request_seconds,
    )
    second = {**_named("draft", options.draft), **_named("amateur", options.amateur)}
    settings = ServerSettings(
        host=options.host,
        port=options.port,
        keys=read_keys(key_file, os.environ.get("DECODERY_API_KEY")),
        origins=options.allow_origin,
        lenient=options.lenient,
        token_arrays=checked_token_arrays(options.token_arrays),
        log_prompts=options.log_prompts,
        pings=options.pings or None,
        drain_seconds=options.drain_seconds,
        limits=limits,
    )
    engine = {"max_step_ms": options.max_step_ms or None, "remember_texts": options.remember_texts}
    sources = model_sources(options.model, how, second, engine)
    memory = None if options.models_memory is None else memory_size(options.models_memory)
    log_to(sys.stderr, whole=options.log_prompts)
    logging.getLogger("uvicorn").setLevel(logging.CRITICAL)
    run(settings, sources, partial(_announce, sources[0], bool(settings.keys)), memory)


def not_installed(error: ModuleNotFoundError) -> DecoderyError:
    """Returns the error for a package that the server needs and that is not there."""
    return DecoderyError(
        f"the server needs {error.name}, which is not installed: pip install 'decodery[serve]'"
    )


def model_sources(
    given: Sequence[str],
    how: RunOptions,
    second: Mapping[str, str],
    engine: Mapping[str, Any],
    *,
    whole_paths: bool = False,
) -> list[ModelSource]:
    """Returns how the models of `given` are opened, in their order; see `served_models`.

    `second` has the paths of second models by name, and `engine` has further arguments of `LLM`. Clients are
    told the last part of a model's path, with `whole_paths` all of it.
    """
    return [
        ModelSource(
            name,
            partial(_open, one, second, engine),
            partial(memory_of, one),
            pinned,
            public_arguments(one, second, whole_paths=whole_paths),
            kind_of(one),
        )
        for name, (one, pinned) in served_models(given, how).items()
    ]


def public_arguments(model: ModelOptions, second: Mapping[str, str], *, whole_paths: bool) -> dict[str, Any]:
    """Returns the arguments of `LLM` on which texts depend, those that differ from their defaults."""

    def shown(path: str) -> str:
        if not Path(path).exists():
            return path
        return str(Path(path).absolute()) if whole_paths else Path(path).name

    default = ModelOptions()
    found = {
        name: value
        for name, value in dataclasses.asdict(model).items()
        if value != getattr(default, name) and name not in WITHOUT_EFFECT
    }
    if found.get("model") == DEFAULT_NAME:
        del found["model"]
    elif "model" in found:
        found["model"] = shown(found["model"])
    if second:
        found["second_models"] = {name: shown(path) for name, path in second.items()}
    return found


def _open(model: ModelOptions, second_models: Mapping[str, str], engine: Mapping[str, Any]) -> LLM:
    with fetch_progress() as progress:
        return LLM(
            **dataclasses.asdict(model),
            **engine,
            second_models=second_models,
            progress=progress,
        )


def kind_of(model: ModelOptions) -> Kind | None:
    """Returns what a model on this machine does; None if that is not known before it is opened."""
    if model.model is None or model.model == DEFAULT_NAME:
        return "decoder"
    if not Path(model.model).exists():
        return "encoder" if model.model in (MINILM.name, MINILM.short_name) else None
    try:
        with open_checkpoint(Path(model.model), weights=False) as checkpoint:
            return "encoder" if is_encoder(checkpoint) else "decoder"
    except DecoderyError:  # Opening it tells what is wrong.
        return None


def memory_of(model: ModelOptions) -> int:
    """Returns the bytes that a model takes with one full context, from the headers of its files."""
    memory: Mapping[str, int] = facts_of(model)["memory"]
    kv = memory["kv"] if model.kv_memory is None else memory_size(model.kv_memory)
    return memory["weights"] + kv


def _named(flag: str, given: Sequence[str]) -> dict[str, str]:
    """Returns the models of NAME=MODEL texts by their names."""
    found: dict[str, str] = {}
    for text in given:
        name, equals, path = text.partition("=")
        if not name or not equals or not path or "/" in name:
            raise ParameterError(f"{flag} must be NAME=MODEL, not {text!r}")
        if name in found:
            raise ParameterError(f"{flag} names {name} twice: give each model a name of its own")
        found[name] = path
    return found


def served_models(given: Sequence[str], how: RunOptions) -> dict[str, tuple[ModelOptions, bool]]:
    """Returns the options of the models that are served, by name, and if they are pinned.

    The first one is. Raises `ParameterError` for a name that is used twice, or is missing.
    """
    found: dict[str, tuple[ModelOptions, bool]] = {}
    for text in given or (DEFAULT_NAME,):
        written = text.removesuffix(PIN)
        name, equals, path = written.partition("=")
        if not equals or "/" in name:
            name, path = name_of(written), written
        if not name or not path:
            raise ParameterError(f"model must be MODEL or NAME=MODEL, not {text!r}")
        if name in found:
            raise ParameterError(f"model names {name} twice: write NAME=MODEL with a name of its own")
        pinned = not found or written != text
        found[name] = (ModelOptions(model=path, **dataclasses.asdict(how)), pinned)
    return found


def name_of(model: str) -> str:
    """Returns the name under which a model is served: that of its file or folder, without the ending."""
    return Path(model).name.removesuffix(".gguf")


def _announce(source: ModelSource, keys: bool, address: str) -> None:
    name = source.name
    note(f"Serving {name} at {address}")
    route, body = "chat/completions", '"messages": [{"role": "user", "content": "Hi"}]'
    if source.kind == "encoder":
        route, body = "embeddings", '"input": "Hi"'
    body = f'{{"model": "{name}", {body}}}'
    key = ' -H "Authorization: Bearer $DECODERY_API_KEY"' if keys else ""
    note(f"curl {address}/v1/{route} -H 'Content-Type: application/json'{key} -d '{body}'")
    note(f"The routes and their fields: {address}/openapi.json")
