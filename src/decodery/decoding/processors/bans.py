"""Bans tokens: each function sets logits to -inf.

All functions take float32 logits `[rows, vocab]`, which they change in place, and the rows that the logits
belong to, in the same order.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from decodery.decoding.processors.penalties import completes, tokens_of
from decodery.decoding.rows import Row


def no_repeat_ngram(logits: Tensor, rows: Sequence[Row]) -> None:
    """Bans tokens that would complete an n-gram of prompt or text (Paulus et al. 2017, section 2.5)."""
    for logit, row in zip(logits, rows, strict=True):
        tokens = tokens_of(row)
        _ban(logit, _tokens_after_ngram(tokens, tokens, row.params.no_repeat_ngram_size))


def encoder_no_repeat_ngram(logits: Tensor, rows: Sequence[Row]) -> None:
    """Bans tokens that would complete an n-gram of the prompt."""
    for logit, row in zip(logits, rows, strict=True):
        tokens = tokens_of(row)
        size = row.params.encoder_no_repeat_ngram_size
        _ban(logit, _tokens_after_ngram(tokens[: row.prompt_length], tokens, size))


def _tokens_after_ngram(source: NDArray[np.int64], tokens: NDArray[np.int64], size: int) -> NDArray[np.int64]:
    """Returns the tokens that follow, in `source`, each occurrence of the last `size - 1` of `tokens`."""
    if len(tokens) < size - 1:
        return source[:0]
    last = np.arange(size - 1, len(source))
    for back in range(1, size):
        last = last[source[last - back] == tokens[-back]]
    return source[last]


def bad_words(logits: Tensor, rows: Sequence[Row]) -> None:
    """Bans the last token of each phrase where the row ends with the phrase's other tokens."""
    for logit, row in zip(logits, rows, strict=True):
        # Phrases are token ids by now.
        _ban(logit, [int(phrase[-1]) for phrase in row.params.bad_words if completes(phrase, row)])  # type: ignore[arg-type]


def end_tokens(logits: Tensor, rows: Sequence[Row]) -> None:
    """Bans the rows' end tokens; the rows have too few tokens to end."""
    for logit, row in zip(logits, rows, strict=True):
        _ban(logit, sorted(row.end_ids))


def forced_bos(logits: Tensor, rows: Sequence[Row]) -> None:
    """Leaves only the token that the text must begin with, and no token where a grammar bans that one."""
    for logit, row in zip(logits, rows, strict=True):
        token = row.params.forced_bos_token_id
        if row.grammar is not None and token is not None and logit[token] == -torch.inf:
            logit.fill_(-torch.inf)
        else:
            _force(logit, token)


def forced_eos(logits: Tensor, rows: Sequence[Row]) -> None:
    """Leaves only the token that a text of full length must end with, unless a grammar bans it."""
    for logit, row in zip(logits, rows, strict=True):
        token = row.params.forced_eos_token_id
        if row.grammar is None or token is None or logit[token] > -torch.inf:
            _force(logit, token)


def suppress_tokens(logits: Tensor, rows: Sequence[Row]) -> None:
    """Bans the tokens that must not occur."""
    for logit, row in zip(logits, rows, strict=True):
        _ban(logit, row.params.suppress_tokens)


def begin_suppress_tokens(logits: Tensor, rows: Sequence[Row]) -> None:
    """Bans the tokens that the text must not begin with."""
    for logit, row in zip(logits, rows, strict=True):
        _ban(logit, row.params.begin_suppress_tokens)


def allowed_token_ids(logits: Tensor, rows: Sequence[Row]) -> None:
    """Bans all tokens but the allowed ones."""
    for logit, row in zip(logits, rows, strict=True):
        allowed = torch.tensor(row.params.allowed_token_ids, device=logit.device)
        values = logit[allowed]
        logit.fill_(-torch.inf)
        logit[allowed] = values


def _force(logit: Tensor, token: int | None) -> None:
    logit.fill_(-torch.inf)
    if token is not None:
        logit[token] = 0.0


def _ban(logit: Tensor, tokens: Iterable[int] | NDArray[np.int64]) -> None:
    banned = np.asarray(tokens, dtype=np.int64)
    logit.index_fill_(0, torch.from_numpy(banned).to(logit.device), -torch.inf)
