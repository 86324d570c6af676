"""Builds tokenizers from lists of tokens: vocab.json with or without merges.txt, and vocab.txt."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final

import tokenizers
from tokenizers import AddedToken, Regex, decoders, models, normalizers, pre_tokenizers, processors

from decodery.errors import CheckpointError
from decodery.text.tokenizer.pretokenizers import build_pre_tokenizer, scheme_named

MOST_IDS: Final = 1 << 24
_WORD_END: Final = "</w>"
# A special token of a list that does not say which ones are special: `<s>`, `[PAD]`, `<|endoftext|>`.
_SPECIAL: Final = re.compile(r"<[^<>\s]+>|\[[A-Z0-9_]+\]")
# The schemes of tokenizer.ggml.pre that tokenizer classes and types of models stand for.
_SCHEME_OF: Final = {
    **dict.fromkeys(("Qwen2Tokenizer", "qwen2", "qwen2_moe", "qwen3", "qwen3_moe"), "qwen2"),
    **dict.fromkeys(("GPTNeoXTokenizer", "gpt_neox", "olmo", "mpt"), "mpt"),
    **dict.fromkeys(("CohereTokenizer", "cohere"), "command-r"),
}

Vocab = dict[str, int]
Implied = dict[str, Any]


def read_vocab_json(file: Path) -> Vocab:
    """Returns the ids of a vocab.json by token. Raises `CheckpointError`, naming the file and the entry."""
    try:
        content = json.loads(file.read_text(encoding="utf-8"))
    except (ValueError, RecursionError) as error:
        raise CheckpointError(f"{file} is not valid JSON: {error}") from None
    if not isinstance(content, dict) or not content:
        raise CheckpointError(f"{file} must map tokens to ids")
    texts: dict[int, str] = {}
    for text, token in content.items():
        if not isinstance(token, int) or isinstance(token, bool) or not 0 <= token < MOST_IDS:
            raise CheckpointError(f"{file}: the token {text!r} has the id {token!r}, which is out of range")
        if texts.setdefault(token, text) != text:
            raise CheckpointError(
                f"{file}: the tokens {texts[token]!r} and {text!r} both have the id {token}"
            )
    return content


def read_vocab_txt(file: Path) -> Vocab:
    """Returns the ids of a vocab.txt, one token a line. Raises `CheckpointError`, naming file and line."""
    vocabulary: Vocab = {}
    try:
        lines = file.read_text(encoding="utf-8").split("\n")
    except UnicodeDecodeError as error:
        raise CheckpointError(f"{file} is not UTF-8 text: {error}") from None
    if lines[-1] == "":
        lines.pop()
    for place, line in enumerate(lines):
        text = line.removesuffix("\r")
        if text in vocabulary:
            raise CheckpointError(
                f"{file}: the token {text!r} stands in lines {vocabulary[text] + 1} and {place + 1}"
            )
        vocabulary[text] = place
    if not vocabulary:
        raise CheckpointError(f"{file} has no tokens")
    return vocabulary


def read_merges(file: Path, vocabulary: Vocab) -> list[tuple[str, str]]:
    """Returns the pairs of a merges.txt. Raises `CheckpointError`, naming the file and the line.

    The halves of a pair, and the token that they make, must be in the vocabulary.
    """
    merges: list[tuple[str, str]] = []
    try:
        lines = file.read_text(encoding="utf-8").split("\n")
    except UnicodeDecodeError as error:
        raise CheckpointError(f"{file} is not UTF-8 text: {error}") from None
    for number, line in enumerate(lines, start=1):
        if not line.strip() or (number == 1 and line.startswith("#version")):
            continue
        pair = line.removesuffix("\r").split(" ")
        if len(pair) != 2 or not all(pair):
            raise CheckpointError(f"{file}, line {number}: {line!r} is not a pair of tokens")
        if any(token not in vocabulary for token in (*pair, "".join(pair))):
            raise CheckpointError(
                f"{file}, line {number}: {line!r} names a token that the vocabulary does not have"
            )
        merges.append((pair[0], pair[1]))
    return merges


def merged_backend(
    file: Path, vocabulary: Vocab, merges_file: Path, config: Mapping[str, Any], model_type: str
) -> tuple[tokenizers.Tokenizer, Implied]:
    """Returns the BPE of a vocab.json and a merges.txt: byte-level, or GPT-1's with ends of words."""
    kind = str(config.get("tokenizer_class", "")).removesuffix("Fast")
    by_words = any(text.endswith(_WORD_END) for text in vocabulary)
    merges = read_merges(merges_file, vocabulary)
    if by_words and kind not in ("", "OpenAIGPTTokenizer"):
        raise CheckpointError(f"{merges_file}: how a {kind} cuts text is unknown; save it as tokenizer.json")
    if by_words:
        return _gpt1_backend(file, vocabulary, merges)
    scheme = scheme_named(next((_SCHEME_OF[key] for key in (kind, model_type) if key in _SCHEME_OF), "gpt-2"))
    backend = tokenizers.Tokenizer(models.BPE(vocabulary, merges))
    if scheme.compose:
        backend.normalizer = normalizers.NFC()
    backend.pre_tokenizer = build_pre_tokenizer(scheme, add_prefix_space=bool(config.get("add_prefix_space")))
    backend.decoder = decoders.ByteLevel()
    ends = [text for text in ("<|endoftext|>",) if text in vocabulary]
    return backend, dict.fromkeys(("bos_token", "eos_token", "unk_token"), ends[0]) if ends else {}


