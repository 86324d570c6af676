"""Loads the model that the flags name, or connects to the server that runs it."""

from __future__ import annotations

import os
from dataclasses import fields
from pathlib import Path

from decodery.cli.flags.model_options import ModelOptions, TextModelOptions
from decodery.cli.input_text import file_text
from decodery.cli.text_model import TextModel
from decodery.client.client import Client
from decodery.errors import DecoderyError, ParameterError


def load(options: TextModelOptions) -> TextModel:
    """Returns the model of a server if the flags or DECODERY_SERVER name one, else a loaded one.

    Raises `ParameterError` for wrong options before anything is fetched or asked.
    """
    # An empty flag asks for a model here, whatever the environment says.
    address = os.environ.get("DECODERY_SERVER") if options.server is None else options.server
    if address:
        return _connected(address, options)
    if options.api_key_file is not None:
        raise ParameterError("api_key_file is the key of a server: give --server too")
    # Imported here, because it needs torch.
    from decodery.cli.load_llm import load as load_llm

    own = {field.name: getattr(options, field.name) for field in fields(ModelOptions)}
    return load_llm(ModelOptions(**own))


def _connected(address: str, options: TextModelOptions) -> Client:
    plain = ModelOptions()
    for field in fields(ModelOptions):
        if field.name != "model" and getattr(options, field.name) != getattr(plain, field.name):
            flag = field.name.replace("_", "-")
            raise ParameterError(
                f"--{flag} is for a model that runs here, and a server is asked: leave it out"
            )
    model = options.model
    if model is not None and (model.endswith(".gguf") or Path(model).exists()):
        raise ParameterError("--model is a path, and a server is asked: give one of its models by name")
    return Client(address, _key(options.api_key_file), model=model)


def _key(file: str | None) -> str | None:
    """Returns the first key of the file, or the one in the environment."""
    if file is None:
        return os.environ.get("DECODERY_API_KEY") or None
    lines = [line.strip() for line in file_text(Path(file)).splitlines()]
    keys = [line for line in lines if line and not line.startswith("#")]
    if not keys:
        raise DecoderyError("the key file has no key: write it into the first line")
    return keys[0]
