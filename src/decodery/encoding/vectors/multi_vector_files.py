"""Reads what folders say of models that give each token a vector (ColBERT), in the layouts that they have.

Khattab and Zaharia, ColBERT: Efficient and Effective Passage Search via Contextualized Late Interaction over
BERT (2020).
"""

from __future__ import annotations

import string
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from decodery.encoding.vectors.vector_settings import DOCUMENT, QUERY
from decodery.models.checkpoint_keys import CheckpointKeys
from decodery.models.families import COLBERT
from decodery.weights.formats.safetensors import read_json_file
from decodery.weights.formats.sentence_modules import SentenceModule, modules_of

ARTIFACT = "artifact.metadata"
SETTINGS = "config_sentence_transformers.json"
MASK = "MultiVectorMask"
PUNCTUATION = tuple(string.punctuation)
Closeness = Literal["dot", "l2"]
"""How alike two tokens' vectors are: their product, or their squared distance below 0."""
Total = Literal["sum", "mean"]
"""What a score is of the best matches of a query's tokens."""


@dataclass(frozen=True)
class StoredRole:
    """Holds how queries or documents are read.

    `marker` is the token before the text, "" for none, and `prompt` a text before it. `limit` is the largest
    number of tokens, with special ones (None: the model's). Vectors of the tokens `skipped` are left out.
    """

    marker: str
    prompt: str
    limit: int | None
    skipped: tuple[str, ...]


@dataclass(frozen=True)
class StoredExpansion:
    """Holds to how many tokens a query is filled up: with `token`, None for the mask token.

    If not `attends`, the query's own tokens do not see these, which see them.
    """

    length: int
    attends: bool
    token: str | None = None


@dataclass(frozen=True)
class MultiVectorFiles:
    """Holds what a folder says: both roles, what fills up a query, and how a score is made.

    `modules` are those behind the transformer; without any, the weights have a projection of their own, to
    `width` numbers if the folder says it. `normalizes`: vectors get the length 1 behind them. `total` is what
    a score is of the query's tokens.
    """

    query: StoredRole
    document: StoredRole
    expansion: StoredExpansion | None
    modules: tuple[SentenceModule, ...] = ()
    width: int | None = None
    normalizes: bool = True
    closeness: Closeness = "dot"
    total: Total = "sum"


def multi_vector_files(folder: Path) -> MultiVectorFiles | None:
    """Returns what a folder says of its tokens' vectors, None for a folder of another model.

    Three layouts are known: that of ColBERT's authors with artifact.metadata, that of PyLate, whose
    modules.json lists a Dense and no Pooling, and that of sentence-transformers with a MultiVectorMask.
    Raises `ModelError`, naming the file, for files that are damaged.
    """
    modules = tuple(modules_of(folder))
    kinds = {module.kind for module in modules[1:]}
    if MASK in kinds:
        return _of_masked_modules(folder, modules)
    if "Dense" in kinds and not kinds & {"Pooling", "SpladePooling", "LogitScore"}:
        return _of_pylate(folder, modules)
    config = folder / "config.json"
    if modules or not config.is_file() or read_json_file(config).get("architectures") != [COLBERT]:
        return None
    return _of_artifact(folder)


def _of_artifact(folder: Path) -> MultiVectorFiles:
    keys = _keys(folder / ARTIFACT)
    if keys.text("interaction", "colbert") != "colbert":
        raise keys.error("interaction", "colbert")
    similarity = keys.text("similarity", "cosine")
    if similarity not in ("cosine", "l2"):
        raise keys.error("similarity", "cosine or l2")
    length = keys.count("query_maxlen", 32)
    skipped = PUNCTUATION if keys.flag("mask_punctuation", True) else ()
    return MultiVectorFiles(
        query=StoredRole(keys.text("query_token_id", "[unused0]"), "", length, ()),
        document=StoredRole(
            keys.text("doc_token_id", "[unused1]"), "", keys.count("doc_maxlen", 220), skipped
        ),
        expansion=StoredExpansion(length, keys.flag("attend_to_mask_tokens", False)),
        width=keys.count("dim") if keys.has("dim") else None,
        closeness="dot" if similarity == "cosine" else "l2",
    )


