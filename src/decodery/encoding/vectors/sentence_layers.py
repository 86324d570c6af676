"""Computes the modules of sentence-transformers behind a pooling, or behind the states of tokens."""

from __future__ import annotations

from pathlib import Path
from typing import Protocol

import torch
from torch import Tensor, nn

from decodery.errors import ModelError
from decodery.models.checkpoint_keys import CheckpointKeys
from decodery.models.contract import EncoderModel
from decodery.models.families import PROJECTION
from decodery.models.layers.linear import Linear
from decodery.models.layers.norm import LayerNorm
from decodery.weights.formats.checkpoint import Checkpoint
from decodery.weights.formats.opening import open_checkpoint

NORM_EPS = 1e-5
ACTIVATIONS: dict[str, type[nn.Module]] = {
    "Tanh": nn.Tanh,
    "Identity": nn.Identity,
    "ReLU": nn.ReLU,
    "GELU": nn.GELU,
    "SiLU": nn.SiLU,
    "Sigmoid": nn.Sigmoid,
}


class SentenceLayer(Protocol):
    """Computes vectors [rows, outputs] in float32 from others, each row by itself."""

    def __call__(self, vector: Tensor) -> Tensor: ...


class UnitLength:
    """Gives a vector the length 1."""

    def __call__(self, vector: Tensor) -> Tensor:
        return nn.functional.normalize(vector, dim=-1)


class Dense:
    """Computes `activation(linear(x))`, plus x or a linear map of it where there is a `residual`."""

    def __init__(
        self, linear: Linear, activation: nn.Module, outputs: int, residual: nn.Module | None
    ) -> None:
        self.linear = linear
        self.activation = activation
        self.outputs = outputs
        self.residual = residual

    def __call__(self, vector: Tensor) -> Tensor:
        found: Tensor = self.activation(self.linear(vector))
        return found if self.residual is None else found + self.residual(vector)


def dense(folder: Path, width: int, model: EncoderModel, *, of: str = "sentence_embedding") -> Dense:
    """Returns the Dense of a folder for vectors of a width, those that sentence-transformers calls `of`.

    Raises `ModelError` if it takes others.
    """
    with open_checkpoint(folder) as checkpoint:
        keys = CheckpointKeys(checkpoint.config, str(folder / "config.json"))
        inputs, outputs = keys.count("in_features"), keys.count("out_features")
        if inputs != width:
            raise keys.error("in_features", f"{width}, the width of the vector before it")
        for key in ("module_input_name", "module_output_name"):
            if keys.text(key, of) != of:
                raise keys.error(key, f"{of}, the only vectors that this folder's modules make")
        name = keys.text("activation_function", "Tanh" if of == "sentence_embedding" else "Identity")
        activation = ACTIVATIONS.get(name.rpartition(".")[2])
        if activation is None:
            raise keys.error("activation_function", f"one of {', '.join(ACTIVATIONS)}")
        linear = _linear(checkpoint, "linear", (outputs, inputs), keys.flag("bias", True), model)
        residual: nn.Module | None = None
        if keys.flag("use_residual", False):
            same = inputs == outputs
            residual = (
                nn.Identity() if same else _linear(checkpoint, "residual", (outputs, inputs), False, model)
            )
        return Dense(linear, activation(), outputs, residual)


def projection(folder: Path, model: EncoderModel) -> Dense:
    """Returns the matrix that ColBERT's authors store beside the model's own weights.

    Raises `ModelError` if it does not take the model's states.
    """
    with open_checkpoint(folder) as checkpoint:
        found = checkpoint.tensors.get(PROJECTION)
        if found is None or len(found.shape) != 2 or found.shape[1] != model.width:
            stored = "is missing" if found is None else f"has the shape {list(found.shape)}"
            raise ModelError(
                f"{checkpoint.path}: {PROJECTION} {stored}; it must map the {model.width} numbers of a state"
            )
        outputs = found.shape[0]
        linear = _linear(checkpoint, PROJECTION.removesuffix(".weight"), (outputs, model.width), False, model)
        return Dense(linear, nn.Identity(), outputs, None)


def layer_norm(folder: Path, width: int, model: EncoderModel) -> LayerNorm:
    """Returns the LayerNorm of a folder for vectors of a width; raises `ModelError` if it takes another."""
    with open_checkpoint(folder) as checkpoint:
        keys = CheckpointKeys(checkpoint.config, str(folder / "config.json"))
        if keys.count("dimension") != width:
            raise keys.error("dimension", f"{width}, the width of the vector before it")
        norm = LayerNorm(width, NORM_EPS, model.kernels)
        norm.weight = _parameter(checkpoint, "norm.weight", (width,), model)
        norm.bias = _parameter(checkpoint, "norm.bias", (width,), model)
        return norm.eval()


def _linear(
    checkpoint: Checkpoint, name: str, shape: tuple[int, int], bias: bool, model: EncoderModel
) -> Linear:
    outputs, inputs = shape
    linear = Linear(inputs, outputs, model.kernels, bias=bias)
    linear.weight = _parameter(checkpoint, f"{name}.weight", shape, model)
    if bias:
        linear.bias = _parameter(checkpoint, f"{name}.bias", (outputs,), model)
    linear.pack()
    return linear.eval()


def _parameter(
    checkpoint: Checkpoint, name: str, shape: tuple[int, ...], model: EncoderModel
) -> nn.Parameter:
    """Returns a tensor in float32, whatever the precision of the model: vectors keep theirs."""
    value = checkpoint.read(name, torch.float32)
    if tuple(value.shape) != shape:
        raise ModelError(
            f"{checkpoint.path}: {name} has the shape {list(value.shape)}; config.json says {list(shape)}"
        )
    return nn.Parameter(value.to(model.device), requires_grad=False)
