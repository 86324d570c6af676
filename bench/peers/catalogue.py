"""Lists the contenders with their environments and weights."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Entry:
    """Describes a contender: the name of its column, the module that runs it, and what it needs.

    `environment` is the folder of its virtual environment, "" for this process's own; `requirements` names
    the file of the packages in it. `distribution` is the package whose version is shown. `form` names the
    weights among `bench.peers.conversions.FORMS`, `weights` describes them.
    """

    name: str
    module: str
    form: str
    weights: str
    environment: str = ""
    requirements: str = ""
    distribution: str = "decodery"


GGUF, CONVERTED = ".venv-peers-gguf", ".venv-peers-converted"

# Two environments are needed, since the converters need another version of transformers than the newest.
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
            "converted to Q4_0, its fastest type",
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
