"""Opens a model with its tokenizer, and the second models that requests name."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

from decodery.errors import ParameterError
from decodery.kernels.backends import backend_named, chosen_backend
from decodery.kernels.threads import threads_set
from decodery.loading.options import check_dtype, dtype_named
from decodery.models.contract import CausalModel
from decodery.models.load import load_for_inference
from decodery.text.tokenizer.tokenizer import Tokenizer
from decodery.weights.formats.checkpoint import Checkpoint
from decodery.weights.formats.opening import open_checkpoint
from decodery.weights.layouts.packed_cache import PackedCache
from decodery.weights.sources.locate import Progress, resolve


class HasModel(Protocol):
    """Offers a model and its tokenizer, as an LLM does."""

    @property
    def tokenizer(self) -> Tokenizer: ...

    @property
    def model(self) -> CausalModel: ...


@dataclass(frozen=True)
class Opened:
    """Holds a model, its tokenizer and the content of generation_config.json (empty if there is none)."""

    tokenizer: Tokenizer
    model: CausalModel
    generation_config: Mapping[str, Any]


def open_model(
    model: str | Path | None,
    *,
    dtype: str,
    backend: str,
    quantization: str | None = None,
    context_length: int | None = None,
    packed_cache: bool = False,
    threads: int | None = None,
    revision: str | None = None,
    token: str | None = None,
    progress: Progress | None = None,
) -> Opened:
    """Finds a model and reads it, on `threads` threads (None: the process's number).

    Raises `ModelError` when it cannot be found or read, and `ParameterError` for settings that are absurd or
    exclude each other.
    """
    if model is not None and not isinstance(model, (str, Path)):
        raise ParameterError(f"model must be a path or a name, not {type(model).__name__}")
    check_dtype(dtype)
    chosen = chosen_backend(backend, dtype, quantization)
    if packed_cache and chosen != "native":
        raise ParameterError(
            f"packed_cache and backend={chosen} do not go together: only the native kernels pack weights"
        )
    path = resolve(model, revision=revision, token=token, progress=progress)
    with (
        open_checkpoint(path) as checkpoint,
        threads_set(torch_threads=threads, kernel_threads=threads),
    ):
        tokenizer = _tokenizer(checkpoint)
        opened = load_for_inference(
            checkpoint,
            dtype=dtype_named(dtype, checkpoint, chosen),
            kernels=backend_named(chosen),
            context_length=context_length,
            quantization=quantization,
            cache=PackedCache(checkpoint.path, quantization or "") if packed_cache else None,
        )
        config = checkpoint.generation_config
    # A model may have more rows than its vocabulary has tokens; the rows beyond have no text.
    tokenizer.cover(opened.vocab_size)
    return Opened(tokenizer, opened, config)


class SecondModels:
    """Opens the models that requests name besides the first, amateurs and draft models, once each.

    `settings` are those with which `open_model` opened the first.
    """

    def __init__(self, first: HasModel, **settings: Any) -> None:
        self._first = first
        self._settings = settings
        self._opened: dict[str, HasModel] = {}

    def named(self, field: str, model: Any) -> CausalModel:
        """Returns the model that a parameter names: a path, a name, or an LLM.

        Raises `ParameterError` naming the field when its vocabulary is not that of the first model.
        """
        if isinstance(model, (str, Path)):
            found = self._opened.get(str(model))
            if found is None:
                opened = open_model(model, **self._settings)
                _check_vocabulary(field, self._first, opened)
                # Another thread may have opened it meanwhile.
                found = self._opened.setdefault(str(model), opened)
            return found.model
        if not hasattr(model, "model") or not hasattr(model, "tokenizer"):
            raise ParameterError(f"{field} must be a path, a name or an LLM, not {type(model).__name__}")
        _check_vocabulary(field, self._first, model)
        second: CausalModel = model.model
        return second


def _check_vocabulary(field: str, first: HasModel, second: HasModel) -> None:
    ours, theirs = first.tokenizer, second.tokenizer
    if ours is theirs:
        return
    if first.model.vocab_size != second.model.vocab_size:
        raise ParameterError(
            f"{field} has a vocabulary of {second.model.vocab_size} tokens and the model one of"
            f" {first.model.vocab_size}: both must share one vocabulary"
        )
    for token in range(first.model.vocab_size):
        if ours.token_bytes(token) != theirs.token_bytes(token):
            raise ParameterError(
                f"{field} has another vocabulary: token {token} is {theirs.token_label(token)!r} there and"
                f" {ours.token_label(token)!r} in the model"
            )


def _tokenizer(checkpoint: Checkpoint) -> Tokenizer:
    if checkpoint.format == "gguf":
        return Tokenizer.from_gguf(checkpoint.config)
    return Tokenizer.from_folder(checkpoint.path)
