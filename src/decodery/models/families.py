"""Builds models from checkpoints of the known families."""

from __future__ import annotations

import math
from collections.abc import Callable, MutableMapping, Sequence
from dataclasses import dataclass, replace
from fnmatch import fnmatchcase
from typing import Protocol

import torch
from torch import Tensor

from decodery.errors import ModelError
from decodery.kernels.cache import KVShape
from decodery.kernels.contract import Kernels
from decodery.kernels.packed_weights import packed_bytes
from decodery.kernels.reference import torch_kernels
from decodery.kernels.threads import one_torch_thread
from decodery.models.checkpoint_keys import LARGEST, CheckpointKeys
from decodery.models.decoders import llama
from decodery.models.decoders.llama import Llama, LlamaConfig
from decodery.models.layers.attention import Attend
from decodery.models.layers.embedding import Embedding
from decodery.models.layers.linear import Linear
from decodery.models.layers.mlp import GatedLinear
from decodery.models.layers.rope import DynamicRope
from decodery.weights.formats.checkpoint import Checkpoint
from decodery.weights.layouts.native_layout import Packing
from decodery.weights.layouts.packed_cache import PackedCache, give_weights, weights_of
from decodery.weights.names import Rule, load_parameters


class CausalModel(Protocol):
    """Lists the attributes and methods of a model that an engine uses."""

    @property
    def kernels(self) -> Kernels: ...

    @property
    def kv_shape(self) -> KVShape: ...

    @property
    def vocab_size(self) -> int: ...

    @property
    def width(self) -> int: ...

    @property
    def context_length(self) -> int: ...

    @property
    def dtype(self) -> torch.dtype: ...

    @property
    def device(self) -> torch.device: ...

    @property
    def heads(self) -> int: ...

    @property
    def depth(self) -> int:
        """Returns the number of layers."""

    @property
    def tied_head(self) -> bool:
        """True if the head is the embedding."""

    def hidden(
        self,
        tokens: Tensor,
        positions: Tensor,
        attend: Attend,
        *,
        taps: MutableMapping[int, Tensor | None] | None = None,
        embedded: tuple[Tensor, Tensor] | None = None,
    ) -> Tensor:
        """Returns the last layer's normalised states [..., width] of tokens [...] at positions [...].

        Each key of `taps` gets the states after that number of layers, before any last norm. `embedded` are
        indices [n] of tokens and the vectors [n, width] that replace their embeddings.
        """

    def logits(self, hidden: Tensor) -> Tensor:
        """Returns scores [..., vocab_size] in float32 of hidden states [..., width]."""


@dataclass(frozen=True)
class Family:
    """Describes a kind of model: its names in checkpoints, and the functions that read and build it.

    `hub` are entries of `architectures` in config.json, `gguf` values of `general.architecture`. `rules`
    takes the format of the checkpoint. `ignored` are tensors that may be left unused. `delicate` are matrices
    that are held in 8 bits if others have 4.
    """

    name: str
    hub: tuple[str, ...]
    gguf: tuple[str, ...]
    read_config: Callable[[Checkpoint], LlamaConfig]
    build: Callable[[LlamaConfig, Kernels], Llama]
    rules: Callable[[LlamaConfig, str], Sequence[Rule]]
    ignored: Callable[[LlamaConfig], Sequence[str]]
    delicate: tuple[str, ...]


FAMILIES = (
    Family(
        name="llama",
        hub=("LlamaForCausalLM",),
        gguf=("llama",),
        read_config=llama.read_config,
        build=Llama,
        rules=llama.rules,
        ignored=llama.ignored,
        delicate=llama.DELICATE,
    ),
)


@dataclass(frozen=True)
class Description:
    """Holds the facts about a checkpoint that are known without reading its weights."""

    family: str
    architecture: str
    parameters: int
    layers: int
    width: int
    heads: int
    kv_heads: int
    head_dim: int
    context_length: int
    vocab_size: int
    kv_shape: KVShape


def load_model(
    checkpoint: Checkpoint,
    *,
    dtype: torch.dtype,
    kernels: Kernels,
    device: torch.device | str = "cpu",
    context_length: int | None = None,
    packing: Packing | None = None,
) -> Llama:
    """Builds the checkpoint's model and fills it with its weights in `dtype`, holding them once.

    With `packing`, matrices are packed as they are read; the kernels must take codes. `context_length`
    shortens the model's own; only dynamic rotary scaling lets it be longer.

    Raises ModelError when the architecture is not supported or a setting is absurd, and CheckpointError when
    the tensors are not those of the settings.
    """
    family, config = _opened(checkpoint, context_length)
    model = _skeleton(family, config, kernels).to(dtype)
    # The operations are so short that threads would mostly wait for each other.
    with one_torch_thread():
        load_parameters(
            model,
            checkpoint,
            family.rules(config, checkpoint.format),
            config.layers,
            family.ignored(config),
            packing,
        )
    return model.to(device).eval().requires_grad_(False)


