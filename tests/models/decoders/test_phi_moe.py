"""Checks what is special in Phi-3.5-MoE: the weights of its experts, and the scaling of long texts."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch

from decodery.errors import ModelError
from decodery.kernels.reference import torch_kernels
from decodery.kernels.routing import Routing
from decodery.models.architectures import HUB
from decodery.models.decoders.experts.phi_moe import PHI_MOE
from decodery.models.layers.rope import LongRope
from decodery.models.load import load_model
from decodery.weights.formats.opening import open_checkpoint
from tests.models.decoders.families import FAMILIES, SIZES, Tiny, write_folder

SETTINGS = dict(FAMILIES["phi 3.5 moe with the usual distance"].settings)
LONG = {
    "rope_type": "longrope",
    "rope_theta": 1000.0,
    "short_factor": [1.0, 1.1, 1.2, 1.3, 1.4, 1.5],
    "long_factor": [2.0, 3.0, 4.0, 5.0, 6.0, 7.0],
    "short_mscale": 1.1,
    "long_mscale": 1.3,
    "original_max_position_embeddings": 16,
}


def test_each_pick_is_a_softmax_over_the_scores_that_are_left_and_near() -> None:
    scores = torch.tensor([[1.0, 0.99, 0.5, 0.975], [-1.0, -1.01, -3.0, 0.0]], dtype=torch.float64)
    ids, weights = torch_kernels.route(scores, Routing(2, within=0.02))
    assert ids.tolist() == [[0, 1], [3, 0]]
    powers = scores.exp()
    expected = [
        # 0.975 is further than 2 % from the best, and not from the second.
        [powers[0, 0] / powers[0, :2].sum(), powers[0, 1] / powers[0, [1, 3]].sum()],
        # Nothing is near 0; of negative scores their own size counts.
        [1.0, powers[1, 0] / powers[1, :2].sum()],
    ]
    torch.testing.assert_close(weights, torch.tensor(expected, dtype=torch.float64))


@pytest.mark.parametrize(("length", "changed"), [(12, {}), (40, {"short_factor": LONG["long_factor"]})])
def test_long_texts_have_their_own_frequencies_and_magnitude(
    length: int, changed: dict[str, Any], tmp_path: Path
) -> None:
    import transformers

    folder = write_folder(Tiny("PhimoeForCausalLM", {**SETTINGS, "rope_parameters": LONG}), tmp_path)
    with open_checkpoint(folder) as checkpoint:
        model: Any = load_model(checkpoint, dtype=torch.float32, kernels=torch_kernels)
    # transformers takes the factors of short texts for long ones, too.
    config = json.loads((folder / "config.json").read_text(encoding="utf-8"))
    config["rope_parameters"] |= changed
    (folder / "config.json").write_text(json.dumps(config), encoding="utf-8")
    theirs = transformers.PhimoeForCausalLM.from_pretrained(folder, experts_implementation="eager").eval()
    tokens = torch.arange(length)[None] * 7 % 97
    with torch.no_grad():
        expected = theirs(tokens).logits
    torch.testing.assert_close(model(tokens), expected, atol=1e-5 * expected.abs().max().item(), rtol=0)


def test_missing_keys_have_the_defaults_of_the_family() -> None:
    found = PHI_MOE.config.from_hub({key: value for key, value in SIZES.items() if key != "rope_theta"})
    assert (found.experts, found.experts_per_token, found.within, found.norm_eps) == (16, 2, 0.02, 1e-5)
    assert (found.rope.theta, found.attention_bias, found.head_bias) == (1e6, False, False)  # type: ignore[union-attr]


def test_both_spellings_are_one_family() -> None:
    assert HUB["PhimoeForCausalLM"] == HUB["PhiMoEForCausalLM"]


@pytest.mark.parametrize("kind", ["su", "longrope"])
def test_magnitudes_of_short_and_long_texts_are_read_and_written(kind: str) -> None:
    old = {key: value for key, value in SETTINGS.items() if key != "rope_theta"}
    rope = {**{key: value for key, value in LONG.items() if key != "rope_type"}, "type": kind}
    config = PHI_MOE.config.from_hub({**old, "rope_scaling": rope, "rope_theta": 1000.0})
    assert isinstance(config.rope, LongRope)
    assert config.rope.magnitudes == (1.1, 1.3)
    assert PHI_MOE.config.from_hub(PHI_MOE.config.to_hub(config)) == config
    with pytest.raises(ModelError, match="one magnitude"):
        PHI_MOE.config.to_gguf(config, "phimoe")


@pytest.mark.parametrize("noise", [-0.1, 1.0, "much", True])
def test_an_absurd_noise_is_refused(noise: object) -> None:
    with pytest.raises(ModelError, match="router_jitter_noise"):
        PHI_MOE.config.from_hub({**SETTINGS, "router_jitter_noise": noise})


def test_a_gguf_file_has_the_usual_distance_alone() -> None:
    config = PHI_MOE.config.from_hub({**SETTINGS, "router_jitter_noise": 0.1})
    with pytest.raises(ModelError, match="router_jitter_noise"):
        PHI_MOE.config.to_gguf(config, "phimoe")
