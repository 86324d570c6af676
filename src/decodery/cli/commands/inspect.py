"""Implements `decodery inspect`: describes a model from the headers of its files, without its weights."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from decodery.cli.flags.model_options import ModelOptions
from decodery.cli.load_llm import check_options
from decodery.cli.terminal import aligned, emit, emit_json, fetch_progress, size
from decodery.encoding.vectors.multi_vector_files import multi_vector_files
from decodery.encoding.vectors.sentence_folder import text_rules
from decodery.loading.describe import facts
from decodery.weights.formats.opening import open_checkpoint
from decodery.weights.sources.locate import resolve_headers

SHOWN_LABELS = 12
OUTPUTS: Mapping[str, str] = {
    "masked_lm": "masked tokens (fill_mask)",
    "next_sentence": "whether a text follows another (next_sentence)",
    "classes": "classes (classify, rerank)",
    "token_classes": "classes of tokens (tag)",
    "spans": "answers in a text (answer)",
    "choices": "one of several answers (choose)",
    "replaced": "replaced tokens",
    "next_token": "whether a document answers a query (rerank)",
}
"""What the heads of encoders compute, and the methods that give it."""


def inspect(options: ModelOptions, *, as_json: bool) -> None:
    """Prints a model's sizes, the backend that would run it here, and the memory that a context needs."""
    check_options(options)
    found = facts_of(options)
    if as_json:
        emit_json(found)
    else:
        emit(aligned(_lines(found)))


def facts_of(options: ModelOptions) -> dict[str, Any]:
    """Returns the `facts` of a model with these options, from the headers of its files.

    For an encoder, `text_limit` is the number of tokens that its folder allows a text, and `token_vectors`
    tells whether it gives each token a vector and a text none.
    """
    with TemporaryDirectory() as folder:
        with fetch_progress() as progress:
            path = resolve_headers(options.model, Path(folder), revision=options.revision, progress=progress)
        with open_checkpoint(path, weights=False) as checkpoint:
            found = facts(
                checkpoint,
                dtype=options.dtype,
                backend=options.backend,
                quantization=options.quantization,
                context_length=options.context_length,
                kv_dtype=options.kv_dtype,
            )
        if found["outputs"] is not None:
            found["text_limit"] = text_rules(path, found["memory"]["context_length"]).limit
            found["token_vectors"] = multi_vector_files(path) is not None
        return found


def _parameters(count: int, active: int) -> str:
    return f"{count:,}" if active == count else f"{count:,}, of which a token uses {active:,}"


def _part(found: dict[str, Any]) -> list[tuple[str, str]]:
    if found["part_of"] is None:
        return []
    others = f"; {found['tensors_left_out']} tensors of its other parts are left out"
    return [("", f"the text part of {found['part_of']}{others if found['weights_here'] else ''}")]


def _lines(found: dict[str, Any]) -> list[tuple[str, str]]:
    stored = [_stored(entry) for entry in found["weights"]] or ["not on this machine"]
    generates = found["outputs"] is None
    keys = f", {found['kv_heads']} for keys and values" if generates else ""
    return [
        *((name, str(found[name])) for name in ("path", "format", "architecture", "kind")),
        *_part(found),
        *(("warning" if k == 0 else "", line) for k, line in enumerate(found["warnings"])),
        ("parameters", _parameters(found["parameters"], found["active_parameters"])),
        ("layers", f"{found['layers']}, {found['width']} wide"),
        ("heads", f"{found['heads']} of {found['head_dim']}{keys}"),
        ("context", f"{found['context_length']:,} tokens"),
        ("vocabulary", f"{found['vocabulary']:,} tokens"),
        *(_prompting(found) if generates else _outputs(found)),
        *(("weights" if k == 0 else "", line) for k, line in enumerate(stored)),
        ("backend", _backend(found)),
        *([("", found["native_missing"])] if found["native_missing"] else []),
        *(_generating(found) if generates else [("memory", _weights(found))]),
    ]


def _prompting(found: dict[str, Any]) -> list[tuple[str, str]]:
    """Returns the lines of how prompts are made for a model that continues texts."""
    template = {True: "yes", False: "none", None: "unknown: no tokenizer can be read"}
    left_out = [f"{name}: {why}" for name, why in found["generation_left_out"].items()]
    return [
        ("chat template", template[found["chat_template"]]),
        ("generation defaults", _settings(found["generation_defaults"])),
        *((("left out" if k == 0 else ""), line) for k, line in enumerate(left_out)),
    ]


def _outputs(found: dict[str, Any]) -> list[tuple[str, str]]:
    """Returns the lines of what an encoder computes."""
    labels = found["labels"]
    limit = found["text_limit"]
    shown = [*labels[:SHOWN_LABELS], *(["..."] if len(labels) > SHOWN_LABELS else [])]
    vectors = ["vectors of tokens (embed_multi, rerank)"] if found["token_vectors"] else ["vectors"]
    if "next_token" in found["outputs"]:
        vectors = []
    return [
        *([("texts", f"at most {limit:,} tokens")] if limit != found["context_length"] else []),
        ("output", ", ".join([*vectors, *(OUTPUTS[name] for name in found["outputs"])])),
        *([("labels", f"{len(labels)}: {', '.join(shown)}")] if labels else []),
    ]


def _generating(found: dict[str, Any]) -> list[tuple[str, str]]:
    """Returns the lines of what a model that continues texts needs."""
    memory, token = found["memory"], found["token"]
    return [
        ("steps", _steps(found["steps"])),
        ("key/value cache", f"{size(found['kv_bytes_per_token'])} a token in {found['kv_dtype']}"),
        (
            "memory",
            f"{size(memory['total'])}: weights {_weights(found)},"
            f" {memory['context_length']:,} tokens of context {size(memory['kv'])}",
        ),
        (
            "a token reads",
            f"{size(token['bytes'])}: {token['milliseconds']:.3g} ms, at {size(token['bandwidth'])} a second"
            " on this machine",
        ),
    ]


def _weights(found: dict[str, Any]) -> str:
    held = found["dtype"] if found["backend"] == "torch" else found["quantization"] or "as stored"
    return f"{size(found['memory']['weights'])} ({held})"


def _stored(entry: dict[str, Any]) -> str:
    held = f", held as {entry['held']}" if entry["held"] else ""
    return f"{entry['format']}: {size(entry['bytes'])}, tensors: {entry['tensors']}{held}"


def _backend(found: dict[str, Any]) -> str:
    if found["backend"] == "native":
        return f"native ({found['instruction_set']}), in {found['dtype']}"
    return f"torch, in {found['dtype']}"


def _steps(found: dict[str, Any]) -> str:
    return "captured and replayed" if found["captured"] else f"not captured: {found['reason']}"


def _settings(given: dict[str, Any]) -> str:
    """Returns names and values as text; of a list, only the number of its values."""
    parts = [
        f"{name} ({len(value)})" if isinstance(value, (list, tuple)) else f"{name} {value}"
        for name, value in given.items()
    ]
    return ", ".join(parts) or "none"
