"""Holds what the files of a checkpoint, of any format, declare about its tokens."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import tokenizers


@dataclass(frozen=True, slots=True)
class Vocabulary:
    """Holds a vocabulary: the encoder, the bytes of every token, and the tokens with a role.

    `spell` returns the bytes of an id below `size` (none for an id without a token). `prefix` and `suffix`
    are the tokens that the model expects around a whole prompt; `backend` does not add them. The
    `chat_templates` have names; a single one is the "default". `named_ids` are the ids of all roles that the
    files declare, by GGUF's names: `bos`, `mask`, `fim_pre` ... `literal_model` returns a model of the
    library that never finds a special token, where that of `backend` can (None: it cannot). `warnings` say
    which faults of the files were corrected.
    """

    backend: tokenizers.Tokenizer
    spell: Callable[[int], bytes]
    size: int
    special_ids: frozenset[int]
    bos_token_id: int | None
    eos_token_ids: tuple[int, ...]
    pad_token_id: int | None
    bos_token: str
    eos_token: str
    prefix: tuple[int, ...]
    suffix: tuple[int, ...]
    chat_templates: Mapping[str, str]
    named_ids: Mapping[str, int]
    literal_model: Callable[[], Any] | None = None
    warnings: tuple[str, ...] = ()
