"""Tests what distinguishes ModernBERT: its windows, and the older and newer keys of its settings."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from decodery.encoding.text_batches import BatchRunner, TokenText
from decodery.errors import ModelError
from decodery.kernels.native.native_kernels import NativeKernels
from decodery.models.encoders.modernbert import MODERNBERT
from decodery.models.layers.rope import Rope
from decodery.models.load import load_for_inference
from decodery.weights.formats.opening import open_checkpoint
from tests.kernels.native.fixtures import built
from tests.models.encoders.families import SIZES, Tiny, write_folder
from tests.models.encoders.relative_families import MODERN


def states(folder: Path, tokens: Tensor) -> Tensor:
    with open_checkpoint(folder) as checkpoint:
        model: Any = load_for_inference(checkpoint, dtype=torch.float32, kernels=NativeKernels())
    texts = [TokenText(tuple(tokens.tolist()), (0,) * len(tokens)), TokenText((5, 6), (0, 0))]
    (batch,) = BatchRunner(model).run(texts)
    return batch.of(0)


@built
@pytest.mark.parametrize(("size", "changed"), [(4, range(7, 12)), (5, range(7, 12)), (1, range(9, 10))])
def test_a_layer_with_a_window_sees_half_of_it_on_each_side(
    size: int, changed: range, tmp_path: Path
) -> None:
    one = {**MODERN, "num_hidden_layers": 1, "layer_types": ["sliding_attention"], "local_attention": size}
    folder = write_folder(Tiny("ModernBert", one), tmp_path)
    tokens = torch.arange(20, 32)
    other = tokens.clone()
    other[9] = 3
    differs = (states(folder, tokens) != states(folder, other)).any(-1)
    assert differs.nonzero().flatten().tolist() == list(changed)


def hub_config(**settings: Any) -> Any:
    given = {**MODERN, **settings}
    return MODERNBERT.config.from_hub({key: each for key, each in given.items() if each is not ...})


def test_without_its_keys_a_config_is_that_of_the_published_models() -> None:
    config = MODERNBERT.config.from_hub({**SIZES, "num_hidden_layers": 22})
    assert config.windows == tuple(65 if layer % 3 else None for layer in range(22))
    assert config.ropes == {"full_attention": Rope(160000.0), "sliding_attention": Rope(10000.0)}
    assert (config.norm_eps, config.norm_bias, config.decoder_bias, config.tied_head) == (
        1e-5,
        False,
        True,
        True,
    )


def test_older_keys_mean_what_the_newer_ones_do() -> None:
    older = hub_config(global_attn_every_n_layers=2, global_rope_theta=5e4, local_rope_theta=2e3)
    newer = hub_config(
        layer_types=["full_attention", "sliding_attention"] * 2,
        rope_parameters={
            "full_attention": {"rope_type": "default", "rope_theta": 5e4},
            "sliding_attention": {"rope_type": "default", "rope_theta": 2e3},
        },
    )
    assert older == newer
    # The layers with a window then share the other base.
    both = hub_config(global_rope_theta=5e4, local_rope_theta=None).ropes
    assert both == {"full_attention": Rope(5e4), "sliding_attention": Rope(5e4)}


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("local_attention", 0),
        ("layer_types", ["full_attention"]),
        ("layer_types", ["full_attention", "linear_attention", "full_attention", "full_attention"]),
        ("classifier_pooling", "max"),
        ("hidden_activation", "tanh"),
        ("num_attention_heads", 7),
        ("num_attention_heads", 4),
        ("rope_scaling", {"rope_type": "linear", "factor": 2.0}),
        ("global_attn_every_n_layers", 0),
    ],
)
def test_settings_that_have_no_meaning_are_refused_by_name(key: str, value: Any) -> None:
    with pytest.raises(ModelError, match=key):
        hub_config(**{key: value})


def test_a_written_config_is_read_as_itself() -> None:
    for settings in ({}, {"local_attention": 1}, {"layer_types": ["full_attention"] * 4}):
        config = hub_config(**settings)
        written = json.loads(json.dumps(MODERNBERT.config.to_hub(config)))
        assert MODERNBERT.config.from_hub(written) == config
