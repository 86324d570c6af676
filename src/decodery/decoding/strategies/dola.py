"""DoLa: contrast the last layer's logits with those of the earlier layer that differs most.

Chuang et al., DoLa: Decoding by Contrasting Layers Improves Factuality in Large Language Models (2023).
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from decodery.decoding.request.params import GenerationParams
from decodery.decoding.request.strategy_params import DoLa
from decodery.decoding.rows import Needs, Row, Scores
from decodery.decoding.strategies.contrastive_decoding import among_plausible
from decodery.decoding.strategies.sampling import SamplingMethod
from decodery.errors import ParameterError
from decodery.kernels.vocabulary.dispatch import log_softmax

# Tokens less likely than this share of the likeliest are left out (section 2.3).
_RELATIVE_TOP = 0.1
# "low" and "high" never reach further than this from either end.
_REACH = 20


class DoLaMethod(SamplingMethod):
    """Sampling, with drafts and all, from contrasted layers."""

    def needs(self, params: GenerationParams) -> Needs:
        """The logits of the candidate layers, which must be numbers: see `candidate_layers`."""
        return Needs(layers=_layers(params))

    def logits(self, scores: Scores, positions: Sequence[int], rows: Sequence[Row]) -> Tensor:
        """The contrasted logits of plausible tokens; guidance comes after the contrast."""
        assert scores.layers is not None
        contrasts = []
        # One position at a time: a sum over the vocabulary has another order for one row than for several.
        for position, row in zip(positions, rows, strict=True):
            earlier = torch.stack([scores.layers[layer][position] for layer in _layers(row.params)])
            contrasts.append(_contrasted(scores.logits[position], earlier))
        return among_plausible(torch.stack(contrasts), [_RELATIVE_TOP] * len(rows), scores, positions, rows)


def _layers(params: GenerationParams) -> tuple[int, ...]:
    assert isinstance(params.strategy, DoLa)
    layers = params.strategy.layers
    if isinstance(layers, str):
        raise ParameterError(f"layers is {layers!r}: an engine takes the numbers of layers")
    return layers


def candidate_layers(layers: str | Sequence[int], depth: int, tied: bool) -> tuple[int, ...]:
    """The earlier layers to choose from in a model of `depth` layers; layer 0 is the embeddings.

    "low" and "high" are every second layer of the lower and the upper half (section 2.2), of a model deeper
    than 40 layers those of its first and its last 20. With a `tied` head "low" leaves the first layers out,
    since the head gives the embeddings' own token back. Raises `ParameterError` naming `layers` for a layer
    that is not below the last.
    """
    half = depth // 2
    if layers == "low":
        start = min(2, depth - 1) if tied else 0
        return tuple(range(start, half if depth <= 2 * _REACH else _REACH, 2)) or (start,)
    if layers == "high":
        return tuple(range(half if depth <= 2 * _REACH else depth - _REACH, depth, 2))
    numbers = tuple(int(layer) for layer in layers)
    for layer in numbers:
        if not 0 <= layer < depth:
            raise ParameterError(f"layers names layer {layer}; below this model's last are 0 to {depth - 1}")
    return numbers


def _contrasted(mature: Tensor, earlier: Tensor) -> Tensor:
    """The log-ratio of `mature` `[vocab]` to that of `earlier` `[layers, vocab]` which differs most.

    All are logits (section 2.3).
    """
    logprobs = log_softmax(mature[None])[0]
    bases = log_softmax(earlier)
    base = bases[int(_divergences(logprobs, bases).argmax()) if len(bases) > 1 else 0]
    return logprobs - base


def _divergences(logprobs: Tensor, bases: Tensor) -> Tensor:
    """How far each of `bases` `[layers, vocab]` is from `logprobs` `[vocab]`: `[layers]`.

    The mean of both's divergences from their mixture m, each taken as KL(m | p) in place of the definition's
    KL(p | m), as the implementation that the method is known by has it.
    """
    mixture = (logprobs.exp() + bases.exp()) / 2
    return (torch.xlogy(mixture, mixture) - mixture * (logprobs + bases) / 2).sum(-1)
