"""Builds tokenizers of the tokenizers library, one function for each `tokenizer.ggml.model`.

The functions take the key-values, and the arrays of tokens and of their types, which have equal lengths.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any, Final

import tokenizers
from tokenizers import AddedToken, Regex, models, normalizers, pre_tokenizers

from decodery.errors import CheckpointError
from decodery.text.tokenizer import spelling
from decodery.text.tokenizer.gguf_keys import PREFIX, array, same_length, token_id
from decodery.text.tokenizer.pieces import (
    Merges,
    Pieces,
    literal_unigram,
    merges_from_scores,
    unigram_backend,
)
from decodery.text.tokenizer.pretokenizers import Scheme, build_pre_tokenizer, scheme_named
from decodery.text.tokenizer.score_merges import ScoreMerges, order_is_by_place
from decodery.text.tokenizer.spelling import BYTE, CONTROL, NORMAL, UNKNOWN, USER_DEFINED
from decodery.text.tokenizer.word_lists import piece_backend

Metadata = Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class Model:
    """Holds a tokenizer, the spelling of its normal tokens, and the defaults of keys that a file may lack.

    `begin` and `end` are the roles of the tokens around a prompt, by default present or not; `fixed`: present
    whatever the file says. `literal_model` is that of `Vocabulary`.
    """

    backend: tokenizers.Tokenizer
    normal: Callable[[str], bytes]
    literal_model: Callable[[], Any] | None = None
    begin: str = "bos"
    end: str = "eos"
    add_begin: bool = False
    add_end: bool = False
    fixed: bool = False


def build_model(metadata: Metadata, tokens: Sequence[str], types: Sequence[int]) -> Model:
    """Returns the tokenizer of a vocabulary. Raises `CheckpointError` for an unknown or damaged one."""
    name = metadata.get(f"{PREFIX}model")
    if name not in MODELS:
        raise CheckpointError(
            f"the vocabulary is of kind {name!r} (tokenizer.ggml.model); those of kind "
            f"{', '.join(MODELS)} can be read"
        )
    try:
        return MODELS[name](metadata, tokens, types)
    except CheckpointError:
        raise
    except Exception as error:  # The library raises bare exceptions.
        raise CheckpointError(f"the vocabulary does not hold together: {error}") from error


def _gpt2(metadata: Metadata, tokens: Sequence[str], types: Sequence[int]) -> Model:
    scheme = scheme_named(str(metadata.get(f"{PREFIX}pre", "default")))
    if scheme.byte_level:
        backend = _byte_level(metadata, tokens, scheme)
        normal = spelling.byte_level
    else:
        backend = _plain_bpe(metadata, tokens, types, scheme)
        normal = spelling.spaced if scheme.mark_spaces else spelling.plain
    _add_special(backend, metadata, tokens, types)
    return Model(backend, normal, add_begin=scheme.add_bos, fixed=scheme.always_bos)


def _gemma4(metadata: Metadata, tokens: Sequence[str], types: Sequence[int]) -> Model:
    return _gpt2({**metadata, f"{PREFIX}pre": "gemma4"}, tokens, types)


def _llama(metadata: Metadata, tokens: Sequence[str], types: Sequence[int]) -> Model:
    scores = array(metadata, "scores", (int, float))
    same_length("scores", scores, tokens)
    merges = _declared_merges(metadata)
    by_place = merges is None and order_is_by_place(tokens, scores, types)
    if merges is None:
        merges = merges_from_scores(tokens, scores, types)
    backend = _fallback_bpe(metadata, tokens, types, merges)
    if by_place:
        order = ScoreMerges(tokens, scores, types, _unknown(metadata, tokens, types))
        backend.pre_tokenizer = pre_tokenizers.PreTokenizer.custom(order)
    steps: list[normalizers.Normalizer] = [normalizers.Replace(" ", spelling.SPACE_MARK)]
    if metadata.get(f"{PREFIX}add_space_prefix", True):
        steps.insert(0, normalizers.Prepend(spelling.SPACE_MARK))
    backend.normalizer = normalizers.Sequence(steps)
    _add_special(backend, metadata, tokens, types)
    return Model(backend, spelling.spaced, add_begin=True)


def _t5(metadata: Metadata, tokens: Sequence[str], types: Sequence[int]) -> Model:
    scores = array(metadata, "scores", (int, float))
    same_length("scores", scores, tokens)
    pieces = Pieces(
        texts=tokens,
        scores=scores,
        kinds=types,
        unknown=token_id(metadata, "unknown", len(tokens), default=2),
        rules=bytes(value & 0xFF for value in array(metadata, "precompiled_charsmap", int)),
        merge_spaces=bool(metadata.get(f"{PREFIX}remove_extra_whitespaces", False)),
        space_prefix=bool(metadata.get(f"{PREFIX}add_space_prefix", False)),
        prefix_each=True,
    )
    _ids(tokens)
    return Model(unigram_backend(pieces), spelling.spaced, partial(literal_unigram, pieces), add_end=True)


def _bert(metadata: Metadata, tokens: Sequence[str], types: Sequence[int]) -> Model:
    """Returns a WordPiece tokenizer; its file marks the beginning of a word, not its continuation."""
    unknown = token_id(metadata, "unknown", len(tokens), default=100)
    if unknown is None:
        raise CheckpointError("the vocabulary has no unknown token (tokenizer.ggml.unknown_token_id)")
    lowercase = metadata.get(f"{PREFIX}normalizer.lowercase", True)
    accents = metadata.get(f"{PREFIX}normalizer.strip_accents")
    texts = [_word_piece(text) if kind == NORMAL else text for text, kind in zip(tokens, types, strict=True)]
    backend = piece_backend(
        _ids(texts),
        texts[unknown],
        lowercase=bool(lowercase),
        strip_accents=accents if isinstance(accents, bool) else None,
    )
    _add_special(backend, metadata, tokens, types)
    return Model(
        backend, spelling.spaced, begin="cls", end="seperator", add_begin=True, add_end=True, fixed=True
    )


def _word_piece(text: str) -> str:
    return text[1:] if text.startswith(spelling.SPACE_MARK) else f"##{text}"


MODELS: Final[dict[str, Callable[[Metadata, Sequence[str], Sequence[int]], Model]]] = {
    "llama": _llama,
    "gpt2": _gpt2,
    "bert": _bert,
    "t5": _t5,
    "gemma4": _gemma4,
}


def _byte_level(metadata: Metadata, tokens: Sequence[str], scheme: Scheme) -> tokenizers.Tokenizer:
    vocabulary = _ids(tokens)
    merges = _required_merges(metadata, vocabulary)
    backend = tokenizers.Tokenizer(models.BPE(vocabulary, merges, ignore_merges=scheme.ignore_merges))
    steps: list[normalizers.Normalizer] = [normalizers.NFC()] if scheme.compose else []
    if metadata.get(f"{PREFIX}add_space_prefix", False):
        # Unless the text begins with a space. The library's own prefix would be that of each piece.
        steps += [normalizers.Prepend(" "), normalizers.Replace(Regex(r"\A  "), " ")]
    if steps:
        backend.normalizer = normalizers.Sequence(steps)
    backend.pre_tokenizer = build_pre_tokenizer(scheme)
    return backend


def _plain_bpe(
    metadata: Metadata, tokens: Sequence[str], types: Sequence[int], scheme: Scheme
) -> tokenizers.Tokenizer:
    """Returns a BPE whose tokens are plain text; other characters become byte tokens."""
    backend = _fallback_bpe(metadata, tokens, types, _required_merges(metadata, _ids(tokens)))
    if scheme.mark_spaces:
        backend.normalizer = normalizers.Replace(" ", spelling.SPACE_MARK)
    backend.pre_tokenizer = build_pre_tokenizer(scheme)
    return backend


def _fallback_bpe(
    metadata: Metadata, tokens: Sequence[str], types: Sequence[int], merges: Merges
) -> tokenizers.Tokenizer:
    vocabulary = _ids(tokens)
    _known_merges(merges, vocabulary)
    unknown = _unknown(metadata, tokens, types)
    return tokenizers.Tokenizer(
        models.BPE(
            vocabulary,
            merges,
            unk_token=tokens[unknown] if unknown is not None else None,
            fuse_unk=True,
            byte_fallback=BYTE in types,
        )
    )


def _unknown(metadata: Metadata, tokens: Sequence[str], types: Sequence[int]) -> int | None:
    declared = token_id(metadata, "unknown", len(tokens))
    return types.index(UNKNOWN) if declared is None and UNKNOWN in types else declared


def _add_special(
    backend: tokenizers.Tokenizer, metadata: Metadata, tokens: Sequence[str], types: Sequence[int]
) -> None:
    stripped = _strips_behind(metadata)
    backend.add_tokens(
        [
            AddedToken(token, special=kind != USER_DEFINED, normalized=False, rstrip=stripped(token))
            for token, kind in zip(tokens, types, strict=True)
            if kind in (UNKNOWN, CONTROL, USER_DEFINED)
        ]
    )


def _strips_behind(metadata: Metadata) -> Callable[[str], bool]:
    """Returns a function that says which special tokens remove the whitespace behind them.

    Phi-3's do, and GGUF has no key for it.
    """
    if metadata.get("general.architecture") != "phi3" or metadata.get(f"{PREFIX}model") != "llama":
        return lambda token: False
    return lambda token: token not in ("<unk>", "<s>", "<|endoftext|>")


def _required_merges(metadata: Metadata, vocabulary: Mapping[str, int]) -> Merges:
    merges = _declared_merges(metadata)
    if merges is None:
        raise CheckpointError("the vocabulary has no merges: tokenizer.ggml.merges is missing")
    _known_merges(merges, vocabulary)
    return merges


def _declared_merges(metadata: Metadata) -> Merges | None:
    if f"{PREFIX}merges" not in metadata:
        return None
    merges: Merges = []
    for line in array(metadata, "merges", str):
        cut = line.find(" ", 1)
        if cut < 0:
            raise CheckpointError(f"the merge {line!r} in tokenizer.ggml.merges is not a pair of tokens")
        merges.append((line[:cut], line[cut + 1 :]))
    return merges


def _known_merges(merges: Merges, vocabulary: Mapping[str, int]) -> None:
    for left, right in merges:
        if left not in vocabulary or right not in vocabulary or left + right not in vocabulary:
            raise CheckpointError(
                f"the merge {left!r} + {right!r} in tokenizer.ggml.merges names a token that "
                "tokenizer.ggml.tokens does not have"
            )


def _ids(tokens: Sequence[str]) -> dict[str, int]:
    """Returns the ids of the tokens. Raises `CheckpointError` when two have the same text."""
    ids = {token: place for place, token in enumerate(tokens)}
    if len(ids) + tokens.count("") - ("" in ids) != len(tokens):
        place = next(place for place, token in enumerate(tokens) if token and ids[token] != place)
        raise CheckpointError(
            f"tokenizer.ggml.tokens holds {tokens[place]!r} twice, "
            f"with the ids {place} and {ids[tokens[place]]}"
        )
    return ids
