"""Builds models from checkpoints and fills them with their weights."""

from __future__ import annotations

from dataclasses import replace
from typing import Any, TypeVar, cast

import torch
from torch import Tensor, nn

from decodery.errors import ModelError
from decodery.kernels.contract import Kernels
from decodery.kernels.threads import threads_set
from decodery.models.checkpoint_keys import LARGEST
from decodery.models.contract import CausalModel, Config, EncoderModel, Head
from decodery.models.families import Architecture, find_family, names_of
from decodery.models.layers.embedding import Embedding
from decodery.models.layers.experts import ExpertStack
from decodery.models.layers.linear import Linear
from decodery.models.layers.mlp import GatedLinear
from decodery.models.layers.norm import RMSNorm
from decodery.models.readers.text_reader import build_reading, reader_of
from decodery.weights.formats.checkpoint import Checkpoint
from decodery.weights.layouts.native_layout import Packing
from decodery.weights.layouts.packed_cache import PackedCache, give_weights, weights_of
from decodery.weights.parameters import load_parameters

PACKED = Linear, GatedLinear, Embedding, ExpertStack

ConfigT = TypeVar("ConfigT", bound=Config)


def load_model(
    checkpoint: Checkpoint,
    *,
    dtype: torch.dtype,
    kernels: Kernels,
    device: torch.device | str = "cpu",
    context_length: int | None = None,
    packing: Packing | None = None,
) -> nn.Module:
    """Builds the checkpoint's model and fills it with its weights in `dtype`, holding them once.

    With `packing`, matrices are packed as they are read; the kernels must take codes. `context_length`
    shortens the model's own; only dynamic rotary scaling lets it be longer.

    Raises ModelError when the architecture is not supported or a setting is absurd, and CheckpointError when
    the tensors are not those of the settings.
    """
    found = find_family(checkpoint)
    config = _opened_for(config_of(found, checkpoint), context_length)
    model = _in_dtype(build_empty(with_stored_heads(found, config, checkpoint), config, kernels), dtype)
    names = names_of(found, config, checkpoint)
    # The operations are so short that threads would mostly wait for each other.
    with threads_set(torch_threads=1, kernel_threads=None):
        load_parameters(model, checkpoint, names.rules, config.layers, names.ignored, packing)
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
    model can only be run, not trained. It is an `EncoderModel` where the architecture has another head than
    "causal", and of a decoder that reads texts what `reader_of` takes. With a `cache`, weights are read from
    it if it holds them, and otherwise written to it.
    """
    assert quantization is None or kernels.takes_codes()
    kept = None if cache is None else cache.read()
    if kept is not None:
        found = find_family(checkpoint)
        config = _opened_for(config_of(found, checkpoint), context_length)
        model = _in_dtype(build_empty(with_stored_heads(found, config, checkpoint), config, kernels), dtype)
        if give_weights(model, kept):
            return cast(CausalModel, model.eval())
    identity = {} if cache is None else cache.identity()
    packing = packing_of(checkpoint, quantization) if kernels.takes_codes() else None
    model = load_model(
        checkpoint, dtype=dtype, kernels=kernels, context_length=context_length, packing=packing
    )
    for module in model.modules():
        if isinstance(module, PACKED) and isinstance(module.weight, Tensor):
            module.pack()
    if cache is not None:
        cache.write(weights_of(model), identity)
    return cast(CausalModel, model)


def packing_of(checkpoint: Checkpoint, quantization: str | None) -> Packing:
    """Returns the packing of a checkpoint's matrices in `load_for_inference`, for kernels that take codes."""
    found = find_family(checkpoint)
    names = names_of(found, config_of(found, checkpoint), checkpoint)
    return Packing(quantization, names.delicate, names.exact, torch.get_num_threads())


def rows_of_vocabulary(checkpoint: Checkpoint) -> int:
    """Returns the number of token ids of the checkpoint's model; raises ModelError as `load_model` does."""
    config: Config = find_family(checkpoint).family.config.read(checkpoint)
    return config.vocab_size


def opened_context(checkpoint: Checkpoint, context_length: int | None) -> int:
    """Returns the context length of the model of `load_model`; raises ModelError as it does."""
    config: Config = find_family(checkpoint).family.config.read(checkpoint)
    return _opened_for(config, context_length).context_length


def config_of(found: Architecture, checkpoint: Checkpoint) -> Config:
    """Returns the config of the checkpoint's model, in which a stored head that is not the embedding is its
    own.

    If the settings say that such a head is the embedding, the checkpoint's warnings tell it.
    """
    config: Config = found.family.config.read(checkpoint)
    for embedding, head in names_of(found, config, checkpoint).tied:
        both = embedding in checkpoint.tensors and head in checkpoint.tensors
        if both and not checkpoint.equal(embedding, head):
            checkpoint.warn(
                f"{head} differs from {embedding}, but the settings say that they are one "
                "(tie_word_embeddings): the stored head is used"
            )
            return replace(config, tied_head=False)
    return config


def build_empty(found: Architecture, config: Any, kernels: Kernels) -> nn.Module:
    """Returns the model of a config on the meta device, where it takes no memory."""
    with torch.device("meta"):
        if not found.reads_with_decoder:
            return found.family.build[found.head](config, kernels)
        decoder = found.family.build["causal"](config, kernels)
        return build_reading(decoder, found.head, found.labels, causal=not found.sees_all)


def reading_model(found: Architecture, model: nn.Module) -> EncoderModel:
    """Returns a model that is not "causal", as it reads texts."""
    if found.reads_with_decoder:
        return reader_of(cast(CausalModel, model), found.head)
    return cast(EncoderModel, model)


def with_stored_heads(found: Architecture, config: Any, checkpoint: Checkpoint) -> Architecture:
    """Returns an architecture without the heads of an encoder that the checkpoint does not store.

    Folders of sentence-transformers often declare a head that they do not have.
    """
    if found.head in ("causal", "states", "next_token") or not checkpoint.tensors:
        return found
    rules = names_of(found, config, checkpoint).rules
    heads: tuple[Head, ...] = ("masked_lm", "next_sentence") if found.head == "pretraining" else (found.head,)
    # A dense layer may be the pooler, which models without heads have too.
    stored = [
        head
        for head in heads
        if any(
            rule.target.startswith(f"heads.{head}.")
            and ".dense." not in rule.target
            and all(part.name in checkpoint.tensors for part in rule.parts(0))
            for rule in rules
        )
    ]
    if len(stored) == len(heads):
        return found
    left: Head = stored[0] if stored else "states"
    return replace(found, head=left) if left in found.family.build else found


def _in_dtype(model: nn.Module, dtype: torch.dtype) -> nn.Module:
    """Returns the model with its parameters in `dtype`, those of exact norms in float32 at least."""
    model = model.to(dtype)
    for module in model.modules():
        if isinstance(module, RMSNorm) and module.exact:
            module.to(torch.promote_types(dtype, torch.float32))
    return model


def _opened_for(config: ConfigT, context_length: int | None) -> ConfigT:
    if context_length is None:
        return config
    if not 1 <= context_length <= LARGEST:
        raise ModelError(f"context_length is {context_length}; it must be from 1 to {LARGEST}")
    if context_length > config.context_length and not config.extensible:
        raise ModelError(
            f"context_length is {context_length}, but the model was trained for "
            f"{config.context_length}; ask for less"
        )
    return replace(config, context_length=context_length)
