"""Computes what each layer of a model does with a text's last token.

Attention: Vaswani et al., Attention Is All You Need (2017). The logit lens, which reads the states between
layers as if they were the last: nostalgebraist, interpreting GPT: the logit lens (2020).
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from decodery.errors import ParameterError, RequestError
from decodery.kernels.vocabulary.dispatch import leaders, log_normalizers
from decodery.lens.recorded_attention import RecordedAttend
from decodery.models.contract import CausalModel

Prediction = tuple[tuple[int, float], ...]
"""The likeliest next tokens with their probabilities, the likeliest first."""


@dataclass(frozen=True, eq=False, slots=True)
class LayerView:
    """Holds what one layer computed for the last token of a text.

    `attention` [heads, tokens] in float32 has the share of its attention that each head gave to each token.
    A head's shares sum to 1, or to less if the model has attention sinks. `predicted` are the likeliest next
    tokens by the states after this layer; those of the last layer are the model's own.
    """

    attention: NDArray[np.float32]
    predicted: Prediction


@dataclass(frozen=True, slots=True)
class LayerViews:
    """Holds what each layer computed for the last of `token_ids`.

    `embedding` are the likeliest next tokens by the states before the first layer.
    """

    token_ids: tuple[int, ...]
    embedding: Prediction
    layers: tuple[LayerView, ...]


@torch.inference_mode()
def layer_views(
    model: CausalModel,
    ids: Sequence[int],
    *,
    candidates: int = 5,
    kv_dtype: torch.dtype | None = None,
    threads: int | None = None,
) -> LayerViews:
    """Returns the views of all layers, from one pass over a text of token ids.

    The pass has a cache of its own, in `kv_dtype` (None: the kernels' choice), and runs the kernels of an
    engine's step: on the native backend, what the last layer predicts has the bits of the engine's.
    `candidates` is the number of predicted tokens, `threads` that of the model's threads. Raises
    `RequestError` for ids that the model cannot read, and `ParameterError` for a wrong `candidates`.
    """
    _check(model, ids, candidates)
    device = model.device
    tokens = torch.tensor(list(ids), device=device)
    positions = torch.arange(len(ids), device=device)
    sets = torch.full_like(tokens, model.rope_set(len(ids)))
    attend = RecordedAttend(model, len(ids), kv_dtype or model.kernels.cache_dtype(model.dtype))
    taps: dict[int, Tensor | None] = dict.fromkeys(range(model.depth))
    with model.kernels.exclusive_threads(threads):
        final = model.hidden(tokens, positions, attend, taps=taps, sets=sets)
        between = [tap[-1:] for tap in taps.values() if tap is not None]
        predicted = [_likeliest(model.early_logits(states), candidates) for states in between]
        predicted.append(_likeliest(model.logits(final[-1:]), candidates))
    views = [
        LayerView(shares.cpu().numpy(), after)
        for shares, after in zip(attend.shares, predicted[1:], strict=True)
    ]
    return LayerViews(tuple(ids), predicted[0], tuple(views))


def _check(model: CausalModel, ids: Sequence[int], candidates: int) -> None:
    if type(candidates) is not int or not 0 < candidates <= model.vocab_size:
        raise ParameterError(f"candidates must be from 1 to {model.vocab_size}, not {candidates!r}")
    if not 0 < len(ids) <= model.context_length:
        raise RequestError(
            f"the text has {len(ids)} tokens: give at least one, and at most {model.context_length}"
        )
    for token in ids:
        if not 0 <= token < model.vocab_size:
            raise RequestError(
                f"the text holds token {token}; this vocabulary has ids 0 to {model.vocab_size - 1}"
            )


def _likeliest(logits: Tensor, count: int) -> Prediction:
    """Returns the first `count` tokens of logits [1, vocab]."""
    # In float64, as the log-probabilities of completions.
    [norm] = log_normalizers(logits)
    [values], [tokens] = (found.tolist() for found in leaders(logits, count))
    return tuple((token, math.exp(value - norm)) for token, value in zip(tokens, values, strict=True))
