"""Which method carries out which strategy: the one table that a new strategy is entered in."""

from __future__ import annotations

from decodery.decoding.beam import BeamMethod
from decodery.decoding.contrastive import ContrastiveMethod
from decodery.decoding.contrastive_decoding import ContrastiveDecodingMethod
from decodery.decoding.dola import DoLaMethod
from decodery.decoding.params import GenerationParams
from decodery.decoding.rows import Method
from decodery.decoding.sampling import SamplingMethod
from decodery.decoding.stochastic import StochasticBeamMethod
from decodery.decoding.strategy import (
    BeamSearch,
    ContrastiveDecoding,
    ContrastiveSearch,
    DoLa,
    Sampling,
    StochasticBeamSearch,
)

METHODS: dict[type, Method] = {
    Sampling: SamplingMethod(),
    BeamSearch: BeamMethod(),
    StochasticBeamSearch: StochasticBeamMethod(),
    ContrastiveSearch: ContrastiveMethod(),
    ContrastiveDecoding: ContrastiveDecodingMethod(),
    DoLa: DoLaMethod(),
}


def method_of(params: GenerationParams) -> Method:
    """The method that carries out `params.strategy`; requests with the same one are judged together."""
    return METHODS[type(params.strategy)]
