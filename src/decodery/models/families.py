"""Finds the family of a checkpoint."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from difflib import get_close_matches
from typing import Any

from decodery.errors import ModelError
from decodery.models.architectures import GGUF, GGUF_WITH_EXPERTS, HUB, MODEL_TYPES
from decodery.models.checkpoint_keys import CheckpointKeys
from decodery.models.contract import Family, Head, Names
from decodery.models.encoders.encoder_config import count_of_labels
from decodery.models.encoders.rows import WITH_HEAD
from decodery.models.missing_parts import missing_parts
from decodery.models.readers.text_reader import GGUF_SCORE, reading_names
from decodery.weights.formats.checkpoint import Checkpoint, TensorInfo
from decodery.weights.formats.mxfp4 import is_mxfp4
from decodery.weights.formats.sentence_modules import modules_around

COLBERT = "HF_ColBERT"
"""The architecture of a folder of ColBERT's authors: an encoder of the `model_type`, and `PROJECTION`."""
PROJECTION = "linear.weight"
"""The matrix behind the states, which is no part of the encoder."""


@dataclass(frozen=True)
class Architecture:
    """Holds what a checkpoint's architecture means.

    Of a decoder that reads texts, `labels` is the number of its classes, and `sees_all` is True if a token
    also sees those behind it.
    """

    name: str
    family: Family[Any]
    head: Head
    labels: int = 0
    sees_all: bool = False

    @property
    def reads_with_decoder(self) -> bool:
        """True if the model is a decoder that reads texts."""
        return self.head != "causal" and "causal" in self.family.build


def find_family(checkpoint: Checkpoint) -> Architecture:
    """Returns the architecture that a checkpoint declares.

    Raises ModelError when it is not supported, with the parts that no family has and the nearest ones.
    """
    table, name = _gguf(checkpoint) if checkpoint.format == "gguf" else (HUB, _hub_name(checkpoint))
    if name in table:
        return _read_by(Architecture(name, *table[name]), checkpoint)
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


def names_of(found: Architecture, config: Any, checkpoint: Checkpoint) -> Names:
    """Returns the names of a model's tensors in the checkpoint's format."""
    is_hub = checkpoint.format != "gguf"
    names = found.family.hub_names if is_hub else found.family.gguf_names
    assert names is not None
    own = names(config)
    if is_hub and checkpoint.config.get("architectures") == [COLBERT]:
        own = replace(own, ignored=(*own.ignored, PROJECTION))
    return reading_names(own, is_hub=is_hub) if found.reads_with_decoder else own


def _read_by(found: Architecture, checkpoint: Checkpoint) -> Architecture:
    """Returns an architecture with the head that the checkpoint says beside its name.

    Beside a decoder, sentence-transformers has a Pooling for vectors, or a LogitScore for an order. A GGUF
    file says how states become a vector, and may have classes.
    """
    if checkpoint.format == "gguf":
        return _gguf_head(found, CheckpointKeys(checkpoint.config, str(checkpoint.path)), checkpoint.tensors)
    if "causal" not in found.family.build:
        return found
    kinds = [module.kind for module in modules_around(checkpoint.path)]
    head: Head = "states" if "Pooling" in kinds else "next_token" if "LogitScore" in kinds else found.head
    if head == "causal":
        return found
    keys = CheckpointKeys(checkpoint.config, str(checkpoint.path / "config.json"))
    return replace(found, head=head, labels=count_of_labels(keys), sees_all=not keys.flag("is_causal", True))


def _gguf_head(found: Architecture, keys: CheckpointKeys, tensors: Mapping[str, TensorInfo]) -> Architecture:
    is_decoder = "causal" in found.family.build
    classes = tensors.get(GGUF_SCORE)
    if classes is not None and (is_decoder or "classes" in found.family.build):
        found = replace(found, head="classes", labels=classes.shape[0])
    elif is_decoder and keys.values.get(f"{found.name}.pooling_type"):
        found = replace(found, head="states")
    sees_all = is_decoder and not keys.flag(f"{found.name}.attention.causal", True)
    return replace(found, sees_all=sees_all and found.head != "causal")


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
    if names == [COLBERT] and checkpoint.config.get("model_type"):
        names = None
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