def _of_pylate(folder: Path, modules: Sequence[SentenceModule]) -> MultiVectorFiles:
    keys = _keys(folder / SETTINGS)
    length = keys.count("query_length", 32)
    expands = keys.flag("do_query_expansion", True)
    attends = keys.flag("attend_to_expansion_tokens", False)
    skipped = _texts(keys, "skiplist_words", PUNCTUATION)
    query, document = _prompts(keys)
    return MultiVectorFiles(
        query=StoredRole(keys.text("query_prefix", "[Q] "), query, length, ()),
        document=StoredRole(
            keys.text("document_prefix", "[D] "), document, keys.count("document_length", 180), skipped
        ),
        expansion=StoredExpansion(length, attends) if expands else None,
        modules=tuple(modules[1:]),
        total=_total(keys),
    )


def _of_masked_modules(folder: Path, modules: Sequence[SentenceModule]) -> MultiVectorFiles:
    keys, transformer = _keys(folder / SETTINGS), _keys(modules[0].folder / "sentence_bert_config.json")
    mask = _keys(next(place for kind, place in modules if kind == MASK) / "config.json")
    if mask.values.get("keep_only_token_ids"):
        raise mask.error("keep_only_token_ids", "null: models of images are not supported")
    words, tasks = _texts(mask, "skiplist_words", ()), _texts(mask, "skiplist_tasks", ("document",))
    texts = _prompts(keys)
    expansion, query_limit = _expansion(transformer)
    limits = query_limit, _limit(transformer, "document_length")
    query, document = (
        StoredRole("", text, limit, words if task in tasks else ())
        for text, limit, task in zip(texts, limits, ("query", "document"), strict=True)
    )
    return MultiVectorFiles(
        query=query,
        document=document,
        expansion=expansion,
        modules=tuple(module for module in modules[1:] if module.kind != MASK),
        normalizes=False,
        total=_total(keys),
    )


def _expansion(keys: CheckpointKeys) -> tuple[StoredExpansion | None, int | None]:
    """Returns what fills up a query, and the largest number of its tokens."""
    limit = _limit(keys, "query_length")
    if not keys.has("query_expansion"):
        return None, limit
    given = keys.section("query_expansion")
    strategy = given.text("strategy")
    if strategy not in ("fixed", "min"):
        raise given.error("strategy", "fixed or min")
    token = given.text("token") if given.has("token") else None
    found = StoredExpansion(given.count("length"), given.flag("attend", False), token)
    return found, found.length if strategy == "fixed" else limit


def _limit(keys: CheckpointKeys, key: str) -> int | None:
    return keys.count(key) if keys.has(key) else None


def _prompts(keys: CheckpointKeys) -> tuple[str, str]:
    """Returns the texts before a query and before a document."""
    stored = keys.section("prompts")
    query, document = (
        next((stored.text(name) for name in names if stored.has(name)), "") for names in (QUERY, DOCUMENT)
    )
    return query, document


def _total(keys: CheckpointKeys) -> Total:
    """Returns how a score is made; folders also name a metric of single vectors there, which is not read."""
    return "mean" if keys.text("similarity_fn_name", "maxsim").lower() == "meanmaxsim" else "sum"


def _texts(keys: CheckpointKeys, key: str, default: tuple[str, ...]) -> tuple[str, ...]:
    if not keys.has(key):
        return default
    found: Any = keys.values[key]
    if not isinstance(found, list) or not all(isinstance(text, str) for text in found):
        raise keys.error(key, "a list of texts")
    return tuple(found)


def _keys(file: Path) -> CheckpointKeys:
    """Returns the settings of a file, none if there is no such file."""
    values: Mapping[str, Any] = read_json_file(file) if file.is_file() else {}
    return CheckpointKeys(values, str(file))
