"""Reads default parameters from a checkpoint's own generation_config.json. Needs no torch."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from decodery.decoding.request import hf_config
from decodery.decoding.request.params import GenerationParams
from decodery.errors import ParameterError

# The tokenizer reads these from the same file.
_ELSEWHERE = ("eos_token_id",)


@dataclass(frozen=True)
class Defaults:
    """Holds the parameters of a request that sets none.

    `given` holds the fields of `params` that the checkpoint sets, with their values. `left_out` holds the
    fields of its file that are not used, each with the reason.
    """

    params: GenerationParams
    given: Mapping[str, Any]
    left_out: Mapping[str, str]


def default_params(generation_config: Mapping[str, Any], vocabulary: int) -> Defaults:
    """Returns our own defaults, changed by the sampling settings of a checkpoint's generation_config.json.

    The settings used are those that shape the distribution of the next token: temperature, truncations,
    penalties and banned tokens. `do_sample` false sets temperature 0. Lengths, strategies and all other
    settings are left out. Never raises: a value that has no meaning here, or none in a vocabulary of this
    size, is left out.
    """
    config = {name: value for name, value in generation_config.items() if value is not None}
    params, given = GenerationParams(), dict[str, Any]()
    left_out = {name: "not a setting of sampling" for name in config if not _silent(name)}
    greedy = config.get("do_sample") is False
    if greedy:
        given["temperature"] = 0.0
    if isinstance(config.get("do_sample"), bool):
        left_out.pop("do_sample")
    for name, convert in (hf_config.SAMPLING | hf_config.PROCESSING).items():
        if name not in config:
            continue
        if greedy and name in hf_config.SAMPLING:
            left_out[name] = "nothing is sampled: do_sample is false"
            continue
        try:
            fields = convert(config)
            params.replace(**fields).check_vocabulary(vocabulary)
        except ParameterError as error:
            left_out[name] = str(error)
            continue
        del left_out[name]
        given |= {field: value for field, value in fields.items() if value != getattr(params, field)}
    return Defaults(params.replace(**given), given, left_out)


def _silent(name: str) -> bool:
    return hf_config.bookkeeping(name) or name in _ELSEWHERE
