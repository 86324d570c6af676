"""Reads the vocabulary in a GGUF file.

The keys are those in the GGUF specification's section on tokenizers. Missing keys have llama.cpp's defaults.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from decodery.errors import CheckpointError
from decodery.text.tokenizer import spelling
from decodery.text.tokenizer.gguf_keys import PREFIX, array, named_ids, same_length, token_id
from decodery.text.tokenizer.gguf_models import Model, build_model
from decodery.text.tokenizer.piece_kinds import BYTE, CONTROL, NORMAL, UNKNOWN, UNUSED, USER_DEFINED
from decodery.text.tokenizer.vocabulary import Vocabulary

# Control tokens that end a turn; files older than the key `eot_token_id` declare them by name alone.
_END_OF_TURN = (
    *(
        "<|im_end|>",
        "<|eot_id|>",
        "<|eom_id|>",
        "<|end|>",
        "<end_of_turn>",
        "<turn|>",
        "<|END_OF_TURN_TOKEN|>",
    ),
)
# In a vocabulary with this token, `<|end|>` ends a message, of which a turn may have several.
_RETURN = "<|return|>"
# A default chat template; those with a name have it behind a dot.
_TEMPLATE = "tokenizer.chat_template"
# The ids of BERT's tokens around a text, for files that do not declare them.
_CLS, _SEPARATOR = 101, 102


def read_vocabulary(metadata: Mapping[str, Any]) -> Vocabulary:
    """Returns the vocabulary of a GGUF file, from its key-values as plain Python values.

    `tokenizer.ggml.model` may be `gpt2` (byte-level BPE), `llama` (SentencePiece BPE), `t5` (SentencePiece
    Unigram), `bert` (WordPiece) or `gemma4` (BPE of plain text). Raises `CheckpointError` when it is another,
    or when arrays are missing or contradict each other.
    """
    tokens = array(metadata, "tokens", str)
    if not tokens:
        raise CheckpointError("the file has no vocabulary: tokenizer.ggml.tokens is missing or empty")
    types = array(metadata, "token_type", int) or [NORMAL] * len(tokens)
    same_length("token_type", types, tokens)
    return _with_roles(metadata, tokens, types, build_model(metadata, tokens, types))


def _with_roles(
    metadata: Mapping[str, Any], tokens: Sequence[str], types: Sequence[int], model: Model
) -> Vocabulary:
    bos, eos, eot, eom, pad = (
        token_id(metadata, name, len(tokens)) for name in ("bos", "eos", "eot", "eom", "padding")
    )
    special = {token for token, kind in enumerate(types) if kind in (UNKNOWN, CONTROL)}
    declared = [token for token in (eos, eot, eom) if token is not None]
    ends = tuple(dict.fromkeys(declared if eot is not None else declared + _ends_by_name(tokens, types)))
    special.update(ends)
    special.update(token for token in (bos, pad) if token is not None)
    defaults = {"cls": _CLS if bos is None else bos, "seperator": _SEPARATOR}
    begin, end = (
        token_id(metadata, role, len(tokens), defaults.get(role)) for role in (model.begin, model.end)
    )
    rows = metadata.get(f"{metadata.get('general.architecture')}.vocab_size", 0)
    return Vocabulary(
        backend=model.backend,
        literal_model=model.literal_model,
        spell=_speller(tokens, types, model.normal),
        size=max(len(tokens), rows if isinstance(rows, int) else 0),
        special_ids=frozenset(special),
        named_ids=named_ids(metadata, len(tokens)),
        bos_token_id=bos,
        eos_token_ids=ends,
        pad_token_id=pad,
        bos_token=tokens[bos] if bos is not None else "",
        eos_token=tokens[eos] if eos is not None else "",
        prefix=(begin,)
        if begin is not None and _is_added(metadata, "bos", model.add_begin, model.fixed)
        else (),
        suffix=(end,) if end is not None and _is_added(metadata, "eos", model.add_end, model.fixed) else (),
        chat_templates=_chat_templates(metadata),
    )


def _chat_templates(metadata: Mapping[str, Any]) -> dict[str, str]:
    named = f"{_TEMPLATE}."
    found = {key.removeprefix(named): text for key, text in metadata.items() if key.startswith(named)}
    found |= {"default": metadata.get(_TEMPLATE)}
    return {name: text for name, text in found.items() if isinstance(text, str)}


def _is_added(metadata: Mapping[str, Any], role: str, default: bool, fixed: bool) -> bool:
    return default if fixed and default else bool(metadata.get(f"{PREFIX}add_{role}_token", default))


def _speller(
    tokens: Sequence[str], types: Sequence[int], normal: Callable[[str], bytes]
) -> Callable[[int], bytes]:
    def spell(token: int) -> bytes:
        if token >= len(tokens) or types[token] == UNUSED:
            return b""
        text = tokens[token]
        if types[token] == NORMAL or (types[token] == USER_DEFINED and normal is spelling.spaced):
            return normal(text)
        if types[token] == BYTE:
            return spelling.byte_token(text) or spelling.plain(text)
        return spelling.plain(text)

    return spell


def _ends_by_name(tokens: Sequence[str], types: Sequence[int]) -> list[int]:
    control = {token: place for place, token in enumerate(tokens) if types[place] == CONTROL}
    names = [name for name in _END_OF_TURN if name != "<|end|>" or _RETURN not in control]
    return [control[name] for name in names if name in control]
