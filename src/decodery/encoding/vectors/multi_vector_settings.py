"""Holds how an open model gives each token of a text a vector."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from torch import Tensor

from decodery.encoding.vectors.multi_vector_files import (
    ARTIFACT,
    Closeness,
    MultiVectorFiles,
    StoredRole,
    Total,
)
from decodery.encoding.vectors.sentence_layers import SentenceLayer, UnitLength, dense, layer_norm, projection
from decodery.errors import ModelError
from decodery.models.checkpoint_keys import CheckpointKeys
from decodery.models.contract import EncoderModel
from decodery.text.tokenizer.tokenizer import Tokenizer
from decodery.weights.formats.safetensors import read_json_file
from decodery.weights.formats.sentence_modules import SentenceModule

TOKENS = "token_embeddings"


@dataclass(frozen=True)
class RoleOfText:
    """Holds how queries or documents are read: the tokens `marker` and the text `prompt` stand before each.

    `limit` is the largest number of tokens, with special ones. Vectors of the tokens `skipped` are left out.
    """

    marker: tuple[int, ...]
    prompt: str
    limit: int
    skipped: frozenset[int]


@dataclass(frozen=True)
class Expansion:
    """Holds that a query is filled up with a token to `length` tokens.

    If not `attends`, the query's own tokens do not see these, which see them.
    """

    token: int
    length: int
    attends: bool


@dataclass(frozen=True)
class MultiVectorSettings:
    """Holds how the states of tokens become their vectors, by `layers`, and how a score is made of these.

    A score is the `total` over the query's vectors of their largest `closeness` to one of the document's.
    """

    query: RoleOfText
    document: RoleOfText
    expansion: Expansion | None
    layers: tuple[SentenceLayer, ...]
    width: int
    closeness: Closeness
    total: Total

    def vectors(self, states: Tensor) -> Tensor:
        """Returns the vectors [tokens, width] of states [tokens, model's width] in float32."""
        for layer in self.layers:
            states = layer(states)
        return states


def multi_vector_settings(
    files: MultiVectorFiles, folder: Path, model: EncoderModel, tokenizer: Tokenizer, limit: int
) -> MultiVectorSettings:
    """Returns the settings of a model whose folder says `files`; `limit` is that of texts without another.

    Raises `ModelError` for weights and tokens that do not fit, and for modules that are not supported.
    """
    layers, width = _layers(files, folder, model)
    roles = [
        RoleOfText(
            _marker(role, folder, tokenizer),
            role.prompt,
            min(role.limit or limit, model.context_length),
            frozenset(_known(tokenizer, role.skipped)),
        )
        for role in (files.query, files.document)
    ]
    return MultiVectorSettings(
        query=roles[0],
        document=roles[1],
        expansion=_expansion(files, folder, model, tokenizer),
        layers=tuple(layers),
        width=width,
        closeness=files.closeness,
        total=files.total,
    )


def _known(tokenizer: Tokenizer, words: tuple[str, ...]) -> list[int]:
    """Returns the tokens that are such a word; the unknown token stands for many others, and is none."""
    return [token for token in map(tokenizer.token_id, words) if token is not None]


def _marker(role: StoredRole, folder: Path, tokenizer: Tokenizer) -> tuple[int, ...]:
    if not role.marker:
        return ()
    # PyLate's markers have a space behind them, also in the vocabulary.
    known = _known(tokenizer, (role.marker, role.marker.strip()))
    if not known:
        raise ModelError(
            f"{folder}: the tokenizer has no token {role.marker!r}, which the folder puts before texts"
        )
    return tuple(known[:1])


def _expansion(
    files: MultiVectorFiles, folder: Path, model: EncoderModel, tokenizer: Tokenizer
) -> Expansion | None:
    stored = files.expansion
    if stored is None:
        return None
    if not stored.attends and not model.attention_layers:
        raise ModelError(
            f"{folder}: the mask tokens that fill up a query are not to be seen by its other tokens, which"
            " this family's attention cannot do"
        )
    if stored.length > model.context_length:
        raise ModelError(
            f"{folder}: queries are filled up to {stored.length} tokens, and the model reads"
            f" {model.context_length}"
        )
    names = tokenizer.named_ids
    token = names.get("mask", names.get("eos")) if stored.token is None else tokenizer.token_id(stored.token)
    if token is None:
        wanted = "mask token" if stored.token is None else f"token {stored.token!r}"
        raise ModelError(f"{folder}: the tokenizer has no {wanted}, with which queries are filled up")
    return Expansion(token, stored.length, stored.attends)


def _layers(files: MultiVectorFiles, folder: Path, model: EncoderModel) -> tuple[list[SentenceLayer], int]:
    if not files.modules:
        linear = projection(folder, model)
        width = linear.outputs
        if files.width not in (None, width):
            raise ModelError(f"{folder / ARTIFACT}: dim is {files.width}; the projection has {width} rows")
        return [linear, UnitLength()], width
    layers: list[SentenceLayer] = []
    width = model.width
    for module in files.modules:
        match module.kind:
            case "Dense":
                layer = dense(module.folder, width, model, of=TOKENS)
                layers.append(layer)
                width = layer.outputs
            case "LayerNorm":
                layers.append(layer_norm(module.folder, width, model))
            case "Normalize":
                _check_input(module)
                layers.append(UnitLength())
            case "Dropout":
                pass  # It does something in training alone.
            case kind:
                raise ModelError(
                    f"{module.folder.parent / 'modules.json'} lists a {kind}, which is not supported for"
                    " vectors of tokens: supported are Dense, LayerNorm, Normalize and MultiVectorMask"
                )
    if files.normalizes:
        layers.append(UnitLength())
    return layers, width


def _check_input(module: SentenceModule) -> None:
    file = module.folder / "config.json"
    keys = CheckpointKeys(read_json_file(file) if file.is_file() else {}, str(file))
    if keys.text("module_input_name", TOKENS) != TOKENS:
        raise keys.error("module_input_name", f"{TOKENS}: each token has a vector")
