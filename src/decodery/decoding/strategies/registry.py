"""Maps each strategy to the method that carries it out. A new strategy is a new line of this table."""

from __future__ import annotations

from decodery.decoding.request.params import GenerationParams
from decodery.decoding.request.strategy_params import (
    BeamSearch,
    ContrastiveDecoding,
    ContrastiveSearch,
    DoLa,
    Sampling,
    StochasticBeamSearch,
)
from decodery.decoding.rows import Method
from decodery.decoding.strategies.beams.beam_search import BeamMethod
from decodery.decoding.strategies.beams.stochastic_beams import StochasticBeamMethod
from decodery.decoding.strategies.contrastive_decoding import ContrastiveDecodingMethod
from decodery.decoding.strategies.contrastive_search import ContrastiveMethod
from decodery.decoding.strategies.dola import DoLaMethod
from decodery.decoding.strategies.sampling import SamplingMethod

METHODS: dict[type, Method] = {
    Sampling: SamplingMethod(),
    BeamSearch: BeamMethod(),
    StochasticBeamSearch: StochasticBeamMethod(),
    ContrastiveSearch: ContrastiveMethod(),
    ContrastiveDecoding: ContrastiveDecodingMethod(),
    DoLa: DoLaMethod(),
}


def method_of(params: GenerationParams) -> Method:
    """Returns the method that carries out `params.strategy`.

    Requests with the same method are judged together.
    """
    return METHODS[type(params.strategy)]
