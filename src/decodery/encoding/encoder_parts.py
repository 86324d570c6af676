"""Holds an open encoder with its tokenizer and the settings of its folder."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from decodery.encoding.text_batches import TextRunner
from decodery.encoding.vectors.gguf_settings import ARCHITECTURE, gguf_vector_settings
from decodery.encoding.vectors.multi_vector_files import multi_vector_files
from decodery.encoding.vectors.multi_vector_settings import MultiVectorSettings, multi_vector_settings
from decodery.encoding.vectors.sentence_folder import TextRules, read_vector_settings, text_rules
from decodery.encoding.vectors.vector_settings import VectorSettings
from decodery.errors import ModelError
from decodery.models.contract import EncoderModel, OutputHead
from decodery.text.chat.marked_encoder import MarkedEncoder
from decodery.text.tokenizer.tokenizer import Tokenizer


@dataclass(frozen=True)
class EncoderParts:
    """Holds an open encoder: `config` is the content of its config.json or the metadata of its GGUF file, and
    `folder` is where it lies.

    Nothing changes once it is open, so threads may share it.
    """

    model: EncoderModel
    architecture: str
    tokenizer: Tokenizer
    runner: TextRunner
    config: Mapping[str, Any]
    folder: Path

    @cached_property
    def vectors(self) -> VectorSettings:
        """Returns how the files say that vectors are made; raises `ModelError` for a contradiction.

        Also raises it for a model that gives each token a vector, and a text none.
        """
        if ARCHITECTURE in self.config:
            return gguf_vector_settings(self.folder, self.config, self.model)
        if self.multi_vectors is not None:
            raise ModelError(
                f"{self.folder} gives each token a vector (embed_multi) and orders documents (rerank); a text"
                " has no vector of its own",
                param="model",
            )
        return read_vector_settings(self.folder, self.model)

    @cached_property
    def multi_vectors(self) -> MultiVectorSettings | None:
        """Returns how the model gives each token a vector, None if it was not trained for that.

        Raises `ModelError` for a contradiction of the files.
        """
        files = None if ARCHITECTURE in self.config else multi_vector_files(self.folder)
        if files is None:
            return None
        return multi_vector_settings(files, self.folder, self.model, self.tokenizer, self.rules.limit)

    @cached_property
    def marked(self) -> MarkedEncoder:
        """Returns what encodes prompts in which texts cannot write control tokens."""
        return MarkedEncoder(self.tokenizer, self.tokenizer.special_ids)

    @cached_property
    def rules(self) -> TextRules:
        """Returns how the folder says that texts are read; raises `ModelError` if a file is damaged."""
        return text_rules(self.folder, self.model.context_length)

    def head(self, name: str) -> OutputHead:
        """Returns the model's head of a name; raises `ModelError` that tells which heads it has."""
        if name in self.model.heads:
            return self.model.heads[name]
        heads = ", ".join(self.model.heads) or "none, only vectors of texts and tokens"
        raise ModelError(
            f"{self.folder} ({self.architecture}) has no head {name!r}; it has {heads}. Open a model whose"
            " config.json names an architecture with that head",
            param="model",
        )

    def check_one_score(self) -> None:
        """Raises `ModelError` for a model that does not give a pair of texts one score."""
        labels = self.model.heads["classes"].labels if "classes" in self.model.heads else 0
        if labels == 1:
            return
        found = f"has a head of {labels} classes" if labels else "has no head of classes"
        raise ModelError(
            f"{self.folder} ({self.architecture}) {found}, and a reranker has one score: open a"
            " cross-encoder or a ColBERT model" + (", or use classify" if labels else ""),
            param="model",
        )
