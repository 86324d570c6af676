"""Builds tokenizers from the files that a model folder has in place of a tokenizer.json."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import Any, Final

import tokenizers

from decodery.errors import CheckpointError
from decodery.text.tokenizer import rank_files, sentencepiece_files, word_lists
from decodery.text.tokenizer import split_patterns as patterns
from decodery.text.tokenizer.pieces import (
    bpe_backend,
    character_backend,
    literal_unigram,
    unigram_backend,
    word_backend,
)
from decodery.text.tokenizer.rank_files import Ranks, rank_backend

# Slow tokenizers of transformers that number the tokens of their files anew.
_RENUMBERED: Final = frozenset(
    {
        *(
            "XLMRobertaTokenizer",
            "CamembertTokenizer",
            "BarthezTokenizer",
            "MBartTokenizer",
            "MBart50Tokenizer",
        ),
        *("NllbTokenizer", "XGLMTokenizer", "PegasusTokenizer", "M2M100Tokenizer", "MarianTokenizer"),
        *("SeamlessM4TTokenizer", "Speech2TextTokenizer", "XLMProphetNetTokenizer", "PLBartTokenizer"),
    }
)


@dataclass(frozen=True, slots=True)
class Built:
    """Holds a tokenizer, and the entries of tokenizer_config.json that its files imply.

    `literal_model` is that of `Vocabulary`.
    """

    backend: tokenizers.Tokenizer
    implied: Mapping[str, Any] = field(default_factory=dict)
    literal_model: Callable[[], Any] | None = None


def build_from_files(path: Path, config: Mapping[str, Any], model_type: str) -> Built | None:
    """Returns the tokenizer of a folder's slow files; None if it has none of them.

    `config` is the content of tokenizer_config.json, `model_type` that key of config.json. Raises
    `CheckpointError`, naming the file, when one is damaged or does not say enough.
    """
    for name, build in FILES.items():
        for file in sorted(path.glob(name)):
            if file.is_file():
                _check_class(file, str(config.get("tokenizer_class", "")))
                return build(file, config, model_type)
    return None


def _check_class(file: Path, kind: str) -> None:
    if kind.removesuffix("Fast") in _RENUMBERED:
        raise CheckpointError(
            f"{file}: a {kind} gives its tokens other ids than the file; save it as tokenizer.json"
        )


def _from_tekken(file: Path, config: Mapping[str, Any], model_type: str) -> Built:
    ranks, roles = rank_files.read_tekken(file)
    return Built(_rank_backend(file, ranks), {**roles, "add_bos_token": "bos_token" in roles})


def _from_model(file: Path, config: Mapping[str, Any], model_type: str) -> Built:
    """Reads a `.model` file, which is a SentencePiece model or a list of tiktoken."""
    with file.open("rb") as opened:
        start = opened.read(4096)
    if rank_files.is_tiktoken(start):
        return _from_tiktoken(file, config, model_type)
    return _from_sentencepiece(file, config)


def _from_sentencepiece(file: Path, config: Mapping[str, Any]) -> Built:
    read = sentencepiece_files.read_pieces(file)
    prefix = config.get("add_prefix_space")
    pieces = replace(
        read.pieces,
        prefix_each=config.get("legacy") is not False,
        space_prefix=prefix if isinstance(prefix, bool) else read.pieces.space_prefix,
    )
    build = {
        sentencepiece_files.UNIGRAM: unigram_backend,
        sentencepiece_files.BPE: bpe_backend,
        sentencepiece_files.WORDS: word_backend,
        sentencepiece_files.CHARACTERS: character_backend,
    }[read.algorithm]
    try:
        backend = build(pieces)
    except Exception as error:  # The library raises bare exceptions.
        raise CheckpointError(f"{file} is no intact SentencePiece model: {error}") from error
    roles = {
        "unk_token": pieces.unknown,
        "bos_token": read.begin,
        "eos_token": read.end,
        "pad_token": read.pad,
    }
    implied: dict[str, Any] = {
        role: pieces.texts[token] for role, token in roles.items() if token is not None
    }
    # Llama and Gemma begin a prompt with a token, T5 and its relatives end one.
    begins = read.algorithm != sentencepiece_files.UNIGRAM
    implied["add_bos_token" if begins else "add_eos_token"] = True
    if read.algorithm == sentencepiece_files.UNIGRAM:
        return Built(backend, implied, partial(literal_unigram, pieces))
    return Built(backend, implied)


def _from_tiktoken(file: Path, config: Mapping[str, Any], model_type: str) -> Built:
    kind = str(config.get("tokenizer_class", "")).removesuffix("Fast")
    family = next((_FAMILIES[key] for key in (kind, model_type, file.name) if key in _FAMILIES), None)
    if family is None:
        raise CheckpointError(
            f"{file}: a tiktoken file does not say how text is cut, and neither tokenizer_class"
            f" ({kind or 'none'}) nor model_type ({model_type or 'none'}) is known; save it as tokenizer.json"
        )
    tokens = rank_files.read_tiktoken(file)
    first = max(tokens.values()) + 1
    special = {text: first + place for place, text in enumerate(family.special(first))}
    declared = config.get("added_tokens_decoder")
    if isinstance(declared, dict):
        named = {
            int(key): entry.get("content") for key, entry in declared.items() if _is_declared(key, entry)
        }
        special = {str(named.get(token, text)): token for text, token in special.items()}
    ranks = Ranks(tokens, special, family.pattern, compose=family.compose)
    return Built(_rank_backend(file, ranks), family.implied)


def _is_declared(key: str, entry: object) -> bool:
    return (
        key.isascii()
        and key.isdecimal()
        and isinstance(entry, dict)
        and isinstance(entry.get("content"), str)
    )


def _rank_backend(file: Path, ranks: Ranks) -> tokenizers.Tokenizer:
    try:
        return rank_backend(ranks)
    except Exception as error:  # The library raises bare exceptions.
        raise CheckpointError(f"{file}: the vocabulary does not hold together: {error}") from error


@dataclass(frozen=True, slots=True)
class _Family:
    """Holds what a family's code declares: how text is cut, and which tokens follow the ranks."""

    pattern: str
    special: Callable[[int], list[str]]
    implied: Mapping[str, Any] = field(default_factory=dict)
    compose: bool = False


