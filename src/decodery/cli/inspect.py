"""`decodery inspect`: what a model is, from its files' headers alone."""

from __future__ import annotations

from typing import Any

from decodery.cli.loading import check_options
from decodery.cli.model_options import ModelOptions
from decodery.cli.report import aligned, emit, emit_json, fetching, size
from decodery.decoding.defaults import default_params
from decodery.errors import ModelError
from decodery.kernels.library import instruction_sets, missing
from decodery.kernels.select import backend_named, chosen_backend, kv_dtype_named
from decodery.models.registry import describe, opened_context, packed_size
from decodery.settings import dtype_named
from decodery.text.tokenizer import Tokenizer
from decodery.weights.checkpoint import Checkpoint, open_checkpoint
from decodery.weights.sources import resolve


def inspect(options: ModelOptions, *, as_json: bool) -> None:
    """Print what a model is, what would compute it, and the memory that it needs for a length of context."""
    check_options(options)
    with fetching() as progress:
        path = resolve(options.model, revision=options.revision, progress=progress)
    with open_checkpoint(path) as checkpoint:
        found = facts(checkpoint, options)
    if as_json:
        emit_json(found)
    else:
        emit(aligned(_lines(found)))


def facts(checkpoint: Checkpoint, options: ModelOptions) -> dict[str, Any]:
    """What there is to say about a checkpoint, ready for JSON; bytes and tokens are whole numbers."""
    described = describe(checkpoint)
    backend = chosen_backend(options.backend, options.dtype, options.quantization)
    dtype = dtype_named(options.dtype, checkpoint, backend)
    context = opened_context(checkpoint, options.context_length)
    kept = kv_dtype_named(options.kv_dtype, backend_named(backend), dtype)
    per_token = described.kv_shape.bytes_per_token(kept)
    if backend == "native":
        weights = packed_size(checkpoint, options.quantization)
    else:
        weights = described.parameters * dtype.itemsize
    defaults = default_params(checkpoint.generation_config, described.vocab_size)
    return {
        "path": str(checkpoint.path),
        "format": checkpoint.format,
        "architecture": described.architecture,
        "parameters": described.parameters,
        "layers": described.layers,
        "width": described.width,
        "heads": described.heads,
        "kv_heads": described.kv_heads,
        "head_dim": described.head_dim,
        "context_length": described.context_length,
        "vocabulary": described.vocab_size,
        "chat_template": _has_template(checkpoint),
        "generation_defaults": dict(defaults.given),
        "generation_left_out": dict(defaults.left_out),
        "weights": _formats(checkpoint),
        "backend": backend,
        "instruction_set": instruction_sets()[-1] if backend == "native" else None,
        "native_missing": missing(),
        "quantization": options.quantization,
        "dtype": str(dtype).removeprefix("torch."),
        "kv_dtype": str(kept).removeprefix("torch."),
        "kv_bytes_per_token": per_token,
        "memory": {
            "context_length": context,
            "weights": weights,
            "kv": per_token * context,
            "total": weights + per_token * context,
        },
    }


def _formats(checkpoint: Checkpoint) -> list[dict[str, Any]]:
    """How the tensors are stored, the most bytes first."""
    formats: dict[str, dict[str, Any]] = {}
    for info in checkpoint.tensors.values():
        entry = formats.setdefault(info.dtype, {"format": info.dtype, "tensors": 0, "bytes": 0})
        entry["tensors"] += 1
        entry["bytes"] += info.nbytes
    return sorted(formats.values(), key=lambda entry: -int(entry["bytes"]))


def _has_template(checkpoint: Checkpoint) -> bool | None:
    """Whether there is a chat template; None without a tokenizer that can be read."""
    try:
        if checkpoint.format == "gguf":
            tokenizer = Tokenizer.from_gguf(checkpoint.config)
        else:
            tokenizer = Tokenizer.from_folder(checkpoint.path)
    except ModelError:
        return None
    return tokenizer.chat_template is not None


def _lines(found: dict[str, Any]) -> list[tuple[str, str]]:
    memory = found["memory"]
    template = {True: "yes", False: "none", None: "unknown: no tokenizer can be read"}
    stored = [f"{e['format']}: {size(e['bytes'])}, tensors: {e['tensors']}" for e in found["weights"]]
    left_out = [f"{name}: {why}" for name, why in found["generation_left_out"].items()]
    held = found["dtype"] if found["backend"] == "reference" else found["quantization"] or "as stored"
    return [
        *((name, str(found[name])) for name in ("path", "format", "architecture")),
        ("parameters", f"{found['parameters']:,}"),
        ("layers", f"{found['layers']}, {found['width']} wide"),
        ("heads", f"{found['heads']} of {found['head_dim']}, {found['kv_heads']} for keys and values"),
        ("context", f"{found['context_length']:,} tokens"),
        ("vocabulary", f"{found['vocabulary']:,} tokens"),
        ("chat template", template[found["chat_template"]]),
        ("generation defaults", _settings(found["generation_defaults"])),
        *((("left out" if k == 0 else ""), line) for k, line in enumerate(left_out)),
        *(("weights" if k == 0 else "", line) for k, line in enumerate(stored)),
        ("backend", _backend(found)),
        *([("", found["native_missing"])] if found["native_missing"] else []),
        ("key/value cache", f"{size(found['kv_bytes_per_token'])} a token in {found['kv_dtype']}"),
        (
            "memory",
            f"{size(memory['total'])}: weights {size(memory['weights'])} ({held}),"
            f" {memory['context_length']:,} tokens of context {size(memory['kv'])}",
        ),
    ]


def _backend(found: dict[str, Any]) -> str:
    if found["backend"] == "native":
        return f"native ({found['instruction_set']}), in {found['dtype']}"
    return f"reference (torch), in {found['dtype']}"


def _settings(given: dict[str, Any]) -> str:
    """Fields and values; of a list, how many values."""
    told = [
        f"{name} ({len(value)})" if isinstance(value, (list, tuple)) else f"{name} {value}"
        for name, value in given.items()
    ]
    return ", ".join(told) or "none"
