"""Checks where checkpoints have the settings of rotary positions, and which of them holds."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from decodery.errors import ModelError
from decodery.models.architectures import GGUF, HUB
from decodery.models.config_reader import ConfigTable
from decodery.models.layers.rope import LinearRope, LongRope, Rope, YarnRope
from tests.models.decoders.families import SIZES
from tests.models.decoders.rms_norm_families import PHI3, longrope
from tests.models.test_config_reader import Metadata

WITHOUT_THETA = {key: value for key, value in SIZES.items() if key != "rope_theta"}
SCALINGS = {
    "yarn": {"factor": 4.0},
    "llama3": {"factor": 4.0, "low_freq_factor": 1.0, "high_freq_factor": 4.0},
    "longrope": {"short_factor": [1.0] * 6, "long_factor": [2.0] * 6},
}


def table(architecture: str) -> ConfigTable[Any]:
    found: ConfigTable[Any] = HUB[architecture][0].config
    return found


def rope_of(architecture: str, settings: dict[str, Any], **changed: Any) -> Any:
    return table(architecture).from_hub({**settings, **changed}).rope


@pytest.mark.parametrize("kind", SCALINGS)
@pytest.mark.parametrize("section", ["rope_scaling", "rope_parameters"])
def test_the_original_length_outside_holds_before_that_inside(kind: str, section: str) -> None:
    inside = {"rope_type": kind, **SCALINGS[kind], "original_max_position_embeddings": 32}
    both = {section: inside, "original_max_position_embeddings": 64}
    assert rope_of("LlamaForCausalLM", SIZES, **both).original_length == 64
    assert rope_of("LlamaForCausalLM", SIZES, **{section: inside}).original_length == 32
    without = {key: value for key, value in inside.items() if not key.startswith("original")}
    assert rope_of("LlamaForCausalLM", SIZES, **{section: without}).original_length == 512


def test_phi_3_has_an_original_length_of_its_own() -> None:
    settings = longrope(6, 0)
    del settings["original_max_position_embeddings"]
    rope = rope_of("Phi3ForCausalLM", settings, max_position_embeddings=131072)
    assert isinstance(rope, LongRope)
    assert rope.original_length == 4096
    assert rope.magnitudes[0] == pytest.approx((1 + 5 / 12) ** 0.5)


@pytest.mark.parametrize("architecture", ["Phi3ForCausalLM", "PhimoeForCausalLM"])
def test_what_is_written_has_the_original_length_outside(architecture: str) -> None:
    config = table(architecture).from_hub(longrope(6, 64))
    assert table(architecture).to_hub(config)["original_max_position_embeddings"] == 64
    plain = table(architecture).from_hub(PHI3)
    assert "original_max_position_embeddings" not in table(architecture).to_hub(plain)


def test_theta_alone_leaves_the_scaling_of_the_family() -> None:
    architecture = "GptOssForCausalLM"
    default = rope_of(architecture, WITHOUT_THETA)
    assert isinstance(default, YarnRope)
    assert rope_of(architecture, WITHOUT_THETA, rope_theta=5000.0) == replace(default, theta=5000.0)
    with pytest.raises(ModelError, match=r"rope_theta is 1\.0; it must be above 1 for yarn"):
        rope_of(architecture, WITHOUT_THETA, rope_theta=1.0)


def test_the_bounds_of_llama_3_may_be_equal_which_is_a_step() -> None:
    equal = {**SCALINGS["llama3"], "low_freq_factor": 2.0, "high_freq_factor": 2.0}
    rope = rope_of("LlamaForCausalLM", SIZES, rope_parameters={"rope_type": "llama3", **equal})
    ratios = rope.frequencies(64, 0) / Rope(rope.theta).frequencies(64, 0)
    assert {round(ratio, 5) for ratio in ratios.tolist()} == {1.0, 0.25}


def gguf_rope(**keys: Any) -> Any:
    family = GGUF["llama"][0]
    metadata, _ = family.config.to_gguf(family.config.from_hub(SIZES), "llama")
    stored = {f"llama.rope.{key.replace('scaling_', 'scaling.')}": value for key, value in keys.items()}
    return family.config.from_gguf(Metadata({**metadata, **stored})).rope


@pytest.mark.parametrize(
    ("keys", "expected"),
    [
        ({}, Rope()),
        ({"scaling_factor": 4.0}, LinearRope(factor=4.0)),
        ({"scale_linear": 2.0}, LinearRope(factor=2.0)),
        ({"scaling_factor": 4.0, "scale_linear": 2.0}, LinearRope(factor=4.0)),
        ({"scaling_type": "linear", "scale_linear": 2.0}, LinearRope(factor=2.0)),
        ({"scaling_type": "linear"}, Rope()),
        ({"scaling_factor": 0.0, "scale_linear": 2.0}, Rope()),
        ({"scaling_type": "none", "scaling_factor": 4.0}, Rope()),
    ],
    ids=str,
)
def test_a_gguf_file_without_the_kind_of_a_scaling_means_linear(keys: dict[str, Any], expected: Rope) -> None:
    assert gguf_rope(**keys) == expected


def test_a_factor_of_a_gguf_file_that_is_absurd_is_refused_by_name() -> None:
    for key in ("scaling_factor", "scale_linear"):
        with pytest.raises(ModelError, match=f"llama.rope.{key.replace('_f', '.f')} is -1"):
            gguf_rope(**{key: -1.0})
