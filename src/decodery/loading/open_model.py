"""Opens a model with its tokenizer, and the second models that requests name."""

from __future__ import annotations

import warnings
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol, cast

from torch import nn

from decodery.errors import ModelError, ModelWarning, ParameterError
from decodery.kernels.backends import backend_named, chosen_backend
from decodery.kernels.threads import threads_set
from decodery.loading.open_tokenizer import open_tokenizer
from decodery.loading.options import check_dtype, dtype_named
from decodery.models.contract import CausalModel, EncoderModel, ReadsMask
from decodery.models.families import find_family
from decodery.models.load import load_for_inference, reading_model, rows_of_vocabulary
from decodery.text.tokenizer.tokenizer import Tokenizer
from decodery.weights.formats.checkpoint import Checkpoint
from decodery.weights.formats.opening import open_checkpoint
from decodery.weights.formats.sentence_modules import MODULES
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
    """Holds a model, its tokenizer, and the content of its folder's JSON files, empty if there is none.

    `path` is the file or folder that was given, with the files of sentence-transformers if it has them.

    `config` is that of config.json, or the metadata of a GGUF file. One of `causal` and `encoder` is the
    model, and the other one None.
    """

    path: Path
    architecture: str
    tokenizer: Tokenizer
    causal: CausalModel | None
    encoder: EncoderModel | None
    config: Mapping[str, Any]
    generation_config: Mapping[str, Any]

    @property
    def model(self) -> CausalModel:
        """Returns the model that continues texts; raises `ModelError` for an encoder."""
        if self.causal is None:
            raise ModelError(not_causal(self.path, self.architecture))
        return self.causal


def not_causal(path: str | Path, architecture: str) -> str:
    """Returns the message that a model is an encoder where one is needed that continues texts."""
    return (
        f"{path} is an encoder ({architecture}), which reads texts and writes none: it offers embed,"
        " classify, fill_mask, tag, answer and rerank, as far as it has their heads"
    )


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

    Emits a `ModelWarning` for each fault of its files that was corrected.
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
        tokenizer = open_tokenizer(checkpoint)
        _check_rows(tokenizer, checkpoint)
        opened = load_for_inference(
            checkpoint,
            dtype=dtype_named(dtype, checkpoint, chosen),
            kernels=backend_named(chosen),
            context_length=context_length,
            quantization=quantization,
            cache=PackedCache(checkpoint.path, quantization or "") if packed_cache else None,
        )
        found = find_family(checkpoint)
    for message in checkpoint.warnings:
        warnings.warn(f"{path}: {message}", ModelWarning, stacklevel=2)
    # A model may have more rows than its vocabulary has tokens; the rows beyond have no text.
    tokenizer.cover(opened.vocab_size)
    if isinstance(opened, ReadsMask):
        opened.mask_token = tokenizer.named_ids.get("mask")
    is_causal = found.head == "causal"
    return Opened(
        path=path if (path / MODULES).is_file() else checkpoint.path,
        architecture=found.name,
        tokenizer=tokenizer,
        causal=opened if is_causal else None,
        encoder=None if is_causal else reading_model(found, cast(nn.Module, opened)),
        config=checkpoint.config,
        generation_config=checkpoint.generation_config,
    )


class SecondModels:
    """Holds the models that requests may name besides the first: amateurs and draft models.

    A request may name those that the host has added and, if `opens` is set, any path or hub id, which is
    opened once. A host whose requests come from others leaves `opens` unset: its requests can then make it
    neither read its files nor fetch from the hub. `settings` are those with which `open_model` opened the
    first model.
    """

    def __init__(self, first: HasModel, *, opens: bool, **settings: Any) -> None:
        self._first = first
        self._opens = opens
        self._settings = settings
        self._models: dict[str, CausalModel] = {}

    def add(self, name: str, model: str | Path | HasModel) -> None:
        """Adds a model, given as a path, a hub id or an LLM, under the name that requests use.

        Raises `ParameterError` when the name is taken or the model's vocabulary is not that of the first
        model, and `ModelError` when it cannot be opened.
        """
        if name in self._models:
            raise ParameterError(f"there is a second model {name!r} already: choose another name")
        self._models[name] = self._opened(f"second model {name!r}", model)

    @property
    def names(self) -> tuple[str, ...]:
        """Returns the names of the models that have been added or opened."""
        return tuple(self._models)

    def named(self, field: str, model: Any) -> CausalModel:
        """Returns the model that a parameter names: a name, a path, a hub id, or an LLM.

        Raises `ParameterError` naming the field when requests may not name it, or when its vocabulary is not
        that of the first model.
        """
        if not isinstance(model, (str, Path)):
            return self._opened(field, model)
        name = str(model)
        if name not in self._models:
            if not self._opens:
                names = ", ".join(map(repr, self._models)) or "none"
                raise ParameterError(f"{field} {name!r} is not offered here; offered are: {names}")
            # If two threads open a model at once, both use the one that is entered first.
            return self._models.setdefault(name, self._opened(field, model))
        return self._models[name]

    def _opened(self, field: str, model: Any) -> CausalModel:
        """Returns the model of a path, a hub id or an LLM, if it has the vocabulary of the first."""
        if isinstance(model, (str, Path)):
            model = open_model(model, **self._settings)
        elif not hasattr(model, "model") or not hasattr(model, "tokenizer"):
            raise ParameterError(f"{field} must be a path, a name or an LLM, not {type(model).__name__}")
        _check_vocabulary(field, self._first, model)
        second: CausalModel = model.model
        return second


def _check_rows(tokenizer: Tokenizer, checkpoint: Checkpoint) -> None:
    """Raises `ModelError` if the model has no embedding for a token of its tokenizer.

    Special tokens may have none: those of images in a text model, for example.
    """
    rows = rows_of_vocabulary(checkpoint)
    for token in range(rows, tokenizer.vocab_size):
        if token not in tokenizer.special_ids and tokenizer.token_bytes(token):
            raise ModelError(
                f"{checkpoint.path}: the tokenizer has {tokenizer.vocab_size} tokens, and the model embeds"
                f" {rows}, without token {token} ({tokenizer.token_label(token)!r}): the files are not of one"
                " model"
            )


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
