"""Tests what distinguishes DeBERTa: the scores of distances, their buckets, and the names of its head."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

from decodery.errors import CheckpointError, ModelError
from decodery.kernels.reference import torch_kernels
from decodery.models.encoders.deberta import DEBERTA, DEBERTA2, DisentangledAttention, Distances
from decodery.models.layers.attention import DenseAttend
from decodery.models.load import load_model
from decodery.weights.formats.opening import open_checkpoint
from tests.models.encoders.families import SIZES, Tiny, write_folder
from tests.models.encoders.relative_families import BOTH


def opened(folder: Path) -> Any:
    with open_checkpoint(folder) as checkpoint:
        return load_model(checkpoint, dtype=torch.float32, kernels=torch_kernels)


@pytest.mark.parametrize(
    ("parts", "buckets", "shared"),
    [(["p2c"], 0, False), (["c2p"], 0, False), (["p2c", "c2p"], 4, True), (["p2c"], 5, False)],
)
def test_each_score_is_that_of_the_paper(parts: list[str], buckets: int, shared: bool) -> None:
    """Equation 4 of the paper, term by term, with one distance i - j for both parts."""
    settings = {**BOTH, "pos_att_type": parts, "position_buckets": buckets, "share_att_key": shared}
    config = replace(DEBERTA2.config.from_hub({**settings, "max_relative_positions": 4}), heads=1, head_dim=8)
    torch.manual_seed(0)
    attention = DisentangledAttention(config, torch_kernels).double()
    for parameter in attention.parameters():
        torch.nn.init.normal_(parameter, std=0.3)
    table, x = torch.randn(2 * config.span, 60).double(), torch.randn(1, 6, 60).double()
    q, k, v = attention.qkv(x[0]).chunk(3, -1)
    far_q, far_k, _ = attention.qkv(table).chunk(3, -1)
    if not shared:
        far_k = far_k if attention.position_key is None else attention.position_key(table)
        far_q = far_q if attention.position_query is None else attention.position_query(table)
    scores = torch.zeros(6, 6).double()
    for i in range(6):
        for j in range(6):
            row = int(config.rows(6)[i - j + 5])
            scores[i, j] = q[i] @ k[j]
            scores[i, j] += q[i] @ far_k[row] if "c2p" in parts else 0
            scores[i, j] += k[j] @ far_q[row] if "p2c" in parts else 0
    expected = attention.out((scores / (8 * (1 + len(parts))) ** 0.5).softmax(-1) @ v)
    given = Distances(table, config.rows(6))
    torch.testing.assert_close(attention(x, given, DenseAttend(torch_kernels))[0], expected)


@pytest.mark.parametrize(("buckets", "reach"), [(256, 512), (0, 512), (8, 43), (7, 30), (2, 5), (32, 128)])
def test_rows_of_distances_are_those_of_transformers(buckets: int, reach: int) -> None:
    from transformers.models.deberta_v2.modeling_deberta_v2 import build_relative_position

    config = DEBERTA2.config.from_hub({**BOTH, "position_buckets": buckets, "max_relative_positions": reach})
    length = 700
    queries = torch.empty(length, 1)
    theirs = build_relative_position(queries, queries, bucket_size=buckets or -1, max_position=reach)[0]
    expected = (theirs + config.span).clamp(0, 2 * config.span - 1)
    rows = config.rows(length)
    places = torch.arange(length)
    assert torch.equal(rows[places[:, None] - places + length - 1], expected)


def head_of(weights: Mapping[str, Tensor], prefix: str) -> dict[str, Tensor]:
    return {name: each for name, each in weights.items() if name.startswith(prefix)}


def formula(states: Tensor, weights: Mapping[str, Tensor], head: str) -> Tensor:
    """Returns the scores of masked tokens in float64, by the stored names of a head's parts."""
    parts = {name.removeprefix(head): each.double() for name, each in weights.items()}
    x = states.double() @ parts["dense.weight"].T + parts["dense.bias"]
    x = torch.nn.functional.gelu(x)
    x = torch.nn.functional.layer_norm(
        x, x.shape[-1:], parts["LayerNorm.weight"], parts["LayerNorm.bias"], 1e-7
    )
    return x @ weights["deberta.embeddings.word_embeddings.weight"].double().T + parts["bias"]


