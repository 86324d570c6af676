"""Describes a checkpoint and the backend that would compute it, from the headers of its files alone."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from decodery.decoding.request.checkpoint_defaults import default_params
from decodery.errors import ModelError
from decodery.kernels.backends import backend_named, chosen_backend, kv_dtype_named
from decodery.kernels.contract import Kernels
from decodery.kernels.native.library import first_instruction_set, missing
from decodery.loading.bandwidth import read_bandwidth
from decodery.loading.open_tokenizer import open_tokenizer
from decodery.loading.options import dtype_named
from decodery.models.describe import describe, held_formats, packed_size
from decodery.models.families import find_family
from decodery.models.load import opened_context
from decodery.weights.formats.checkpoint import Checkpoint


def facts(
    checkpoint: Checkpoint,
    *,
    dtype: str,
    backend: str,
    quantization: str | None,
    context_length: int | None,
    kv_dtype: str,
) -> dict[str, Any]:
    """Returns the properties of a checkpoint, and the results that these options would have, ready for JSON.

    Only headers are read, and two tensors if a head is stored that should be the embedding. `warnings` tell
    the faults of the files that are corrected. Bytes and tokens are integers. `outputs` are the heads of an
    encoder and `labels` the names of its classes; a model that continues texts has None there. An encoder
    has no cache, no steps and no cost of a token. Raises as `open_model` does.
    """
    described = describe(checkpoint)
    chosen = chosen_backend(backend, dtype, quantization)
    computed = dtype_named(dtype, checkpoint, chosen)
    context = opened_context(checkpoint, context_length)
    kernels = backend_named(chosen)
    kept, per_token, token = None, 0, None
    if chosen == "native":
        weights = packed_size(checkpoint, described, quantization)
    else:
        weights = described.parameters * computed.itemsize
    if described.kv_shape is not None:
        kept = kv_dtype_named(kv_dtype, kernels, computed)
        per_token = described.kv_shape.bytes_per_token(kept)
        token = _cost(weights * described.read_parameters // described.parameters)
    template = _has_template(checkpoint)
    defaults = default_params(checkpoint.generation_config, described.vocab_size)
    return {
        "path": str(checkpoint.path),
        "warnings": list(checkpoint.warnings),
        "format": checkpoint.format,
        "architecture": described.architecture,
        "kind": "decoder" if described.outputs is None else "encoder",
        "part_of": described.part_of or None,
        "tensors_left_out": described.left_out,
        "parameters": described.parameters,
        "active_parameters": described.active_parameters,
        "layers": described.layers,
        "width": described.width,
        "heads": described.heads,
        "kv_heads": described.kv_heads,
        "head_dim": described.head_dim,
        "context_length": described.context_length,
        "outputs": None if described.outputs is None else list(described.outputs),
        "labels": _labels(described.outputs, checkpoint),
        "vocabulary": described.vocab_size,
        "chat_template": template,
        "generation_defaults": dict(defaults.given),
        "generation_left_out": dict(defaults.left_out),
        "weights": _formats(checkpoint, held_formats(checkpoint, quantization) if chosen == "native" else {}),
        "weights_here": bool(checkpoint.tensors),
        "backend": chosen,
        "instruction_set": first_instruction_set() if chosen == "native" else None,
        "native_missing": missing(),
        "steps": None if described.kv_shape is None else _steps(kernels, chosen),
        "quantization": quantization,
        "dtype": str(computed).removeprefix("torch."),
        "kv_dtype": None if kept is None else str(kept).removeprefix("torch."),
        "kv_bytes_per_token": per_token,
        "memory": {
            "context_length": context,
            "weights": weights,
            "kv": per_token * context,
            "total": weights + per_token * context,
        },
        "token": token,
    }


def _steps(kernels: Kernels, backend: str) -> dict[str, Any]:
    """Returns whether the steps of a model that continues texts are captured, and if not, why."""
    captured = kernels.captures()
    return {"captured": captured, "reason": None if captured else f"backend {backend}"}


def _labels(outputs: Sequence[str] | None, checkpoint: Checkpoint) -> list[str] | None:
    """Returns the names of an encoder's classes in their order; none for one without classes."""
    if outputs is None:
        return None
    if not {"classes", "token_classes"} & set(outputs):
        return []
    config = checkpoint.config
    if checkpoint.format == "gguf":
        return list(config.get(f"{config['general.architecture']}.classifier.output_labels", ()))
    names = config.get("id2label")
    if not isinstance(names, Mapping):
        return [f"LABEL_{label}" for label in range(config.get("num_labels", 2))]
    return [str(names[number]) for number in sorted(names, key=int)]


def is_encoder(checkpoint: Checkpoint) -> bool:
    """True if a checkpoint's model reads texts and writes none. Raises the error of `find_family`."""
    return find_family(checkpoint).head != "causal"


def _cost(nbytes: int) -> dict[str, Any]:
    """Returns the bytes that a step of one token reads, and how long this machine takes to read them."""
    speed = read_bandwidth()
    return {"bytes": nbytes, "bandwidth": round(speed), "milliseconds": round(1000 * nbytes / speed, 3)}


def _formats(checkpoint: Checkpoint, held: Mapping[str, str]) -> list[dict[str, Any]]:
    """Returns the tensors and bytes of each stored format and how its matrices are held, the one with the
    most bytes first.
    """
    formats: dict[str, dict[str, Any]] = {}
    for info in checkpoint.tensors.values():
        entry = formats.setdefault(
            info.dtype, {"format": info.dtype, "tensors": 0, "bytes": 0, "held": held.get(info.dtype)}
        )
        entry["tensors"] += 1
        entry["bytes"] += info.nbytes
    return sorted(formats.values(), key=lambda entry: -int(entry["bytes"]))


def _has_template(checkpoint: Checkpoint) -> bool | None:
    """True if there is a chat template; None without a readable tokenizer."""
    try:
        return bool(open_tokenizer(checkpoint).chat_templates)
    except ModelError:
        return None
