"""What a checkpoint's files say about its tokens, whichever files they were."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import tokenizers


@dataclass(frozen=True, slots=True)
class Vocabulary:
    """A vocabulary as it was read: the encoder, the bytes of every token, and the tokens with a role.

    `spell` takes an id below `size` and gives the bytes that it stands for (none for a hole). `prefix` and
    `suffix` are what the model expects around a whole prompt; `backend` adds nothing of its own.
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
    chat_template: str | None