@pytest.mark.parametrize("start", ["Deberta", "DebertaV2"])
@pytest.mark.parametrize("named", [True, False])
def test_a_published_folder_uses_its_own_head_of_masked_tokens(
    start: str, named: bool, tmp_path: Path
) -> None:
    """Published folders have the head's weights, but neither `legacy` nor an architecture.

    transformers then draws a random head, so the oracle is a formula.
    """
    folder = write_folder(Tiny(start, {**BOTH, "legacy": False}), tmp_path, "masked_lm")
    settings = json.loads((folder / "config.json").read_text(encoding="utf-8"))
    del settings["legacy"]
    if not named:
        del settings["architectures"]
    (folder / "config.json").write_text(json.dumps(settings), encoding="utf-8")
    weights = load_file(folder / "model.safetensors")
    # Parts of pretraining that are published too.
    for name in ("mask_predictions.dense.weight", "deberta.embeddings.position_embeddings.weight"):
        weights[name] = torch.randn(43, 60)
    save_file(weights, folder / "model.safetensors")
    model, tokens = opened(folder), torch.arange(30)[None]
    assert list(model.heads) == ["masked_lm"]
    states = model(tokens)
    expected = formula(states, weights, "lm_predictions.lm_head.")
    torch.testing.assert_close(model.heads["masked_lm"](states).double(), expected, atol=1e-5, rtol=1e-5)


def test_a_folder_of_both_spellings_uses_the_one_that_its_settings_name(tmp_path: Path) -> None:
    for legacy in (True, False):
        folder = write_folder(
            Tiny("DebertaV2", {**BOTH, "legacy": legacy}), tmp_path / str(legacy), "masked_lm"
        )
        other = write_folder(
            Tiny("DebertaV2", {**BOTH, "legacy": not legacy}), tmp_path / "other", "masked_lm", seed=1
        )
        model, tokens = opened(folder), torch.arange(30)[None]
        expected = model.heads["masked_lm"](model(tokens))
        weights = load_file(folder / "model.safetensors")
        head = "lm_predictions." if legacy else "cls."
        added = head_of(load_file(other / "model.safetensors"), head)
        assert added
        save_file({**weights, **added}, folder / "model.safetensors")
        again = opened(folder)
        assert torch.equal(again.heads["masked_lm"](again(tokens)), expected)


def test_a_head_is_never_one_that_the_folder_does_not_have(tmp_path: Path) -> None:
    folder = write_folder(Tiny("DebertaV2", BOTH), tmp_path, "masked_lm")
    weights = load_file(folder / "model.safetensors")
    without = {name: each for name, each in weights.items() if not name.startswith("cls.")}
    save_file(without, folder / "model.safetensors")
    assert not opened(folder).heads
    part = {**without, "cls.predictions.bias": weights["cls.predictions.bias"]}
    save_file(part, folder / "model.safetensors")
    with pytest.raises(CheckpointError, match=r"missing: .*cls\.predictions\.transform\.dense"):
        opened(folder)


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("talking_head", True),
        ("pos_att_type", "c2p|p2p"),
        ("pos_att_type", ["c2p", "c2p"]),
        ("pos_att_type", 3),
        ("max_relative_positions", -2),
        ("pooler_hidden_size", 30),
        ("pooler_hidden_act", "mish"),
    ],
)
def test_settings_of_the_first_that_have_no_meaning_are_refused_by_name(key: str, value: Any) -> None:
    with pytest.raises(ModelError, match=key):
        DEBERTA.config.from_hub({**BOTH, key: value})


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("position_buckets", 1),
        ("position_buckets", 84),
        ("norm_rel_ebd", "batch_norm"),
        ("conv_kernel_size", 4),
        ("conv_groups", 7),
        ("conv_act", "mish"),
        ("share_att_key", "yes"),
    ],
)
def test_settings_of_the_second_that_have_no_meaning_are_refused_by_name(key: str, value: Any) -> None:
    with pytest.raises(ModelError, match=key):
        DEBERTA2.config.from_hub({**BOTH, key: value})


def test_without_their_keys_configs_are_those_of_transformers() -> None:
    for family in (DEBERTA, DEBERTA2):
        config = family.config.from_hub(SIZES)
        assert (config.relative, config.position_scores, config.positions, config.segments) == (
            False,
            (),
            43,
            0,
        )
        assert (config.norm_eps, config.pooler_activation, config.legacy) == (1e-7, "gelu", True)
        opened_for_less = replace(config, context_length=9)
        assert (opened_for_less.reach, opened_for_less.positions) == (43, 43)
