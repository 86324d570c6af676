"""Checks the settings and names of DeepSeek 2 and 3 and of GLM-4.5, which shares their routing."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

from decodery.errors import ModelError
from decodery.kernels.reference import torch_kernels
from decodery.models.decoders.experts.deepseek import DEEPSEEK2, DEEPSEEK3, Deepseek
from decodery.models.decoders.experts.glm_moe import GLM_MOE
from decodery.models.load import load_model
from decodery.weights.formats.opening import open_checkpoint
from decodery.weights.parameters import export_parameters
from tests.models.decoders.families import FAMILIES, SIZES, write_folder
from tests.models.test_config import Declared
from tests.weights.test_parameters import InMemory

V3 = dict(FAMILIES["deepseek v3"].settings)
V2 = dict(FAMILIES["deepseek v2"].settings)
GLM = dict(FAMILIES["glm 4.5"].settings)
TOKENS = torch.arange(30)[None] * 7 % 97


def plain(checkpoint: Any) -> Any:
    return load_model(checkpoint, dtype=torch.float32, kernels=torch_kernels)


def without(settings: dict[str, Any], *keys: str) -> dict[str, Any]:
    return {key: value for key, value in settings.items() if key not in keys}


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_folder(FAMILIES["deepseek v3"], tmp_path_factory.mktemp("deepseek"))


def in_gguf(folder: Path) -> tuple[Any, dict[str, Any], dict[str, Tensor]]:
    """Returns a model with the metadata and tensors of its GGUF file."""
    with open_checkpoint(folder) as checkpoint:
        model = plain(checkpoint)
    metadata, tensors = DEEPSEEK3.config.to_gguf(model.config, "deepseek2")
    rules = DEEPSEEK3.gguf_names(model.config).rules  # type: ignore[misc]
    return model, metadata, tensors | dict(export_parameters(model, rules, model.config.layers))


def opened(metadata: dict[str, Any], tensors: dict[str, Tensor]) -> Any:
    stored = InMemory(tensors)
    stored.format, stored.config = "gguf", metadata
    return plain(stored)


def test_older_files_have_keys_and_values_in_one_tensor_and_whole_heads(folder: Path) -> None:
    model, metadata, tensors = in_gguf(folder)
    hub = load_file(folder / "model.safetensors")
    for layer in range(3):
        for name in ("attn_k_b", "attn_v_b"):
            del tensors[f"blk.{layer}.{name}.weight"]
        stored = hub[f"model.layers.{layer}.self_attn.kv_b_proj.weight"]
        tensors[f"blk.{layer}.attn_kv_b.weight"] = stored
    old = without(metadata, "deepseek2.attention.key_length_mla", "deepseek2.attention.value_length_mla")
    old |= {
        "deepseek2.attention.head_count_kv": 4,
        "deepseek2.attention.key_length": 20,
        "deepseek2.attention.value_length": 16,
    }
    assert torch.equal(opened(old, tensors)(TOKENS), model(TOKENS))


def test_newer_files_describe_one_key_head_over_short_vectors(folder: Path) -> None:
    model, metadata, tensors = in_gguf(folder)
    found = {key.removeprefix("deepseek2.attention."): value for key, value in metadata.items()}
    assert (found["head_count_kv"], found["key_length"], found["value_length"]) == (1, 28, 20)
    assert (found["key_length_mla"], found["value_length_mla"]) == (20, 16)
    assert tensors["blk.0.attn_k_b.weight"].shape == (4, 20, 12)
    assert tensors["blk.0.attn_v_b.weight"].shape == (4, 16, 20)
    assert torch.equal(opened(metadata, tensors)(TOKENS), model(TOKENS))


def test_layers_that_predict_further_tokens_are_left_out(folder: Path, tmp_path: Path) -> None:
    tensors = load_file(folder / "model.safetensors")
    further = {
        name.replace("layers.2.", "layers.3."): t.clone() for name, t in tensors.items() if ".2." in name
    }
    save_file({**further, **tensors}, tmp_path / "model.safetensors")
    (tmp_path / "config.json").write_bytes((folder / "config.json").read_bytes())
    with open_checkpoint(tmp_path) as more, open_checkpoint(folder) as fewer:
        assert torch.equal(plain(more)(TOKENS), plain(fewer)(TOKENS))
    model, metadata, stored = in_gguf(folder)
    metadata |= {"deepseek2.block_count": 4, "deepseek2.nextn_predict_layers": 1}
    stored["blk.3.nextn.enorm.weight"] = torch.ones(48)
    assert torch.equal(opened(metadata, stored)(TOKENS), model(TOKENS))


def test_the_scale_has_the_square_of_the_magnitude_of_all_dimensions() -> None:
    layer = DEEPSEEK3.config.from_hub(V3).attention(0)
    assert layer.scale == pytest.approx(20**-0.5 * (0.1 * math.log(8) + 1) ** 2)
    assert DEEPSEEK3.config.from_hub(V3).rope.magnitude() == 1
    without_yarn = {
        **V3,
        "rope_parameters": {"rope_theta": 1e4, "rope_type": "default", "mscale_all_dim": 1.0},
    }
    assert DEEPSEEK3.config.from_hub(without_yarn).attention(0).scale == pytest.approx(20**-0.5)


def test_inner_norms_have_their_own_epsilon() -> None:
    with torch.device("meta"):
        model = Deepseek(DEEPSEEK3.config.from_hub({**V3, "rms_norm_eps": 0.1}), torch_kernels)
    layer: Any = model.layers[0]
    assert (layer.attn_norm.eps, layer.attn.kv_norm.eps, layer.attn.q_norm.eps) == (0.1, 1e-6, 1e-6)


def test_missing_keys_have_the_defaults_of_the_family() -> None:
    three = DEEPSEEK3.config.from_hub(
        {**SIZES, "num_hidden_layers": 5, "num_key_value_heads": 4, "moe_intermediate_size": 36}
    )
    assert (three.experts, three.experts_per_token, three.groups, three.kept_groups) == (256, 8, 8, 4)
    assert (three.factor, three.q_rank, three.kv_rank, three.head_dim, three.v_size) == (
        2.5,
        1536,
        512,
        192,
        128,
    )
    assert (three.sparse, three.shared_width) == ((False, False, False, True, True), 36)
    assert (three.probability, three.corrected, three.best_of_group) == ("sigmoid", True, 2)
    two = DEEPSEEK2.config.from_hub(
        without(V2, "topk_method", "routed_scaling_factor", "first_k_dense_replace")
    )
    assert (two.groups, two.factor, two.sparse) == (1, 1.0, ())
    assert (two.probability, two.renormalised, two.corrected) == ("softmax", False, False)
    # The family does not read the key.
    assert DEEPSEEK2.config.from_hub({**V2, "norm_topk_prob": True}).renormalised is False
    glm = GLM_MOE.config.from_hub(without(GLM, "rope_parameters", "use_qk_norm", "first_k_dense_replace"))
    assert (glm.rotated_size, glm.head_norms, glm.sparse) == (10, False, (False, True, True))


def test_null_means_whole_queries() -> None:
    assert DEEPSEEK3.config.from_hub({**V3, "q_lora_rank": None}).q_rank is None


def test_gguf_files_say_how_scores_become_probabilities() -> None:
    metadata, _ = DEEPSEEK3.config.to_gguf(DEEPSEEK3.config.from_hub(V3), "deepseek2")
    metadata["deepseek2.vocab_size"] = 97
    read = DEEPSEEK3.config.from_gguf(Declared("gguf", metadata, ("blk.1.exp_probs_b.bias",)))
    assert (read.probability, read.corrected, read.best_of_group) == ("sigmoid", True, 2)
    # Older files of DeepSeek-V2 lack the key.
    old = without(metadata, "deepseek2.expert_gating_func", "deepseek2.expert_weights_norm")
    read = DEEPSEEK3.config.from_gguf(Declared("gguf", old))
    assert (read.probability, read.corrected, read.renormalised) == ("softmax", False, False)
    with pytest.raises(ModelError, match="expert_gating_func"):
        DEEPSEEK3.config.from_gguf(Declared("gguf", {**metadata, "deepseek2.expert_gating_func": 3}))


WRONG: list[tuple[str, dict[str, Any]]] = [
    ("n_group", {"n_group": 4}),
    ("n_group", {"n_group": 6}),
    ("topk_group", {"topk_group": 4}),
    ("topk_group", {"topk_group": 1, "num_experts_per_tok": 3}),
    ("num_experts_per_tok", {"num_experts_per_tok": 7}),
    ("first_k_dense_replace", {"first_k_dense_replace": 3}),
    ("first_k_dense_replace", {"first_k_dense_replace": -1}),
    ("routed_scaling_factor", {"routed_scaling_factor": 0.0}),
    ("n_shared_experts", {"n_shared_experts": -1}),
]


@pytest.mark.parametrize(("named", "changes"), WRONG, ids=str)
def test_an_absurd_routing_is_named(named: str, changes: dict[str, Any]) -> None:
    for family, settings in ((DEEPSEEK3, V3), (GLM_MOE, GLM)):
        with pytest.raises(ModelError, match=named):
            family.config.from_hub({**settings, **changes})  # type: ignore[attr-defined]


WRONG_V3: list[tuple[str, dict[str, Any]]] = [
    ("qk_rope_head_dim", {"qk_rope_head_dim": 7}),
    ("num_key_value_heads", {"num_key_value_heads": 2}),
    ("moe_layer_freq", {"moe_layer_freq": 2}),
    ("mscale_all_dim", {"rope_parameters": {**V3["rope_parameters"], "mscale_all_dim": -1}}),
]


@pytest.mark.parametrize(("named", "changes"), WRONG_V3, ids=str)
def test_an_absurd_setting_of_deepseek_is_named(named: str, changes: dict[str, Any]) -> None:
    with pytest.raises(ModelError, match=named):
        DEEPSEEK3.config.from_hub({**V3, **changes})


def test_an_unknown_method_of_choice_is_refused() -> None:
    with pytest.raises(ModelError, match="topk_method"):
        DEEPSEEK2.config.from_hub({**V2, "topk_method": "noaux_tc"})


@pytest.mark.parametrize(
    ("family", "settings"), [(DEEPSEEK2, V2), (DEEPSEEK3, V3), (GLM_MOE, GLM)], ids=["v2", "v3", "glm"]
)
def test_what_is_written_is_read_again(family: Any, settings: dict[str, Any]) -> None:
    config = family.config.from_hub(settings)
    assert family.config.from_hub(family.config.to_hub(config)) == config
