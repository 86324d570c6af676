"""Describes a checkpoint's model from the headers of its files."""

from __future__ import annotations

import math
from dataclasses import dataclass
from fnmatch import fnmatchcase
from typing import cast

from decodery.kernels.cache import KVShape
from decodery.kernels.packed_weights import expert_bytes, packed_bytes
from decodery.kernels.reference import torch_kernels
from decodery.models.contract import CausalModel
from decodery.models.families import find_family, names_of
from decodery.models.layers.embedding import Embedding
from decodery.models.layers.experts import Experts
from decodery.models.load import build_empty, config_of, packing_of, reading_model, with_stored_heads
from decodery.weights.formats.checkpoint import Checkpoint, TensorInfo
from decodery.weights.formats.mxfp4 import is_mxfp4
from decodery.weights.layouts.native_layout import Packing


@dataclass(frozen=True)
class Description:
    """Holds the facts about a checkpoint that are known without reading its weights.

    `part_of` is the architecture of which it is the text model, "" if it is whole. `left_out` counts the
    tensors of other parts. `active_parameters` are those that compute one token: fewer than all for a mixture
    of experts, of which all together have `expert_parameters`. Of an embedding that is not also the head, a
    token reads one row only, so `read_parameters` are fewer still. An encoder has no `kv_shape`. `outputs`
    are the names of its heads, None for a model that continues texts.
    """

    family: str
    architecture: str
    parameters: int
    active_parameters: int
    read_parameters: int
    expert_parameters: int
    layers: int
    width: int
    heads: int
    kv_heads: int
    head_dim: int
    context_length: int
    vocab_size: int
    kv_shape: KVShape | None
    outputs: tuple[str, ...] | None = None
    part_of: str = ""
    left_out: int = 0


def describe(checkpoint: Checkpoint) -> Description:
    """Returns the description that the checkpoint's settings give; raises ModelError as `load_model` does.

    Weights are read only to find out whether a stored head is the embedding.
    """
    found = find_family(checkpoint)
    config = config_of(found, checkpoint)
    model = build_empty(with_stored_heads(found, config, checkpoint), config, torch_kernels)
    parameters = sum(parameter.numel() for parameter in model.parameters())
    experts = [module for module in model.modules() if isinstance(module, Experts)]
    idle = sum(module.idle_parameters() for module in experts)
    looked_up = sum(
        math.prod(module.weight.shape)
        for module in model.modules()
        if isinstance(module, Embedding) and not module.multiplied
    )
    return Description(
        family=found.family.name,
        architecture=found.name,
        parameters=parameters,
        active_parameters=parameters - idle,
        read_parameters=parameters - idle - looked_up,
        expert_parameters=sum(parameter.numel() for module in experts for parameter in module.parameters()),
        layers=config.layers,
        width=config.width,
        heads=config.heads,
        kv_heads=config.kv_heads,
        head_dim=config.head_dim,
        context_length=config.context_length,
        vocab_size=config.vocab_size,
        kv_shape=cast(CausalModel, model).kv_shape if found.head == "causal" else None,
        outputs=None if found.head == "causal" else tuple(reading_model(found, model).heads),
        part_of="" if checkpoint.part is None else checkpoint.part.of,
        left_out=0 if checkpoint.part is None else len(checkpoint.part.left_out),
    )


def held_formats(checkpoint: Checkpoint, quantization: str | None) -> dict[str, str]:
    """Returns the form in which matrices of each stored type are held natively, such as "int8"."""
    packing = packing_of(checkpoint, quantization)
    return {
        info.dtype: packing.format_of(info).name.lower()
        for info in checkpoint.tensors.values()
        if len(info.shape) > 1
    }


def packed_size(checkpoint: Checkpoint, described: Description, quantization: str | None) -> int:
    """Returns the bytes of all the weights that `load_for_inference` packs, without reading them.

    `described` is the checkpoint's description. The weights of a checkpoint without tensors are counted as
    matrices in bfloat16, or as `quantization` says; experts in MXFP4 in the form that holds them.
    """
    found = find_family(checkpoint)
    packing = packing_of(checkpoint, quantization)
    if not checkpoint.tensors:
        return _size_without_tensors(checkpoint, described, packing)
    names = names_of(found, config_of(found, checkpoint), checkpoint)
    second = {head for embedding, head in names.tied if embedding in checkpoint.tensors}
    unused = (*names.ignored, *second)
    return sum(
        _packed_size(packing, info)
        for info in checkpoint.tensors.values()
        if not any(fnmatchcase(info.name, pattern) for pattern in unused)
    )


def _size_without_tensors(checkpoint: Checkpoint, described: Description, packing: Packing) -> int:
    experts = described.expert_parameters
    rest = described.parameters - experts
    kind = "MXFP4" if is_mxfp4(checkpoint.config) else "bfloat16"
    counts = ((rest, "bfloat16"), (experts, kind))
    forms = ((count, packing.format_of(TensorInfo("", (), stored, 0))) for count, stored in counts)
    return sum(count * packed_bytes(form, 32, 32) // 32**2 for count, form in forms)


def _packed_size(packing: Packing, info: TensorInfo) -> int:
    if info.name.endswith(".bias") or len(info.shape) not in (2, 3):
        return 4 * math.prod(info.shape)
    if len(info.shape) == 2:
        return packed_bytes(packing.format_of(info), *info.shape)
    return info.shape[0] * expert_bytes(packing.format_of(info), *info.shape[1:])
