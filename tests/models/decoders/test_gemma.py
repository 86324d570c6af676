"""Checks what the settings of Gemma 1, 2 and 3 mean, with and without keys, in both formats."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch

from decodery.errors import ModelError
from decodery.kernels.reference import torch_kernels
from decodery.models.decoders.gemma import GEMMA, GEMMA2, GEMMA3, Gemma, GemmaConfig
from decodery.models.families import find_family
from decodery.models.layers.rope import LinearRope, Rope
from decodery.models.load import load_model
from decodery.weights.formats.opening import open_checkpoint
from decodery.weights.parameters import export_parameters
from tests.models.decoders.families import write_folder
from tests.models.decoders.rms_norm_families import RMS_NORM_FAMILIES
from tests.models.test_config_reader import Metadata
from tests.models.tiny import HUB

BARE = {key: HUB[key] for key in ("vocab_size", "hidden_size", "intermediate_size", "num_attention_heads")}
BARE |= {"num_hidden_layers": 6, "num_key_value_heads": 2, "max_position_embeddings": 512}


def gguf(family: Any, **keys: Any) -> GemmaConfig:
    """Returns the config of a GGUF file with the keys that converters always write."""
    written = {
        "vocab_size": 97,
        "embedding_length": 48,
        "block_count": 6,
        "feed_forward_length": 80,
        "attention.head_count": 4,
        "attention.key_length": 20,
        "attention.layer_norm_rms_epsilon": 1e-6,
        "context_length": 512,
        **keys,
    }
    metadata = {f"{family.gguf}.{key}": value for key, value in written.items()}
    found: GemmaConfig = family.config.from_gguf(
        Metadata(
            {"general.architecture": family.gguf, **metadata}, {"token_embd.weight": torch.empty(97, 48)}
        )
    )
    return found


@pytest.mark.parametrize("family", [GEMMA, GEMMA2, GEMMA3], ids=lambda family: family.name)
def test_without_keys_heads_have_256_elements_and_the_head_is_the_embedding(family: Any) -> None:
    config = family.config.from_hub(BARE)
    assert (config.head_dim, config.tied_head, config.activation) == (256, True, "gelu_tanh")
    assert config.embedding_scale == 48**0.5
    assert not config.attention_bias


@pytest.mark.parametrize("key", ["attn_logit_softcapping", "final_logit_softcapping", "sliding_window"])
def test_in_gemma_2_null_is_off_and_a_missing_key_is_the_default(key: str) -> None:
    def value(settings: Any) -> Any:
        config = GEMMA2.config.from_hub({**BARE, **settings})
        return {
            "attn_logit_softcapping": config.softcap,
            "final_logit_softcapping": config.logit_softcap,
            "sliding_window": config.windows[0] if config.windows else None,
        }[key]

    default = {"attn_logit_softcapping": 50, "final_logit_softcapping": 30, "sliding_window": 4096}[key]
    assert value({}) == default
    assert value({key: None}) is None
    assert value({key: 7}) == 7
    with pytest.raises(ModelError, match=key):
        value({key: -1})


def test_the_layers_with_a_window_follow_the_pattern_or_are_named() -> None:
    windows = GEMMA2.config.from_hub({**BARE, "sliding_window": 9}).windows
    assert windows == (9, None) * 3
    windows = GEMMA3.config.from_hub({**BARE, "sliding_window": 9}).windows
    assert windows == (9,) * 5 + (None,)
    windows = GEMMA3.config.from_hub({**BARE, "sliding_window": 9, "sliding_window_pattern": 3}).windows
    assert windows == (9, 9, None) * 2
    assert GEMMA3.config.from_hub({**BARE, "sliding_window_pattern": 1}).windows == ()
    named = ["full_attention", "sliding_attention"] * 3
    windows = GEMMA3.config.from_hub({**BARE, "sliding_window": 9, "layer_types": named}).windows
    assert windows == (None, 9) * 3


def test_in_gguf_files_windows_follow_the_pattern_which_may_be_a_number_or_a_list() -> None:
    assert gguf(GEMMA2).windows == (4096, None) * 3
    assert gguf(GEMMA3).windows == ()
    window = {"attention.sliding_window": 9}
    assert gguf(GEMMA3, **window).windows == (9,) * 5 + (None,)
    assert gguf(GEMMA3, **window, **{"attention.sliding_window_pattern": 2}).windows == (9, None) * 3
    flags = [True, False, False, True, True, True]
    found = gguf(GEMMA3, **window, **{"attention.sliding_window_pattern": flags})
    assert found.windows == (9, None, None, 9, 9, 9)
    written, _ = GEMMA3.config.to_gguf(found, "gemma3")
    assert written["gemma3.attention.sliding_window_pattern"] == flags
    with pytest.raises(ModelError, match="a flag for each of the 6 layers"):
        gguf(GEMMA3, **window, **{"attention.sliding_window_pattern": [True]})


@pytest.mark.parametrize(("family", "large"), [(GEMMA2, 46), (GEMMA3, 62)], ids=["gemma2", "gemma3"])
def test_in_gguf_files_the_number_of_layers_tells_the_scale_of_the_scores(family: Any, large: int) -> None:
    sizes = {"embedding_length": 576, "attention.key_length": 128}
    assert gguf(family, **sizes).scale == 128**-0.5
    assert gguf(family, **sizes, block_count=large).scale == 144**-0.5
    assert gguf(family, **sizes, block_count=108 - large).scale == 128**-0.5
    config = family.config.from_hub({**BARE, "head_dim": 20})
    assert config.scale == 256**-0.5
    with pytest.raises(ModelError, match="query_pre_attn_scalar"):
        family.config.to_gguf(config, family.gguf)


def test_only_the_layers_of_gemma_3_that_see_all_keys_are_scaled() -> None:
    plain = GEMMA3.config.from_hub(BARE).rope
    assert plain == {"full_attention": Rope(1e6), "sliding_attention": Rope(1e4)}
    scaled = GEMMA3.config.from_hub({**BARE, "rope_scaling": {"rope_type": "linear", "factor": 8.0}}).rope
    assert scaled == {"full_attention": LinearRope(1e6, 8.0), "sliding_attention": Rope(1e4)}
    keys = {"rope.freq_base": 1e6, "rope.scaling.type": "linear", "rope.scaling.factor": 8.0}
    assert gguf(GEMMA3, **keys).rope == scaled


def test_a_gguf_file_may_count_more_tokens_than_its_embedding_has_rows() -> None:
    assert gguf(GEMMA3, vocab_size=128).vocab_size == 97


def test_none_is_no_cap_only_where_gguf_can_say_so() -> None:
    config = GEMMA2.config.from_hub(
        {**BARE, "head_dim": 20, "query_pre_attn_scalar": 20, "attn_logit_softcapping": None}
    )
    with pytest.raises(ModelError, match="there is no attn_logit_softcapping"):
        GEMMA2.config.to_gguf(config, "gemma2")
    config = GEMMA3.config.from_hub({**BARE, "head_dim": 20, "query_pre_attn_scalar": 20})
    written, _ = GEMMA3.config.to_gguf(config, "gemma3")
    assert gguf(GEMMA3, **{"final_logit_softcapping": 0.0}).logit_softcap is None
    assert written["gemma3.final_logit_softcapping"] == 0.0


@pytest.mark.parametrize(
    ("family", "settings"),
    [
        (GEMMA, {"use_bidirectional_attention": True}),
        (GEMMA3, {"use_bidirectional_attention": True}),
        (GEMMA3, {"attn_logit_softcapping": 50.0}),
        (GEMMA, {"hidden_act": "relu"}),
        (GEMMA2, {"hidden_activation": "silu"}),
        (GEMMA3, {"query_pre_attn_scalar": 0}),
        (GEMMA3, {"sliding_window_pattern": 0}),
        (GEMMA2, {"layer_types": ["chunked_attention"] * 6}),
    ],
    ids=lambda value: getattr(value, "name", str(value)),
)
def test_settings_that_the_family_does_not_have_are_refused_by_name(
    family: Any, settings: dict[str, Any]
) -> None:
    with pytest.raises(ModelError, match=next(iter(settings))):
        family.config.from_hub({**BARE, **settings})


def test_in_gemma_1_gelu_means_the_approximation_with_tanh() -> None:
    for name in ("gelu", "gelu_pytorch_tanh"):
        assert GEMMA.config.from_hub({**BARE, "hidden_act": name}).activation == "gelu_tanh"


def test_the_scale_of_the_embedding_is_a_number_of_the_weights_dtype(tmp_path: Path) -> None:
    folder = write_folder(RMS_NORM_FAMILIES["gemma"], tmp_path)
    with open_checkpoint(folder) as checkpoint:
        model = load_model(checkpoint, dtype=torch.bfloat16, kernels=torch_kernels)
    assert isinstance(model, Gemma)
    tokens = torch.arange(97)
    scale = torch.tensor(48**0.5, dtype=torch.bfloat16)
    assert scale.item() != 48**0.5
    found = model.embed(tokens, tokens)
    assert torch.equal(found, model.embedding(tokens) * scale)
    assert not torch.equal(found, model.embedding(tokens) * 48**0.5)


@pytest.mark.parametrize("name", ["gemma", "gemma 2", "gemma 3", "gemma 3 with a scaling"])
def test_a_config_json_is_written_as_transformers_writes_it(name: str, tmp_path: Path) -> None:
    saved = json.loads(
        (write_folder(RMS_NORM_FAMILIES[name], tmp_path) / "config.json").read_text(encoding="utf-8")
    )
    family = {"gemma": GEMMA, "gemma 2": GEMMA2}.get(name, GEMMA3)
    config = family.config.from_hub(saved)
    written = family.config.to_hub(config)
    assert written == {key: saved[key] for key in written}
    assert family.config.from_hub(written) == config


@pytest.mark.parametrize("name", ["gemma", "gemma 2", "gemma 3"])
def test_in_bfloat16_norms_have_the_stored_weights_and_give_them_back(name: str, tmp_path: Path) -> None:
    import transformers

    folder = write_folder(RMS_NORM_FAMILIES[name], tmp_path)
    kind = getattr(transformers, RMS_NORM_FAMILIES[name].architecture)
    kind.from_pretrained(folder, dtype=torch.bfloat16).save_pretrained(folder)
    tokens = torch.arange(3, 33)[None]
    with open_checkpoint(folder) as checkpoint:
        model: Any = load_model(checkpoint, dtype=torch.bfloat16, kernels=torch_kernels)
        found = find_family(checkpoint).family
        names = found.hub_names(found.config.read(checkpoint))
        stored = {key: checkpoint.read(key, torch.bfloat16) for key in checkpoint.tensors}
    for key, tensor in export_parameters(model, names.rules, model.config.layers):
        assert torch.equal(tensor.bfloat16(), stored[key]), key
    with torch.no_grad():
        expected = kind.from_pretrained(folder, dtype=torch.float32)(tokens).logits
    torch.testing.assert_close(model.float()(tokens), expected, atol=1e-4, rtol=1e-4)
