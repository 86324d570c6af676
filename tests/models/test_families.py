"""Checks which architectures are supported, and the errors for others."""

from __future__ import annotations

from typing import Any

import pytest

from decodery.errors import ModelError
from decodery.models import families
from decodery.models.architectures import GGUF, HUB, MODEL_TYPES
from decodery.models.encoders.rows import ENCODERS
from decodery.models.families import find_family
from tests.models.test_config import Declared


def test_every_architecture_has_a_head_that_its_family_builds() -> None:
    for family, head in (*HUB.values(), *GGUF.values()):
        # A decoder also reads texts, without its scores of tokens.
        assert head in family.build or ("causal" in family.build and head in ("states", "classes"))
    for format_, table in (("safetensors", HUB), ("gguf", GGUF)):
        for name, row in table.items():
            config = {"architectures": [name], "general.architecture": name}
            found = find_family(Declared(format_, config))  # type: ignore[arg-type]
            assert (found.name, found.family, found.head) == (name, *row)


def test_a_name_of_the_other_format_is_not_supported() -> None:
    with pytest.raises(ModelError, match="architecture llama is not supported"):
        find_family(Declared("safetensors", {"architectures": ["llama"]}))
    with pytest.raises(ModelError, match="architecture LlamaForCausalLM is not supported"):
        find_family(Declared("gguf", {"general.architecture": "LlamaForCausalLM"}))


@pytest.mark.parametrize(
    ("name", "nearest"),
    [
        ("MistraForCausalLM", "the nearest is MistralForCausalLM"),
        ("LLaMAForCausal", "the nearest is LlamaForCausalLM"),
        ("Llama3ForCausalLM", "the nearest is LlamaForCausalLM or Llama4ForCausalLM"),
        ("rwkv7", "not supported; decodery models --supported lists all that are$"),
    ],
)
def test_an_unsupported_architecture_is_one_line_with_the_nearest_supported_one(
    name: str, nearest: str
) -> None:
    with pytest.raises(ModelError, match=nearest) as raised:
        find_family(Declared("safetensors", {"architectures": [name]}))
    assert f"the architecture {name} is not supported" in str(raised.value)
    assert "\n" not in str(raised.value)


@pytest.mark.parametrize(
    ("name", "meant"),
    [
        ("LLaMAForCausalLM", "LlamaForCausalLM"),
        ("Llama_ForCausalLM", "LlamaForCausalLM"),
        ("QWen2ForCausalLM", "Qwen2ForCausalLM"),
        ("Gpt2LMHeadModel", "GPT2LMHeadModel"),
        ("OLMoForCausalLM", "OLMoForCausalLM"),
    ],
)
def test_capitals_and_signs_of_an_architecture_do_not_matter(name: str, meant: str) -> None:
    found = find_family(Declared("safetensors", {"architectures": [name]}))
    assert (found.name, found.family, found.head) == (meant, *HUB[meant])


@pytest.mark.parametrize("missing", [{}, {"architectures": None}, {"architectures": []}])
def test_without_an_architecture_the_type_of_the_model_is_its_name(missing: dict[str, Any]) -> None:
    for kind, name in MODEL_TYPES.items():
        assert find_family(Declared("safetensors", {**missing, "model_type": kind})).name == name
    with pytest.raises(ModelError, match="the architecture qwen3_5 is not supported; the nearest is qwen"):
        find_family(Declared("safetensors", {**missing, "model_type": "qwen3_5"}))
    with pytest.raises(ModelError, match="must name one architecture under architectures"):
        find_family(Declared("safetensors", missing))


def test_an_architecture_that_is_named_counts_more_than_the_type_of_the_model() -> None:
    declared = {"architectures": ["LlamaForTokenClassification"], "model_type": "llama"}
    with pytest.raises(ModelError, match="LlamaForTokenClassification is not supported"):
        find_family(Declared("safetensors", declared))


def test_types_of_models_are_those_of_transformers() -> None:
    from transformers.models.auto import modeling_auto

    theirs = modeling_auto.MODEL_FOR_CAUSAL_LM_MAPPING_NAMES
    ours = {kind: name for kind, name in MODEL_TYPES.items() if kind in theirs and name not in ENCODERS}
    ours.pop("internlm3")
    assert ours == {kind: theirs[kind] for kind in ours}
    known = {kind for kind, name in theirs.items() if name in HUB} - {"llama4", "iquestcoder"}
    assert known <= MODEL_TYPES.keys()


@pytest.mark.parametrize(
    ("format_", "name", "settings", "part"),
    [
        ("safetensors", "Qwen3NextForCausalLM", {"linear_conv_kernel_dim": 4}, "gated delta layers"),
        ("safetensors", "Qwen3_5ForCausalLM", {"layer_types": ["linear_attention"]}, "gated delta layers"),
        ("safetensors", "Lfm2ForCausalLM", {"conv_L_cache": 3}, "short convolutions"),
        ("safetensors", "MambaForCausalLM", {"state_size": 16}, "Mamba layers"),
        ("safetensors", "BambaForCausalLM", {"mamba_d_state": 16}, "Mamba layers"),
        ("safetensors", "Gemma3nForCausalLM", {"altup_num_inputs": 4}, "alternating updates"),
        ("gguf", "gemma3n", {"gemma3n.altup.num_inputs": 4}, "alternating updates"),
        ("safetensors", "T5ForConditionalGeneration", {"is_encoder_decoder": True}, "an encoder"),
        ("safetensors", "OpenELMForCausalLM", {"num_query_heads": [12, 16]}, "numbers of heads"),
        ("gguf", "mamba2", {"mamba2.ssm.state_size": 16}, "Mamba layers"),
        ("gguf", "qwen35", {"qwen35.ssm.state_size": 16}, "gated delta layers"),
        ("gguf", "lfm2", {"lfm2.shortconv.l_cache": 3}, "short convolutions"),
        ("gguf", "rwkv7", {"rwkv7.wkv.head_size": 64}, "RWKV layers"),
    ],
)
def test_the_error_names_a_part_that_no_family_has(
    format_: str, name: str, settings: dict[str, Any], part: str
) -> None:
    config = {"architectures": [name], "general.architecture": name, **settings}
    with pytest.raises(ModelError, match=f"{name} is not supported, since it has {part}") as raised:
        find_family(Declared(format_, config))  # type: ignore[arg-type]
    assert "Mamba" not in str(raised.value) or part == "Mamba layers"


def test_a_part_is_also_known_by_the_names_of_tensors() -> None:
    tensors = ("model.layers.0.linear_attn.A_log",)
    declared = Declared("safetensors", {"architectures": ["Other"]}, tensors)
    with pytest.raises(ModelError, match="since it has gated delta layers"):
        find_family(declared)


def test_one_row_is_enough_for_a_further_name(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(families, "HUB", {**HUB, "OtherForCausalLM": HUB["LlamaForCausalLM"]})
    found = find_family(Declared("safetensors", {"architectures": ["OtherForCausalLM"]}))
    assert found.family.name == "llama"
