"""Who is measured, in which environment, with what weights."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Entry:
    """A contender: the column's name, the module that runs it, and what it needs.

    `environment` is the folder of its virtual environment ("": ours), which `requirements` fill;
    `distribution` is the package whose version is told. `form` names its weights among
    `bench.peers.conversions.FORMS`, `weights` says what they are.
    """

    name: str
    module: str
    form: str
    weights: str
    environment: str = ""
    requirements: str = ""
    distribution: str = "decodery"


GGUF, CONVERTED = ".venv-peers-gguf", ".venv-peers-converted"

# Two environments, since the converters want another transformers than the newest.
CATALOGUE = (
    Entry("decodery", "bench.contenders.decodery", "gguf", "the GGUF file, 4 bits"),
    Entry(
        *("llama.cpp", "bench.contenders.llamacpp", "gguf", "the GGUF file, 4 bits"),
        *(GGUF, "llamacpp", "llama-cpp-python"),
    ),
    Entry(
        *(
            "llama.cpp Q4_0",
            "bench.contenders.llamacpp",
            "q4_0",
            "made Q4_0, its fastest type",
        ),
        *(GGUF, "llamacpp", "llama-cpp-python"),
    ),
    Entry(
        *("onnxruntime-genai", "bench.contenders.onnxruntime", "onnxruntime", "int4, groups of 32"),
        *(CONVERTED, "onnxruntime", "onnxruntime-genai"),
    ),
    Entry(
        *("OpenVINO GenAI", "bench.contenders.openvino", "openvino", "int4, groups of 32"),
        *(CONVERTED, "openvino", "openvino-genai"),
    ),
    Entry(
        *("CTranslate2", "bench.contenders.ctranslate2", "ctranslate2", "int8"),
        *(CONVERTED, "ctranslate2", "ctranslate2"),
    ),
    Entry(
        *("transformers", "bench.contenders.transformers", "bfloat16", "bfloat16"),
        *(GGUF, "transformers", "transformers"),
    ),
)
OURS = CATALOGUE[0].name
