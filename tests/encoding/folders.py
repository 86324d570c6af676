"""Writes folders of tiny encoders with tokenizers, as transformers and sentence-transformers store them."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch

from tests.encoding.tiny_tokenizers import TOKENIZERS, TinyTokenizer

SIZES: Mapping[str, Any] = {
    "hidden_size": 24,
    "num_hidden_layers": 2,
    "num_attention_heads": 3,
    "intermediate_size": 40,
    "max_position_embeddings": 64,
    # Large weights, so that texts differ in their vectors.
    "initializer_range": 0.3,
}


def write_tokenizer(path: Path, kind: str = "word pieces", **config: Any) -> TinyTokenizer:
    """Writes the tokenizer files of a kind of `TOKENIZERS` into a folder, and returns the tokenizer."""
    tiny = TOKENIZERS[kind]()
    path.mkdir(parents=True, exist_ok=True)
    tiny.backend.save(str(path / "tokenizer.json"))
    roles = {f"{role}_token": text for role, text in tiny.roles.items()}
    write_json(
        path / "tokenizer_config.json", {"tokenizer_class": "PreTrainedTokenizerFast", **roles, **config}
    )
    return tiny


def encoder_folder(
    path: Path,
    architecture: str = "BertModel",
    *,
    tokenizer: str = "word pieces",
    seed: int = 0,
    **settings: Any,
) -> Path:
    """Writes a tiny random model of an architecture of transformers with a tokenizer; returns the folder."""
    import transformers

    tiny = write_tokenizer(path, tokenizer)
    model_class = getattr(transformers, architecture)
    # The config alone would warn of ids beyond its vocabulary, if a setting made it smaller.
    given = {**SIZES, **tiny.settings, **settings}
    if architecture.startswith("XLNet"):
        del given["max_position_embeddings"]  # It has no limit.
    config = model_class.config_class(**given)
    torch.manual_seed(seed)
    model_class(config).save_pretrained(path)
    return path


DECODER: Mapping[str, Any] = {"tokenizer": "chat bytes", "num_key_value_heads": 1, "head_dim": 8}
"""What `encoder_folder` needs for an architecture of a decoder."""
Module = tuple[str, Mapping[str, Any]]
"""The class of a module of sentence-transformers, and its config.json."""
LAST: Module = ("Pooling", {"word_embedding_dimension": 24, "pooling_mode_lasttoken": True})
MEAN: Module = ("Pooling", {"word_embedding_dimension": 24, "pooling_mode_mean_tokens": True})
NORMALIZE: Module = ("Normalize", {})


def sentence_folder(
    path: Path,
    modules: Sequence[Module] = (MEAN, NORMALIZE),
    *,
    transformer: str = "",
    sentence_bert: Mapping[str, Any] | None = None,
    settings: Mapping[str, Any] | None = None,
    **model: Any,
) -> Path:
    """Writes a folder of sentence-transformers: `encoder_folder` with its modules; returns the folder.

    `transformer` is the folder of the model in it, `sentence_bert` and `settings` are the contents of
    sentence_bert_config.json and config_sentence_transformers.json.
    """
    encoder_folder(path / transformer, **model)
    listed = [{"idx": 0, "name": "0", "path": transformer, "type": _type("Transformer")}]
    for number, (kind, config) in enumerate(modules, 1):
        place = f"{number}_{kind}"
        listed.append({"idx": number, "name": str(number), "path": place, "type": _type(kind)})
        if config:
            write_json(path / place / "config.json", config)
    write_json(path / "modules.json", listed)
    if sentence_bert is not None:
        write_json(path / transformer / "sentence_bert_config.json", sentence_bert)
    if settings is not None:
        write_json(path / "config_sentence_transformers.json", settings)
    return path


def write_json(path: Path, content: Any) -> None:
    """Writes a JSON file, and its folder if there is none."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(content), encoding="utf-8")


def _type(kind: str) -> str:
    return f"sentence_transformers.models.{kind}"