def _qwen_special(first: int) -> list[str]:
    return ["<|endoftext|>", "<|im_start|>", "<|im_end|>", *(f"<|extra_{place}|>" for place in range(205))]


def _llama3_special(first: int) -> list[str]:
    named = [
        *(
            "<|begin_of_text|>",
            "<|end_of_text|>",
            "<|reserved_special_token_0|>",
            "<|reserved_special_token_1|>",
        ),
        *(
            "<|finetune_right_pad_id|>",
            "<|step_id|>",
            "<|start_header_id|>",
            "<|end_header_id|>",
            "<|eom_id|>",
        ),
        *("<|eot_id|>", "<|python_tag|>"),
    ]
    return [*named, *(f"<|reserved_special_token_{place}|>" for place in range(2, 256 - len(named) + 2))]


def _kimi_special(first: int) -> list[str]:
    return [f"<|reserved_token_{token}|>" for token in range(first, first + 256)]


def _no_special(first: int) -> list[str]:
    return []


_QWEN = _Family(
    patterns.QWEN2,
    _qwen_special,
    {"eos_token": "<|endoftext|>", "eot_token": "<|im_end|>", "pad_token": "<|endoftext|>"},
    compose=True,
)
_LLAMA3 = _Family(
    patterns.LLAMA3,
    _llama3_special,
    {
        **{"bos_token": "<|begin_of_text|>", "eos_token": "<|end_of_text|>", "eot_token": "<|eot_id|>"},
        "add_bos_token": True,
    },
)
_KIMI = _Family(patterns.KIMI_K2, _kimi_special)
_GLM4 = _Family(patterns.LLAMA3, _no_special)
# By tokenizer_class, model_type or the name of the file.
_FAMILIES: Final = {
    **dict.fromkeys(("QWenTokenizer", "qwen", "qwen.tiktoken"), _QWEN),
    **dict.fromkeys(("ChatGLM4Tokenizer", "chatglm"), _GLM4),
    **dict.fromkeys(("TikTokenTokenizer", "kimi_k2", "tiktoken.model"), _KIMI),
    **dict.fromkeys(("llama", "mllama", "tokenizer.model"), _LLAMA3),
}


def _from_vocab_json(file: Path, config: Mapping[str, Any], model_type: str) -> Built:
    vocabulary = word_lists.read_vocab_json(file)
    merges = file.parent / "merges.txt"
    if merges.is_file():
        return Built(*word_lists.merged_backend(file, vocabulary, merges, config, model_type))
    return Built(*word_lists.listed_backend(file, vocabulary, config))


def _from_vocab_txt(file: Path, config: Mapping[str, Any], model_type: str) -> Built:
    vocabulary = word_lists.read_vocab_txt(file)
    if any(text.startswith("##") for text in vocabulary) or "[CLS]" in vocabulary:
        return Built(*word_lists.word_piece_backend(file, vocabulary, config))
    return Built(*word_lists.listed_backend(file, vocabulary, config))


# The files in the order in which they are looked for.
FILES: Final[dict[str, Callable[[Path, Mapping[str, Any], str], Built]]] = {
    "tekken.json": _from_tekken,
    "*.tiktoken": _from_tiktoken,
    "tiktoken.model": _from_tiktoken,
    "tokenizer.model": _from_model,
    "spiece.model": _from_model,
    "sentencepiece.bpe.model": _from_model,
    "vocab.json": _from_vocab_json,
    "vocab.txt": _from_vocab_txt,
}
