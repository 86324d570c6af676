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
from decodery.models.load import build_empty, packing_of
from decodery.weights.formats.checkpoint import Checkpoint, TensorInfo
from decodery.weights.layouts.native_layout import Packing


@dataclass(frozen=True)
class Description:
    """Holds the facts about a checkpoint that are known without reading its weights.

    `active_parameters` are those that compute one token: fewer than all for a mixture of experts. Of an
    embedding that is not also the head, a token reads one row only, so `read_parameters` are fewer still.
    """

    family: str
    architecture: str
    parameters: int
    active_parameters: int
    read_parameters: int
    layers: int
    width: int
    heads: int
    kv_heads: int
    head_dim: int
    context_length: int
    vocab_size: int
    kv_shape: KVShape


def describe(checkpoint: Checkpoint) -> Description:
    """Returns the description that the checkpoint's settings give; raises ModelError as `load_model` does."""
    found = find_family(checkpoint)
    config = found.family.config.read(checkpoint)
    model = build_empty(found, config, torch_kernels)
    parameters = sum(parameter.numel() for parameter in model.parameters())
    idle = sum(module.idle_parameters() for module in model.modules() if isinstance(module, Experts))
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
        layers=config.layers,
        width=config.width,
        heads=config.heads,
        kv_heads=config.kv_heads,
        head_dim=config.head_dim,
        context_length=config.context_length,
        vocab_size=config.vocab_size,
        kv_shape=cast(CausalModel, model).kv_shape,
    )


def held_formats(checkpoint: Checkpoint, quantization: str | None) -> dict[str, str]:
    """Returns the form in which matrices of each stored type are held natively, such as "int8"."""
    packing = packing_of(checkpoint, quantization)
    return {
        info.dtype: packing.format_of(info).name.lower()
        for info in checkpoint.tensors.values()
        if len(info.shape) > 1
    }


def packed_size(checkpoint: Checkpoint, quantization: str | None) -> int:
    """Returns the bytes of all the weights that `load_for_inference` packs, without reading them.

    Those of a checkpoint without tensors are counted as matrices in bfloat16, or as `quantization` says.
    """
    family = find_family(checkpoint).family
    packing = packing_of(checkpoint, quantization)
    if not checkpoint.tensors:
        form = packing.format_of(TensorInfo("", (), "bfloat16", 0))
        return describe(checkpoint).parameters * packed_bytes(form, 32, 32) // 32**2
    unused = names_of(family, family.config.read(checkpoint), checkpoint).ignored
    return sum(
        _packed_size(packing, info)
        for info in checkpoint.tensors.values()
        if not any(fnmatchcase(info.name, pattern) for pattern in unused)
    )


def _packed_size(packing: Packing, info: TensorInfo) -> int:
    if info.name.endswith(".bias") or len(info.shape) not in (2, 3):
        return 4 * math.prod(info.shape)
    if len(info.shape) == 2:
        return packed_bytes(packing.format_of(info), *info.shape)
    return info.shape[0] * expert_bytes(packing.format_of(info), *info.shape[1:])
