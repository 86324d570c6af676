"""Checks what the settings of a Llama 4 mean, and what its GGUF files can express."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch

from decodery.errors import ModelError
from decodery.kernels.contract import PositionGrowth
from decodery.kernels.reference import torch_kernels
from decodery.kernels.routing import Routing
from decodery.models.decoders.experts.llama4 import LLAMA4
from decodery.models.layers.rope import Llama3Rope, Rope
from decodery.models.load import load_model
from decodery.weights.formats.opening import open_checkpoint
from tests.models.decoders.families import FAMILIES, without, write_folder
from tests.models.decoders.families import LLAMA4 as SETTINGS
from tests.models.test_config_reader import Metadata

TABLE = LLAMA4.config
BARE = {key: value for key, value in SETTINGS.items() if key not in ("head_dim", "rope_theta")}


def gguf(config: Any, **keys: Any) -> Any:
    """Returns the config of a GGUF file of `config` with other keys; one whose value is None is left out."""
    metadata, _ = TABLE.to_gguf(config, "llama4")
    metadata |= {f"llama4.{key}": value for key, value in keys.items()}
    return TABLE.from_gguf(Metadata({key: value for key, value in metadata.items() if value is not None}))


def test_missing_keys_have_their_defaults() -> None:
    config = TABLE.from_hub(BARE)
    assert (config.head_dim, config.rope, config.norm_eps) == (128, Rope(5e5), 1e-5)
    assert config.rotated == (True, True, True, False)
    assert config.chunks == (8192, 8192, 8192, None)
    assert config.unrotated_growth == PositionGrowth(0.1, 8192, 1)
    assert (config.sparse, config.head_norms, config.tied_head) == ((), True, False)
    assert (config.mlp_width, config.expert_width, config.shared_width) == (80, 36, 36)
    assert config.routing == Routing(2, "sigmoid", renormalised=False)


def test_an_empty_list_of_layers_that_rotate_is_the_default_and_1_is_a_layer_that_does() -> None:
    assert TABLE.from_hub({**BARE, "no_rope_layers": []}).rotated == (True, True, True, False)
    config = TABLE.from_hub({**BARE, "no_rope_layers": [0, 1, 1, 1]})
    assert (config.rotated, config.chunks) == ((False, True, True, True), (None, 8192, 8192, 8192))
    assert TABLE.from_hub({**BARE, "no_rope_layer_interval": 2}).rotated == (True, False) * 2


@pytest.mark.parametrize(("tuning", "grows"), [(True, True), (4, True), (False, False), (0, False)])
def test_queries_grow_as_a_flag_or_in_older_files_a_number_says(tuning: Any, grows: bool) -> None:
    config = TABLE.from_hub({**BARE, "attn_temperature_tuning": tuning})
    assert (config.unrotated_growth is not None) == grows


def test_without_a_size_there_are_no_chunks() -> None:
    assert TABLE.from_hub({**BARE, "attention_chunk_size": None}).chunks == ()


def test_the_rotary_positions_of_scout_have_equal_bounds() -> None:
    scaling = {
        "factor": 16.0,
        "high_freq_factor": 1.0,
        "low_freq_factor": 1.0,
        "original_max_position_embeddings": 8192,
        "rope_type": "llama3",
    }
    rope = TABLE.from_hub({**BARE, "rope_theta": 5e5, "rope_scaling": scaling}).rope
    assert rope == Llama3Rope(5e5, 16.0, 1.0, 1.0, 8192)


def logits(folder: Path, config: Any, tokens: torch.Tensor) -> torch.Tensor:
    with open_checkpoint(folder) as checkpoint:
        model: Any = load_model(checkpoint, dtype=torch.float32, kernels=torch_kernels)
        again: Any = LLAMA4.build["causal"](config(model.config), torch_kernels)
    again.load_state_dict(model.state_dict())
    found: torch.Tensor = again(tokens)
    return found


def test_a_chunk_and_a_window_differ_from_where_the_second_chunk_begins(tmp_path: Path) -> None:
    folder = write_folder(FAMILIES["llama 4"], tmp_path)
    tokens = torch.randint(0, 97, (1, 20), generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        in_chunks = logits(folder, without(chunks=(8,) * 5, windows=()), tokens)
        in_windows = logits(folder, without(chunks=(), windows=(8,) * 5), tokens)
    apart = (in_chunks - in_windows).abs().amax(-1)[0]
    assert apart[:8].max() < 1e-5
    assert apart[8:].min() > 1e-3


@pytest.mark.parametrize("scores", [[20.0, 30.0, 25.0], [1.0, 1.5, 1.25]])
def test_experts_are_chosen_before_the_logistic_function_makes_scores_equal(scores: list[float]) -> None:
    ids, weights = torch_kernels.route(torch.tensor([scores]), TABLE.from_hub(BARE).routing)
    assert ids.tolist() == [[1, 2]]
    assert torch.equal(weights, torch.tensor([scores])[:, [1, 2]].sigmoid())


def test_a_gguf_file_with_a_window_of_0_has_layers_that_all_rotate_and_see_all_keys() -> None:
    config = TABLE.from_hub({**BARE, "head_dim": 20})
    assert gguf(config).chunks == (8192, 8192, 8192, None)
    found = gguf(config, **{"attention.sliding_window": 0})
    assert (found.chunks, found.rotated, found.unrotated_growth) == ((), (), None)
    assert gguf(found) == found
    assert gguf(config, **{"attention.sliding_window": 512}).chunks == (8192, 8192, 8192, None)


def test_a_gguf_file_of_128_experts_has_no_norms_of_heads() -> None:
    config = TABLE.from_hub({**BARE, "num_local_experts": 128, "use_qk_norm": False})
    assert not gguf(config).head_norms
    assert gguf(config, expert_count=16).head_norms


INEXPRESSIBLE: dict[str, tuple[dict[str, Any], str]] = {
    "chunks": ({"attention_chunk_size": 64}, "chunks of 8192"),
    "rotation": ({"no_rope_layers": [0, 1, 1, 1]}, "each fourth layer does not rotate"),
    "norms": ({"use_qk_norm": False}, "norms of queries and keys"),
    "growth": ({"floor_scale": 64}, "how queries grow"),
    "experts": ({"moe_layers": [0]}, "each so many-th layer has experts"),
}


@pytest.mark.parametrize("name", INEXPRESSIBLE)
def test_what_a_gguf_file_cannot_express_is_refused(name: str) -> None:
    settings, message = INEXPRESSIBLE[name]
    with pytest.raises(ModelError, match=message):
        TABLE.to_gguf(TABLE.from_hub({**BARE, **settings}), "llama4")


WRONG: list[tuple[dict[str, Any], str]] = [
    ({"num_experts_per_tok": 6}, r"num_experts_per_tok is 6; it must be from 1 to num_local_experts \(5\)"),
    ({"num_experts_per_tok": 0}, "num_experts_per_tok is 0"),
    ({"num_local_experts": 0}, "num_local_experts is 0; it must be at least 1, since layers have experts"),
    ({"moe_layers": [4]}, "moe_layers is .4.; it must be a list of layers from 0 to 3"),
    ({"moe_layers": "0"}, "moe_layers"),
    ({"interleave_moe_layer_step": 0}, "interleave_moe_layer_step is 0"),
    ({"attention_chunk_size": 0}, "attention_chunk_size is 0"),
    ({"attention_chunk_size": -8}, "attention_chunk_size is -8"),
    ({"layer_types": ["sliding_attention"] * 4}, "layer_types has 'sliding_attention' for layer 0"),
    ({"layer_types": ["full_attention"]}, "layer_types"),
    ({"no_rope_layers": [1]}, "no_rope_layers"),
    ({"no_rope_layers": [2, 1, 1, 1]}, "no_rope_layers"),
    ({"no_rope_layer_interval": 0}, "no_rope_layer_interval is 0"),
    ({"attn_temperature_tuning": "yes"}, "attn_temperature_tuning is 'yes'"),
    ({"floor_scale": 0}, "floor_scale is 0"),
    ({"use_qk_norm": 1}, "use_qk_norm is 1"),
    ({"hidden_act": "gelu"}, "hidden_act is 'gelu'"),
    ({"num_attention_heads": 3}, "num_key_value_heads"),
]


@pytest.mark.parametrize(("settings", "message"), WRONG, ids=str)
def test_an_absurd_setting_is_named(settings: dict[str, Any], message: str) -> None:
    with pytest.raises(ModelError, match=message):
        TABLE.from_hub({**BARE, **settings})


@pytest.mark.parametrize("name", [name for name in FAMILIES if name.startswith("llama 4")])
def test_what_is_written_is_read_again(name: str) -> None:
    config = TABLE.from_hub(FAMILIES[name].settings)
    assert TABLE.from_hub(TABLE.to_hub(config)) == config
