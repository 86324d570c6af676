"""Reads the vocabulary in a GGUF file.

The keys are those in the GGUF specification's section on tokenizers. Missing keys have llama.cpp's defaults.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import replace
from typing import Any, Final

from decodery.errors import CheckpointError
from decodery.text.tokenizer import spelling
from decodery.text.tokenizer.gguf_keys import (
    PREFIX,
    array,
    named_ids,
    same_length,
    token_id,
    with_known_ids,
)
from decodery.text.tokenizer.gguf_models import Model, build_model
from decodery.text.tokenizer.spelling import BYTE, CONTROL, NORMAL, UNKNOWN, UNUSED, USER_DEFINED
from decodery.text.tokenizer.vocabulary import Vocabulary

# Texts of tokens that end a text or a turn, as llama.cpp has them.
_ENDS: Final = (
    *(
        "<|im_end|>",
        "<|eot_id|>",
        "<|eom_id|>",
        "<|end|>",
        "<|return|>",
        "<|call|>",
        "<|calls|>",
        "<|flush|>",
    ),
    *("<end_of_turn>", "<turn|>", "<|tool_response>", "<|END_OF_TURN_TOKEN|>", "<end_of_utterance>", "[e~["),
    *("<EOT>", "_<EOT>", "▁<EOT>", "< EOT >", "[EOT]", "[EOS]", "<eos>", "</s>"),
    *("<|endoftext|>", "<|end_of_text|>", "<｜end▁of▁sentence｜>"),
)
# What follows a file of code is another file, or filling. The roles are keys of the metadata.
_ENDS_OF_CODE: Final = {
    "fim_pad": ("<|fim_pad|>", "<fim-pad>", "<fim_pad>", "<PAD>", "[PAD]"),
    "fim_rep": ("<|fim_repo|>", "<|repo_name|>", "<fim-repo>", "<REPO>", "<reponame>"),
    "fim_sep": ("<|file_sep|>",),
}
# Beside these, `<|end|>` ends a message, of which a turn may have several.
_ENDS_OF_TURNS: Final = ({"<|return|>", "<|call|>"}, {"<|call|>", "<|flush|>"}, {"<|calls|>", "<|flush|>"})
# A tag of HTML, unless it is a control token.
_TAG: Final = "</s>"
# A default chat template; those with a name have it behind a dot.
_TEMPLATE: Final = "tokenizer.chat_template"
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
    metadata, warnings = with_known_ids(metadata, len(tokens))
    ends = _ends_by_text(metadata, tokens, types)
    for token in ends:
        if types[token] != CONTROL:
            warnings.append(f"the token {tokens[token]!r} ends a text, but is not marked as a control token")
            types[token] = CONTROL
    vocabulary = _with_roles(metadata, tokens, types, build_model(metadata, tokens, types), ends)
    return replace(vocabulary, warnings=tuple(warnings))


def _with_roles(
    metadata: Mapping[str, Any],
    tokens: Sequence[str],
    types: Sequence[int],
    model: Model,
    known_ends: Sequence[int],
) -> Vocabulary:
    bos, eos, eot, eom, pad = (
        token_id(metadata, name, len(tokens)) for name in ("bos", "eos", "eot", "eom", "padding")
    )
    special = {token for token, kind in enumerate(types) if kind in (UNKNOWN, CONTROL)}
    named = named_ids(metadata, len(tokens))
    declared = [token for token in (eos, eot, eom) if token is not None]
    ends = tuple(dict.fromkeys([*declared, *known_ends, *_declared_ends_of_code(named)]))
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
        named_ids=named,
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


def _ends_by_text(metadata: Mapping[str, Any], tokens: Sequence[str], types: Sequence[int]) -> list[int]:
    """Returns the ids of the tokens whose text says that they end a text or a turn.

    A normal token that the merges form is plain text, and so no end.
    """
    further = (names for role, names in _ENDS_OF_CODE.items() if f"{PREFIX}{role}_token_id" not in metadata)
    names = [*_ENDS, *(name for each in further for name in each)]
    wanted = set(names)
    ids = {text: token for token, text in enumerate(tokens) if text in wanted}
    words = _formed(metadata, {text for text, token in ids.items() if types[token] == NORMAL})
    return [ids[name] for name in names if name in ids and name not in words and _ends(name, ids, types)]


def _declared_ends_of_code(ids: Mapping[str, int]) -> list[int]:
    """Returns those of the declared ids that end a file of code; `ids` are all, by role."""
    return [ids[role] for role in _ENDS_OF_CODE if role in ids]


def _ends(name: str, ids: Mapping[str, int], types: Sequence[int]) -> bool:
    if name == "<|end|>":
        return not any(marks <= ids.keys() for marks in _ENDS_OF_TURNS)
    return types[ids[name]] in ((CONTROL,) if name == _TAG else (CONTROL, NORMAL, UNKNOWN, USER_DEFINED))


def _formed(metadata: Mapping[str, Any], texts: Collection[str]) -> set[str]:
    """Returns those of the texts that a merge gives."""
    if not texts:
        return set()
    return {text for line in array(metadata, "merges", str) if (text := line.replace(" ", "", 1)) in texts}
