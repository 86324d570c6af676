"""Checks that keys of a config.json that transformers does not read in a family change nothing."""

from __future__ import annotations

from typing import Any

import pytest

from decodery.errors import ModelError
from decodery.models.architectures import HUB
from decodery.models.layers.rope import Rope, YarnRope
from tests.models.decoders.families import EXPERTS, MIXTRAL, SIZES, without
from tests.models.decoders.rms_norm_families import GEMMA2, GEMMA3

KINDS = {"layer_types": ["full_attention", "sliding_attention", "full_attention"]}
LAYERS = {"n_embd": 48, "n_layer": 3, "n_head": 4, "vocab_size": 97, "rotary_dim": 8}
BARE = {key: value for key, value in SIZES.items() if key != "rope_theta"}
YARN = {
    "rope_type": "yarn",
    "factor": 4.0,
    "original_max_position_embeddings": 8,
    "llama_4_scaling_beta": 0.3,
}
SCALED = {"rope_scaling": {"rope_type": "linear", "factor": 4.0}}
UNREAD: list[tuple[str, dict[str, Any], dict[str, Any]]] = [
    ("MixtralForCausalLM", {**SIZES, **MIXTRAL, "sliding_window": 9}, KINDS),
    ("Qwen3MoeForCausalLM", {**SIZES, **EXPERTS, "sliding_window": 9, "use_sliding_window": True}, KINDS),
    ("Ministral3ForCausalLM", {**SIZES, "head_dim": 12, "sliding_window": 9}, KINDS),
    ("Phi3ForCausalLM", {**SIZES, "pad_token_id": 0, "sliding_window": 9}, KINDS),
    ("PhimoeForCausalLM", {**SIZES, "num_local_experts": 4, "sliding_window": 9}, KINDS),
    ("Starcoder2ForCausalLM", {**SIZES, "sliding_window": 9}, KINDS),
    ("Gemma2ForCausalLM", GEMMA2, {"sliding_window_pattern": 3}),
    ("Olmo3ForCausalLM", {**SIZES, "sliding_window": 9}, {"sliding_window_pattern": 2}),
    ("GPTJForCausalLM", LAYERS, {"rope_theta": 500.0}),
    ("GPTJForCausalLM", LAYERS, SCALED),
    ("GPTJForCausalLM", LAYERS, {"rope_parameters": {"rope_type": "default", "rope_theta": 500.0}}),
    ("Ministral3ForCausalLM", {**BARE, "head_dim": 12}, {"rope_theta": 500.0}),
]
READ: list[tuple[str, dict[str, Any], dict[str, Any]]] = [
    ("Gemma2ForCausalLM", GEMMA2, {"layer_types": ["full_attention"] * 3}),
    ("Gemma3ForCausalLM", GEMMA3, {"sliding_window_pattern": 3}),
    ("Ministral3ForCausalLM", {**BARE, "head_dim": 12}, {"rope_scaling": YARN, "rope_theta": 500.0}),
    ("MinistralForCausalLM", {**SIZES, "head_dim": 12, "sliding_window": 9}, KINDS),
]


@pytest.mark.parametrize(("architecture", "settings", "keys"), UNREAD)
def test_a_key_that_transformers_does_not_read_changes_nothing(
    architecture: str, settings: dict[str, Any], keys: dict[str, Any]
) -> None:
    table = HUB[architecture][0].config
    assert table.from_hub({**settings, **keys}) == table.from_hub(settings)


@pytest.mark.parametrize(("architecture", "settings", "keys"), READ)
def test_a_key_that_transformers_reads_changes_the_config(
    architecture: str, settings: dict[str, Any], keys: dict[str, Any]
) -> None:
    table = HUB[architecture][0].config
    assert table.from_hub({**settings, **keys}) != table.from_hub(settings)


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore:`rope_scaling` is deprecated")
@pytest.mark.parametrize(("architecture", "settings", "keys"), [*UNREAD, *READ])
def test_transformers_reads_the_keys_that_are_read_here(
    architecture: str, settings: dict[str, Any], keys: dict[str, Any]
) -> None:
    import torch
    import transformers

    architecture_class = getattr(transformers, architecture)
    tokens = torch.arange(40)[None]
    found = []
    for each in (settings, {**settings, **keys}):
        torch.manual_seed(0)
        model = architecture_class(architecture_class.config_class(**each)).eval()
        with torch.no_grad():
            found.append(model(tokens).logits)
    read = (architecture, settings, keys) in READ
    assert torch.equal(*found) != read


def test_what_no_config_json_of_a_family_says_is_not_written() -> None:
    table = HUB["MixtralForCausalLM"][0].config
    config = table.from_hub({**SIZES, **MIXTRAL})
    with pytest.raises(ModelError, match="some layers have no window"):
        table.to_hub(without(windows=(9, None, 9))(config))
    table = HUB["GPTJForCausalLM"][0].config
    with pytest.raises(ModelError, match="cannot express"):
        table.to_hub(without(rope=Rope(500.0))(table.from_hub(LAYERS)))


def test_a_theta_of_ministral_3_stands_beside_a_scaling() -> None:
    table = HUB["Ministral3ForCausalLM"][0].config
    scaling = {"rope_type": "yarn", "factor": 4.0, "original_max_position_embeddings": 64}
    config = table.from_hub({**SIZES, "rope_theta": 500.0, "rope_scaling": scaling})
    assert config.rope == YarnRope(500.0, 4.0, 64)