def _gpt1_backend(
    file: Path, vocabulary: Vocab, merges: list[tuple[str, str]]
) -> tuple[tokenizers.Tokenizer, Implied]:
    unknown = _named(file, vocabulary, "<unk>", {}, "unk_token")
    model = models.BPE(vocabulary, merges, unk_token=unknown, end_of_word_suffix=_WORD_END)
    backend = tokenizers.Tokenizer(model)
    backend.normalizer = normalizers.BertNormalizer(lowercase=True)
    backend.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    backend.decoder = decoders.BPEDecoder(suffix=_WORD_END)
    return backend, {"unk_token": unknown}


def word_piece_backend(
    file: Path, vocabulary: Vocab, config: Mapping[str, Any]
) -> tuple[tokenizers.Tokenizer, Implied]:
    """Returns the WordPiece tokenizer of a vocab.txt (Devlin et al. 2018), which adds `[CLS]` and `[SEP]`."""
    names = {"unk_token": "[UNK]", "cls_token": "[CLS]", "sep_token": "[SEP]"}
    found = {role: _named(file, vocabulary, name, config, role) for role, name in names.items()}
    backend = piece_backend(
        vocabulary,
        found["unk_token"],
        lowercase=config.get("do_lower_case") is not False,
        strip_accents=config.get("strip_accents"),
        split_chinese=config.get("tokenize_chinese_chars") is not False,
    )
    begin, end = found["cls_token"], found["sep_token"]
    backend.post_processor = processors.TemplateProcessing(
        single=[begin, "$A", end],
        special_tokens=[(begin, vocabulary[begin]), (end, vocabulary[end])],
    )
    rest = {"pad_token": "[PAD]", "mask_token": "[MASK]"}
    return backend, {**found, **{role: text for role, text in rest.items() if text in vocabulary}}


def piece_backend(
    vocabulary: Vocab,
    unknown: str,
    *,
    lowercase: bool,
    strip_accents: bool | None = None,
    split_chinese: bool = True,
) -> tokenizers.Tokenizer:
    """Returns a WordPiece tokenizer that cuts text as BERT does. By default `lowercase` removes accents."""
    backend = tokenizers.Tokenizer(models.WordPiece(vocabulary, unk_token=unknown))
    backend.normalizer = normalizers.BertNormalizer(
        clean_text=True, handle_chinese_chars=split_chinese, strip_accents=strip_accents, lowercase=lowercase
    )
    backend.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    backend.decoder = decoders.WordPiece(prefix="##", cleanup=False)
    return backend


def listed_backend(
    file: Path, vocabulary: Vocab, config: Mapping[str, Any]
) -> tuple[tokenizers.Tokenizer, Implied]:
    """Returns the tokenizer of a bare list: of characters if all tokens are single ones, else of words.

    Words end at whitespace. If no token mixes letters and other signs, they end where these meet, too.
    """
    special = [text for text in vocabulary if _SPECIAL.fullmatch(text)]
    plain = [text for text in vocabulary if text not in set(special)]
    unknown: str | None = next((text for text in ("<unk>", "[UNK]", "<UNK>") if text in vocabulary), None)
    unknown = _named(file, vocabulary, unknown, config, "unk_token") if config.get("unk_token") else unknown
    by_characters = all(len(text) == 1 for text in plain)
    if by_characters:
        backend = tokenizers.Tokenizer(models.BPE(vocabulary, [], unk_token=unknown))
        backend.pre_tokenizer = pre_tokenizers.Split(Regex("(?m:.)"), behavior="isolated")
        backend.decoder = decoders.Fuse()
    elif unknown is None:
        raise CheckpointError(f"{file} lists words and has no unknown token such as <unk>")
    else:
        backend = tokenizers.Tokenizer(models.WordLevel(vocabulary, unknown))
        mixed = any(len(re.findall(r"\w+|[^\w\s]+", text)) > 1 for text in plain)
        backend.pre_tokenizer = pre_tokenizers.WhitespaceSplit() if mixed else pre_tokenizers.Whitespace()
        backend.decoder = decoders.WordPiece(prefix="\uffff", cleanup=False)  # no piece continues a word
    by_id = sorted(special, key=vocabulary.__getitem__)
    backend.add_tokens([AddedToken(text, special=True, normalized=False) for text in by_id])
    return backend, {"unk_token": unknown} if unknown is not None else {}


def _named(file: Path, vocabulary: Vocab, name: str | None, config: Mapping[str, Any], role: str) -> str:
    """Returns the text of a special token: as the config names it, else the usual one."""
    value = config.get(role)
    declared = value.get("content") if isinstance(value, dict) else value
    text = declared if isinstance(declared, str) else name
    if text is None or text not in vocabulary:
        raise CheckpointError(f"{file} has no token {text!r}, which it needs as {role}")
    return text
