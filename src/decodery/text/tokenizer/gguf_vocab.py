"""Builds a tokenizer of the tokenizers library from the vocabulary in a GGUF file.

The keys are those in the GGUF specification's section on tokenizers. Missing keys have llama.cpp's defaults.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, Final

import tokenizers
from tokenizers import AddedToken, models, normalizers

from decodery.errors import CheckpointError
from decodery.text.tokenizer import spelling
from decodery.text.tokenizer.pretokenizers import Scheme, build_pre_tokenizer, scheme_named
from decodery.text.tokenizer.vocabulary import Vocabulary

_PREFIX: Final = "tokenizer.ggml."
_NORMAL, _UNKNOWN, _CONTROL, _USER_DEFINED, _UNUSED, _BYTE = range(1, 7)

# Control tokens that end a turn; files older than the key `eot_token_id` declare them by name alone.
_END_OF_TURN = ("<|im_end|>", "<|eot_id|>", "<|eom_id|>", "<|end|>", "<end_of_turn>", "<|END_OF_TURN_TOKEN|>")
# In a vocabulary with this token, `<|end|>` ends a message, of which a turn may have several.
_RETURN = "<|return|>"

Merges = list[tuple[str, str]]


def read_vocabulary(metadata: Mapping[str, Any]) -> Vocabulary:
    """Returns the vocabulary of a GGUF file, from its key-values as plain Python values.

    `tokenizer.ggml.model` may be `gpt2` (byte-level BPE) or `llama` (SentencePiece BPE). Raises
    `CheckpointError` when it is another, or when arrays are missing or contradict each other.
    """
    model = metadata.get(f"{_PREFIX}model")
    if model not in ("gpt2", "llama"):
        raise CheckpointError(
            f"the file's vocabulary is of kind {model!r} (tokenizer.ggml.model); gpt2 and llama can be read"
        )
    tokens = _array(metadata, "tokens", str)
    if not tokens:
        raise CheckpointError("the file has no vocabulary: tokenizer.ggml.tokens is missing or empty")
    types = _array(metadata, "token_type", int) or [_NORMAL] * len(tokens)
    _same_length("token_type", types, tokens)
    scheme = scheme_named(str(metadata.get(f"{_PREFIX}pre", "default"))) if model == "gpt2" else None
    try:
        if scheme is not None:
            backend = _byte_level(metadata, tokens, scheme)
        else:
            backend = _sentence_piece(metadata, tokens, types)
    except CheckpointError:
        raise
    except Exception as error:  # The library raises bare exceptions.
        raise CheckpointError(f"the file's vocabulary does not hold together: {error}") from error
    _add_special(backend, tokens, types)
    return _with_roles(metadata, tokens, types, backend, scheme)


def _with_roles(
    metadata: Mapping[str, Any],
    tokens: Sequence[str],
    types: Sequence[int],
    backend: tokenizers.Tokenizer,
    scheme: Scheme | None,
) -> Vocabulary:
    bos, eos, eot, eom, pad = (
        _id(metadata, name, len(tokens)) for name in ("bos", "eos", "eot", "eom", "padding")
    )
    special = {token for token, kind in enumerate(types) if kind in (_UNKNOWN, _CONTROL)}
    declared = [token for token in (eos, eot, eom) if token is not None]
    ends = tuple(dict.fromkeys(declared if eot is not None else declared + _ends_by_name(tokens, types)))
    special.update(ends)
    special.update(token for token in (bos, pad) if token is not None)
    bos_default = scheme.add_bos if scheme is not None else True
    add_bos = bool(metadata.get(f"{_PREFIX}add_bos_token", bos_default)) and bos is not None
    add_eos = bool(metadata.get(f"{_PREFIX}add_eos_token", False)) and eos is not None
    rows = metadata.get(f"{metadata.get('general.architecture')}.vocab_size", 0)
    template = metadata.get("tokenizer.chat_template")
    return Vocabulary(
        backend=backend,
        spell=_speller(tokens, types, spelling.byte_level if scheme is not None else spelling.spaced),
        size=max(len(tokens), rows if isinstance(rows, int) else 0),
        special_ids=frozenset(special),
        bos_token_id=bos,
        eos_token_ids=ends,
        pad_token_id=pad,
        bos_token=tokens[bos] if bos is not None else "",
        eos_token=tokens[eos] if eos is not None else "",
        prefix=(bos,) if add_bos and bos is not None else (),
        suffix=(eos,) if add_eos and eos is not None else (),
        chat_template=template if isinstance(template, str) else None,
    )


def _byte_level(metadata: Mapping[str, Any], tokens: Sequence[str], scheme: Scheme) -> tokenizers.Tokenizer:
    vocabulary = _ids(tokens)
    merges = _declared_merges(metadata)
    if merges is None:
        raise CheckpointError("the file has no merges: tokenizer.ggml.merges is missing")
    _known_merges(merges, vocabulary)
    model = models.BPE(vocabulary, merges, ignore_merges=scheme.ignore_merges)
    backend = tokenizers.Tokenizer(model)
    if scheme.compose:
        backend.normalizer = normalizers.NFC()
    prefix_space = bool(metadata.get(f"{_PREFIX}add_space_prefix", False))
    backend.pre_tokenizer = build_pre_tokenizer(scheme, add_prefix_space=prefix_space)
    return backend


def _sentence_piece(
    metadata: Mapping[str, Any], tokens: Sequence[str], types: Sequence[int]
) -> tokenizers.Tokenizer:
    scores = _array(metadata, "scores", (int, float))
    _same_length("scores", scores, tokens)
    vocabulary = _ids(tokens)
    merges = _declared_merges(metadata)
    if merges is None:
        merges = merges_from_scores(tokens, scores, types)
    _known_merges(merges, vocabulary)
    unknown = _id(metadata, "unknown", len(tokens))
    if unknown is None and _UNKNOWN in types:
        unknown = types.index(_UNKNOWN)
    backend = tokenizers.Tokenizer(
        models.BPE(
            vocabulary,
            merges,
            unk_token=tokens[unknown] if unknown is not None else None,
            fuse_unk=True,
            byte_fallback=_BYTE in types,
        )
    )
    steps: list[normalizers.Normalizer] = [normalizers.Replace(" ", spelling.SPACE_MARK)]
    if metadata.get(f"{_PREFIX}add_space_prefix", True):
        steps.insert(0, normalizers.Prepend(spelling.SPACE_MARK))
    backend.normalizer = normalizers.Sequence(steps)
    return backend


def merges_from_scores(tokens: Sequence[str], scores: Sequence[float], types: Sequence[int]) -> Merges:
    """Returns the merges that SentencePiece's scores imply: pairs whose text is a token, best score first.

    Of the pairs with the same text the one with the longer left half comes first, so that repetitions of one
    character merge from the left.
    """
    normal = {token for token, kind in zip(tokens, types, strict=True) if kind == _NORMAL}
    found: list[tuple[float, int, str, str]] = []
    for token, score, kind in zip(tokens, scores, types, strict=True):
        if kind != _NORMAL:
            continue
        for cut in range(len(token) - 1, 0, -1):
            left = token[:cut]
            if left in normal and token[cut:] in normal:
                found.append((-score, -cut, left, token[cut:]))
    found.sort(key=lambda pair: pair[:2])
    return [(left, right) for _, _, left, right in found]


def _add_special(backend: tokenizers.Tokenizer, tokens: Sequence[str], types: Sequence[int]) -> None:
    added = [
        AddedToken(token, special=kind != _USER_DEFINED, normalized=False)
        for token, kind in zip(tokens, types, strict=True)
        if kind in (_UNKNOWN, _CONTROL, _USER_DEFINED)
    ]
    backend.add_tokens(added)


def _speller(
    tokens: Sequence[str], types: Sequence[int], normal: Callable[[str], bytes]
) -> Callable[[int], bytes]:
    def spell(token: int) -> bytes:
        if token >= len(tokens) or types[token] == _UNUSED:
            return b""
        text = tokens[token]
        if types[token] == _NORMAL or (types[token] == _USER_DEFINED and normal is spelling.spaced):
            return normal(text)
        if types[token] == _BYTE:
            return spelling.byte_token(text) or spelling.plain(text)
        return spelling.plain(text)

    return spell


def _ends_by_name(tokens: Sequence[str], types: Sequence[int]) -> list[int]:
    control = {token: place for place, token in enumerate(tokens) if types[place] == _CONTROL}
    names = [name for name in _END_OF_TURN if name != "<|end|>" or _RETURN not in control]
    return [control[name] for name in names if name in control]


def _declared_merges(metadata: Mapping[str, Any]) -> Merges | None:
    if f"{_PREFIX}merges" not in metadata:
        return None
    merges: Merges = []
    for line in _array(metadata, "merges", str):
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
    return {token: place for place, token in enumerate(tokens)}


def _array(metadata: Mapping[str, Any], name: str, kind: type | tuple[type, ...]) -> list[Any]:
    values = metadata.get(f"{_PREFIX}{name}", [])
    if not isinstance(values, (list, tuple)) or not all(isinstance(value, kind) for value in values):
        raise CheckpointError(f"{_PREFIX}{name} is not an array of the right type")
    return list(values)


def _same_length(name: str, values: Sequence[Any], tokens: Sequence[str]) -> None:
    if len(values) != len(tokens):
        raise CheckpointError(f"{_PREFIX}{name} has {len(values)} entries for {len(tokens)} tokens")


def _id(metadata: Mapping[str, Any], name: str, size: int) -> int | None:
    value = metadata.get(f"{_PREFIX}{name}_token_id")
    if value is None:
        return None
    if not isinstance(value, int) or not 0 <= value < size:
        raise CheckpointError(
            f"{_PREFIX}{name}_token_id is {value!r}, outside the vocabulary of {size} tokens"
        )
    return value
