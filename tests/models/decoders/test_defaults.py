"""Checks what the settings mean that a config.json leaves out."""

from __future__ import annotations

from typing import Any

import pytest

from decodery.errors import ModelError
from decodery.models.architectures import HUB
from decodery.models.layers.rope import Rope
from tests.models.decoders.families import MIXTRAL, SIZES


def config_of(architecture: str, settings: dict[str, Any], **changed: Any) -> Any:
    return HUB[architecture][0].config.from_hub({**settings, **changed})


def without(settings: dict[str, Any], *keys: str) -> dict[str, Any]:
    return {key: value for key, value in settings.items() if key not in keys}


# Without the forms of GLM-4.5, whose default sizes in transformers do not fit each other.
EACH = [name for name in HUB if not name.startswith("Glm4Moe")]


@pytest.mark.parametrize("architecture", EACH)
def test_a_missing_setting_is_the_default_of_transformers_or_required(architecture: str) -> None:
    import transformers

    if not hasattr(transformers, architecture):
        pytest.skip("transformers does not know the name")
    default = getattr(transformers, architecture).config_class()
    # The kinds of layers are derived from other settings.
    settings = without(default.get_text_config().to_dict(), "layer_types")
    expected = config_of(architecture, settings)
    for key in settings:
        try:
            found = config_of(architecture, without(settings, key))
        except ModelError as error:
            if f"{key} is missing" not in str(error):
                raise
        else:
            assert found == expected, key


EIGHT = "MistralForCausalLM", "MinistralForCausalLM", "Ministral3ForCausalLM", "MixtralForCausalLM"


@pytest.mark.parametrize("architecture", [*EIGHT, "GptOssForCausalLM", "PhimoeForCausalLM"])
def test_heads_of_keys_that_are_missing_are_eight_and_null_is_all(architecture: str) -> None:
    settings = without(SIZES, "num_key_value_heads")
    sizes = {"num_attention_heads": 16, "hidden_size": 64}
    assert config_of(architecture, settings, **sizes).kv_heads == 8
    assert config_of(architecture, settings, **sizes, num_key_value_heads=None).kv_heads == 16


def test_a_default_that_does_not_fit_is_refused_by_name() -> None:
    with pytest.raises(ModelError, match="num_key_value_heads is missing; it must be a divisor of"):
        config_of("MistralForCausalLM", without(SIZES, "num_key_value_heads"))


def test_the_epsilon_of_mixtral_is_its_own() -> None:
    assert config_of("MixtralForCausalLM", {**SIZES, **MIXTRAL}).norm_eps == 1e-5


def test_the_window_of_mistral_is_4096_if_missing_and_none_if_null() -> None:
    assert config_of("MistralForCausalLM", SIZES).windows == (4096,) * 3
    assert config_of("MistralForCausalLM", SIZES, sliding_window=None).windows == ()


def test_smollm3_without_keys_is_tied_and_has_a_theta_of_two_million() -> None:
    config = config_of("SmolLM3ForCausalLM", without(SIZES, "rope_theta"))
    assert (config.tied_head, config.rope) == (True, Rope(2e6))


def test_a_head_of_qwen3_without_a_size_has_128_elements() -> None:
    assert config_of("Qwen3ForCausalLM", SIZES).head_dim == 128
    assert config_of("Qwen2ForCausalLM", SIZES).head_dim == 12