def load_for_inference(
    checkpoint: Checkpoint,
    *,
    dtype: torch.dtype,
    kernels: Kernels,
    context_length: int | None = None,
    quantization: str | None = None,
    cache: PackedCache | None = None,
) -> CausalModel:
    """Returns the model of `load_model` with its weights in the form that the kernels multiply fastest.

    `quantization` is "int4", "int8", "bf16" or None; anything but None needs kernels that take codes. The
    model can only be run, not trained. With a `cache`, weights are read from it if it holds them, and
    otherwise written to it.
    """
    assert quantization is None or kernels.takes_codes()
    kept = None if cache is None else cache.read()
    if kept is not None:
        model = _skeleton(*_opened(checkpoint, context_length), kernels).to(dtype)
        if give_weights(model, kept):
            return model.eval()
    identity = {} if cache is None else cache.identity()
    packing = packing_of(checkpoint, quantization) if kernels.takes_codes() else None
    model = load_model(
        checkpoint, dtype=dtype, kernels=kernels, context_length=context_length, packing=packing
    )
    for module in model.modules():
        if isinstance(module, (Linear, GatedLinear, Embedding)) and isinstance(module.weight, Tensor):
            module.pack()
    if cache is not None:
        cache.write(weights_of(model), identity)
    return model


def packing_of(checkpoint: Checkpoint, quantization: str | None) -> Packing:
    """Returns the packing of a checkpoint's matrices in `load_for_inference`, for kernels that take codes."""
    return Packing(quantization, find_family(checkpoint)[0].delicate, torch.get_num_threads())


def packed_size(checkpoint: Checkpoint, quantization: str | None) -> int:
    """Returns the bytes of all the weights that `load_for_inference` packs, without reading them."""
    family, _ = find_family(checkpoint)
    packing = packing_of(checkpoint, quantization)
    unused = family.ignored(family.read_config(checkpoint))
    return sum(
        packed_bytes(packing.format_of(info), *info.shape)
        if len(info.shape) == 2
        else 4 * math.prod(info.shape)
        for info in checkpoint.tensors.values()
        if not any(fnmatchcase(info.name, pattern) for pattern in unused)
    )


def describe(checkpoint: Checkpoint) -> Description:
    """Returns the description that the checkpoint's settings give; raises ModelError as `load_model` does."""
    family, architecture = find_family(checkpoint)
    config = family.read_config(checkpoint)
    model = _skeleton(family, config, torch_kernels)
    return Description(
        family=family.name,
        architecture=architecture,
        parameters=sum(parameter.numel() for parameter in model.parameters()),
        layers=config.layers,
        width=config.width,
        heads=config.heads,
        kv_heads=config.kv_heads,
        head_dim=config.head_dim,
        context_length=config.context_length,
        vocab_size=config.vocab_size,
        kv_shape=model.kv_shape,
    )


def opened_context(checkpoint: Checkpoint, context_length: int | None) -> int:
    """Returns the context length of the model of `load_model`; raises ModelError as it does."""
    return _opened(checkpoint, context_length)[1].context_length


def find_family(checkpoint: Checkpoint) -> tuple[Family, str]:
    """Returns the family of a checkpoint and the architecture that it declares.

    Raises ModelError when no family has this architecture.
    """
    declared = _architecture(checkpoint)
    for family in FAMILIES:
        if declared in (family.gguf if checkpoint.format == "gguf" else family.hub):
            return family, declared
    known = [name for family in FAMILIES for name in (*family.hub, *family.gguf)]
    raise ModelError(
        f"{checkpoint.path}: the architecture {declared} is not supported; supported are {', '.join(known)}"
    )


def _architecture(checkpoint: Checkpoint) -> str:
    if checkpoint.format == "gguf":
        return CheckpointKeys(checkpoint.config, str(checkpoint.path)).text("general.architecture")
    names = checkpoint.config.get("architectures")
    if not isinstance(names, list) or len(names) != 1 or not isinstance(names[0], str):
        raise ModelError(f"{checkpoint.path}: config.json must name one architecture under architectures")
    if checkpoint.config.get("quantization_config"):
        raise ModelError(
            f"{checkpoint.path}: config.json has a quantization_config, which is not supported; "
            "use the unquantised checkpoint or a GGUF file"
        )
    return names[0]


def _opened(checkpoint: Checkpoint, context_length: int | None) -> tuple[Family, LlamaConfig]:
    family, _ = find_family(checkpoint)
    config = family.read_config(checkpoint)
    return family, config if context_length is None else _opened_for(config, context_length)


def _opened_for(config: LlamaConfig, context_length: int) -> LlamaConfig:
    if not 1 <= context_length <= LARGEST:
        raise ModelError(f"context_length is {context_length}; it must be from 1 to {LARGEST}")
    if context_length > config.context_length and not isinstance(config.rope, DynamicRope):
        raise ModelError(
            f"context_length is {context_length}, but the model was trained for "
            f"{config.context_length}; ask for less"
        )
    return replace(config, context_length=context_length)


def _skeleton(family: Family, config: LlamaConfig, kernels: Kernels) -> Llama:
    with torch.device("meta"):
        return family.build(config, kernels)
