"""Checks models that are a family with other values: the config.json of each, and its twin in small."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file

from decodery.errors import ModelError
from decodery.kernels.reference import torch_kernels
from decodery.models.architectures import HUB
from decodery.models.decoders.ernie import ERNIE
from decodery.models.decoders.exaone import EXAONE4
from decodery.models.decoders.glm import GLM
from decodery.models.decoders.granite import GRANITE
from decodery.models.decoders.internlm import INTERNLM3
from decodery.models.decoders.mistral import MINISTRAL3
from decodery.models.decoders.olmo import OLMO3
from decodery.models.decoders.seed_oss import SEED_OSS
from decodery.models.families import find_family
from decodery.models.layers.rope import Llama3Rope, LongRope, Rope, YarnRope
from decodery.models.load import load_model
from decodery.weights.formats.opening import open_checkpoint
from decodery.weights.parameters import export_parameters
from tests.models.decoders.families import SIZES, Tiny, write_folder
from tests.models.decoders.rms_norm_families import RMS_NORM_FAMILIES
from tests.models.test_config_reader import Metadata
from tests.weights.test_parameters import InMemory

LLAMA3_ROPE = {
    "factor": 8.0,
    "low_freq_factor": 1.0,
    "high_freq_factor": 4.0,
    "original_max_position_embeddings": 8192,
    "rope_type": "llama3",
}


def real(
    architecture: str, width: int, mlp: int, layers: int, heads: int, kv_heads: int, **settings: Any
) -> dict[str, Any]:
    return {
        "architectures": [architecture],
        "hidden_act": "silu",
        "hidden_size": width,
        "intermediate_size": mlp,
        "num_hidden_layers": layers,
        "num_attention_heads": heads,
        "num_key_value_heads": kv_heads,
        "torch_dtype": "bfloat16",
        "use_cache": True,
        **settings,
    }


@dataclass(frozen=True)
class Alias:
    """Holds the settings of a published config.json, and some of the fields that they must give."""

    settings: dict[str, Any]
    fields: dict[str, Any]


WINDOW_OFF = {"sliding_window": 4096, "use_sliding_window": False, "max_window_layers": 28}
ALIASES = {
    "Yi-1.5-9B": Alias(
        real(
            "LlamaForCausalLM",
            4096,
            11008,
            48,
            32,
            4,
            attention_bias=False,
            max_position_embeddings=4096,
            pretraining_tp=1,
            rms_norm_eps=1e-6,
            rope_scaling=None,
            rope_theta=5000000.0,
            tie_word_embeddings=False,
            vocab_size=64000,
        ),
        {"rope": Rope(5e6), "kv_heads": 4, "tied_head": False, "attention_bias": False},
    ),
    "SOLAR-10.7B": Alias(
        real(
            "LlamaForCausalLM",
            4096,
            14336,
            48,
            32,
            8,
            max_position_embeddings=4096,
            rms_norm_eps=1e-5,
            rope_scaling=None,
            rope_theta=10000.0,
            tie_word_embeddings=False,
            vocab_size=32000,
        ),
        {"rope": Rope(1e4), "norm_eps": 1e-5, "head_dim": 128},
    ),
    "DeepSeek-R1-Distill-Qwen-1.5B": Alias(
        real(
            "Qwen2ForCausalLM",
            1536,
            8960,
            28,
            12,
            2,
            attention_dropout=0.0,
            max_position_embeddings=131072,
            rms_norm_eps=1e-6,
            rope_theta=10000,
            tie_word_embeddings=False,
            use_mrope=False,
            vocab_size=151936,
            **WINDOW_OFF,
        ),
        {"attention_bias": True, "out_bias": False, "windows": (), "rope": Rope(1e4)},
    ),
    "DeepSeek-R1-Distill-Llama-8B": Alias(
        real(
            "LlamaForCausalLM",
            4096,
            14336,
            32,
            32,
            8,
            attention_bias=False,
            max_position_embeddings=131072,
            mlp_bias=False,
            rms_norm_eps=1e-5,
            rope_scaling=LLAMA3_ROPE,
            rope_theta=500000.0,
            tie_word_embeddings=False,
            vocab_size=128256,
        ),
        {"rope": Llama3Rope(5e5), "context_length": 131072},
    ),
    "Falcon3-7B": Alias(
        real(
            "LlamaForCausalLM",
            3072,
            23040,
            28,
            12,
            4,
            activation="swiglu",
            attention_bias=False,
            head_dim=256,
            max_position_embeddings=32768,
            mlp_bias=False,
            rms_norm_eps=1e-6,
            rope_scaling=None,
            rope_theta=1000042,
            tie_word_embeddings=False,
            vocab_size=131072,
        ),
        {"rope": Rope(1000042.0), "head_dim": 256, "heads": 12},
    ),
    "Phi-4-mini": Alias(
        real(
            "Phi3ForCausalLM",
            3072,
            8192,
            32,
            24,
            8,
            attention_bias=False,
            embd_pdrop=0.0,
            full_attn_mod=1,
            lm_head_bias=False,
            max_position_embeddings=131072,
            mlp_bias=False,
            original_max_position_embeddings=4096,
            partial_rotary_factor=0.75,
            rms_norm_eps=1e-5,
            rope_scaling={"type": "longrope", "long_factor": [2.5] * 48, "short_factor": [1.0] * 48},
            rope_theta=10000.0,
            sliding_window=262144,
            tie_word_embeddings=True,
            vocab_size=200064,
        ),
        {"rotated_size": 96, "tied_head": True, "head_dim": 128, "windows": (262144,) * 32},
    ),
    "OpenCoder-8B": Alias(
        real(
            "LlamaForCausalLM",
            4096,
            14336,
            32,
            32,
            8,
            attention_bias=False,
            max_position_embeddings=8192,
            mlp_bias=False,
            rms_norm_eps=1e-5,
            rope_scaling=None,
            rope_theta=500000.0,
            tie_word_embeddings=False,
            vocab_size=96640,
        ),
        {"rope": Rope(5e5), "vocab_size": 96640},
    ),
    "Kimi-Dev-72B": Alias(
        real(
            "Qwen2ForCausalLM",
            8192,
            29568,
            80,
            64,
            8,
            max_position_embeddings=131072,
            rms_norm_eps=1e-5,
            rope_scaling=None,
            rope_theta=1000000.0,
            tie_word_embeddings=False,
            vocab_size=152064,
            **{**WINDOW_OFF, "sliding_window": None, "max_window_layers": 70},
        ),
        {"attention_bias": True, "windows": (), "norm_eps": 1e-5},
    ),
    "ERNIE-4.5-0.3B": Alias(
        real(
            "Ernie4_5_ForCausalLM",
            1024,
            3072,
            18,
            16,
            2,
            head_dim=128,
            max_position_embeddings=131072,
            rms_norm_eps=1e-5,
            rope_theta=500000.0,
            tie_word_embeddings=True,
            use_bias=False,
            vocab_size=103424,
        ),
        {"head_dim": 128, "rope": Rope(5e5), "tied_head": True, "mlp_bias": False},
    ),
    "Seed-OSS-36B": Alias(
        real(
            "SeedOssForCausalLM",
            5120,
            27648,
            64,
            80,
            8,
            attention_bias=True,
            attention_out_bias=False,
            head_dim=128,
            max_position_embeddings=524288,
            mlp_bias=False,
            rms_norm_eps=1e-6,
            rope_scaling={"rope_type": "default"},
            rope_theta=10000000.0,
            tie_word_embeddings=False,
            vocab_size=155136,
        ),
        {"head_dim": 128, "attention_bias": True, "out_bias": False, "rope": Rope(1e7)},
    ),
}


def small(settings: dict[str, Any]) -> dict[str, Any]:
    """Returns the settings with small sizes, and everything else as it is."""
    wanted = {key: value for key, value in SIZES.items() if key != "rope_theta"}
    shrunk = {**settings, **wanted, "hidden_size": 64}
    del shrunk["architectures"], shrunk["torch_dtype"]
    if "head_dim" in settings:
        shrunk["head_dim"] = 20
    scaling = settings.get("rope_scaling") or {}
    if "long_factor" in scaling:
        shrunk["rope_scaling"] = {**scaling, "long_factor": [2.5] * 6, "short_factor": [1.0, 1.5] * 3}
    return shrunk


@pytest.mark.parametrize("name", ALIASES)
def test_a_published_config_json_gives_the_values_of_its_model(name: str) -> None:
    alias = ALIASES[name]
    family, _ = HUB[alias.settings["architectures"][0]]
    config = family.config.from_hub(alias.settings)
    assert {field: getattr(config, field) for field in alias.fields} == alias.fields
    if name == "Phi-4-mini":
        assert isinstance(config.rope, LongRope)
        assert config.rope.magnitudes == pytest.approx((1.190238,) * 2, abs=1e-5)


@pytest.mark.slow
@pytest.mark.parametrize("name", ALIASES)
def test_in_small_logits_are_those_of_transformers(name: str, tmp_path: Path) -> None:
    import transformers

    settings = small(ALIASES[name].settings)
    architecture = ALIASES[name].settings["architectures"][0].replace("5_For", "5For")
    write_folder(Tiny(architecture, settings), tmp_path)
    saved = json.loads((tmp_path / "config.json").read_text(encoding="utf-8"))
    saved["architectures"] = ALIASES[name].settings["architectures"]
    (tmp_path / "config.json").write_text(json.dumps(saved), encoding="utf-8")
    with open_checkpoint(tmp_path) as checkpoint:
        model = load_model(checkpoint, dtype=torch.float32, kernels=torch_kernels)
    tokens = torch.randint(0, 97, (2, 40), generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        theirs = getattr(transformers, architecture).from_pretrained(tmp_path).eval()(tokens).logits
    assert theirs.std() > 0.5
    torch.testing.assert_close(model(tokens), theirs, atol=1e-5 * max(1, theirs.abs().max().item()), rtol=0)


BARE = {key: SIZES[key] for key in SIZES if not key.endswith("token_id") and key != "rope_theta"}


@pytest.mark.parametrize(
    ("family", "kv_heads"),
    [(ERNIE, 2), (SEED_OSS, 8), (MINISTRAL3, 8)],
    ids=lambda value: getattr(value, "name", str(value)),
)
def test_a_missing_size_is_the_familys_own_and_null_follows_from_the_width(
    family: Any, kv_heads: int
) -> None:
    settings = {**BARE, "num_attention_heads": 8}
    del settings["num_key_value_heads"]
    config = family.config.from_hub(settings)
    assert (config.head_dim, config.kv_heads) == (128, kv_heads)
    config = family.config.from_hub({**settings, "head_dim": None, "num_key_value_heads": None})
    assert (config.head_dim, config.kv_heads) == (6, 8)


def test_without_rotary_keys_ministral_3_is_scaled_and_its_queries_grow() -> None:
    config = MINISTRAL3.config.from_hub(BARE)
    assert config.rope == YarnRope(1e6, 16.0, 16384, attention_factor=1.0)
    assert config.growth == (0.1, 16384, 0)
    assert ERNIE.config.from_hub(BARE).rope == Rope(5e5)


def test_the_growth_of_queries_has_the_original_length_of_the_scaling() -> None:
    yarn = {"rope_type": "yarn", "factor": 2.0, "original_max_position_embeddings": 64}
    grown = MINISTRAL3.config.from_hub({**BARE, "rope_parameters": {**yarn, "llama_4_scaling_beta": 0.3}})
    assert grown.growth == (0.3, 64, 0)
    for settings in (yarn, {**yarn, "llama_4_scaling_beta": 0}, {**yarn, "llama_4_scaling_beta": None}):
        assert MINISTRAL3.config.from_hub({**BARE, "rope_parameters": settings}).growth is None
    for beta in (-0.1, "much"):
        with pytest.raises(ModelError, match="llama_4_scaling_beta"):
            MINISTRAL3.config.from_hub({**BARE, "rope_parameters": {**yarn, "llama_4_scaling_beta": beta}})
    with pytest.raises(ModelError, match="no original length"):
        MINISTRAL3.config.from_hub({**BARE, "rope_parameters": {"llama_4_scaling_beta": 0.1}})


def test_a_gguf_file_of_ministral_3_is_read_as_llama_cpp_writes_it() -> None:
    metadata = {
        "vocab_size": 97,
        "embedding_length": 48,
        "block_count": 3,
        "feed_forward_length": 80,
        "attention.head_count": 4,
        "attention.layer_norm_rms_epsilon": 1e-5,
        "context_length": 512,
        "rope.freq_base": 1e6,
        "rope.scaling.type": "yarn",
        "rope.scaling.factor": 16.0,
        "rope.scaling.original_context_length": 64,
        "rope.scaling.yarn_log_multiplier": 1.0,
        "attention.temperature_scale": 0.1,
    }
    stored = {f"mistral3.{key}": value for key, value in metadata.items()}
    config = MINISTRAL3.config.from_gguf(Metadata({"general.architecture": "mistral3", **stored}))
    assert config.growth == (0.1, 64, 0)
    assert isinstance(config.rope, YarnRope)
    assert config.rope.magnitude() == pytest.approx(1.0)


@pytest.mark.parametrize("biases", [False, True])
def test_internlm_3_is_llama_with_other_keys_of_biases(biases: bool, tmp_path: Path) -> None:
    tiny = Tiny("LlamaForCausalLM", {**SIZES, "attention_bias": biases, "mlp_bias": biases})
    folder = write_folder(tiny, tmp_path)
    tokens = torch.arange(40)[None]
    with open_checkpoint(folder) as checkpoint:
        expected = load_model(checkpoint, dtype=torch.float32, kernels=torch_kernels)(tokens)
    config = json.loads((folder / "config.json").read_text(encoding="utf-8"))
    del config["attention_bias"], config["mlp_bias"]
    config |= {"architectures": ["InternLM3ForCausalLM"], "qkv_bias": biases, "bias": biases}
    (folder / "config.json").write_text(json.dumps(config), encoding="utf-8")
    with open_checkpoint(folder) as checkpoint:
        model = load_model(checkpoint, dtype=torch.float32, kernels=torch_kernels)
    assert torch.equal(model(tokens), expected)
    found = INTERNLM3.config.from_hub(config)
    written = INTERNLM3.config.to_hub(found)
    assert INTERNLM3.config.from_hub(written) == found


def as_exaone_3(config: dict[str, Any], tensors: dict[str, torch.Tensor]) -> None:
    """Renames the settings and tensors of a Llama to those of EXAONE 3."""
    renamed = {
        "num_layers": config.pop("num_hidden_layers"),
        "layer_norm_epsilon": config.pop("rms_norm_eps"),
        "activation_function": config.pop("hidden_act"),
    }
    config |= {"architectures": ["ExaoneForCausalLM"], **renamed}
    for name in list(tensors):
        new = name.replace("model.layers.", "transformer.h.").replace("self_attn.", "attn.attention.")
        for old, other in (
            ("o_proj", "out_proj"),
            ("gate_proj", "c_fc_0"),
            ("up_proj", "c_fc_1"),
            ("down_proj", "c_proj"),
            ("input_layernorm", "ln_1"),
            ("post_attention_layernorm", "ln_2"),
            ("model.embed_tokens", "transformer.wte"),
            ("model.norm", "transformer.ln_f"),
        ):
            new = new.replace(old, other)
        tensors[new] = tensors.pop(name)


def as_internlm_2(config: dict[str, Any], tensors: dict[str, torch.Tensor]) -> None:
    """Renames the settings and tensors of a Llama to those of InternLM 2."""
    config |= {"architectures": ["InternLM2ForCausalLM"], "bias": False}
    for layer in range(3):
        parts = [tensors.pop(f"model.layers.{layer}.self_attn.{part}_proj.weight") for part in "qkv"]
        q, k, v = (part.view(2, -1, 12, 48) for part in parts)
        tensors[f"model.layers.{layer}.attention.wqkv.weight"] = torch.cat((q, k, v), 1).reshape(-1, 48)
    for name in list(tensors):
        new = name
        for old, other in (
            ("self_attn.o_proj", "attention.wo"),
            ("mlp.gate_proj", "feed_forward.w1"),
            ("mlp.up_proj", "feed_forward.w3"),
            ("mlp.down_proj", "feed_forward.w2"),
            ("input_layernorm", "attention_norm"),
            ("post_attention_layernorm", "ffn_norm"),
            ("embed_tokens", "tok_embeddings"),
            ("lm_head", "output"),
        ):
            new = new.replace(old, other)
        tensors[new] = tensors.pop(name)


@pytest.mark.parametrize("change", [as_exaone_3, as_internlm_2])
def test_a_family_that_transformers_lacks_is_its_llama_with_renamed_weights(
    change: Any, tmp_path: Path
) -> None:
    rope = {**LLAMA3_ROPE, "rope_theta": 1e4, "original_max_position_embeddings": 16}
    folder = write_folder(Tiny("LlamaForCausalLM", {**SIZES, "rope_parameters": rope}), tmp_path)
    tokens = torch.arange(40)[None]
    with open_checkpoint(folder) as checkpoint:
        expected = load_model(checkpoint, dtype=torch.float32, kernels=torch_kernels)(tokens)
    config = json.loads((folder / "config.json").read_text(encoding="utf-8"))
    tensors = load_file(folder / "model.safetensors")
    change(config, tensors)
    stored = InMemory(tensors)
    stored.format, stored.config = "safetensors", config
    model = load_model(stored, dtype=torch.float32, kernels=torch_kernels)
    assert torch.equal(model(tokens), expected)
    found = find_family(stored).family
    values = found.config.read(stored)
    names = found.hub_names(values)
    exported = dict(export_parameters(model, names.rules, 3))
    assert exported.keys() == tensors.keys()
    assert all(torch.equal(exported[name], tensor) for name, tensor in tensors.items())
    metadata, written = found.config.to_gguf(values, found.gguf or "")
    assert found.gguf_names is not None
    written |= dict(export_parameters(model, found.gguf_names(values).rules, 3))
    again = InMemory(written)
    again.format, again.config = "gguf", metadata
    loaded = load_model(again, dtype=torch.float32, kernels=torch_kernels)
    torch.testing.assert_close(loaded(tokens), expected, atol=1e-5, rtol=1e-5)


def test_one_theta_of_olmo_3_holds_for_all_layers() -> None:
    rope = OLMO3.config.from_hub({**BARE, "rope_theta": 7e4}).rope
    assert rope == {"full_attention": Rope(7e4), "sliding_attention": Rope(7e4)}
    scaling = {"rope_type": "yarn", "factor": 8.0, "original_max_position_embeddings": 64}
    scaled = OLMO3.config.from_hub({**BARE, "rope_theta": 7e4, "rope_scaling": scaling}).rope
    assert scaled == {"full_attention": YarnRope(7e4, 8.0, 64), "sliding_attention": Rope(7e4)}
    assert OLMO3.config.from_hub(BARE).rope == dict.fromkeys(scaled, Rope(5e5))


def test_layers_of_exaone_4_without_a_window_rotate_only_if_no_layer_has_one() -> None:
    settings = {**BARE, "num_hidden_layers": 8, "sliding_window": 9}
    for pattern in ("LLLG", 4):
        config = EXAONE4.config.from_hub({**settings, "sliding_window_pattern": pattern})
        assert config.windows == (9, 9, 9, None) * 2
        assert config.rotated == (True, True, True, False) * 2
    config = EXAONE4.config.from_hub({**settings, "sliding_window": None, "sliding_window_pattern": None})
    assert (config.windows, config.rotated) == ((), ())
    for pattern in ("LLX", "", 0):
        with pytest.raises(ModelError, match="sliding_window_pattern"):
            EXAONE4.config.from_hub({**settings, "sliding_window_pattern": pattern})
    with pytest.raises(ModelError, match="sliding_window is 9"):
        EXAONE4.config.from_hub({**settings, "layer_types": ["full_attention"] * 8})


def test_without_keys_the_scores_of_granite_are_not_scaled_and_those_of_its_gguf_are() -> None:
    assert GRANITE.config.from_hub(BARE).scale == 1.0
    metadata, _ = GRANITE.config.to_gguf(GRANITE.config.from_hub(BARE), "granite")
    del metadata["granite.attention.scale"]
    assert GRANITE.config.from_gguf(Metadata(metadata)).scale == 12**-0.5


def test_a_gguf_file_of_glm_may_have_queries_keys_and_values_fused(tmp_path: Path) -> None:
    folder = write_folder(RMS_NORM_FAMILIES["glm 4"], tmp_path)
    with open_checkpoint(folder) as checkpoint:
        model: Any = load_model(checkpoint, dtype=torch.float32, kernels=torch_kernels)
        config = GLM.config.read(checkpoint)
    assert GLM.gguf_names is not None
    metadata, tensors = GLM.config.to_gguf(config, "chatglm")
    tensors |= dict(export_parameters(model, GLM.gguf_names(config).rules, 3))
    for layer in range(3):
        for kind in ("weight", "bias"):
            parts = [tensors.pop(f"blk.{layer}.attn_{part}.{kind}") for part in "qkv"]
            tensors[f"blk.{layer}.attn_qkv.{kind}"] = torch.cat(parts)
    stored = InMemory(tensors)
    stored.format, stored.config = "gguf", metadata
    again = load_model(stored, dtype=torch.float32, kernels=torch_kernels)
    tokens = torch.arange(40)[None]
    torch.testing.assert_close(again(tokens), model(tokens), atol=1e-5, rtol=1e-5)
