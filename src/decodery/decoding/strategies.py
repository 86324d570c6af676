"""Which method carries out which strategy: the one table that a new strategy is entered in."""

from __future__ import annotations

from decodery.decoding.params import GenerationParams
from decodery.decoding.rows import Method
from decodery.decoding.sampling import SamplingMethod
from decodery.decoding.strategy import Sampling

METHODS: dict[type, Method] = {Sampling: SamplingMethod()}


def method_of(params: GenerationParams) -> Method:
    """The method that carries out `params.strategy`; requests with the same one are judged together."""
    return METHODS[type(params.strategy)]
