"""Checks what distinguishes the Falcons from each other, in both formats and under their older keys."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from decodery.errors import ModelError
from decodery.kernels.reference import torch_kernels
from decodery.models.decoders.layer_norm.falcon import FALCON
from decodery.models.load import load_model
from decodery.weights.formats.opening import open_checkpoint
from tests.models.decoders.families import Tiny, write_folder
from tests.models.decoders.layer_norm_families import FALCON_SIZES

OLD = {"hidden_size": 96, "n_layer": 3, "n_head": 4, "vocab_size": 97}


@pytest.mark.parametrize(
    ("settings", "expected"),
    [
        ({}, {"kv_heads": 1, "norms": 1, "parallel": True, "tied_head": True, "mlp_width": 384}),
        ({"multi_query": True, "n_head_kv": None}, {"kv_heads": 1, "grouped": False}),
        ({"multi_query": False}, {"kv_heads": 4}),
        ({"multi_query": False, "num_kv_heads": 2}, {"kv_heads": 4}),
        ({"n_head_kv": 2}, {"kv_heads": 2, "grouped": True, "norms": 2}),
        ({"new_decoder_architecture": True}, {"kv_heads": 4, "grouped": True, "norms": 2}),
        (
            {"new_decoder_architecture": True, "num_kv_heads": 2, "num_ln_in_parallel_attn": 1},
            {"kv_heads": 2, "norms": 1},
        ),
        (
            {"new_decoder_architecture": True, "num_kv_heads": 2, "parallel_attn": False},
            {"sequential": False, "norms": 2},
        ),
        ({"alibi": True, "parallel_attn": False, "bias": True}, {"alibi": True, "sequential": True}),
        ({"alibi": None, "n_embed": 80, "hidden_size": None}, {"alibi": False, "width": 80, "head_dim": 20}),
    ],
    ids=str,
)
def test_a_config_json_means_this(settings: dict[str, Any], expected: dict[str, Any]) -> None:
    config = FALCON.config.from_hub({**OLD, **settings})
    assert {name: getattr(config, name) for name in expected} == expected
    assert FALCON.config.from_hub(FALCON.config.to_hub(config)) == config


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"new_decoder_architecture": True, "num_kv_heads": 3}, "num_kv_heads is 3; it must be a divisor"),
        ({"n_head_kv": 8}, "n_head_kv is 8"),
        ({"num_ln_in_parallel_attn": 3}, "num_ln_in_parallel_attn is 3"),
        ({"activation": "gelu_10"}, "activation is 'gelu_10'"),
        ({"n_head": 5}, "n_head is 5"),
    ],
    ids=str,
)
def test_an_absurd_setting_is_named(settings: dict[str, Any], message: str) -> None:
    with pytest.raises(ModelError, match=message):
        FALCON.config.from_hub({**OLD, **settings})


@pytest.mark.parametrize("settings", [{"alibi": True}, {"parallel_attn": False}, {"bias": True}], ids=str)
def test_what_gguf_cannot_express_is_not_written(settings: dict[str, Any]) -> None:
    config = FALCON.config.from_hub({**OLD, **settings})
    with pytest.raises(ModelError, match=f"a GGUF file cannot express {next(iter(settings))}"):
        FALCON.config.to_gguf(config, "falcon")


def exact_biases(keep: Tensor, heads: int, dtype: torch.dtype) -> Tensor:
    """Returns the biases of 12 heads by key [B * heads, 1, length] that transformers computes in bfloat16."""
    assert heads == 12
    slopes = [2.0**-i for i in range(1, 9)] + [2.0 ** (0.5 - i) for i in range(1, 5)]
    biases = torch.tensor(slopes)[:, None] * torch.arange(keep.shape[1])
    return biases.repeat(len(keep), 1)[:, None].to(dtype)


def test_biases_of_twelve_heads_are_exact_over_600_tokens(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from transformers import FalconForCausalLM
    from transformers.models.falcon import modeling_falcon

    settings = {**FALCON_SIZES, "hidden_size": 96, "num_attention_heads": 12, "alibi": True}
    settings |= {"multi_query": False, "max_position_embeddings": 600}
    folder = write_folder(Tiny("FalconForCausalLM", settings), tmp_path)
    theirs = FalconForCausalLM.from_pretrained(folder).eval()
    tokens = torch.randint(0, 97, (1, 600), generator=torch.Generator().manual_seed(0))
    with open_checkpoint(folder) as checkpoint:
        ours: Any = load_model(checkpoint, dtype=torch.float32, kernels=torch_kernels)
    with torch.no_grad():
        rounded = theirs(tokens).logits
        monkeypatch.setattr(modeling_falcon, "build_alibi_tensor", exact_biases)
        expected = theirs.double()(tokens).logits.float()
    assert (rounded - expected).abs().max() > 0.1
    torch.testing.assert_close(ours(tokens), expected, atol=1e-4, rtol=1e-5)
