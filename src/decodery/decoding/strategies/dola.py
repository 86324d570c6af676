"""DoLa: contrasts the last layer's logits with those of the earlier layer that differs most.

Chuang et al., DoLa: Decoding by Contrasting Layers Improves Factuality in Large Language Models (2023).
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from decodery.decoding.request.params import GenerationParams
from decodery.decoding.request.strategy_params import DoLa
from decodery.decoding.rows import Needs, Row, Scores
from decodery.decoding.strategies.combining import guidance_at, logprobs_of, unguided
from decodery.decoding.strategies.contrastive_decoding import among_plausible
from decodery.decoding.strategies.sampling import SamplingMethod
from decodery.decoding.trace import Combined
from decodery.errors import ParameterError
from decodery.kernels.vocabulary.dispatch import log_softmax

# Tokens less likely than this share of the likeliest one's probability are implausible (section 2.3).
_RELATIVE_TOP = 0.1
# "low" and "high" take only layers among so many from the first or the last.
_REACH = 20


class DoLaMethod(SamplingMethod):
    """Samples from the contrast of two layers; drafts are verified as in plain sampling."""

    def needs(self, params: GenerationParams) -> Needs:
        """Asks for the logits of the candidate layers.

        Raises `ParameterError` if the layers are not numbers yet: see `candidate_layers`.
        """
        return Needs(layers=_layers(params))

    def logits(self, scores: Scores, positions: Sequence[int], rows: Sequence[Row]) -> Tensor:
        """Returns the contrasted logits of plausible tokens; guidance is applied after the contrast."""
        contrasts = []
        # One position at a time: torch sums a single row over the vocabulary in another order than several.
        for position, row in zip(positions, rows, strict=True):
            logprobs, bases, divergences = _compared(scores, position, row)
            contrasts.append(logprobs - bases[int(divergences.argmax())])
        return among_plausible(torch.stack(contrasts), [_RELATIVE_TOP] * len(rows), scores, positions, rows)

    def combined(
        self, scores: Scores, position: int, row: Row, tokens: Sequence[int]
    ) -> tuple[Combined, ...]:
        """Returns the log-probabilities of the last and the earlier layer, and what guidance combined."""
        logprobs, bases, divergences = _compared(scores, position, row)
        layers, chosen = _layers(row.params), int(divergences.argmax())
        contrast = self.logits(scores, [position], [unguided(row)])[0] if row.params.guided else None
        return (
            Combined(
                "DoLa",
                logprobs_of(logprobs, tokens),
                logprobs_of(bases[chosen], tokens),
                layers[chosen],
                tuple(zip(layers, divergences.tolist(), strict=True)),
            ),
            *guidance_at(scores, position, row, tokens, contrast),
        )


def _layers(params: GenerationParams) -> tuple[int, ...]:
    assert isinstance(params.strategy, DoLa)
    layers = params.strategy.layers
    if isinstance(layers, str):
        raise ParameterError(f"layers is {layers!r}: an engine takes the numbers of layers")
    return layers


def candidate_layers(layers: str | Sequence[int], depth: int, tied: bool) -> tuple[int, ...]:
    """Returns the earlier layers to choose from in a model of `depth` layers; layer 0 is the embeddings.

    "low" and "high" are every second layer of the lower and the upper half (section 2.2); in a model of more
    than 40 layers, of the first 20 and the last 20. With a `tied` head "low" leaves the first layers out,
    because from the embeddings the head would predict the input token itself. Raises `ParameterError` naming
    `layers` for a layer that is not below the last.
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


def _compared(scores: Scores, position: int, row: Row) -> tuple[Tensor, Tensor, Tensor]:
    """Returns the log-probabilities at a position of the last layer `[vocab]` and of the candidate layers
    `[layers, vocab]`, and the divergence `[layers]` of each of these: the largest decides (section 2.3)."""
    assert scores.layers is not None
    logprobs = log_softmax(scores.logits[position][None])[0]
    bases = log_softmax(torch.stack([scores.layers[layer][position] for layer in _layers(row.params)]))
    return logprobs, bases, _divergences(logprobs, bases)


def _divergences(logprobs: Tensor, bases: Tensor) -> Tensor:
    """Returns the divergence `[layers]` of each of `bases` `[layers, vocab]` from `logprobs` `[vocab]`.

    It is the Jensen-Shannon divergence, except that the divergence of each distribution p from the mixture m
    is KL(m | p) in place of KL(p | m), as in the implementation that is in common use.
    """
    mixture = (logprobs.exp() + bases.exp()) / 2
    return (torch.xlogy(mixture, mixture) - mixture * (logprobs + bases) / 2).sum(-1)
