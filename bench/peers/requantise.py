"""Writes a GGUF with its 4-bit matrices as Q4_0: `python -m bench.peers.requantise FILE TARGET`.

llama.cpp interleaves that type for the processor when it loads the file. Runs in the environment that has
llama-cpp-python.
"""

from __future__ import annotations

import sys
from typing import Any


def main() -> None:
    """Writes the file."""
    import llama_cpp

    library: Any = llama_cpp
    params = library.llama_model_quantize_default_params()
    params.ftype = library.LLAMA_FTYPE_MOSTLY_Q4_0
    params.allow_requantize = True
    # The embedding, which is also the head, keeps its type, Q8_0.
    params.output_tensor_type = params.token_embedding_type = library.GGML_TYPE_Q8_0
    if library.llama_model_quantize(sys.argv[1].encode(), sys.argv[2].encode(), params):
        sys.exit("llama.cpp could not quantise it")


if __name__ == "__main__":
    main()
