from __future__ import annotations

import gguf

from decodery.kernels.ggml_blocks import PACKED_TYPES
from decodery.weights.formats.element_types import ELEMENT_TYPES


def test_types_and_their_sizes_are_those_of_the_gguf_package() -> None:
    theirs = {kind.value: (kind.name, *sizes) for kind, sizes in gguf.GGML_QUANT_SIZES.items()}
    assert theirs
    # An older package knows fewer.
    assert {number: ELEMENT_TYPES.get(number) for number in theirs} == theirs


def test_the_kernels_know_the_same_numbers_and_sizes() -> None:
    for name, kind in PACKED_TYPES.items():
        assert ELEMENT_TYPES[kind.number] == (name, kind.weights, kind.size)
