"""Finds the family of a checkpoint."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from difflib import get_close_matches
from typing import Any

from decodery.errors import ModelError
from decodery.models.architectures import GGUF, GGUF_WITH_EXPERTS, HUB, MODEL_TYPES
from decodery.models.checkpoint_keys import CheckpointKeys
from decodery.models.contract import Family, Head, Names
from decodery.models.encoders.rows import WITH_HEAD
from decodery.models.missing_parts import missing_parts
from decodery.weights.formats.checkpoint import Checkpoint
from decodery.weights.formats.mxfp4 import is_mxfp4


@dataclass(frozen=True)
class Architecture:
    """Holds what a checkpoint's architecture means."""

    name: str
    family: Family[Any]
    head: Head


def find_family(checkpoint: Checkpoint) -> Architecture:
    """Returns the architecture that a checkpoint declares.

    Raises ModelError when it is not supported, with the parts that no family has and the nearest ones.
    """
    table, name = _gguf(checkpoint) if checkpoint.format == "gguf" else (HUB, _hub_name(checkpoint))
    if name in table:
        return Architecture(name, *table[name])
    known = [*HUB, *GGUF]
    lowered = {each.lower(): each for each in known}
    near = [lowered[each] for each in get_close_matches(name.lower(), lowered)]
    nearest = f"the nearest is {' or '.join(near)}; " if near else ""
    parts = missing_parts(checkpoint, name)
    lacking = f", since it has {' and '.join(parts)}" if parts else ""
    raise ModelError(
        f"{checkpoint.path}: the architecture {name} is not supported{lacking}; "
        f"{nearest}decodery models --supported lists all that are"
    )


def names_of(family: Family[Any], config: Any, checkpoint: Checkpoint) -> Names:
    """Returns the names of a family's tensors in the checkpoint's format."""
    names = family.gguf_names if checkpoint.format == "gguf" else family.hub_names
    assert names is not None
    return names(config)


def _gguf(checkpoint: Checkpoint) -> tuple[Mapping[str, tuple[Family[Any], Head]], str]:
    """Returns the table of a GGUF file's architecture, and its name."""
    name = CheckpointKeys(checkpoint.config, str(checkpoint.path)).text("general.architecture")
    with_experts = name in GGUF_WITH_EXPERTS and checkpoint.config.get(f"{name}.expert_count")
    return GGUF_WITH_EXPERTS if with_experts else GGUF, name


def _hub_name(checkpoint: Checkpoint) -> str:
    """Returns the architecture of a folder in the spelling of `HUB` if it is one of these."""
    name = _declared_name(checkpoint)
    if checkpoint.config.get("quantization_config") and not is_mxfp4(checkpoint.config):
        raise ModelError(
            f"{checkpoint.path}: config.json has a quantization_config, which is not supported; "
            "use the unquantised checkpoint or a GGUF file"
        )
    spellings = {_spelled(known): known for known in HUB}
    return name if name in HUB else spellings.get(_spelled(name), name)


def _declared_name(checkpoint: Checkpoint) -> str:
    names = checkpoint.config.get("architectures") or None
    if checkpoint.part is not None or (names is None and checkpoint.config.get("model_type")):
        place = ", text_config" if checkpoint.part is not None else ""
        kind = CheckpointKeys(checkpoint.config, f"{checkpoint.path}{place}").text("model_type")
        name = MODEL_TYPES.get(kind, kind)
        heads = WITH_HEAD.get(name, {})
        return next((heads[tensor] for tensor in heads if tensor in checkpoint.tensors), name)
    if not isinstance(names, list) or len(names) != 1 or not isinstance(names[0], str):
        raise ModelError(f"{checkpoint.path}: config.json must name one architecture under architectures")
    return names[0]


def _spelled(name: str) -> str:
    """Returns a name without capitals and signs, in which writers of configs differ."""
    return "".join(filter(str.isalnum, name.lower()))
